"""Exports: the best is kept across restarts, the served outputs are PREDICT's own."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf

from trainer import export, generate, hparams
from trainer.hparams import HParams
from trainer.model import model_fn

PIXELS = np.random.RandomState(0).rand(5, 28, 28).astype(np.float32)


def input_fn():
    dataset = tf.data.Dataset.from_tensors({'images': PIXELS})
    return dataset.repeat()


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    params = HParams(
        model_dir=str(tmp_path_factory.mktemp('model')), latent_size=2, lstm_units=4,
        decoder_units=8, decoder_channels=2, batch_size=5, max_steps=4, num_threads=1,
    )  # fmt: skip
    hparams.save(params)
    config = tf.estimator.RunConfig(
        model_dir=params.model_dir, save_checkpoints_steps=2, tf_random_seed=1
    )
    estimator = tf.estimator.Estimator(model_fn, config=config, params=params)
    tf.logging.set_verbosity(tf.logging.ERROR)
    estimator.train(input_fn, max_steps=4)
    return estimator, params


def checkpoint(estimator, step):
    return os.path.join(estimator.model_dir, 'model.ckpt-{}'.format(step))


def predicted(estimator, step=4):
    rows = estimator.predict(
        lambda: tf.data.Dataset.from_tensors({'images': PIXELS}),
        checkpoint_path=checkpoint(estimator, step),
    )
    rows = list(rows)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def served(folder, signature):
    with tf.Graph().as_default(), tf.Session() as session:
        meta_graph = tf.saved_model.load(session, [tf.saved_model.SERVING], folder)
        definition = meta_graph.signature_def[signature]
        fetches = {name: info.name for name, info in definition.outputs.items()}
        return session.run(fetches, {definition.inputs['images'].name: PIXELS})


@pytest.mark.parametrize('signature', ['serving_default', 'encode'])
def test_served_outputs_are_those_of_predict(trained, signature):
    estimator, params = trained
    folder = export.export_saved_model('final', checkpoint(estimator, 4), params)
    expected, actual = predicted(estimator), served(folder, signature)
    assert {'mean', 'scale'} <= set(actual)
    assert ('reconstruction' in actual) == (signature == 'serving_default')
    for name, value in actual.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)
    assert folder.startswith(os.path.join(params.model_dir, 'export', 'final'))


def test_best_is_exported_from_the_first_and_remembered_by_another_exporter(trained):
    estimator, params = trained
    reports = []

    def evaluated(step, value):
        exporter = export.BestExporter(params, lambda metrics, best: reports.append(best))
        return exporter.export(
            estimator,
            os.path.join(params.model_dir, 'export', exporter.name),
            checkpoint(estimator, step),
            {'negative_elbo': np.float32(value), 'global_step': np.int64(step)},
            is_the_final_export=False,
        )

    assert export.read_best(params.model_dir) is None
    first = evaluated(2, 200.0)
    assert os.path.exists(os.path.join(first, 'saved_model.pb'))
    assert evaluated(4, 201.0) is None
    assert export.read_best(params.model_dir)['global_step'] == 2
    second = evaluated(4, 199.0)
    best = export.read_best(params.model_dir)
    assert best['export'] == os.path.basename(second)
    assert (best['global_step'], best['negative_elbo']) == (4, 199.0)
    assert reports == [True, False, True]
    kept = sorted(name for name in os.listdir(best['folder']) if name.startswith('model.ckpt'))
    assert kept == ['model.ckpt-4.data-00000-of-00001', 'model.ckpt-4.index']
    reader = tf.train.load_checkpoint(os.path.join(best['folder'], best['checkpoint']))
    assert reader.get_tensor('global_step') == 4


def test_best_whose_checkpoint_is_gone_does_not_count(tmp_path):
    folder = tmp_path / 'export' / 'best'
    folder.mkdir(parents=True)
    state = {'negative_elbo': 1.0, 'global_step': 3, 'checkpoint': 'model.ckpt-3', 'export': '1'}
    (folder / 'best.json').write_text(json.dumps(state))
    assert export.read_best(str(tmp_path)) is None


def test_new_model_ckpt_restores_and_leaves_the_checkpoint_file_alone(trained):
    estimator, params = trained
    state_file = os.path.join(params.model_dir, 'checkpoint')
    with open(state_file) as f:
        before = f.read()
    prefix = export.save_weights(estimator, checkpoint(estimator, 4), params)
    with open(state_file) as f:
        assert f.read() == before
    names = {name for name in os.listdir(params.model_dir) if name.startswith('new_model')}
    assert names == {'new_model.ckpt' + end for end in ('.meta', '.index', '.data-00000-of-00001')}
    with tf.Graph().as_default(), tf.Session() as session:
        saver = tf.train.import_meta_graph(prefix + '.meta')
        saver.restore(session, prefix)
        reconstruction = session.run('predictions/Reshape:0', {'images:0': PIXELS})
    expected = predicted(estimator)['reconstruction']
    np.testing.assert_allclose(reconstruction, expected, atol=1e-6)


def test_images_drawn_from_the_prior_depend_on_the_seed_alone(trained):
    estimator, params = trained
    path = checkpoint(estimator, 4)
    one, two, other = [generate.draw_from_prior(3, seed, path, params) for seed in (7, 7, 8)]
    assert one.shape == (3, 28, 28, 1)
    assert one.min() >= 0 and one.max() <= 1
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 0
