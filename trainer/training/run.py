"""One run: data, `tf.estimator.train_and_evaluate`, the final evaluation and the artifacts."""

import contextlib
import dataclasses
import functools
import os
import threading
from typing import Any, Callable, Dict, List, Tuple

import tensorflow as tf

from trainer.base import optional, signals
from trainer.base.console import say
from trainer.checkpoints import best_model, chosen, initial, listing, run_lock
from trainer.cluster import processes, tf_config
from trainer.cluster.lookout import Lookout, answers, check_port
from trainer.cluster.tf_config import LOCAL, Task
from trainer.data import inputs, prepare
from trainer.data.dataset import PreparedDataset
from trainer.monitoring import event_files, run_card
from trainer.serving import plain_weights, saved_model, thresholds
from trainer.serving.thresholds import ValidationImages
from trainer.settings import memory, rules, storage, wording
from trainer.settings.table import HParams
from trainer.training import (
    announcements,
    artifacts,
    checks,
    early_stopping,
    final,
    finite_check,
    hooks,
    noise,
    results,
    towers,
)
from trainer.training.best_exporter import BestExporter
from trainer.training.estimator import Estimator
from trainer.training.model_fn import model_fn
from trainer.training.progress import TrainingProgress

_SECONDS_BETWEEN_CHECKPOINT_LOOKS = 2
# TF lets worker i wait 5 (i + 1) s, for the chief to make the weights, but no longer than this.
_MAX_WORKER_DELAY = 10

Report = Callable[[Dict[str, Any]], None]


def run(params: HParams, task: Task = LOCAL, report: Report = lambda _: None) -> Dict[str, Any]:
    """Trains from the last checkpoint to `max_steps`; leaves every artifact in `model_dir`.

    Args:
      task: the part of this process in a cluster. All but a chief and a local training return, or
        end the process, when training has ended, and leave nothing.
      report: called with the metrics of each evaluation on the validation images.

    Returns:
      What `results.json` holds; nothing where another process writes it.

    Raises:
      UserError: another process trains there or has the port of this one, the data cannot be had,
        or training cannot go on.
      signals.Interrupted: the process was told to end; the last step is saved.
    """
    check_port(task)
    if task.type == 'ps':
        with _lookout(params, task):
            config = make_estimator(params, task).config
            processes.serve_weights(config, lambda: weights_are_free(params, task))
    if task.type == 'worker':
        signals.leave_at_once()
    with run_lock.held(params.model_dir) if task.is_leader else contextlib.nullcontext():
        return _run_locked(params, task, report)


def weights_are_free(params: HParams, task: Task) -> bool:
    """Whether the parameter servers of a cluster may leave: no session needs them any more.

    A chief without an evaluator evaluates its last checkpoint, which may take long, and then asks
    for the weights once more. It does neither where it was started anew after that checkpoint: then
    its end is waited for.
    """
    if not early_stopping.has_ended(params):
        return False
    if task.has_evaluator or early_stopping.stopped_step(params) is not None:
        return True
    evaluated = best_model.evaluated_step(best_model.read_state(params.model_dir))
    is_evaluated = evaluated >= listing.start_step(params.model_dir)
    return is_evaluated or not answers(task.hosts('chief')[0])


def _run_locked(params: HParams, task: Task, report: Report) -> Dict[str, Any]:
    params, data = settle(params, task)
    claim_thread_pools(params)
    if task.is_leader:
        listing.repair(params.model_dir)
        best_model.repair_state(params)
        listing.check_last_checkpoint(params.model_dir)
        announcements.start(params)
        trained = _begin(params, data)
    else:
        listing.wait_until_repaired(params.model_dir)
        say('{} of the cluster: ready.'.format(str(task).capitalize()))
    progress = TrainingProgress(params)
    try:
        train_and_evaluate(make_estimator(params, task), data, params, progress, task, report)
    except tf.errors.InvalidArgumentError as error:
        way_on = functools.partial(listing.how_to_go_on, params)
        finite_check.explain(error, way_on, wording.values(params))
        raise
    finally:
        progress.close()
        if task.is_leader:
            # TF keeps events for up to two minutes, and loses them where an error ends the session.
            event_files.open_event_file(params.model_dir).flush()
    if not task.is_leader:
        return {}
    early_stopping.note_early_stop(params)
    return _final_work(trained, data, progress)


def settle(params: HParams, task: Task = LOCAL) -> Tuple[HParams, PreparedDataset]:
    """Prepares the data; returns the settings, final from here on, and the data.

    Until here they may depend on the data. `model_fn` sees what is recorded, the seed too.

    Raises:
      UserError: the data cannot be had, or the settings do not fit them or what `model_dir` holds.
    """
    params = settle_dataset(params, task)
    # Prepared in a process of its own, as its sessions ask for other thread pools.
    data = prepare.of_run(
        params, idx_dir=params.idx_dir, is_alone=task == LOCAL, separate_process=True
    )
    params = rules.with_data(params, data.image_shape, data.scaling, data.digest, data.dtype)
    checks.check(params, data.num_examples)
    return initial.settle(params, checks.recorded_settings(params.model_dir)), data


def settle_dataset(params: HParams, task: Task = LOCAL) -> HParams:
    """Returns the settings with the dataset that static binarisation of MNIST is of.

    A run keeps the one it began with. In a cluster, whose processes have to agree, only what is
    prepared already counts.
    """
    recorded = checks.recorded_settings(params.model_dir)
    if recorded is not None:
        return storage.with_recorded_dataset(params, recorded)
    if not storage.dataset_is_undecided(params):
        return params
    folders = params.data_dir or None, params.idx_dir or None
    may_download = task == LOCAL
    dataset = prepare.static_mnist(*folders, may_download=may_download, separate_process=True)
    return dataclasses.replace(params, dataset=dataset)


def _begin(params: HParams, data: PreparedDataset) -> HParams:
    """Records the settings, and returns them; where nothing is left to train, those recorded."""
    recorded = checks.recorded_settings(params.model_dir)
    if recorded is not None and early_stopping.should_end(params):
        return storage.of_finished(params, recorded)
    step = listing.start_step(params.model_dir)
    checks.record(params)
    if params.save_summary_steps:
        with optional.part('the cards in the event files of ' + params.model_dir):
            run_card.describe_run(params, recorded, step, data)
    return params


def make_estimator(params: HParams, task: Task = LOCAL) -> tf.estimator.Estimator:
    """Returns the Estimator of a run, one core a thread and one thread an op."""
    session_config = tf.ConfigProto(
        intra_op_parallelism_threads=1,
        inter_op_parallelism_threads=towers.count(params),
        allow_soft_placement=True,
        device_filters=tf_config.device_filters(task),
    )
    # Grappler gains nothing on these graphs, and works anew for each session.
    session_config.graph_options.rewrite_options.disable_meta_optimizer = True
    with tf_config.environment(task):
        config = tf.estimator.RunConfig(
            model_dir=params.model_dir,
            tf_random_seed=params.seed,
            save_summary_steps=params.save_summary_steps,
            save_checkpoints_steps=params.checkpoint_steps,
            # Its log lines and rate are TrainingProgress's work.
            log_step_count_steps=None,
            session_config=session_config,
            experimental_max_worker_delay_secs=_MAX_WORKER_DELAY,
        )
    # Whoever leads makes the weights: others of a cluster wait until they are there.
    start = initial.warm_start(params) if task.is_leader else None
    model = initial.checked(model_fn, start) if start else model_fn
    return Estimator(model, config=config, params=params, warm_start_from=start)


def claim_thread_pools(params: HParams) -> None:
    """Makes the thread pools of this process, as the sessions of training and evaluation want them.

    TF 1.14 makes them once, as the first session asks for. Sums over several threads round
    differently: a finished run that is started again, where pictures come first, would measure
    other numbers.
    """
    tf.Session(graph=tf.Graph(), config=make_estimator(params).config.session_config).close()


def train_and_evaluate(
    estimator: tf.estimator.Estimator,
    data: PreparedDataset,
    params: HParams,
    progress: TrainingProgress,
    task: Task = LOCAL,
    report: Report = lambda _: None,
) -> None:
    """Trains to `max_steps`, evaluating and reporting each checkpoint and exporting the best.

    Where `early_stopping_patience` has run out, nothing is done; where it does, training ends.
    """
    if early_stopping.patience_ran_out(params):
        return
    if task.is_leader and listing.start_step(params.model_dir) == 0:
        best_model.forget_best(params.model_dir)
    stop, lookout = threading.Event(), _lookout(params, task)
    evaluation = _evaluation(estimator, data, params, task, stop, report)
    listeners: List[tf.train.CheckpointSaverListener] = []
    if task.type == 'chief' and not task.has_evaluator:
        listeners = [hooks.EvaluationListener(make_estimator(params), evaluation, stop)]
    if task.is_leader:
        event_files.open_event_file(params.model_dir)  # Before any hook of TF's asks for it.

    def input_fn() -> tf.data.Dataset:
        # Asked for at each start, so that a resumed run sees the images that come next.
        step = listing.start_step(params.model_dir) // task.replicas
        seed = noise.seed_of(params, task.replica)
        return inputs.train_input_fn(data, params.batch_size, seed, step, params.sampling)

    if task.type == 'worker':
        processes.watch(lambda: early_stopping.should_end(params), stop, leave=True)
    elif task.type == 'chief' and task.has_evaluator:
        processes.watch(lambda: early_stopping.patience_ran_out(params), stop, leave=False)
    of_session = hooks.in_order(params, data, task, progress, listeners, stop, lookout)
    training = tf.estimator.TrainSpec(input_fn, max_steps=params.max_steps, hooks=of_session)
    try:
        with lookout:
            tf.estimator.train_and_evaluate(estimator, training, evaluation)
    except early_stopping.StoppedEarly:
        say('Training ends early: leaving.')


def _evaluation(
    estimator: tf.estimator.Estimator,
    data: PreparedDataset,
    params: HParams,
    task: Task,
    stop: threading.Event,
    report: Report,
) -> tf.estimator.EvalSpec:
    """The evaluation of each checkpoint: on all validation images; `stop` is set by its outcome."""

    def export(checkpoint_path: str, metrics: Dict[str, Any]) -> str:
        name, scored = best_model.EXPORT_NAME, validation_images(data, params)
        return saved_model.export_saved_model(
            name, checkpoint_path, params, evaluation=metrics, validation=scored
        )

    def report_evaluation(metrics: Dict[str, Any], is_best: bool) -> None:
        announcements.evaluation(metrics, is_best, params)
        report(metrics)
        if early_stopping.patience_ran_out(params):
            stop.set()
            if task.type == 'evaluator':
                raise early_stopping.StoppedEarly()

    batch = memory.evaluation_batch(params)
    return tf.estimator.EvalSpec(
        functools.partial(inputs.eval_input_fn, data, 'validation', batch, params.sampling),
        steps=None,
        name='validation',
        hooks=[hooks.FirstBatchSummaryHook(estimator.eval_dir('validation'), params)],
        exporters=[BestExporter(params, export, report_evaluation)],
        start_delay_secs=0,
        throttle_secs=_SECONDS_BETWEEN_CHECKPOINT_LOOKS if task.type == 'evaluator' else 0,
    )


def _lookout(params: HParams, task: Task) -> Lookout:
    return Lookout(task, params.model_dir, lambda: early_stopping.has_ended(params))


def _final_work(
    params: HParams, data: PreparedDataset, progress: TrainingProgress
) -> Dict[str, Any]:
    """Evaluates, draws and exports the trained model; returns what `results.json` holds."""
    checkpoint_path = chosen.trained_checkpoint(params.model_dir)
    estimator = make_estimator(params)  # It needs no cluster.
    paths = _export(estimator, data, checkpoint_path, params)
    # The training images, five times as many, would take most of the time.
    one_sample = make_estimator(dataclasses.replace(params, evaluation_samples=1))
    by_split = {'train': one_sample, 'validation': estimator, 'test': estimator}
    measured = final.evaluation(by_split, data, checkpoint_path, params)
    measured['thresholds'] = thresholds.of_export(paths['final export'])
    record = results.collect(measured, progress, checkpoint_path, params)
    paths['results'] = results.save(record, params)
    paths.update(artifacts.draw(data, checkpoint_path, record, params))
    results.show(record, paths, data.noun)
    diverged = results.warning(record, params)
    if diverged:
        print('\n' + diverged)
        say(diverged)
    return record


def validation_images(data: PreparedDataset, params: HParams) -> ValidationImages:
    """Returns the images that the scores of an export are quantiles among."""
    in_split = data.num_examples['validation']
    count = min(in_split, thresholds.MOST_IMAGES)
    starts = None
    if data.windows and data.windows.stride == 1:
        starts = data.windows.starts('validation', params.rows)
        starts = starts[inputs.numbers_read(in_split, count)]
    batch, binarization = memory.evaluation_batch(params), params.binarization
    return ValidationImages(
        count,
        in_split,
        functools.partial(inputs.batches_of, data, 'validation', count, batch, binarization),
        starts,
    )


def _export(
    estimator: Any, data: PreparedDataset, checkpoint_path: str, params: HParams
) -> Dict[str, str]:
    """Writes weights and the final SavedModel; returns all paths of models by name."""
    say('Exporting the final model.')
    final_export = saved_model.export_saved_model(
        'final', checkpoint_path, params, validation=validation_images(data, params)
    )
    paths = {
        'weights': plain_weights.save_weights(estimator, checkpoint_path, params),
        'final export': final_export,
        'hyper-parameters': os.path.join(params.model_dir, storage.FILE_NAME),
    }
    best = best_model.read_best(params.model_dir)
    if best is not None:
        paths['best export'] = os.path.join(best['folder'], best['export'])
    return paths
