"""Gives a function of tensors a gradient of one's own, as tf.custom_gradient does.

That of TF 1.14 registers each call's gradient for the life of the process, and with it the call's
graph: a run would hold the graphs of all its evaluations. Here the graph holds its gradients, and
goes with them.
"""

import functools
from typing import Any, Callable, List, Optional, Sequence, Union

import tensorflow as tf

_TYPE = 'TrainerCustomGradient'
_ATTRIBUTE = '_trainer_custom_gradients'


def custom_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a `function` of tensors that returns its output, or outputs, and their gradient.

    The gradient is a function of the gradients for each output; it returns one for each input. Both
    are of graph mode, and use no variables but through their inputs.
    """

    @functools.wraps(function)
    def decorated(*inputs: Any) -> Union[tf.Tensor, List[tf.Tensor]]:
        tensors = [tf.convert_to_tensor(value) for value in inputs]  # Variables are read once.
        result, gradient = function(*tensors)
        outputs = [result] if isinstance(result, tf.Tensor) else list(result)
        graph = tf.get_default_graph()
        # The op joins outputs and inputs: its gradient then reaches the inputs, past the function.
        with graph.gradient_override_map({'IdentityN': _TYPE}):
            joined = tf.identity_n(outputs + tensors)
        if not hasattr(graph, _ATTRIBUTE):
            setattr(graph, _ATTRIBUTE, {})
        getattr(graph, _ATTRIBUTE)[joined[0].op.name] = (len(outputs), gradient)
        return joined[0] if isinstance(result, tf.Tensor) else joined[: len(outputs)]

    return decorated


@tf.RegisterGradient(_TYPE)
def _gradient(op: tf.Operation, *gradients: tf.Tensor) -> Sequence[Optional[tf.Tensor]]:
    """The gradients for outputs, none, and inputs of an op that `custom_gradient` made."""
    count, gradient = getattr(op.graph, _ATTRIBUTE)[op.name]
    of_inputs = gradient(*gradients[:count])
    if isinstance(of_inputs, tf.Tensor):
        of_inputs = [of_inputs]
    return [None] * count + list(of_inputs)
