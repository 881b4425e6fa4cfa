"""One run: data, `tf.estimator.train_and_evaluate`, the final evaluation and the artifacts."""

import contextlib
import dataclasses
import functools
import os
import threading
from typing import Any, Callable, Dict, List, Optional, Union

import tensorflow as tf

from trainer import (
    checkpoints,
    cluster,
    ending,
    export,
    files,
    finite,
    hparams,
    input,
    optimizer,
    optional,
    prepare_data,
    priors,
    results,
    run_card,
    run_lock,
    run_pictures,
    servers,
    signals,
    summaries,
)
from trainer.cluster import LOCAL, Task
from trainer.errors import UserError
from trainer.hparams import HParams
from trainer.model import model_fn
from trainer.prepare_data import DatasetFacts, PreparedDataset
from trainer.progress import TrainingProgress, say

# Images of an evaluation's batch; fewer where memory could not hold all their samples, or each
# sample's deviations from all components of a prior.
_EVALUATION_BATCH = 1000
_SAMPLES_AT_ONCE = 3000
_DEVIATIONS_AT_ONCE = 3 * 10**7
_SECONDS_BETWEEN_CHECKPOINT_LOOKS = 2
# TF lets worker i wait 5 (i + 1) s, for the chief to make the weights, but no longer than this.
_MAX_WORKER_DELAY = 10
# Distance of the seeds of two training processes: a prime larger than seeds people choose.
_SEED_STRIDE = 15485863


def check(params: HParams, facts: Union[DatasetFacts, PreparedDataset]) -> None:
    """Refuses what cannot run, before any byte is fetched, folder made or graph built.

    Raises:
      UserError: a setting does not fit the dataset, or model_dir cannot hold this run.
    """
    check_settings(params, facts)
    _check_folder(params.model_dir)
    recorded = _recorded(params.model_dir)
    if recorded is not None:
        hparams.check_resumable(params, recorded)


def check_settings(params: HParams, facts: Union[DatasetFacts, PreparedDataset]) -> None:
    """The part of `check` that looks at no folder.

    Raises:
      UserError: a setting does not fit another, or the dataset.
    """
    if facts.num_examples and params.batch_size > facts.num_examples['train']:
        raise UserError(
            '--batch_size={} must be at most {:,}, the training images of {}.'.format(
                params.batch_size, facts.num_examples['train'], params.dataset
            )
        )
    hparams.check_consistent(params)
    # No contradiction in a file: a run may be begun with few steps, to go on later.
    if params.beta_warmup_steps > params.max_steps:
        raise UserError(
            '--beta_warmup_steps={} must be at most --max_steps={}.'.format(
                params.beta_warmup_steps, params.max_steps
            )
        )
    if (
        facts.num_examples
        and params.prior == 'vamp'
        and params.prior_components > facts.num_examples['train']
    ):
        raise UserError(
            '--prior_components={} must be at most {:,}, the training images of {}: pseudo-inputs '
            'start from them.'.format(
                params.prior_components, facts.num_examples['train'], params.dataset
            )
        )


def _recorded(model_dir: str) -> Optional[HParams]:
    """The settings of the run that has begun to train in `model_dir`, if one has.

    Raises:
      UserError: the folder holds checkpoints of another model.
    """
    recorded = hparams.load(model_dir)
    if checkpoints.latest(model_dir) is None:
        return None  # Nothing was trained yet that other settings could spoil.
    if recorded is None:
        raise UserError(
            f'--model_dir={model_dir} holds checkpoints of another model: choose another folder.'
        )
    return recorded


def _check_folder(model_dir: str) -> None:
    wild = sorted(set('*?[]\\') & set(model_dir))
    if wild:
        raise UserError(
            '--model_dir={} has {} in it, which TensorFlow takes for a pattern: choose another '
            'name.'.format(model_dir, ' and '.join(wild))
        )
    files.check_folder('--model_dir', model_dir)


def run(
    params: HParams,
    task: Task = LOCAL,
    report: Callable[[Dict[str, Any]], None] = lambda metrics: None,
) -> Dict[str, Any]:
    """Trains from the last checkpoint to `max_steps`; leaves every artifact in `model_dir`.

    Args:
      params: the settings of the run.
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
    servers.check_port(task)
    if task.type == 'ps':
        with _lookout(params, task):
            config = make_estimator(params, task).config
            cluster.serve_weights(config, lambda: ending.has_ended(params))
    if task.type == 'worker':
        signals.leave_at_once()
    with run_lock.held(params.model_dir) if task.leads else contextlib.nullcontext():
        return _run_locked(params, task, report)


def _run_locked(
    params: HParams, task: Task, report: Callable[[Dict[str, Any]], None]
) -> Dict[str, Any]:
    params = settle_dataset(params, task)
    # Prepared in a process of its own, as its sessions ask for other thread pools.
    data = prepare_data.prepare(
        params.dataset, params.data_dir or None, params.idx_dir or None, separate_process=True
    )
    check(params, data)
    claim_thread_pools(params)
    if task.leads:
        checkpoints.mend(params.model_dir)
        export.mend_state(params)
        finite.check_last_checkpoint(params.model_dir)
        announce(params)
        trained = _begin(params, data)
    else:
        checkpoints.wait_until_mended(params.model_dir)
        say('{} of the cluster: ready.'.format(str(task).capitalize()))
    estimator = make_estimator(params, task)
    progress = TrainingProgress(params)
    try:
        train_and_evaluate(estimator, data, params, progress, task, report)
    except tf.errors.InvalidArgumentError as error:
        finite.explain(error, params)
        raise
    finally:
        progress.close()
    if not task.leads:
        return {}
    ending.note_early_stop(params)
    return _final_work(trained, data, progress)


def _begin(params: HParams, data: PreparedDataset) -> HParams:
    """Records the settings, and returns them; where nothing is left to train, those recorded."""
    recorded, step = _recorded(params.model_dir), ending.start_step(params.model_dir)
    if recorded is not None and ending.should_end(params):
        return hparams.of_finished(params, recorded)
    save_settings(params)
    if params.save_summary_steps:
        with optional.part('the cards in the event files of ' + params.model_dir):
            run_card.describe_run(params, recorded, step, data)
    return params


def _final_work(
    params: HParams, data: PreparedDataset, progress: TrainingProgress
) -> Dict[str, Any]:
    """Evaluates, draws and exports the trained model; returns what `results.json` holds."""
    estimator = make_estimator(params)  # It needs no cluster.
    checkpoint_path = export.trained_checkpoint(params.model_dir)
    artifacts = export_final(estimator, checkpoint_path, params)
    measured = final_evaluation(estimator, data, checkpoint_path, params)
    record = results.collect(measured, progress, checkpoint_path, params)
    artifacts['results'] = results.save(record, params)
    artifacts.update(run_pictures.draw(data, checkpoint_path, record, params))
    results.show(record, artifacts)
    diverged = results.warning(record, params)
    if diverged:
        print('\n' + diverged)
        say(diverged)
    return record


def settle_dataset(params: HParams, task: Task = LOCAL) -> HParams:
    """Returns the settings with the dataset that static binarisation of MNIST is of.

    A run keeps the one it began with. In a cluster, whose processes have to agree, only what is
    prepared already counts.
    """
    recorded = _recorded(params.model_dir)
    if recorded is not None:
        return hparams.settled(params, recorded)
    if not hparams.is_open(params):
        return params
    dataset = prepare_data.static_mnist(
        params.data_dir or None,
        params.idx_dir or None,
        may_download=task == LOCAL,
        separate_process=True,
    )
    return dataclasses.replace(params, dataset=dataset)


def save_settings(params: HParams) -> None:
    """Writes the settings of the run to its folder.

    Raises:
      UserError: the folder cannot be written.
    """
    try:
        hparams.save(params)
    except tf.errors.OpError as error:
        raise UserError(
            f'--model_dir={params.model_dir} cannot be written ({error.message}).'
        ) from error


def announce(params: HParams) -> None:
    """Says what is about to happen: from which step to which, and where."""
    step = ending.start_step(params.model_dir)
    if step >= params.max_steps:
        say(
            '{} has already reached step {:,} of {:,}: nothing left to train.'.format(
                params.model_dir, step, params.max_steps
            )
        )
        return
    if ending.patience_ran_out(params):
        say(
            '{} has stopped early at step {:,} of {:,}, because {}: nothing left to train. To go '
            'on, give --early_stopping_patience=0 or more than {}.'.format(
                params.model_dir, step, params.max_steps, *ending.why(params)
            )
        )
        return
    say(
        '{} to step {:,} on {} ({}): batches of {} on {} thread(s), {}.'.format(
            'Resuming {} at step {:,}, going'.format(params.model_dir, step)
            if step
            else 'Training {}'.format(params.model_dir),
            params.max_steps,
            params.dataset,
            hparams.convention(params),
            params.batch_size,
            params.threads,
            optimizer.schedule_text(params),
        )
    )


def make_estimator(params: HParams, task: Task = LOCAL) -> tf.estimator.Estimator:
    """Returns the Estimator of a run, one core a thread and one thread an op."""
    session_config = tf.ConfigProto(
        intra_op_parallelism_threads=1,
        inter_op_parallelism_threads=params.threads,
        allow_soft_placement=True,
        device_filters=cluster.device_filters(task),
    )
    with cluster.environment(task):
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
    return tf.estimator.Estimator(model_fn, config=config, params=of_replica(params, task))


def claim_thread_pools(params: HParams) -> None:
    """Makes the thread pools of this process, as the sessions of training and evaluation want them.

    TF 1.14 makes them once, as the first session asks for. Sums over several threads round
    differently: a finished run that is started again, where pictures come first, would measure
    other numbers.
    """
    tf.Session(graph=tf.Graph(), config=make_estimator(params).config.session_config).close()


def of_replica(params: HParams, task: Task) -> HParams:
    """Gives each training process images and noise of its own."""
    return dataclasses.replace(params, seed=params.seed + _SEED_STRIDE * task.replica)


def evaluation_batch(params: HParams) -> int:
    """Returns the images of an evaluation's batch."""
    samples = _SAMPLES_AT_ONCE
    if params.prior != 'standard_normal':
        samples = min(
            samples, _DEVIATIONS_AT_ONCE // (params.prior_components * params.latent_size)
        )
    return max(1, min(_EVALUATION_BATCH, samples // params.samples_evaluated))


def train_and_evaluate(
    estimator: tf.estimator.Estimator,
    data: PreparedDataset,
    params: HParams,
    progress: TrainingProgress,
    task: Task = LOCAL,
    report: Callable[[Dict[str, Any]], None] = lambda metrics: None,
) -> None:
    """Trains to `max_steps`, evaluating and reporting each checkpoint and exporting the best.

    Where `early_stopping_patience` has run out, nothing is done; where it does, training ends.
    """
    if ending.patience_ran_out(params):
        return
    stop = threading.Event()

    def train_input_fn() -> tf.data.Dataset:
        # Asked for at each start, so that a resumed run sees the images that come next.
        step = ending.start_step(params.model_dir) // task.replicas
        seed = of_replica(params, task).seed
        return input.train_input_fn(data, params.batch_size, seed, step, params.binarization)

    def report_evaluation(metrics: Dict[str, Any], is_best: bool) -> None:
        results.report_evaluation(metrics, is_best, params)
        report(metrics)
        if ending.patience_ran_out(params):
            stop.set()
            if task.type == 'evaluator':
                raise ending.StoppedEarly()

    evaluation = tf.estimator.EvalSpec(
        functools.partial(
            input.eval_input_fn, data, 'validation', evaluation_batch(params), params.binarization
        ),
        steps=None,
        name='validation',
        hooks=[summaries.FirstBatchSummaryHook(estimator.eval_dir('validation'), params)],
        exporters=[export.BestExporter(params, report_evaluation)],
        start_delay_secs=0,
        throttle_secs=_SECONDS_BETWEEN_CHECKPOINT_LOOKS if task.type == 'evaluator' else 0,
    )
    hooks: List[tf.train.SessionRunHook] = []
    if task.leads:
        if ending.start_step(params.model_dir) == 0:
            export.forget_best(params.model_dir)
        listeners = [signals.LeaveWhenSavedListener(), finite.FiniteWeightsListener(params)]
        if task.type == 'chief' and not task.has_evaluator:
            listeners.append(_EvaluationListener(make_estimator(params), evaluation, stop))
        saver = summaries.CheckpointSaverHook(
            params.model_dir, save_steps=params.checkpoint_steps, listeners=listeners
        )
        # Before any hook of TF's asks for it.
        summaries.open_event_file(params.model_dir)
        hooks = [signals.FinishStepHook(), progress, saver]
        if params.profile_steps:
            steps, folder = params.profile_steps, params.model_dir
            hooks.append(optional.ProfilerHook(save_steps=steps, output_dir=folder))
        if params.prior == 'vamp':
            hooks.insert(0, PseudoInputsHook(data, params))
    hooks.append(ending.StopEarlyHook(stop))
    lookout = _lookout(params, task)
    if task != LOCAL:
        hooks += [ending.StopInTimeHook(params.max_steps), lookout]
    if task.type == 'worker':
        cluster.watch(lambda: ending.should_end(params), stop, leave=True)
    elif task.type == 'chief' and task.has_evaluator:
        cluster.watch(lambda: ending.patience_ran_out(params), stop, leave=False)
    training = tf.estimator.TrainSpec(train_input_fn, max_steps=params.max_steps, hooks=hooks)
    try:
        with lookout:
            tf.estimator.train_and_evaluate(estimator, training, evaluation)
    except ending.StoppedEarly:
        say('Training ends early: leaving.')


def _lookout(params: HParams, task: Task) -> servers.Lookout:
    return servers.Lookout(task, params.model_dir, lambda: ending.has_ended(params))


class PseudoInputsHook(tf.train.SessionRunHook):
    """Starts the pseudo-inputs of a VampPrior from training images, before the first step.

    Noise, as an initializer could give, makes pseudo-inputs that are all alike to the encoder. It
    stands before the CheckpointSaverHook, which saves the weights of step 0.
    """

    def __init__(self, data: PreparedDataset, params: HParams):
        self._data, self._params = data, params

    def begin(self) -> None:
        (self._logits,) = [
            variable
            for variable in tf.trainable_variables()
            if variable.op.name == priors.PSEUDO_INPUTS
        ]
        # A placeholder, as the images would be a large constant of the graph.
        self._images = tf.placeholder(tf.float32, self._logits.shape)
        # Grey levels of 0 and 1 have no finite logit.
        inside = 0.02 + 0.96 * self._images
        self._start = self._logits.assign(tf.math.log(inside) - tf.math.log1p(-inside)).op

    def after_create_session(self, session: tf.Session, coord: tf.train.Coordinator) -> None:
        del coord
        # Not by the session's global step: a worker may have made one since it was begun.
        if ending.start_step(self._params.model_dir) > 0:
            return
        shape = self._logits.shape.as_list()
        images = input.first_images(self._data, 'train', shape[0], self._params.binarization)
        session.run(self._start, {self._images: images.reshape(shape)})


class _EvaluationListener(tf.train.CheckpointSaverListener):
    """Evaluates and exports as a local training does; TF leaves a chief's checkpoints alone."""

    def __init__(
        self,
        estimator: tf.estimator.Estimator,
        evaluation: tf.estimator.EvalSpec,
        stop: threading.Event,
    ):
        self._estimator, self._evaluation, self._stop = estimator, evaluation, stop

    def after_save(self, session: tf.Session, global_step_value: int) -> None:
        del session
        if not global_step_value or self._stop.is_set():
            return
        spec = self._evaluation
        path = self._estimator.latest_checkpoint()
        metrics = self._estimator.evaluate(
            spec.input_fn, hooks=spec.hooks, checkpoint_path=path, name=spec.name
        )
        for exporter in spec.exporters:
            folder = os.path.join(self._estimator.model_dir, 'export', exporter.name)
            exporter.export(self._estimator, folder, path, metrics, False)


def final_evaluation(
    estimator: tf.estimator.Estimator, data: PreparedDataset, checkpoint_path: str, params: HParams
) -> Dict[str, Any]:
    """Evaluates the final weights on every split, the best ones on validation and test.

    Returns:
      The metrics by split and, under `best`, those of the best model on validation, which are the
      final ones where no earlier checkpoint was better.
    """

    # The training images, five times as many, would take most of the time.
    one_sample = make_estimator(dataclasses.replace(params, evaluation_samples=1))

    def evaluate(split: str, path: str, name: str) -> Dict[str, float]:
        say('Evaluating the {} model on the {} images.'.format(name, split))
        # Before TF makes one, and puts the graph into it.
        summaries.open_event_file(estimator.eval_dir('{}_{}'.format(name, split)))
        metrics = (one_sample if split == 'train' else estimator).evaluate(
            functools.partial(
                input.eval_input_fn, data, split, evaluation_batch(params), params.binarization
            ),
            checkpoint_path=path,
            name='{}_{}'.format(name, split),
        )
        by_name = summaries.without_groups(metrics)
        return {name: float(by_name[name]) for name in hparams.reported_metrics(params)}

    measured: Dict[str, Any] = {
        split: evaluate(split, checkpoint_path, 'final')
        for split in ('train', 'validation', 'test')
    }
    best = export.read_best(params.model_dir)
    while best is not None:
        path = os.path.join(best['folder'], best['checkpoint'])
        is_final = os.path.basename(path) == os.path.basename(checkpoint_path)
        try:
            measured['best'] = {
                split: measured[split] if is_final else evaluate(split, path, 'best')
                for split in ('validation', 'test')
            }
            measured['best']['global_step'] = best['global_step']
            break
        except (tf.errors.OpError, ValueError):
            # An evaluator in a cluster may have found a better one, and removed this.
            before, best = best, export.read_best(params.model_dir)
            if best == before:
                raise
    return measured


def export_final(
    estimator: tf.estimator.Estimator, checkpoint_path: str, params: HParams
) -> Dict[str, str]:
    """Writes weights and the final SavedModel; returns all paths of models by name."""
    say('Exporting the final model.')
    best = export.read_best(params.model_dir)
    artifacts = {
        'weights': export.save_weights(estimator, checkpoint_path, params),
        'final export': export.export_saved_model('final', checkpoint_path, params),
        'hyper-parameters': os.path.join(params.model_dir, hparams.FILE_NAME),
    }
    if best is not None:
        artifacts['best export'] = os.path.join(best['folder'], best['export'])
    return artifacts
