"""Early stopping: what is counted, what outlives a restart, and what a stopped run still leaves."""

import dataclasses
import json
import math
import os
import threading

import pytest
import tensorflow as tf

from tests.support import tiny
from tests.support.tiny import params_in
from trainer.checkpoints import best_model, listing
from trainer.cluster import processes, tf_config
from trainer.cluster.tf_config import LOCAL
from trainer.data import prepare
from trainer.model import objectives
from trainer.settings import storage
from trainer.training import artifacts, early_stopping
from trainer.training import final as final_module
from trainer.training import run as training_run
from trainer.training.estimator import Estimator
from trainer.training.progress import TrainingProgress

TERMS = ('negative_elbo', 'reconstruction_loss', 'kl_divergence')
BOUND = 'negative_importance_weighted_bound'


@pytest.fixture
def exports():
    """SavedModels are not what is tested here."""
    with tiny.no_saved_models():
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp('data'))


class Run:
    """A model_dir whose evaluations come out as told, each by an exporter of its own."""

    def __init__(self, folder, **settings):
        self.params = params_in(folder, max_steps=100, **settings)

    def save(self, step):
        with tf.Graph().as_default(), tf.Session() as session:
            global_step = tf.train.create_global_step()
            session.run(global_step.assign(step))
            path = os.path.join(self.params.model_dir, 'model.ckpt')
            return tf.train.Saver().save(session, path, global_step)

    def evaluate(self, step, value, **others):
        """Saves and evaluates as after a restart; returns whether training should stop."""
        exporter = tiny.best_exporter(self.params, lambda metrics, is_best: None)
        folder = os.path.join(self.params.model_dir, 'export', 'best')
        path = self.save(step)
        metrics = {'negative_elbo': value, 'global_step': step, **others}
        exporter.export(None, folder, path, metrics, False)
        return early_stopping.patience_ran_out(self.params)


def test_evaluations_in_a_row_without_a_better_one_are_counted(exports, tmp_path):
    run = Run(tmp_path, early_stopping_patience=3)
    values = [9.0, 9.5, 9.0, 8.9, 9.0, math.nan, 8.8, 8.9, math.inf, 8.8]
    stops = [run.evaluate(step, value) for step, value in enumerate(values, 1)]
    # Equal is not better. 8.9 and 8.8 began anew after two in vain.
    assert stops == [False] * 9 + [True]
    assert early_stopping.why(run.params) == (
        'none of the last 3 evaluation(s) was better than the 8.80 nats of step 7',
        3,
    )


def test_an_evaluation_that_is_repeated_after_a_restart_counts_once(exports, tmp_path):
    run = Run(tmp_path, early_stopping_patience=2)
    steps_and_values = [(10, 5.0), (10, 5.0), (20, 6.0), (20, 6.0), (20, 6.0), (10, 6.0)]
    stops = [run.evaluate(step, value) for step, value in steps_and_values]
    assert stops == [False] * 6
    assert run.evaluate(30, 6.0)
    assert best_model.read_best(run.params.model_dir)['global_step'] == 10


@pytest.mark.parametrize('objective', ['iwae', 'dreg'])
def test_the_best_by_an_importance_weighted_objective_is_that_of_the_least_bound(
    exports, tmp_path, objective
):
    run = Run(tmp_path, early_stopping_patience=2, objective=objective, training_samples=3)
    values = [(10, 9.0, 8.0), (20, 9.5, 7.0), (30, 8.0, 7.5), (40, 7.0, 7.5)]
    stops = [run.evaluate(step, elbo, **{BOUND: bound}) for step, elbo, bound in values]
    assert stops == [False, False, False, True]
    best = best_model.read_best(run.params.model_dir)
    assert (best['global_step'], best[BOUND]) == (20, 7.0)
    assert 'negative_elbo' not in best
    assert 'better than the 7.00 nats of step 20' in early_stopping.why(run.params)[0]


def test_a_best_that_an_older_version_chose_by_the_elbo_is_set_aside(exports, tmp_path, capsys):
    run = Run(tmp_path)
    run.evaluate(10, 5.0)
    best_model.repair_state(run.params)
    assert best_model.read_best(run.params.model_dir)['global_step'] == 10
    weighted = Run(tmp_path, objective='dreg', training_samples=3)
    best_model.repair_state(weighted.params)
    assert 'best.json is set aside as best.json.old' in capsys.readouterr().err
    weighted.evaluate(20, 6.0, **{BOUND: 5.5})
    assert best_model.read_best(run.params.model_dir)['global_step'] == 20


def test_evaluations_while_a_schedule_holds_beta_back_do_not_count(exports, tmp_path):
    # Two cycles of 50 steps, in the first half of each of which beta rises.
    run = Run(tmp_path, early_stopping_patience=1, beta_cycles=2)
    values = [(10, 5.0), (25, 6.0), (30, 8.0), (50, 7.0), (60, 9.0), (75, 9.0), (80, 7.5)]
    assert [run.evaluate(*value) for value in values] == [False] * 6 + [True]
    best = best_model.read_best(run.params.model_dir)
    assert (best['global_step'], best['negative_elbo']) == (10, 5.0)
    assert best['best_with_whole_beta'] == {'negative_elbo': 7.0, 'global_step': 50}
    assert 'better than the 7.00 nats of step 50' in early_stopping.why(run.params)[0]


def test_evaluations_while_beta_warms_up_do_not_count(exports, tmp_path):
    run = Run(tmp_path, early_stopping_patience=2, beta_warmup_steps=30)
    values = [(10, 5.0), (20, 6.0), (30, 6.0), (31, 9.0), (40, 9.5), (50, 9.5)]
    assert [run.evaluate(*value) for value in values] == [False] * 5 + [True]
    assert best_model.read_best(run.params.model_dir)['global_step'] == 10


@pytest.mark.parametrize(
    'settings, steps',
    [
        ({'beta_warmup_steps': 4}, [1, 2, 3, 4]),
        ({'beta_cycles': 2, 'max_steps': 10}, [1, 2, 3, 6, 7, 8]),
        ({}, []),
    ],
)
def test_beta_was_rising_where_a_step_had_less_than_all_of_it(settings, steps):
    params = params_in('', **settings)
    assert [step for step in range(1, 11) if objectives.beta_was_rising(step, params)] == steps
    with tf.Graph().as_default(), tf.Session() as session:
        betas = session.run([objectives.beta(tf.constant(step), params) for step in range(10)])
    assert [step + 1 for step, beta in enumerate(betas) if beta < params.beta] == steps


def test_evaluations_that_were_never_finite_count_too(exports, tmp_path):
    run = Run(tmp_path, early_stopping_patience=2)
    assert [run.evaluate(step, math.nan) for step in (1, 2)] == [False, True]
    assert best_model.read_best(run.params.model_dir) is None
    assert early_stopping.why(run.params)[0] == 'none of the last 2 evaluation(s) was finite'
    with open(str(tmp_path / 'export' / 'best' / 'best.json')) as f:
        assert 'NaN' not in f.read()


def test_the_state_of_an_older_version_is_counted_on(exports, tmp_path):
    run = Run(tmp_path, early_stopping_patience=2)
    run.evaluate(10, 5.0)
    path = tmp_path / 'export' / 'best' / 'best.json'
    state = json.loads(path.read_text())
    del state['evaluated_step'], state['evaluations_since_best']
    path.write_text(json.dumps(state))
    assert [run.evaluate(step, 6.0) for step in (10, 20, 30)] == [False, False, True]


def test_patience_is_that_of_the_command_and_0_is_none(exports, tmp_path):
    for step, value in [(1, 5.0), (2, 6.0), (3, 6.0)]:
        Run(tmp_path, early_stopping_patience=0).evaluate(step, value)
    ran_out = [
        early_stopping.patience_ran_out(Run(tmp_path, early_stopping_patience=patience).params)
        for patience in (0, 1, 2, 3)
    ]
    assert ran_out == [False, True, True, False]


def test_the_end_is_there_once_the_leader_has_saved_its_last_checkpoint(exports, tmp_path, capsys):
    run = Run(tmp_path, early_stopping_patience=1)
    run.evaluate(10, 5.0)
    early_stopping.note_early_stop(run.params)
    assert not early_stopping.should_end(run.params)
    run.evaluate(20, 6.0)
    assert early_stopping.should_end(run.params)
    assert not early_stopping.has_ended(run.params)  # Others have made steps since.
    run.save(23)
    early_stopping.note_early_stop(run.params)
    assert early_stopping.has_ended(run.params)
    assert early_stopping.stopped_step(run.params) == 23
    early_stopping.note_early_stop(run.params)
    assert capsys.readouterr().err == (
        'Stopped early at step 23: none of the last 1 evaluation(s) was better than the 5.00 nats '
        'of step 10.\n'
    )
    # With more patience it goes on, and may stop again.
    run = Run(tmp_path, early_stopping_patience=2)
    assert not early_stopping.has_ended(run.params)
    assert early_stopping.stopped_step(run.params) is None
    assert run.evaluate(30, 6.0)
    assert not early_stopping.has_ended(run.params)


def test_at_max_steps_a_training_has_not_stopped_early(exports, tmp_path, capsys):
    run = Run(tmp_path, early_stopping_patience=1)
    run.evaluate(99, 5.0)
    run.evaluate(100, 6.0)
    early_stopping.note_early_stop(run.params)
    assert early_stopping.has_ended(run.params)
    assert early_stopping.stopped_step(run.params) is None
    assert capsys.readouterr().err == ''


def test_a_new_run_in_a_cleaned_folder_does_not_inherit_a_stop(exports, tmp_path):
    run = Run(tmp_path, early_stopping_patience=1)
    run.evaluate(10, 5.0)
    run.evaluate(20, 6.0)
    early_stopping.note_early_stop(run.params)
    assert early_stopping.has_ended(run.params)
    for name in os.listdir(str(tmp_path)):
        if name.startswith('model.ckpt') or name == 'checkpoint':
            os.remove(str(tmp_path / name))
    # Before its leader has come, and after.
    assert not early_stopping.should_end(run.params)
    assert not early_stopping.has_ended(run.params)
    best_model.forget_best(run.params.model_dir)
    assert [run.evaluate(step, value) for step, value in [(10, 7.0), (20, 6.0)]] == [False, False]
    assert not early_stopping.has_ended(run.params)


@pytest.fixture
def trainable(data, exports, monkeypatch):
    """Lets train.run train for real, but evaluate as told and leave out the final work."""
    values = {}

    def evaluate(estimator, input_fn, checkpoint_path, name=None, **others):
        step = int(checkpoint_path.rsplit('-', 1)[1])
        terms = dict.fromkeys(TERMS, values[step])
        return dict(terms, global_step=step)

    monkeypatch.setattr(Estimator, 'evaluate', evaluate)
    monkeypatch.setattr(prepare, 'prepare', lambda *args, **kwargs: data)
    monkeypatch.setattr(training_run, '_export', lambda *args: {'final export': 'none'})
    monkeypatch.setattr(artifacts, 'draw', lambda *args: {})
    final = {split: dict.fromkeys(TERMS, 1.0) for split in ('train', 'validation', 'test')}
    final.update(dict.fromkeys(('images_evaluated', 'images_in_split'), data.num_examples))
    monkeypatch.setattr(final_module, 'evaluation', lambda *args: dict(final))
    return values


@pytest.mark.slow
def test_a_rerun_with_nothing_to_train_records_no_settings_that_no_step_used(
    trainable, tmp_path, capsys, monkeypatch
):
    trainable.update({2: 5.0, 4: 6.0})
    params = params_in(tmp_path, save_checkpoints_steps=2, save_summary_steps=0, max_steps=4)
    training_run.run(params)
    recorded = (tmp_path / 'hyper_parameters.json').read_bytes()
    exported = []
    monkeypatch.setattr(
        training_run, '_export', lambda *args: exported.extend(args) or {'final export': 'none'}
    )
    training_run.run(dataclasses.replace(params, max_steps=2, learning_rate=0.5, num_images=7))
    assert (tmp_path / 'hyper_parameters.json').read_bytes() == recorded
    assert exported[-1] == dataclasses.replace(params, num_images=7)
    assert 'already reached step 4 of 2' in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_stops_says_so_and_goes_on_with_more_patience(trainable, tmp_path, capsys):
    settings = {'save_checkpoints_steps': 1, 'save_summary_steps': 0}
    trainable.update({1: 5.0, 2: 6.0, 3: 6.0, 4: 6.0, 5: 4.0, 6: 9.0})

    def run(patience):
        training_run.run(params_in(tmp_path, early_stopping_patience=patience, **settings))
        with open(str(tmp_path / 'results.json')) as f:
            record = json.load(f)
        return record['global_step'], record['stopped_early_at_step'], capsys.readouterr().err

    step, stopped, said = run(patience=2)
    assert (step, stopped) == (3, 3)
    assert said.count('Stopped early at step 3: none of the last 2 evaluation(s)') == 1
    assert listing.start_step(str(tmp_path)) == 3

    step, stopped, said = run(patience=2)
    assert (step, stopped) == (3, 3)
    assert 'has stopped early at step 3 of 6' in said
    assert '--early_stopping_patience=0 or more than 2' in said
    assert 'Stopped early' not in said

    # Of the 4, 2 were before the stop; a better one at step 5 begins anew.
    step, stopped, said = run(patience=4)
    assert (step, stopped) == (6, None)
    assert 'Resuming' in said
    assert run(patience=1)[:2] == (6, None)


def test_a_stop_that_was_wanted_but_not_carried_out_is_after_a_restart(trainable, tmp_path, capsys):
    """As where a chief was killed after its evaluator had run out of patience."""
    run = Run(tmp_path, early_stopping_patience=1, save_summary_steps=0)
    run.evaluate(1, 5.0)
    run.evaluate(2, 6.0)
    storage.save(run.params)
    record = training_run.run(run.params)
    assert (record['global_step'], record['stopped_early_at_step']) == (2, 2)
    assert early_stopping.has_ended(run.params)
    assert 'nothing left to train' in capsys.readouterr().err


def test_an_evaluator_leaves_when_patience_runs_out(trainable, data, tmp_path):
    """TF's loop alone would wait for max_steps."""
    run = Run(tmp_path, early_stopping_patience=1, save_summary_steps=0)
    run.evaluate(1, 5.0)
    run.save(2)
    trainable[2] = 6.0
    spec = {'chief': ['a:1'], 'ps': ['b:1'], 'evaluator': ['c:1']}
    config = {'cluster': spec, 'task': {'type': 'evaluator', 'index': 0}}
    task = tf_config.join({'TF_CONFIG': json.dumps(config)})
    assert task != LOCAL
    estimator = training_run.make_estimator(run.params, task)
    progress = TrainingProgress(run.params)
    training_run.train_and_evaluate(estimator, data, run.params, progress, task)
    assert early_stopping.patience_ran_out(run.params)
    # Started anew, it leaves at once.
    training_run.train_and_evaluate(estimator, data, run.params, progress, task)


@pytest.mark.parametrize('leave', [False, True])
def test_others_learn_of_the_end_in_time(monkeypatch, leave):
    monkeypatch.setattr(processes, '_SECONDS_BETWEEN_LOOKS', 0.01)
    monkeypatch.setattr(processes, '_SECONDS_OF_GRACE', 0.0)
    left, looks, stop = threading.Event(), [], threading.Event()
    monkeypatch.setattr(processes, '_exit_now', left.set)

    def should_end():
        looks.append(stop.is_set())
        if len(looks) == 1:
            raise tf.errors.NotFoundError(None, None, 'just replaced')
        return len(looks) == 3

    processes.watch(should_end, stop, leave)
    assert stop.wait(10)
    assert looks == [False] * 3
    assert left.wait(10 if leave else 0.1) == leave
