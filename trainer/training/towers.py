"""Gradients over several threads: a batch is cut into parts, each computed by a core of its own."""

from typing import Any, Callable, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import tensorflow as tf

from trainer.base import cores
from trainer.settings.table import HParams
from trainer.training.scope_copy import ScopeCopy

# Matrix products of fewer rows keep no core busy, and each part is a copy of the graph to build.
_IMAGES_PER_THREAD = 32
# What larger parts compute leaves the caches before it is used again. Of smaller ones than a half
# nothing more is gained, and the graph would grow with the batch.
_LARGE_PART = 128


class _Tower(NamedTuple):
    """A part of the batch, and what is computed of it in a name scope.

    Attributes:
      copy: of the tower of number `copied`, where this one is a copy.
    """

    scope: str
    part: List[tf.Tensor]
    outputs: Any
    copy: Optional[ScopeCopy] = None
    copied: int = -1


def count(params: HParams) -> int:
    """Returns `num_threads` resolved: at least 1, and no more than there are images in a batch."""
    if params.num_threads:
        return min(params.num_threads, params.batch_size)
    return max(1, min(cores.available(), params.batch_size // _IMAGES_PER_THREAD))


def parts(params: HParams) -> int:
    """Returns how many towers a training step has: one a thread, of a large batch two."""
    threads = count(params)
    return threads if params.batch_size <= threads * _LARGE_PART else 2 * threads


def in_towers(
    forward: Callable[..., Any],
    loss: Callable[[Any, Any], tf.Tensor],
    tensors: Sequence[tf.Tensor],
    shared: Sequence[tf.Tensor],
    towers: int,
) -> Tuple[Any, List[tf.Tensor]]:
    """Computes a loss and its gradients, the batch cut into parts of their own.

    The parts share their weights and next to nothing else, so that each keeps a core busy: TF 1.14
    gains little from several threads within the small products of an LSTM.

    Args:
      forward: builds, of its part of every tensor and of `shared`, a structure of tensors
        `[part, ...]`.
      loss: builds the loss of each example, `[part]`, from such a structure of a part and the one
        of the whole batch.
      tensors: all `[batch, ...]`, with one static batch size.
      shared: tensors that `forward` gets whole; made, and differentiated, once.
      towers: number of parts, at most the batch size.

    Returns:
      The structure of the whole batch, in its order, and the gradients of the batch mean of the
      loss for `tf.trainable_variables()`: the same as in one piece, but for rounding.
    """
    batch_size = tensors[0].shape.as_list()[0]
    with tf.name_scope('towers/'):
        # Copies, so that a shared variable is reached by way of `shared` alone.
        shared = [tf.identity(tensor) for tensor in shared]
    made, whole = _forward(lambda *part: forward(*part, shared), tensors, towers)
    variables = tf.trainable_variables()
    gradients: List[List[Optional[tf.Tensor]]] = []
    for tower in made:
        if tower.copy:
            tower.copy.extend()
            gradients.append([tower.copy.of(one) for one in gradients[tower.copied]])
            continue
        with tf.name_scope(tower.scope):
            share_of_mean = tf.reduce_sum(loss(tower.outputs, whole)) / batch_size
            targets = variables + list(shared)
            gradients.append(tf.gradients(share_of_mean, targets, stop_gradients=shared))
    with tf.name_scope('towers/'):
        sums = [_sum(same_target) for same_target in zip(*gradients)]
        of_variables, of_shared = sums[: len(variables)], sums[len(variables) :]
        if shared:
            through_shared = tf.gradients(shared, variables, grad_ys=of_shared)
            of_variables = [_sum(both) for both in zip(of_variables, through_shared)]
    return whole, of_variables


def forward_in_towers(
    forward: Callable[..., Any], tensors: Sequence[tf.Tensor], towers: int
) -> Any:
    """Computes the structure of the whole batch alone, as `in_towers`; its size may be unknown."""
    return _forward(forward, tensors, towers)[1]


def _forward(
    forward: Callable[..., Any], tensors: Sequence[tf.Tensor], towers: int
) -> Tuple[List[_Tower], Any]:
    """Each tower, and the structure of the whole batch."""
    batch_size = tensors[0].shape.as_list()[0]
    if batch_size is None:
        batch_size = tf.shape(tensors[0])[0]
    with tf.name_scope('towers/'):
        # So that they differ by one at most.
        ends = [batch_size * number // towers for number in range(towers + 1)]
        split = [[tensor[start:end] for tensor in tensors] for start, end in zip(ends, ends[1:])]
    made: List[_Tower] = []
    for number, part in enumerate(split):
        with tf.name_scope('tower_{}'.format(number)) as scope:
            pass  # The name alone.
        made.append(_tower(forward, scope, part, made))
    with tf.name_scope('towers/'):
        outputs = [tower.outputs for tower in made]
        whole = tf.nest.map_structure(lambda *tensors: tf.concat(tensors, axis=0), *outputs)
    return made, whole


def _tower(
    forward: Callable[..., Any], scope: str, part: List[tf.Tensor], others: List[_Tower]
) -> _Tower:
    """Builds the first tower of its size, and copies it for others."""
    for number, other in enumerate(others):
        if other.copy is None and other.part[0].shape.as_list() == part[0].shape.as_list():
            copy = ScopeCopy(other.scope, scope, other.part, part)
            copy.extend()
            outputs = tf.nest.map_structure(copy.of, other.outputs)
            return _Tower(scope, part, outputs, copy, number)
    with tf.name_scope(scope):
        return _Tower(scope, part, forward(*part))


def _sum(gradients: Iterable[Optional[tf.Tensor]]) -> Optional[tf.Tensor]:
    """Adds those that exist; None where there are none."""
    existing = [gradient for gradient in gradients if gradient is not None]
    return tf.add_n(existing) if existing else None
