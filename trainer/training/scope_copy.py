"""A copy of what a graph holds in one name scope: C++ makes it sooner than Python would."""

from typing import Container, Dict, Optional, Sequence

import tensorflow as tf


class ScopeCopy:
    """Copies the ops of a name scope into another one, with other tensors in place of some.

    What the ops take from elsewhere in the graph, as weights, they and their copies share. A copy
    has no gradient by `tf.gradients`: its gradients are copies too.

    Args:
      source: the scope's name, with a slash at its end; so too `target`, which is empty.
      sources: tensors from outside of `source`; copies take those of `replacements` instead.
    """

    def __init__(
        self,
        source: str,
        target: str,
        sources: Sequence[tf.Tensor],
        replacements: Sequence[tf.Tensor],
    ):
        self._graph, self._source, self._target = tf.get_default_graph(), source, target
        self._replacements: Dict[str, tf.Tensor] = {
            one.name: other for one, other in zip(sources, replacements)
        }
        self._count = 0  # Of the graph's ops, those that are copied or need not be.

    def extend(self) -> None:
        """Copies the ops that the scope has got since the last time.

        Raises:
          ValueError: other new ops depend on them, so that copies would be wrong; or they wait for
            an op that is not among them and has no output.
        """
        operations = self._graph.get_operations()[self._count :]
        added = {op.name for op in operations if op.name.startswith(self._source)}
        graph_def = tf.GraphDef(versions=self._graph.graph_def_versions)
        taken: Dict[str, tf.Tensor] = {}
        for op in operations:
            if op.name in added:
                graph_def.node.add().CopyFrom(self._node(op, added, taken))
            elif any(tensor.op.name in added for tensor in op.inputs):
                raise ValueError(f'{op.name} depends on {self._source}, and is outside of it')
        tf.import_graph_def(graph_def, input_map=taken, name='')
        self._count = len(self._graph.get_operations())

    def of(self, tensor: Optional[tf.Tensor]) -> Optional[tf.Tensor]:
        """Returns the tensor that a copied op has where the op itself has `tensor`."""
        if tensor is None or not tensor.name.startswith(self._source):
            return self._replacements.get(getattr(tensor, 'name', ''), tensor)
        return self._graph.get_tensor_by_name(self._renamed(tensor.name))

    def _node(
        self, op: tf.Operation, added: Container[str], taken: Dict[str, tf.Tensor]
    ) -> tf.NodeDef:
        """Returns the copy of an op; what it takes that is not just added goes into `taken`."""
        node = op.node_def
        node.name = self._renamed(op.name)
        del node.input[:]
        for tensor in op.inputs:
            is_added = tensor.op.name in added
            node.input.append(self._renamed(tensor.name) if is_added else tensor.name)
            if not is_added:
                taken[tensor.name] = self.of(tensor)
        for control in op.control_inputs:
            is_added = control.name in added
            node.input.append('^' + (self._renamed(control.name) if is_added else control.name))
            if not is_added:
                if not control.outputs:
                    raise ValueError(f'{op.name} waits for {control.name}, which has no output')
                taken['^' + control.name] = self.of(control.outputs[0])
        node.attr.pop('_class', None)  # Places beside ops of the source.
        if 'frame_name' in node.attr:  # Of a loop.
            node.attr['frame_name'].s = self._renamed(op.get_attr('frame_name').decode()).encode()
        return node

    def _renamed(self, name: str) -> str:
        return self._target + name[len(self._source) :]
