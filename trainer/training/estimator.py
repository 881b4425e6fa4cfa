"""An Estimator whose evaluations share a graph: building one takes longer than the evaluation."""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

import tensorflow as tf
from tensorflow_estimator.python.estimator import estimator as of_tensorflow


class _Evaluation(NamedTuple):
    """What TensorFlow makes anew for each evaluation, but for the session."""

    input_fn: Callable[[], tf.data.Dataset]
    graph: tf.Graph
    scaffold: tf.train.Scaffold
    update_op: tf.Operation
    metrics: Dict[str, tf.Tensor]
    hooks: List[tf.train.SessionRunHook]


class Estimator(tf.estimator.Estimator):
    """Evaluates in the graph of the evaluation before, where that had the same `input_fn`.

    Each evaluation has a session of its own, so that stateful random ops draw the same again.
    """

    _last: Optional[_Evaluation] = None

    def _assert_members_are_not_overridden(self) -> None:
        """TensorFlow refuses any method of its own in a subclass; it keeps to what that does."""

    def evaluate(
        self,
        input_fn: Callable[[], tf.data.Dataset],
        steps: Optional[int] = None,
        hooks: Optional[Sequence[tf.train.SessionRunHook]] = None,
        checkpoint_path: Optional[str] = None,
        name: Optional[str] = None,
    ) -> Dict[str, Any]:
        """As `tf.estimator.Estimator.evaluate`: metrics by name, also written for TensorBoard."""
        path = checkpoint_path or self.latest_checkpoint()
        if steps is not None or path is None:
            return super().evaluate(input_fn, steps, hooks, path, name)
        if self._last is None or self._last.input_fn is not input_fn:
            self._last = None  # Not two at a time.
            self._last = self._built(input_fn, path)
        metrics = self._measured(self._last, path, list(hooks or []))
        self._write(metrics, path, self.eval_dir(name))
        return metrics

    def _built(self, input_fn: Callable[[], tf.data.Dataset], path: str) -> _Evaluation:
        with tf.Graph().as_default() as graph:
            scaffold, *others = self._evaluate_build_graph(input_fn, [], path)
            return _Evaluation(input_fn, graph, scaffold or tf.train.Scaffold(), *others)

    def _measured(
        self, evaluation: _Evaluation, path: str, hooks: List[tf.train.SessionRunHook]
    ) -> Dict[str, Any]:
        with evaluation.graph.as_default():
            at_end = tf.train.FinalOpsHook(evaluation.metrics)
            creator = tf.train.ChiefSessionCreator(
                evaluation.scaffold,
                self.config.evaluation_master,
                self.config.session_config,
                checkpoint_filename_with_path=path,
            )
            all_hooks = [*evaluation.hooks, *hooks, at_end]
            with tf.train.MonitoredSession(creator, all_hooks) as session:
                while not session.should_stop():
                    session.run(evaluation.update_op)
            return at_end.final_ops_values

    def _write(self, metrics: Dict[str, Any], path: str, folder: str) -> None:
        step = metrics[tf.GraphKeys.GLOBAL_STEP]
        of_tensorflow._write_dict_to_summary(folder, metrics, step)
        of_tensorflow._write_checkpoint_path_to_summary(folder, path, step)
