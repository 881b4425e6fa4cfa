"""What is asked of a server, what is right by TensorFlow 1.14, and an export of other weights."""

import json
import os
import shutil
from typing import Dict

import numpy as np
import tensorflow as tf

from scripts.clients import in_tensorflow_1
from scripts.load.protocols import SIGNATURE
from trainer.serving import saved_model

_BATCH = 200
_FACTOR = 1.05  # Of the newer weights to the older ones: any image's answer is another.


def newest(folder: str) -> str:
    """Returns the export in a folder of them that has the largest number."""
    return os.path.join(folder, str(max(int(name) for name in os.listdir(folder))))


def drawn(export_dir: str, count: int) -> Dict[str, np.ndarray]:
    """Returns what `encode` takes, as the export's `generate` draws it: float32 `[count, ...]`.

    Images are of 256 grey levels, as files are, or of 0 and 1 where the model is of those.
    """
    (name,) = in_tensorflow_1.input_types(export_dir)[SIGNATURE]
    generate = in_tensorflow_1.raw_session(export_dir)['generate']
    rows = generate({'count': np.int32(count), 'seed': np.int32(1)})[name]
    if name == 'images':
        levels = 1 if _is_binarised(export_dir) else 255
        rows = np.rint(levels * rows) / np.float32(levels)
    return {name: rows.astype(np.float32)}


def _is_binarised(export_dir: str) -> bool:
    try:
        with open(os.path.join(export_dir, 'assets.extra', saved_model.SETTINGS_NAME)) as f:
            return json.load(f)['is_binarised']
    except FileNotFoundError:  # Of an older version.
        return False


def answers(export_dir: str, inputs: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Returns what TensorFlow 1.14 answers, by output name."""
    encode = in_tensorflow_1.raw_session(export_dir)[SIGNATURE]
    count = len(next(iter(inputs.values())))
    parts = [
        encode({name: rows[start : start + _BATCH] for name, rows in inputs.items()})
        for start in range(0, count, _BATCH)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write(path: str, inputs: Dict[str, np.ndarray], **by_kind: Dict[str, np.ndarray]) -> None:
    """Writes the file of `client.Plan.pool`: inputs, and answers by kind, `right` or `after`."""
    arrays = {'input/' + name: rows for name, rows in inputs.items()}
    for kind, outputs in by_kind.items():
        arrays.update({'{}/{}'.format(kind, name): rows for name, rows in outputs.items()})
    np.savez(path, **arrays)


def with_other_weights(export_dir: str, folder: str) -> bool:
    """Copies an export to a new folder, and has the copy's weights differ by a twentieth.

    Returns False, and copies nothing, where the weights are constants of the graph.
    """
    source = os.path.join(export_dir, 'variables', 'variables')
    if not os.path.exists(source + '.index'):
        return False
    shutil.copytree(export_dir, folder)
    reader = tf.train.load_checkpoint(source)
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    values = {
        name: value * value.dtype.type(_FACTOR) if value.dtype.kind == 'f' else value
        for name, value in values.items()
    }
    with tf.Graph().as_default(), tf.Session() as session:
        session.run(
            tf.raw_ops.SaveV2(
                prefix=os.path.join(folder, 'variables', 'variables'),
                tensor_names=list(values),
                shape_and_slices=[''] * len(values),
                tensors=list(values.values()),
            )
        )
    return True
