"""Training in this process: repetition, resumption, and what is refused."""

import contextlib
import dataclasses
import io
import json
import os
import re
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from tests.support import (
    datasets,  # noqa: F401  (registers colour_squares)
    tiny,
    users,
)
from tests.support.tiny import FACTS, params_in, trained
from trainer.base import console
from trainer.base.errors import UserError
from trainer.checkpoints import best_model
from trainer.cluster.tf_config import Task
from trainer.data import inputs, prepare
from trainer.data.dataset import SPLITS
from trainer.model import priors, vae
from trainer.settings import memory, storage
from trainer.settings.table import HParams
from trainer.training import checks, final, run
from trainer.training.hooks import PseudoInputsHook


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def finished(data, tmp_path_factory):
    """The settings of a run with summaries, its variables, and what it showed a terminal."""
    params = params_in(tmp_path_factory.mktemp('finished'), save_summary_steps=2)
    shown = io.StringIO()
    terminal = mock.patch.object(console, '_has_terminal', lambda: True)
    with terminal, contextlib.redirect_stderr(shown):
        variables, _ = trained(data, params)
    return params, variables, shown.getvalue()


def assert_same(one, other):
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize('threads, binarization', [(1, 'none'), (2, 'dynamic')])
def test_a_run_repeats_exactly_and_a_resumed_one_ends_where_an_unbroken_one_does(
    data, tmp_path, threads, binarization, monkeypatch
):
    settings = {'num_threads': threads, 'binarization': binarization}
    unbroken, progress = trained(data, params_in(tmp_path / 'a', **settings))
    assert unbroken['global_step'] == 6
    assert (progress.first_step, progress.elapsed_seconds > progress.step_seconds > 0) == (0, True)

    params = params_in(tmp_path / 'b', **settings)
    # As of a split that memory does not hold.
    monkeypatch.setattr(inputs, '_MOST_BYTES_IN_MEMORY', 0)
    repeated, _ = trained(data, params)
    assert_same(unbroken, repeated)

    # As if killed after step 3: what came later is not there.
    for name in tf.gfile.Glob(os.path.join(params.model_dir, 'model.ckpt-6*')):
        os.remove(name)
    with open(os.path.join(params.model_dir, 'checkpoint'), 'w') as f:
        f.write('model_checkpoint_path: "model.ckpt-3"\n')
    resumed, progress = trained(data, params)
    assert progress.first_step == 3
    assert_same(unbroken, resumed)


@pytest.mark.parametrize('binarization', ['none', 'static', 'dynamic'])
def test_a_resumed_run_sees_the_images_that_come_next(data, binarization):
    def batches(start_step, count):
        with tf.Graph().as_default(), tf.Session() as session:
            dataset = inputs.train_input_fn(data, 20, 1, start_step, binarization)
            images = dataset.make_one_shot_iterator().get_next()['images']
            return [session.run(images) for _ in range(count)]

    unbroken = batches(0, 6)
    np.testing.assert_array_equal(batches(4, 2), unbroken[4:])
    assert not np.array_equal(batches(4, 1)[0], unbroken[0])


@pytest.mark.slow
def test_pseudo_inputs_start_from_the_images_that_the_model_sees(data, tmp_path):
    params = params_in(
        tmp_path, prior='vamp', prior_components=3, binarization='static', max_steps=1,
        save_checkpoints_steps=1, learning_rate=1e-30,
    )  # fmt: skip
    variables, _ = trained(data, params)
    seen = inputs.first_images(data, 'train', 3, 'static')
    assert set(np.unique(seen)) == {0, 1}
    pseudo_inputs = 1 / (1 + np.exp(-variables[priors.PSEUDO_INPUTS]))
    np.testing.assert_allclose(
        pseudo_inputs.reshape(seen.shape), np.where(seen == 1, 0.98, 0.02), rtol=1e-5
    )


def test_pseudo_inputs_start_from_images_though_a_worker_has_made_a_step(data, tmp_path):
    params = params_in(tmp_path, prior='vamp', prior_components=3)
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.train.create_global_step()
        vae.prior(params)
        hook = PseudoInputsHook(data, params)
        hook.begin()
        session.run([tf.global_variables_initializer(), step.initializer])
        session.run(step.assign_add(1))
        hook.after_create_session(session, None)
        (pseudo_inputs,) = [
            v for v in tf.trainable_variables() if v.op.name == priors.PSEUDO_INPUTS
        ]
        logits = session.run(pseudo_inputs)
    images = inputs.first_images(data, 'train', 3, 'none').reshape(logits.shape)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), 0.02 + 0.96 * images, rtol=1e-4)


@pytest.mark.parametrize(
    'settings, images',
    [
        ({}, 1000),
        ({'evaluation_samples': 10000}, 1),
        ({'image_shape': (64, 64, 3)}, 1000),
        # 10^8 numbers are 322 layers of 109 x 89 x 32.
        ({'image_shape': (218, 178, 3)}, 107),
        ({'image_shape': (8192, 8192, 3)}, 1),
        ({'objective': 'iwae', 'training_samples': 30}, 100),
        ({'prior': 'vamp', 'prior_components': 8192, 'latent_size': 50}, 24),
        ({'prior': 'mixture', 'prior_components': 8192, 'latent_size': 8192}, 1),
    ],
)
def test_an_evaluations_batch_is_as_large_as_memory_allows(settings, images):
    assert memory.evaluation_batch(HParams(**settings)) == images


def test_a_warm_up_of_beta_that_does_not_end_is_refused(tmp_path):
    params = params_in(tmp_path, beta_warmup_steps=7)
    with pytest.raises(UserError, match='--beta_warmup_steps=7 must be at most --max_steps=6'):
        checks.check(params, FACTS.num_examples)
    storage.save(params)
    assert storage.load(str(tmp_path)) == params


@pytest.mark.slow
def test_an_importance_weighted_bound_is_evaluated_as_it_is_trained(data, tmp_path):
    params = params_in(tmp_path, objective='iwae', training_samples=4, evaluation_samples=1)
    trained(data, params)
    estimator = run.make_estimator(params)
    path = tf.train.latest_checkpoint(params.model_dir)
    measured = final.evaluation(dict.fromkeys(SPLITS, estimator), data, path, params)
    for split in ('train', 'validation', 'test'):
        # Of one sample it would be the ELBO's own estimate.
        bound = measured[split]['negative_importance_weighted_bound']
        assert bound < measured[split]['negative_elbo'] - 1e-3
    best = best_model.read_best(params.model_dir)['negative_importance_weighted_bound']
    best_again = measured['best']['validation']['negative_importance_weighted_bound']
    assert best == pytest.approx(best_again, rel=1e-6)


@pytest.mark.slow
def test_a_finished_run_trains_no_further(data, finished):
    params, before, _ = finished
    after, progress = trained(data, params)
    assert progress.first_step is None
    assert_same(before, after)


@pytest.mark.slow
def test_a_new_run_does_not_inherit_the_best_of_one_whose_checkpoints_are_gone(data, tmp_path):
    params = params_in(tmp_path)
    folder = tmp_path / 'export' / 'best'
    folder.mkdir(parents=True)
    (folder / 'model.ckpt-9.index').write_text('')
    state = {'negative_elbo': 0.0, 'global_step': 9, 'checkpoint': 'model.ckpt-9', 'export': '1'}
    (folder / 'best.json').write_text(json.dumps(state))
    trained(data, params)
    assert best_model.read_best(params.model_dir)['global_step'] == 6


@pytest.mark.slow
def test_evaluations_come_with_each_checkpoint_and_write_pictures_once(finished):
    params, _, _ = finished
    events = []
    for name in tf.gfile.Glob(os.path.join(params.model_dir, 'eval_validation', 'events*')):
        events += [
            (event.step, value.tag)
            for event in tf.train.summary_iterator(name)
            for value in event.summary.value
            if value.WhichOneof('value')  # Descriptions have none.
        ]
    for tag in (
        'elbo/negative_elbo', 'elbo/kl_divergence', 'latents/active_units',
        'pictures/prior_samples/image', 'pictures/reconstructions/image',
    ):  # fmt: skip
        assert sorted(step for step, name in events if name == tag) == [3, 6]


@pytest.mark.slow
def test_training_summaries_hold_the_promised_scalars(finished):
    params, _, _ = finished
    tags = set()
    for name in tf.gfile.Glob(os.path.join(params.model_dir, 'events*')):
        for event in tf.train.summary_iterator(name):
            tags |= {value.tag for value in event.summary.value}
    assert {
        'elbo/negative_elbo', 'elbo/reconstruction_loss', 'elbo/kl_divergence', 'elbo/beta',
        'latents/posterior_scale', 'optimizer/learning_rate', 'optimizer/gradient_norm',
        'speed/examples_per_second',
    } <= tags  # fmt: skip


@pytest.mark.slow
def test_final_evaluation_is_the_mean_over_all_images_of_each_split(
    data, finished, monkeypatch, capsys
):
    params = dataclasses.replace(finished[0], save_summary_steps=0)
    estimator = run.make_estimator(params)
    checkpoint_path = tf.train.latest_checkpoint(params.model_dir)
    by_split = dict.fromkeys(SPLITS, estimator)
    measured = final.evaluation(by_split, data, checkpoint_path, params)
    counts = [measured.pop(name) for name in ('images_evaluated', 'images_in_split')]
    assert counts == [FACTS.num_examples] * 2
    assert {'train', 'validation', 'test', 'best'} == set(measured)
    for split in ('train', 'validation', 'test'):
        metrics = measured[split]
        assert metrics['negative_elbo'] == pytest.approx(
            metrics['reconstruction_loss'] + metrics['kl_divergence'], rel=1e-5
        )
        predicted = estimator.predict(
            lambda split=split: inputs.eval_input_fn(data, split, 7, 'none'),
            checkpoint_path=checkpoint_path,
        )
        kl = [row['kl_divergence'] for row in predicted]
        assert len(kl) == FACTS.num_examples[split]
        assert metrics['kl_divergence'] == pytest.approx(np.mean(kl), rel=1e-5)
        if split == 'train':
            in_blocks = np.mean(kl[:10] + kl[20:30])

    monkeypatch.setattr(inputs, '_BLOCK', 10)
    monkeypatch.setattr(final, '_MOST_TRAIN_IMAGES', 20)
    measured = final.evaluation(by_split, data, checkpoint_path, params)
    assert measured['images_evaluated'] == dict(FACTS.num_examples, train=20)
    assert measured['train']['kl_divergence'] == pytest.approx(in_blocks, rel=1e-5)
    assert '20 of the 50 train images' in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_on_a_colour_dataset_of_tfds_leaves_every_artifact(tmp_path, capsys):
    data_dir = str(tmp_path / 'data')
    # Here, because the process that train.run would start does not know the tests' dataset.
    facts = prepare.prepare('colour_squares', data_dir)
    assert facts.image_shape == (32, 32, 3)
    params = params_in(
        tmp_path / 'run', dataset='colour_squares', image_shape=facts.image_shape, max_steps=3,
        data_dir=data_dir, num_images=7,
    )  # fmt: skip
    record = run.run(params)
    table = capsys.readouterr().out
    for name in (
        'new_images.png', 'reconstructions.png', 'latent_manifold.png', 'training_curves.png',
        'results.json', 'hyper_parameters.json', 'new_model.ckpt.meta',
    ):  # fmt: skip
        assert os.path.getsize(os.path.join(params.model_dir, name)) > 0
        assert os.path.join(params.model_dir, name).replace('.meta', '') in table
    with tf.Graph().as_default(), tf.Session() as session:
        content = tf.read_file(os.path.join(params.model_dir, 'new_images.png'))
        assert session.run(tf.image.decode_png(content)).shape == (3 * 32, 3 * 32, 3)
    # Counted by hand: LSTM (96 + 4) x 16 + 16, posterior 2 x (16 x 2 + 2), decoder Dense
    # 2 x 8 + 8, 8 x 8 + 8 and 8 x 128 + 128, transpose convolutions 3 x 3 x 2 x 2 + 2 and
    # 4 x 4 x 2 x 3 + 3.
    assert record['parameters'] == 1616 + 68 + 24 + 72 + 1152 + 38 + 99
    assert record['global_step'] == 3


@pytest.mark.slow
def test_a_terminal_shows_a_bar_with_loss_rate_and_time_left(finished):
    last = finished[2].split('\r')[-1]
    assert re.search(
        r'step 6/6 100% \|.*\| negative ELBO [\d.]+ nats, \d+ examples/s, 00:00 left', last
    )


def test_check_passes_what_can_run(tmp_path):
    checks.check(params_in(tmp_path / 'deep' / 'down'), FACTS.num_examples)
    assert os.listdir(str(tmp_path)) == []


def test_check_refuses_other_settings_than_the_recorded(tmp_path):
    params = params_in(tmp_path)
    storage.save(params)
    checks.check(
        dataclasses.replace(params, lstm_units=9), FACTS.num_examples
    )  # nothing trained so far
    (tmp_path / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt-7"\n')
    (tmp_path / 'model.ckpt-7.index').write_text('')
    checks.check(dataclasses.replace(params, max_steps=99), FACTS.num_examples)
    with pytest.raises(UserError, match=r'--lstm_units=9 \(was 4\)'):
        checks.check(dataclasses.replace(params, lstm_units=9), FACTS.num_examples)


def begun(folder, params):
    """Makes it look as if the run had trained already."""
    storage.save(params)
    (folder / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt-7"\n')
    (folder / 'model.ckpt-7.index').write_text('')


@pytest.mark.parametrize('dataset', ['mnist', 'binarized_mnist'])
def test_a_run_keeps_the_images_that_static_mnist_was_at_its_start(tmp_path, monkeypatch, dataset):
    params = params_in(tmp_path, dataset='mnist', binarization='static')
    monkeypatch.setattr(prepare, 'static_mnist', lambda *args, **kwargs: dataset)
    settled = run.settle_dataset(params)
    assert settled == dataclasses.replace(params, dataset=dataset)
    begun(tmp_path, settled)
    monkeypatch.setattr(prepare, 'static_mnist', None)  # It is not asked again.
    checks.check(params, FACTS.num_examples)
    assert run.settle_dataset(params) == settled
    assert run.settle_dataset(settled) == settled
    with pytest.raises(UserError, match=r'--binarization=dynamic \(was static\)'):
        checks.check(dataclasses.replace(params, binarization='dynamic'), FACTS.num_examples)


def test_a_fixed_seed_sampling_does_not_go_on_with_larochelles_images(tmp_path):
    params = params_in(tmp_path, dataset='mnist', binarization='static')
    begun(tmp_path, params)
    with pytest.raises(UserError, match=r'--dataset=binarized_mnist \(was mnist\)'):
        checks.check(dataclasses.replace(params, dataset='binarized_mnist'), FACTS.num_examples)


def test_only_a_static_mnist_of_no_version_is_open(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, 'static_mnist', None)
    for changes in (
        {'dataset': 'mnist:3.0.0', 'binarization': 'static'},
        {'dataset': 'mnist', 'binarization': 'dynamic'},
        {'dataset': 'fashion_mnist', 'binarization': 'static'},
    ):
        params = params_in(tmp_path, **changes)
        assert run.settle_dataset(params) == params


def test_the_processes_of_a_cluster_take_what_is_prepared(tmp_path, monkeypatch):
    params = params_in(tmp_path, dataset='mnist', binarization='static', data_dir=str(tmp_path))
    asked = []
    monkeypatch.setattr(
        prepare, 'static_mnist', lambda *args, **kwargs: asked.append(kwargs) or 'mnist'
    )
    run.settle_dataset(params, Task('chief'))
    run.settle_dataset(params)
    assert [kwargs['may_download'] for kwargs in asked] == [False, True]


@pytest.mark.slow
def test_a_run_on_larochelles_images_says_so_and_can_be_resumed(tmp_path, capsys):
    data_dir = str(tmp_path / 'data')
    amat = datasets.write_amat(tmp_path / 'amat')
    with datasets.small_binarized_mnist(amat):
        # Here, because the process that train.run would start knows the real files only.
        prepare.prepare('binarized_mnist', data_dir, amat)
        params = params_in(
            tmp_path / 'run', dataset='mnist', binarization='static', data_dir=data_dir,
            image_shape=(28, 28, 1), max_steps=1, save_checkpoints_steps=1, num_images=4,
            save_summary_steps=0,
        )  # fmt: skip
        record = run.run(params)
        assert storage.load(params.model_dir).dataset == 'binarized_mnist'
        assert record['convention'] == 'static binarisation by Larochelle'
        assert 'static binarisation by Larochelle' in capsys.readouterr().out
        checks.check(params, prepare.dataset_facts('mnist', data_dir).num_examples)
        assert run.settle_dataset(params).dataset == 'binarized_mnist'


@pytest.mark.parametrize('name', ['runs/[a]', 'what?', 'gs://bucket/*'])
def test_check_refuses_a_folder_that_tensorflow_would_not_find_again(name):
    params = params_in(name)
    with pytest.raises(UserError, match='takes for a pattern'):
        checks.check(params, FACTS.num_examples)


def test_check_refuses_a_folder_that_cannot_be_written():
    with users.folder_of_another(0o555) as folder, users.another_user():
        for model_dir in (folder, folder + '/a/b'):
            with pytest.raises(UserError) as refused:
                checks.check(params_in(model_dir), FACTS.num_examples)
            assert '--model_dir={} cannot be written ('.format(model_dir) in str(refused.value)
            assert 'Permission denied' in str(refused.value)
    with pytest.raises(UserError, match='--model_dir=/proc/x cannot be written'):
        checks.check(params_in('/proc/x'), FACTS.num_examples)
