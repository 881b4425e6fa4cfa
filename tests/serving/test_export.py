"""Exports: the best is kept across restarts, the served outputs are PREDICT's own."""

import collections
import dataclasses
import functools
import glob
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from absl import flags

from scripts.clients import in_tensorflow_1, table
from tests.support import serving_models, tiny
from trainer import export
from trainer.base.errors import UserError
from trainer.checkpoints import best_model, listing
from trainer.data import prepare
from trainer.monitoring import picture_files
from trainer.serving import plain_weights, saved_model, verify_export
from trainer.serving.golden import Golden
from trainer.settings import storage
from trainer.settings.table import HParams
from trainer.training.model_fn import model_fn

PIXELS = np.random.RandomState(0).rand(5, 8, 12).astype(np.float32)


def input_fn():
    dataset = tf.data.Dataset.from_tensors({'images': PIXELS})
    return dataset.repeat()


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    params = HParams(
        model_dir=str(tmp_path_factory.mktemp('model')), image_shape=(8, 12, 1), latent_size=2,
        lstm_units=4, decoder_units=8, decoder_channels=2, batch_size=5, max_steps=4, num_threads=1,
    )  # fmt: skip
    storage.save(params)
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
    folder = saved_model.export_saved_model('final', checkpoint(estimator, 4), params)
    expected, actual = predicted(estimator), served(folder, signature)
    assert {'mean', 'scale'} <= set(actual)
    assert ('reconstruction' in actual) == (signature == 'serving_default')
    for name, value in actual.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)
    assert folder.startswith(os.path.join(params.model_dir, 'export', 'final'))


def posterior_of(folder, images):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.saved_model.load(session, [tf.saved_model.SERVING], folder)
        return session.run(['encode/mean:0', 'encode/scale:0'], {'images:0': images})


@pytest.mark.parametrize('prior', ['mixture', pytest.param('vamp', marks=pytest.mark.slow)])
def test_served_kl_from_a_learned_prior_is_that_of_a_thousand_samples(tmp_path, prior):
    path, params = serving_models.write_model(tmp_path, inactive=1, prior=prior, prior_components=6)
    folder = saved_model.export_saved_model('final', path, params)
    weights = tf.train.load_checkpoint(path).get_tensor
    if prior == 'vamp':
        pseudo_inputs = scipy.special.expit(weights('prior/pseudo_inputs'))
        mean, scale = posterior_of(folder, pseudo_inputs)
        log_weights = np.full([6], -np.log(6))
    else:
        mean = weights('prior/mean')
        scale = np.log1p(np.exp(weights('prior/raw_scale'))) + 0.02
        log_weights = scipy.special.log_softmax(weights('prior/raw_log_weights'))

    images = serving_models.images_of(params, 100)
    post_mean, post_scale = posterior_of(folder, images)
    noise = np.random.RandomState(5).standard_normal([100, 1000, 3])
    latents = post_mean[:, np.newaxis] + post_scale[:, np.newaxis] * noise
    log_posterior = scipy.stats.norm.logpdf(noise) - np.log(post_scale)[:, np.newaxis]
    by_component = [
        weight + scipy.stats.norm.logpdf(latents, m, s).sum(axis=-1)
        for weight, m, s in zip(log_weights, mean, scale)
    ]
    log_ratio = log_posterior.sum(axis=-1) - scipy.special.logsumexp(by_component, axis=0)
    expected = log_ratio.mean(axis=1)

    with tf.Graph().as_default(), tf.Session() as session:
        meta_graph = tf.saved_model.load(session, [tf.saved_model.SERVING], folder)
        outputs = meta_graph.signature_def['serving_default'].outputs
        served = session.run(
            {name: info.name for name, info in outputs.items()}, {'images:0': images}
        )
    assert served['kl_divergence'].mean() == pytest.approx(expected.mean(), abs=0.1)
    np.testing.assert_allclose(served['kl_divergence'], expected, atol=1.0)
    np.testing.assert_allclose(
        served['negative_elbo'], served['reconstruction_loss'] + served['kl_divergence'], rtol=1e-5
    )


@pytest.mark.slow
def test_an_export_holds_what_a_vamp_prior_encodes_to_not_its_pseudo_inputs(tmp_path):
    path, params = serving_models.write_model(tmp_path, prior='vamp', prior_components=6)
    folder = saved_model.export_saved_model('final', path, params)
    names = [
        name for name, _ in tf.train.list_variables(os.path.join(folder, 'variables', 'variables'))
    ]
    assert names
    assert not [name for name in names if 'prior' in name]


def test_best_is_exported_from_the_first_and_remembered_by_another_exporter(trained):
    estimator, params = trained
    reports = []

    def evaluated(step, value):
        exporter = tiny.best_exporter(params, lambda metrics, best: reports.append(best))
        return exporter.export(
            estimator,
            os.path.join(params.model_dir, 'export', exporter.name),
            checkpoint(estimator, step),
            {'negative_elbo': np.float32(value), 'global_step': np.int64(step)},
            is_the_final_export=False,
        )

    assert best_model.read_best(params.model_dir) is None
    first = evaluated(2, 200.0)
    assert os.path.exists(os.path.join(first, 'saved_model.pb'))
    assert evaluated(4, 201.0) is None
    assert best_model.read_best(params.model_dir)['global_step'] == 2
    second = evaluated(4, 199.0)
    best = best_model.read_best(params.model_dir)
    assert best['export'] == os.path.basename(second)
    assert (best['global_step'], best['negative_elbo']) == (4, 199.0)
    assert reports == [True, False, True]
    kept = sorted(name for name in os.listdir(best['folder']) if name.startswith('model.ckpt'))
    assert kept == ['model.ckpt-4.data-00000-of-00001', 'model.ckpt-4.index']
    reader = tf.train.load_checkpoint(os.path.join(best['folder'], best['checkpoint']))
    assert reader.get_tensor('global_step') == 4


def test_a_checkpoint_that_is_gone_when_it_is_evaluated_is_no_best(trained, tmp_path, capsys):
    estimator, params = trained
    params = dataclasses.replace(params, model_dir=str(tmp_path))
    exporter = tiny.best_exporter(params, lambda metrics, best: None)
    folder = str(tmp_path / 'export' / 'best')
    metrics = {'negative_elbo': np.float32(9), 'global_step': np.int64(3)}
    assert exporter.export(estimator, folder, checkpoint(estimator, 3), metrics, False) is None
    assert best_model.read_state(str(tmp_path)) == {}
    assert 'model.ckpt-3 is the best so far, but was removed' in capsys.readouterr().err


def test_best_whose_checkpoint_is_gone_does_not_count(tmp_path):
    folder = tmp_path / 'export' / 'best'
    folder.mkdir(parents=True)
    state = {'negative_elbo': 1.0, 'global_step': 3, 'checkpoint': 'model.ckpt-3', 'export': '1'}
    (folder / 'best.json').write_text(json.dumps(state))
    assert best_model.read_best(str(tmp_path)) is None


@pytest.mark.parametrize(
    'content',
    [
        '',
        '{"negative_elbo": 9',
        '[]',
        '{"checkpoint": 5}',
        '{"checkpoint": "model.ckpt-2"}',
        '{"evaluated_step": 5}',
        '{"evaluated_step": 5, "evaluations_since_best": null}',
    ],  # fmt: skip
)
def test_a_damaged_state_is_set_aside_and_the_next_export_is_the_best(tmp_path, capsys, content):
    path = tmp_path / 'export' / 'best' / 'best.json'
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UserError, match='best.json'):
        best_model.read_state(str(tmp_path))

    best_model.repair_state(HParams(model_dir=str(tmp_path)))

    assert best_model.read_state(str(tmp_path)) == {}
    assert path.with_name('best.json.damaged').read_text() == content
    said = capsys.readouterr().err
    assert str(path) in said and 'set aside as best.json.damaged' in said
    best_model.repair_state(HParams(model_dir=str(tmp_path)))
    assert capsys.readouterr().err == ''


def test_a_best_model_whose_checkpoint_is_damaged_is_none(trained, tmp_path, capsys):
    estimator, _ = trained
    folder = tmp_path / 'export' / 'best'
    folder.mkdir(parents=True)
    name = listing.keep_checkpoint(checkpoint(estimator, 2), str(folder))
    state = {'negative_elbo': 9.5, 'global_step': 2, 'checkpoint': name, 'export': '1'}
    best_model.write_state(str(tmp_path), state)
    best_model.repair_state(HParams(model_dir=str(tmp_path)))
    assert best_model.read_best(str(tmp_path))['global_step'] == 2
    (folder / (name + '.data-00000-of-00001')).write_bytes(b'')
    best_model.repair_state(HParams(model_dir=str(tmp_path)))
    assert best_model.read_best(str(tmp_path)) is None
    assert '{} is damaged'.format(folder / name) in capsys.readouterr().err


def test_new_model_ckpt_restores_and_leaves_the_checkpoint_file_alone(trained):
    estimator, params = trained
    state_file = os.path.join(params.model_dir, 'checkpoint')
    with open(state_file) as f:
        before = f.read()
    prefix = plain_weights.save_weights(estimator, checkpoint(estimator, 4), params)
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
    one, two, other = [picture_files.draw_from_prior(3, seed, path, params) for seed in (7, 7, 8)]
    assert one.shape == (3, 8, 12, 1)
    assert one.min() >= 0 and one.max() <= 1
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 0


# Folders.


@pytest.fixture
def untrained(tmp_path):
    return serving_models.write_model(tmp_path)


def numbers(folder):
    return sorted(int(name) for name in os.listdir(folder) if name.isdigit())


@pytest.mark.slow
def test_only_the_newest_exports_of_best_models_stay(untrained):
    checkpoint_path, params = untrained
    params = dataclasses.replace(params, exports_to_keep=2)
    exporter = tiny.best_exporter(params, lambda metrics, best: None)
    folder = os.path.join(params.model_dir, 'export', 'best')
    made = []
    for value in (9.0, 8.0, 8.5, 7.0, 6.0):
        result = {'negative_elbo': value, 'global_step': 4}
        made.append(exporter.export(None, folder, checkpoint_path, result, False))
    assert made[2] is None
    kept = [os.path.basename(made[3]), os.path.basename(made[4])]
    assert numbers(folder) == sorted(int(name) for name in kept)
    assert best_model.read_best(params.model_dir)['export'] == kept[1]
    assert [name for name in os.listdir(folder) if name.startswith('temp')] == []
    with open(os.path.join(made[4], 'assets.extra', 'README.md')) as f:
        assert 'validation negative ELBO 6.00 nats per example (grey levels)' in f.read()


@pytest.mark.slow
def test_a_reader_sees_a_whole_export_or_none(untrained, monkeypatch):
    checkpoint_path, params = untrained
    folder = os.path.join(params.model_dir, 'export', 'final')
    real = saved_model.files.write_bytes

    def write(path, content):
        assert numbers(folder) == []  # At each file on the way.
        if path.endswith('README.md'):
            raise KeyboardInterrupt
        return real(path, content)

    monkeypatch.setattr(saved_model.files, 'write_bytes', write)
    with pytest.raises(KeyboardInterrupt):
        saved_model.export_saved_model('final', checkpoint_path, params)
    assert os.listdir(folder) == []


@pytest.mark.slow
def test_two_exports_in_a_second_have_names_in_order(untrained, monkeypatch):
    checkpoint_path, params = untrained
    monkeypatch.setattr(saved_model.time, 'time', lambda: 1234567890.5)
    made = [saved_model.export_saved_model('final', checkpoint_path, params) for _ in range(2)]
    assert [os.path.basename(path) for path in made] == ['1234567890', '1234567891']


# The command.


@pytest.fixture
def command(untrained, monkeypatch, capsys, tmp_path_factory):
    """Runs `trainer.export` with these flags; returns the lines that it prints."""
    _, params = untrained
    data = tiny.write_data(tmp_path_factory.mktemp('data'), params.image_shape)
    monkeypatch.setattr(prepare, 'of_run', lambda *_, **__: data)

    def run(**given):
        flag_values = flags.FlagValues()
        with monkeypatch.context() as patched:
            patched.setattr(flags, 'FLAGS', flag_values)
            for define in ('DEFINE_string', 'DEFINE_enum', 'DEFINE_boolean'):
                real = getattr(flags, define)
                patched.setattr(flags, define, functools.partial(real, flag_values=flag_values))
            patched.setattr(flags, 'adopt_module_key_flags', lambda module: None)
            export.define_flags()
            given = dict({'model_dir': params.model_dir}, **given)
            flag_values(['x'] + ['--{}={}'.format(*item) for item in given.items()])
            export.main([])
        return capsys.readouterr().out.split()

    return run


def names_served(folder):
    with tf.Graph().as_default(), tf.Session() as session:
        return set(tf.saved_model.load(session, ['serve'], folder).signature_def)


def assert_verified(folder):
    golden = verify_export.read_golden(os.path.join(folder, 'assets.extra', 'golden.npz'))
    calls = in_tensorflow_1.raw_session(folder)
    assert set(calls) == set(golden)
    results = table.checked(calls, {name: Golden(**example) for name, example in golden.items()})
    assert [result.get('error') for result in results.values()] == [None] * len(golden)


def test_command_exports_the_last_checkpoint_and_a_flat_copy(command, untrained, tmp_path):
    _, params = untrained
    flat_dir = str(tmp_path / 'flat' / 'model')
    exported, flat = command(flat_dir=flat_dir)
    assert os.path.dirname(exported) == os.path.join(params.model_dir, 'export', 'final')
    assert flat == flat_dir
    assert sorted(os.listdir(flat)) == sorted(os.listdir(exported))
    assert_verified(flat)
    with pytest.raises(UserError, match='--flat_dir={} is there already'.format(flat_dir)):
        command(flat_dir=flat_dir)
    assert len(numbers(os.path.dirname(exported))) == 1  # Refused before exporting.


@pytest.mark.parametrize('signature', ['encode', 'decode'])
@pytest.mark.slow
def test_command_exports_one_signature_as_the_default(command, untrained, signature):
    _, params = untrained
    (exported,) = command(signature=signature)
    assert os.path.dirname(exported) == os.path.join(params.model_dir, 'export', signature)
    assert names_served(exported) == {'serving_default', signature}
    assert_verified(exported)
    graph_def = saved_graph(exported)
    parts = {node.name.split('/')[0] for node in graph_def.node if 'kernel' in node.name}
    assert parts == {'encoder' if signature == 'encode' else 'decoder'}


def saved_graph(folder):
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.saved_model.load(session, ['serve'], folder)
        return graph.as_graph_def()


def refusals(graph_def):
    """The texts of assertions that may fail."""
    nodes = {node.name: node for node in graph_def.node}
    conditions = [
        (nodes[node.input[0].split(':')[0]], nodes[node.input[1]])
        for node in graph_def.node
        if node.op == 'Assert'
    ]
    return sorted(
        bytes(text.attr['value'].tensor.string_val[0])
        for condition, text in conditions
        if condition.op != 'Const'
    )


@pytest.mark.slow
def test_export_of_low_latency_has_an_lstm_of_one_op_and_the_same_answers(command, untrained):
    _, params = untrained
    (plain,), (fast,) = command(), command(low_latency=True)
    assert os.path.dirname(fast) == os.path.join(params.model_dir, 'export', 'low_latency')
    # In a process that knows no op of tf.contrib yet.
    program = os.path.join(fast, 'assets.extra', 'verify_export.py')
    subprocess.run([sys.executable, program], check=True, stdout=subprocess.DEVNULL)
    expected, actual = [
        verify_export.read_golden(os.path.join(folder, 'assets.extra', 'golden.npz'))
        for folder in (plain, fast)
    ]
    assert expected.keys() == actual.keys()
    for signature, example in expected.items():
        for name, value in example['outputs'].items():
            other = actual[signature]['outputs'][name]
            np.testing.assert_allclose(other, value, rtol=1e-5, atol=1e-6, err_msg=signature)
    before, after = saved_graph(plain), saved_graph(fast)
    operations = collections.Counter(node.op for node in after.node)
    assert 'VarHandleOp' not in operations and 'Assert' in operations
    assert operations['BlockLSTM'] == 2  # Of arrays, and of files.
    assert len(after.node) < 0.5 * len(before.node)
    sizes = [
        sum(
            os.path.getsize(os.path.join(parent, name))
            for parent, _, files in os.walk(folder)
            for name in files
        )
        for folder in (plain, fast)
    ]
    assert sizes[1] < sizes[0]  # Each weight is there once.
    assert refusals(after) == refusals(before) != []


def test_command_takes_another_checkpoint_and_refuses_none_and_damaged_ones(
    command, untrained, tmp_path
):
    checkpoint_path, _ = untrained
    other = str(tmp_path / 'kept' / 'model.ckpt-4')
    os.mkdir(os.path.dirname(other))
    for part in glob.glob(checkpoint_path + '.*'):
        shutil.copy(part, os.path.dirname(other))
    (exported,) = command(checkpoint=other)
    assert_verified(exported)
    with pytest.raises(UserError, match='--checkpoint=nowhere: there is no such checkpoint'):
        command(checkpoint='nowhere')
    with open(other + '.data-00000-of-00001', 'rb+') as f:
        f.truncate(10)
    with pytest.raises(UserError, match='cannot be used .* give a whole checkpoint') as error:
        command(checkpoint=other)
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='holds no trained model'):
        command(model_dir=str(tmp_path / 'kept'))


def test_a_checkpoint_of_another_network_is_refused(command, tmp_path_factory):
    other, _ = serving_models.write_model(tmp_path_factory.mktemp('x'), serving_models.COLOUR)
    with pytest.raises(UserError, match=r'decoder/dense_3/kernel is \[8, 4\] in it, not \[8, 12\]'):
        command(checkpoint=other)


@pytest.mark.slow
def test_command_exports_without_thresholds_where_the_data_is_gone(command, monkeypatch, capsys):
    def gone(*_, **__):
        raise UserError('--data_dir=nowhere holds no mnist.')

    (with_thresholds,) = command()
    assert {'score', 'score_png'} <= names_served(with_thresholds)
    monkeypatch.setattr(prepare, 'of_run', gone)
    with pytest.raises(UserError, match='--data_dir=nowhere'):
        command(signature='score')
    (exported,) = command()
    assert names_served(exported) == names_served(with_thresholds) - {'score', 'score_png'}
    assert_verified(exported)
    command(signature='encode')


def test_warmup_without_its_package_says_what_to_install(command, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow_serving.apis', None)
    with pytest.raises(UserError, match='pip install tensorflow-serving-api==1.14.0'):
        command(warmup=True)


def test_the_model_card_restores_settings_that_were_damaged(trained, tmp_path):
    estimator, params = trained
    params = dataclasses.replace(params, model_dir=str(tmp_path))
    path = storage.save(params)
    folder = saved_model.export_saved_model('final', checkpoint(estimator, 4), params)
    with open(path, 'w') as f:
        f.write('{"batch_size": 5, ')
    with pytest.raises(UserError, match=r'valid JSON .*export/\*/\*/assets\.extra/README\.md'):
        storage.load(str(tmp_path))
    with open(os.path.join(folder, 'assets.extra', 'README.md')) as f:
        card = f.read()
    with open(path, 'w') as f:
        f.write(card[card.index('```json') + len('```json') : card.rindex('```')])
    assert storage.trained(str(tmp_path)) == params
