"""An export, loaded in TensorFlow 2."""

import logging
import os

import numpy as np


class Signature:
    """What can be asked of an export, from arrays by input name to arrays by output name.

    Attributes:
      inputs: TensorFlow's tensors by input name.
      types: NumPy types by input name.
      is_of_rows: whether all inputs and outputs are rows, `[n, ...]`, so that requests can be
        answered together.
    """

    def __init__(self, session, inputs, outputs):
        from tensorflow.core.protobuf import config_pb2

        self.inputs = inputs
        self.types = {name: tensor.dtype.as_numpy_dtype for name, tensor in inputs.items()}
        self.is_of_rows = are_rows(_shapes(inputs) + _shapes(outputs))
        self._names = list(outputs)
        # As Keras runs its own functions: `make_callable` looks at the names in each call.
        self._run = session._make_callable_from_options(
            config_pb2.CallableOptions(
                feed=[tensor.name for tensor in inputs.values()],
                fetch=[tensor.name for tensor in outputs.values()],
            )
        )

    def __call__(self, inputs):
        """Returns the outputs of arrays of these types; raises an OpError for what is refused."""
        import tensorflow as tf

        for name, tensor in self.inputs.items():
            # A session runs what is made once, as this is, without a look at shapes.
            if not tensor.shape.is_compatible_with(inputs[name].shape):
                sizes = ', '.join('n' if size is None else str(size) for size in tensor.shape)
                message = '{} must have the shape [{}], not {}'.format(
                    name, sizes, list(inputs[name].shape)
                )
                raise tf.errors.InvalidArgumentError(None, None, message)
        return dict(zip(self._names, self._run(*[inputs[name] for name in self.inputs])))


def _shapes(tensors):
    shapes = [tensor.shape for tensor in tensors.values()]
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

    It is in a session, as in TensorFlow 1: a function of TensorFlow 2 costs more a call.

    Args:
      folder: where it is.
      threads: how many threads a large product may use, beside the one that asks. More hardly
        shorten a batch, as an LSTM is many small products, one after another, and double the
        processor's time.

    Attributes:
      signatures: by name.
    """

    def __init__(self, folder, threads=1):
        import tensorflow as tf

        self.folder = folder
        v1 = tf.compat.v1
        config = v1.ConfigProto(
            intra_op_parallelism_threads=threads,
            inter_op_parallelism_threads=-1,  # In the thread that asks.
        )
        with tf.Graph().as_default() as graph:
            session = v1.Session(config=config)
            definitions = _loaded(v1, session, folder).signature_def

            def tensors(infos):
                return {name: graph.get_tensor_by_name(infos[name].name) for name in sorted(infos)}

            self.signatures = {
                name: Signature(session, tensors(one.inputs), tensors(one.outputs))
                for name, one in definitions.items()
                if not name.startswith('__')
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


def _loaded(v1, session, folder):
    logger = logging.getLogger('tensorflow')
    level = logger.level
    logger.setLevel(logging.ERROR)  # It advises to load without a session.
    try:
        return v1.saved_model.loader.load(session, [v1.saved_model.tag_constants.SERVING], folder)
    finally:
        logger.setLevel(level)
