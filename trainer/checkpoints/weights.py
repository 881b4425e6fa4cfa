"""One checkpoint: whether it is whole, finite and of this model; restored, copied, counted."""

from typing import List, Optional, Sequence

import numpy as np
import tensorflow as tf

from trainer.base import errors
from trainer.base.errors import UserError


def damage(checkpoint_path: str) -> str:
    """Says what is wrong with a checkpoint, '' for nothing: every byte of it is read.

    TF keeps a checksum of each tensor, and of each block of the index.
    """
    try:
        reader = tf.train.load_checkpoint(checkpoint_path)
        names = sorted(reader.get_variable_to_shape_map())
        for name in names:
            reader.get_tensor(name)
    except Exception as error:  # OpError, ValueError, RuntimeError: as SWIG translates the status.
        return reason(error)
    return '' if tf.GraphKeys.GLOBAL_STEP in names else 'it has no global_step'


def check_fits(checkpoint_path: str, variables: Optional[Sequence[tf.Variable]] = None) -> None:
    """Refuses a checkpoint that has not all `variables`, by default the graph's, in their shapes.

    TF 1.14 restores resource variables without a look at the shape, and says of a name that is
    missing nothing but that, in a traceback.

    Raises:
      UserError: names the variables that differ, with both shapes.
    """
    shapes = tf.train.load_checkpoint(checkpoint_path).get_variable_to_shape_map()
    differences = []
    for variable in tf.global_variables() if variables is None else variables:
        name, shape = variable.op.name, variable.shape.as_list()
        if shapes.get(name) != shape:
            found = '{} in it'.format(shapes[name]) if name in shapes else 'missing in it'
            differences.append('{} is {}, not {}'.format(name, found, shape))
    if differences:
        raise UserError(
            '{} does not fit the model of the settings beside it ({}): give a checkpoint of this '
            'model, restore its own hyper_parameters.json, or use the version that trained '
            'it.'.format(checkpoint_path, errors.some(differences, separator='; '))
        )


def restore(
    session: tf.Session,
    checkpoint_path: str,
    saver: Optional[tf.train.Saver] = None,
    variables: Optional[Sequence[tf.Variable]] = None,
) -> None:
    """Restores variables, by default all of the default graph.

    Args:
      saver: of those variables, where there is one already.

    Raises:
      UserError: the checkpoint is damaged, or of another model.
    """
    try:
        check_fits(checkpoint_path, variables)
        (saver or tf.train.Saver(variables)).restore(session, checkpoint_path)
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(
            f'the weights of {checkpoint_path} cannot be used ({reason(error)}): give a whole '
            'checkpoint of this model.'
        ) from error


def reason(error: Exception) -> str:
    """Returns the one line of an exception of TF's that says what is wrong with a checkpoint."""
    # The Saver of 1.14 puts a guess of its own before it.
    text = str(error).rpartition('Original error:')[2]
    return errors.first_line(text) or type(error).__name__


def not_finite_in(checkpoint_path: str) -> List[str]:
    """Names of the variables in a checkpoint that hold a value which is not finite."""
    reader = tf.train.load_checkpoint(checkpoint_path)
    types = reader.get_variable_to_dtype_map()
    floats = sorted(name for name, dtype in types.items() if dtype.is_floating)
    return [name for name in floats if not np.isfinite(reader.get_tensor(name)).all()]


def count_parameters(checkpoint_path: str) -> int:
    """Returns the number of trained weights in a checkpoint, the optimizer's own left out."""
    shapes = tf.train.load_checkpoint(checkpoint_path).get_variable_to_shape_map()
    return sum(
        int(np.prod(shape))
        for name, shape in shapes.items()
        if name != tf.GraphKeys.GLOBAL_STEP and not name.startswith('optimizer/')
    )
