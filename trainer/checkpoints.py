"""Whether a checkpoint is of the model that the settings describe, asked before it is restored."""

from typing import List, Optional

import tensorflow as tf

from trainer.errors import UserError

_SHOWN = 3


def check_fits(checkpoint_path: str) -> None:
    """Refuses a checkpoint that has not all variables of the default graph, in their shapes.

    TF 1.14 restores resource variables without a look at the shape, and says of a name that is
    missing nothing but that, in a traceback.

    Raises:
      UserError: names the variables that differ, with both shapes.
    """
    reader = tf.train.load_checkpoint(checkpoint_path)
    shapes = reader.get_variable_to_shape_map()
    differences = []
    for variable in tf.global_variables():
        name, shape = variable.op.name, variable.shape.as_list()
        if shapes.get(name) != shape:
            found = '{} in it'.format(shapes[name]) if name in shapes else 'missing in it'
            differences.append('{} is {}, not {}'.format(name, found, shape))
    if differences:
        raise UserError(
            '{} does not fit the model that this version makes of the settings beside it ({}): '
            'restore its own hyper_parameters.json or use the version that trained it, or choose '
            'another --model_dir.'.format(checkpoint_path, _some(differences))
        )


def restore(session: tf.Session, checkpoint_path: str) -> None:
    """Restores all variables of the default graph.

    Raises:
      UserError: the checkpoint is of another model.
    """
    check_fits(checkpoint_path)
    tf.train.Saver().restore(session, checkpoint_path)


class FitsHook(tf.train.SessionRunHook):
    """Refuses to go on from a checkpoint of another model, before the session restores it."""

    def __init__(self, model_dir: str):
        self._model_dir = model_dir

    def begin(self) -> None:
        path: Optional[str] = tf.train.latest_checkpoint(self._model_dir)
        if path is not None:
            check_fits(path)


def _some(differences: List[str]) -> str:
    more = len(differences) - _SHOWN
    return '; '.join(differences[:_SHOWN]) + ('; {} more'.format(more) if more > 0 else '')
