"""All hooks and listeners of a training, and the order in which they stand.

A session calls its hooks in their order at each event: `in_order` is the one list of them, with the
reason of each place. Methods of TF's interfaces take what TF documents.
"""

import os
import threading
import time
from typing import Any, Callable, List

import tensorflow as tf

from trainer.base import errors, files, optional, signals
from trainer.base.errors import UserError
from trainer.base.signals import Interrupted
from trainer.checkpoints import listing, weights
from trainer.cluster.tf_config import LOCAL, Task
from trainer.data import inputs
from trainer.data.dataset import PreparedDataset
from trainer.model import priors
from trainer.monitoring import event_files
from trainer.settings.table import PRIORS, HParams
from trainer.training import finite_check
from trainer.training.progress import TrainingProgress


def in_order(
    params: HParams,
    data: PreparedDataset,
    task: Task,
    progress: TrainingProgress,
    evaluate: List[tf.train.CheckpointSaverListener],
    stop: threading.Event,
    lookout: Any,
) -> List[tf.train.SessionRunHook]:
    """Returns the hooks of a training session.

    Args:
      task: of this process; the one that leads saves checkpoints.
      evaluate: the listener that evaluates each checkpoint, where TF does not.
      stop: set where no further step should be made.
      lookout: of `cluster/lookout.py`.
    """
    hooks: List[tf.train.SessionRunHook] = []
    if task.is_leader:
        hooks.append(FitsHook(params.model_dir))  # Before a session restores a checkpoint.
        if PRIORS[params.prior].starts_from_images and not params.init_checkpoint:
            hooks.append(PseudoInputsHook(data, params))  # Before the weights of step 0 are saved.
        # Before all that works between steps: that is no part of the steps that these two see.
        hooks += [FinishStepHook(), ProgressHook(progress, params)]
        # Who was told to end does so before anything is evaluated; no bad weights are saved.
        listeners = [LeaveWhenSavedListener(), FiniteWeightsListener(params), *evaluate]
        steps, folder = params.checkpoint_steps, params.model_dir
        hooks.append(CheckpointSaverHook(folder, save_steps=steps, listeners=listeners))
        if params.profile_steps:
            hooks.append(ProfilerHook(save_steps=params.profile_steps, output_dir=folder))
    # Behind the CheckpointSaverHook, whose listeners evaluate, and so may set it.
    hooks.append(StopHook(lambda session: stop.is_set()))
    if task != LOCAL:
        # TF's StopAtStepHook goes by the global step read during a step, when those of others may
        # not have counted yet. Read after it, `max_steps` is exceeded by at most one step of each
        # other process: the one that it was in.
        hooks += [StopHook(lambda s: _global_step(s) >= params.max_steps), LookoutHook(lookout)]
    return hooks


def _global_step(session: tf.Session) -> int:
    return session.run(tf.train.get_global_step(session.graph))


class StopHook(tf.train.SessionRunHook):
    """Starts no step once `is_over` is true of the session after one."""

    def __init__(self, is_over: Callable[[tf.Session], bool]):
        self._is_over = is_over

    def after_run(self, run_context, run_values) -> None:
        if self._is_over(run_context.session):
            run_context.request_stop()


class FitsHook(tf.train.SessionRunHook):
    """Refuses to go on from a checkpoint of another model, before the session restores it."""

    def __init__(self, model_dir: str):
        self._model_dir = model_dir

    def begin(self) -> None:
        path = listing.latest(self._model_dir)
        if path is not None:
            weights.check_fits(path)


class PseudoInputsHook(tf.train.SessionRunHook):
    """Starts the pseudo-inputs of a VampPrior from training images, before the first step.

    Noise, as an initializer could give, makes pseudo-inputs that are all alike to the encoder.
    """

    def __init__(self, data: PreparedDataset, params: HParams):
        self._data, self._params = data, params

    def begin(self) -> None:
        variables = tf.trainable_variables()
        (self._logits,) = [v for v in variables if v.op.name == priors.PSEUDO_INPUTS]
        # A placeholder, as the images would be a large constant of the graph.
        self._images = tf.placeholder(tf.float32, self._logits.shape)
        start = self._images
        if not self._params.is_series:
            # Grey levels of 0 and 1 have no finite logit.
            inside = 0.02 + 0.96 * self._images
            start = tf.math.log(inside) - tf.math.log1p(-inside)
        self._start = self._logits.assign(start).op

    def after_create_session(self, session, coord) -> None:
        # Not by the session's global step: a worker may have made one since it was begun.
        if listing.start_step(self._params.model_dir) > 0:
            return
        shape = self._logits.shape.as_list()
        images = inputs.first_images(self._data, 'train', shape[0], self._params.binarization)
        session.run(self._start, {self._images: images.reshape(shape)})


class FinishStepHook(StopHook):
    """Lets a signal wait for the end of the step, and then asks for no other.

    Estimator's loop then ends as after the last step, and the CheckpointSaverHook saves.
    """

    def __init__(self) -> None:
        super().__init__(lambda session: signals.state.received is not None)

    def before_run(self, run_context) -> None:
        signals.state.deferred = True


class ProgressHook(tf.train.SessionRunHook):
    """Tells a `TrainingProgress` of each step, and TensorBoard the rate."""

    def __init__(self, progress: TrainingProgress, params: HParams):
        self._progress, self._params = progress, params

    def begin(self) -> None:
        # Estimator puts the loss of its EstimatorSpec here; model_fn's is the mean negative ELBO.
        self._fetches = [tf.get_collection(tf.GraphKeys.LOSSES)[0], tf.train.get_global_step()]
        self._writer = event_files.open_event_file(self._params.model_dir)
        event_files.describe_training(self._writer, self._params)

    def after_create_session(self, session, coord) -> None:
        self._progress.session_began(int(session.run(self._fetches[1])))

    def before_run(self, run_context) -> tf.train.SessionRunArgs:
        self._progress.step_began()
        return tf.train.SessionRunArgs(self._fetches)

    def after_run(self, run_context, run_values) -> None:
        loss, global_step = run_values.results
        self._progress.step_ended(float(loss), int(global_step))
        rate = self._progress.examples_per_second()
        if rate is not None:
            value = tf.Summary.Value(tag=event_files.EXAMPLES_PER_SECOND, simple_value=rate)
            self._writer.add_summary(tf.Summary(value=[value]), self._progress.step)

    def end(self, session) -> None:
        self._writer.flush()
        self._progress.close()


class LookoutHook(tf.train.SessionRunHook):
    """Tells a `Lookout` that the main thread is at work."""

    def __init__(self, lookout: Any):
        self._lookout = lookout

    def after_create_session(self, session, coord) -> None:
        self._lookout.session_began()

    def before_run(self, *of_run) -> None:
        self._lookout.saw_a_step()

    after_run = before_run


class LeaveWhenSavedListener(tf.train.CheckpointSaverListener):
    """Ends the process, if it was told to, as soon as a checkpoint is there."""

    def after_save(self, session, global_step_value) -> None:
        signals.state.saved_step, signals.state.deferred = int(global_step_value), False
        if signals.state.received is not None:
            raise Interrupted(signals.state.received)

    end = after_save  # The end of a session saves too.


class FiniteWeightsListener(tf.train.CheckpointSaverListener):
    """Lets no checkpoint be written of weights, or optimizer's moments, that are not finite."""

    def __init__(self, params: HParams):
        self._params = params

    def begin(self) -> None:
        variables = [v for v in tf.global_variables() if v.dtype.base_dtype.is_floating]
        self._names = [variable.op.name for variable in variables]
        with tf.name_scope('optimizer/finite/'):
            self._counts = finite_check.count_not_finite(variables)

    def before_save(self, session, global_step_value) -> None:
        counts = session.run(self._counts)
        names = [name for name, count in zip(self._names, counts) if count]
        if names:
            raise UserError(
                f'after step {global_step_value:,} the weights are not finite any more '
                f'({errors.some(names)}), so no checkpoint of them was written; '
                f'{listing.how_to_go_on(self._params)}.'
            )


class EvaluationListener(tf.train.CheckpointSaverListener):
    """Evaluates and exports as a local training does; TF leaves a chief's checkpoints alone."""

    def __init__(self, estimator: tf.estimator.Estimator, evaluation: Any, stop: threading.Event):
        self._estimator, self._spec, self._stop = estimator, evaluation, stop

    def after_save(self, session, global_step_value) -> None:
        if not global_step_value or self._stop.is_set():
            return
        spec, path = self._spec, self._estimator.latest_checkpoint()
        metrics = self._estimator.evaluate(
            spec.input_fn, hooks=spec.hooks, checkpoint_path=path, name=spec.name
        )
        for exporter in spec.exporters:
            folder = os.path.join(self._estimator.model_dir, 'export', exporter.name)
            exporter.export(self._estimator, folder, path, metrics, False)


class CheckpointSaverHook(tf.train.CheckpointSaverHook):
    """TF's own, but for the graph, which that of 1.14 writes at each start.

    It goes into the event files once in a run, as TensorBoard warns of each repetition; and into
    graph.pbtxt by protobuf's C++, which is far faster than its Python.
    """

    _has_graph = False

    def after_create_session(self, session, coord) -> None:
        graph_def = tf.get_default_graph().as_graph_def(add_shapes=True)
        text = str(graph_def).encode()
        files.write_bytes(os.path.join(self._checkpoint_dir, 'graph.pbtxt'), text)
        step = session.run(self._global_step_tensor)
        # Not again for a session that is made anew before the first step was saved.
        if not self._has_graph and step == 0:
            event = tf.Event(wall_time=time.time(), graph_def=graph_def.SerializeToString())
            self._summary_writer.add_event(event)
            self._has_graph = True
        self._save(session, step)
        self._timer.update_last_triggered_step(step)


class ProfilerHook(tf.train.ProfilerHook):
    """TF's own, but that a profile which cannot be written is only left out."""

    def _save(self, step: int, save_path: str, step_stats: Any) -> None:
        with optional.part(save_path):
            super()._save(step, save_path, step_stats)


def _merged_summaries() -> tf.Tensor:
    """An event without values where there are no summaries: a hook takes no None."""
    merged = tf.summary.merge_all()
    return tf.constant('') if merged is None else merged


class FirstBatchSummaryHook(tf.train.SummarySaverHook):
    """Writes the summaries of an evaluation's first batch; EVAL writes none by itself (1.14)."""

    def __init__(self, output_dir: str, params: HParams):
        self._params = params
        # An evaluation does not advance the global step, so this never triggers a second time.
        super().__init__(save_steps=10**9, output_dir=output_dir, summary_op=tf.no_op)

    def begin(self) -> None:
        # Made once in a graph, which is that of all evaluations.
        self._summary_op = tf.train.Scaffold.get_or_default(
            'summary_op', tf.GraphKeys.SUMMARY_OP, _merged_summaries
        )
        event_files.open_event_file(self._output_dir)
        super().begin()
        event_files.describe_evaluation(self._summary_writer, self._params)
