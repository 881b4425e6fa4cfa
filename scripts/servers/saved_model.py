"""An export, loaded in TensorFlow 2."""

import os

import numpy as np


class Signature:
    """What can be asked of an export, from arrays by input name to arrays by output name.

    Attributes:
      types: NumPy types by input name.
      is_of_rows: whether all inputs and outputs are rows, `[n, ...]`, so that requests can be
        answered together.
    """

    def __init__(self, function, constant, model):
        self._function, self._constant = function, constant
        self._model = model  # Its variables go with it.
        inputs = function.structured_input_signature[1]
        self.types = {name: spec.dtype.as_numpy_dtype for name, spec in inputs.items()}
        self.is_of_rows = are_rows(_shapes(inputs) + _shapes(function.structured_outputs))

    def __call__(self, inputs):
        outputs = self._function(**{name: self._constant(inputs[name]) for name in inputs})
        return {name: value.numpy() for name, value in outputs.items()}


def _shapes(specs):
    shapes = [spec.shape for spec in specs.values()]
    return [None if shape.rank is None else shape.as_list() for shape in shapes]


def are_rows(shapes):
    """Whether all have a free number of rows.

    Args:
      shapes: lists with None for a free length; None where even the rank is free, as of the steps
        of `interpolate`, whose outputs are of pairs of images.
    """
    return all(bool(shape) and shape[0] is None for shape in shapes)


class Export:
    """An export whose signatures have been asked once, as a first answer takes a third of a second.

    Attributes:
      folder: where it is.
      signatures: by name.
    """

    def __init__(self, folder):
        import tensorflow as tf

        self.folder = folder
        model = tf.saved_model.load(folder)
        self.signatures = {
            name: Signature(function, tf.constant, model)
            for name, function in model.signatures.items()
        }
        self._ask_each_once()

    def _ask_each_once(self):
        path = os.path.join(self.folder, 'assets.extra', 'golden.npz')
        if not os.path.exists(path):
            return  # Written by an older trainer.
        with np.load(path, allow_pickle=False) as golden:
            for name, signature in self.signatures.items():
                kept = {key: '{}/inputs/{}'.format(name, key) for key in signature.types}
                if set(kept.values()) <= set(golden.files):
                    types = signature.types.items()
                    signature({key: golden[kept[key]].astype(dtype) for key, dtype in types})


def use_one_thread_a_batch():
    """Has TensorFlow compute in the thread that asks.

    Its own threads double the processor's time of a batch, and hardly shorten it: an LSTM is many
    small products, one after another.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
