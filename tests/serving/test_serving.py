"""The served graph: right answers in TensorFlow 1.14's clients, and clear ones to bad input."""

import concurrent.futures
import functools
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from scripts.clients import in_tensorflow_1, reference, table
from tests.support import serving_models
from trainer.base.errors import UserError
from trainer.serving import saved_model, signatures, verify_export
from trainer.serving.client import Export
from trainer.serving.saved_model import Options
from trainer.serving.signatures import DEFAULT


@pytest.fixture(scope='module')
def grey(tmp_path_factory):
    return serving_models.write_export(tmp_path_factory.mktemp('grey'))


@functools.lru_cache(maxsize=4)
def loaded(export_dir):
    return in_tensorflow_1.raw_session(export_dir)


@pytest.mark.slow
def test_every_client_of_tensorflow_1_answers_as_predict_and_the_decoder_do(grey):
    export_dir, checkpoint_path, params = grey
    images = serving_models.pixels_of(params, 6)
    validation = serving_models.validation_of(params)
    golden = reference.answers(images, validation, checkpoint_path, params)
    results = table.by_tensorflow_1(export_dir, golden)
    assert len(results) == 6
    text = table.markdown(results, table.impossible(low_latency=False))
    assert 'FAILED' not in text, text
    assert text.count('not possible') == 3  # Scalars in REST's rows, and nothing else.


@pytest.mark.slow
def test_colour_images_are_served_with_a_channel_axis(tmp_path):
    export_dir, checkpoint_path, params = serving_models.write_export(
        tmp_path, serving_models.COLOUR
    )
    images = serving_models.pixels_of(params, 6)
    validation = serving_models.validation_of(params)
    golden = reference.answers(images, validation, checkpoint_path, params)
    assert golden['reconstruct'].outputs['reconstruction'].shape == (6, 8, 4, 3)
    results = table.checked(loaded(export_dir), golden)
    assert [result.get('error') for result in results.values()] == [None] * 12


def test_a_wrong_answer_and_an_impossible_one_that_works_fail_in_the_table():
    golden = {'inputs': {'x': np.zeros([2])}, 'outputs': {'y': np.array([1.0, 300.0])}}

    def verdict(answer, client='raw session', signature='generate'):
        result = verify_export.check(lambda inputs: {'y': answer}, golden, 1e-4)
        return table.verdict(client, signature, result, table.impossible(low_latency=False))

    assert verdict(np.array([1.0, 300.01])) == 'ok'
    assert verdict(np.array([1.0, 300.1])).startswith('FAILED: off by 3.3e-04')
    assert verdict(np.array([1.0, np.nan])).startswith('FAILED')
    assert verdict(np.array([1.0])).startswith('FAILED')
    assert verdict(np.array([1.0, 300.0]), 'OpenVINO').startswith('FAILED: should say')
    assert 'does not offer' in verify_export.check(None, golden, 1e-4)['error']


def test_generate_depends_on_the_seed_alone_and_temperature_scales_the_draws(grey):
    export_dir, _, params = grey
    calls = loaded(export_dir)

    def drawn(seed, count=4, **more):
        name = 'generate_at_temperature' if more else 'generate'
        inputs = dict(more, seed=np.int32(seed), count=np.int32(count))
        return calls[name](inputs)['images']

    assert drawn(3).shape == (4, 8, 12)
    np.testing.assert_array_equal(drawn(3), drawn(3))
    assert np.abs(drawn(3) - drawn(4)).max() > 1e-3
    np.testing.assert_array_equal(drawn(3), drawn(3, temperature=np.float32(1)))
    cold = drawn(3, temperature=np.float32(0))
    prior_mean = calls['decode']({'latents': np.zeros([1, 3], np.float32)})['images']
    np.testing.assert_allclose(cold, np.repeat(prior_mean, 4, axis=0), atol=1e-6)


def test_interpolations_begin_and_end_at_the_reconstructions(grey):
    export_dir, _, params = grey
    images = serving_models.images_of(params, 3)
    calls = loaded(export_dir)
    between = calls['interpolate']({'images': images, 'steps': np.int32(5)})['interpolations']
    reconstruction = calls['reconstruct']({'images': images})['reconstruction']
    assert between.shape == (2, 5, 8, 12)
    np.testing.assert_allclose(between[:, 0], reconstruction[:-1], atol=1e-6)
    np.testing.assert_allclose(between[:, -1], reconstruction[1:], atol=1e-6)


def test_jpeg_files_and_colours_are_read_too(grey):
    export_dir, _, params = grey
    pixels = np.full(params.image_shape[:2] + (3,), 102, np.uint8)
    with tf.Graph().as_default(), tf.Session() as session:
        encoded = [tf.image.encode_jpeg(pixels, quality=100), tf.image.encode_png(pixels)]
        contents = np.array(session.run(encoded), object)
    calls = loaded(export_dir)
    mean = calls['reconstruct_png']({'image_bytes': contents})['mean']
    grey_image = np.full([1] + params.served_shape, 0.4, np.float32)
    expected = calls['encode']({'images': grey_image})['mean']
    np.testing.assert_allclose(mean, np.repeat(expected, 2, axis=0), atol=1e-4)


# Bad input.

RANGE = 'images must hold numbers in [0, 1]: divide bytes by 255'


@pytest.mark.parametrize(
    ('signature', 'inputs', 'message'),
    [
        ('encode', {'images': np.full([2, 8, 12], 1.5)}, RANGE),
        ('encode', {'images': np.full([2, 8, 12], -0.1)}, RANGE),
        ('reconstruct', {'images': np.full([2, 8, 12], np.nan)}, RANGE),
        ('decode', {'latents': np.full([2, 3], np.inf)}, 'latents must be finite numbers'),
        ('generate', {'count': [3], 'seed': 1}, 'count must be a scalar'),
        ('generate', {'count': 3, 'seed': [[1]]}, 'seed must be a scalar'),
        ('interpolate', {'images': np.zeros([2, 8, 12]), 'steps': [3]}, 'steps must be a scalar'),
        ('generate', {'count': -1, 'seed': 1}, 'count must be from 0 to 10,000'),
        ('generate', {'count': 10001, 'seed': 1}, 'count must be from 0 to 10,000'),
        (
            'interpolate',
            {'images': np.zeros([2, 8, 12]), 'steps': 1},
            'steps must be from 2 to 1,000',
        ),
        (
            'generate_at_temperature',
            {'count': 1, 'seed': 1, 'temperature': -1},
            'temperature must be from 0 to 1,000,000',
        ),
        ('reconstruct_png', {'image_bytes': [b'no image']}, 'must hold PNG or JPEG files'),
    ],
)
def test_bad_values_are_refused_by_name(grey, signature, inputs, message):
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        loaded(grey[0])[signature](inputs)
    assert message in error.value.message


def test_an_image_file_of_another_size_is_refused(grey):
    with tf.Graph().as_default(), tf.Session() as session:
        content = session.run(tf.image.encode_png(np.zeros([12, 8, 1], np.uint8)))
    with pytest.raises(tf.errors.InvalidArgumentError, match='images of 8 x 12 pixels'):
        loaded(grey[0])['reconstruct_png']({'image_bytes': [content]})


@pytest.mark.parametrize('shape', [(2, 12, 8), (2, 96), (2, 8, 12, 1), (96,), (), (2, 4, 24)])
def test_wrong_shapes_are_refused_in_the_graph(grey, shape):
    """As in TF Serving: Python's own check of what it feeds is left out, by another placeholder."""
    export_dir, _, _ = grey
    with tf.Graph().as_default(), tf.Session() as session:
        anything = tf.placeholder(tf.float32, None)
        typed = tf.placeholder_with_default(anything, None)
        typed.set_shape([None, 8, 12])  # What the static shape says, and what the optimiser sees.
        model = tf.saved_model.load(
            session, [tf.saved_model.SERVING], export_dir, input_map={'images:0': typed}
        )
        mean = model.signature_def['encode'].outputs['mean'].name
        right = session.run(mean, {anything: np.zeros([2, 8, 12])})
        assert right.shape == (2, 3)
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            session.run(mean, {anything: np.zeros(shape)})
    assert 'images must have the shape [n, 8, 12]' in error.value.message


def without_asserts(export_dir, signature):
    """The signature as other runtimes run it: control dependencies, and so Asserts, left out."""
    with tf.Graph().as_default(), tf.Session() as session:
        definition = tf.saved_model.load(
            session, [tf.saved_model.SERVING], export_dir
        ).signature_def[signature]
        names = [info.name.split(':')[0] for info in definition.outputs.values()]
        graph_def = tf.graph_util.convert_variables_to_constants(
            session, session.graph.as_graph_def(), names
        )
    for node in graph_def.node:
        kept = [name for name in node.input if not name.startswith('^')]
        del node.input[:]
        node.input.extend(kept)
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name='')
    (fed,) = definition.inputs.values()
    fetched = {name: info.name for name, info in definition.outputs.items()}
    return lambda values: tf.Session(graph=graph).run(fetched, {fed.name: values})


@pytest.mark.parametrize('bad_value', [1.01, -0.01, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('signature', ['serving_default', 'encode', 'decode'])
def test_without_asserts_just_the_bad_example_is_nan_in_every_output(grey, signature, bad_value):
    if signature == 'decode' and np.isfinite(bad_value):
        bad_value = np.nan  # Every finite latent is a good one.
    export_dir, _, params = grey
    values = serving_models.images_of(params, 3)
    if signature == 'decode':
        values = np.random.RandomState(0).standard_normal([3, 3])
    run = without_asserts(export_dir, signature)
    good = run(values)
    values[1].flat[-1] = bad_value
    for name, value in run(values).items():
        assert np.all(np.isnan(value[1])), name
        np.testing.assert_allclose(value[[0, 2]], good[name][[0, 2]], rtol=1e-6, err_msg=name)


# Reliability.


@pytest.mark.parametrize('count', [0, 1, 10000])
def test_any_batch_size(grey, count):
    export_dir, _, params = grey
    images = serving_models.images_of(params, count)
    calls = loaded(export_dir)
    answer = calls['serving_default']({'images': images})
    assert answer['reconstruction'].shape == images.shape
    assert answer['negative_elbo'].shape == (count,)
    for at in {0, count // 2, count - 1} if count else ():
        one = calls['serving_default']({'images': images[at : at + 1]})
        for name in one:
            np.testing.assert_allclose(answer[name][at], one[name][0], rtol=1e-4, atol=1e-5)
    decoded = calls['decode']({'latents': answer['mean']})['images']
    np.testing.assert_allclose(decoded, answer['reconstruction'], atol=1e-5)
    files = np.array([], object)
    assert calls['reconstruct_png']({'image_bytes': files})['mean'].shape == (0, 3)


def test_a_thousand_calls_from_many_threads_each_have_their_own_answer(grey):
    export_dir, _, params = grey
    images = serving_models.images_of(params, 1000)
    calls = loaded(export_dir)
    expected = calls['serving_default']({'images': images})['negative_elbo']
    assert len(np.unique(expected)) > 900

    def ask(number):
        answer = calls['serving_default']({'images': images[number : number + 1]})
        return answer['negative_elbo'][0]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(1000)))
    np.testing.assert_allclose(answers, expected, rtol=1e-4)


def test_wrong_signatures_inputs_and_types_are_named(grey):
    export_dir, _, params = grey
    images = serving_models.images_of(params, 1)
    calls = loaded(export_dir)
    with pytest.raises(KeyError, match='other'):
        calls['other']({'images': images})
    with pytest.raises(KeyError, match='pictures'):
        calls['encode']({'pictures': images})
    with pytest.raises(ValueError, match='could not convert string to float'):
        calls['encode']({'images': np.full([1, 8, 12], 'a')})
    with tf.Graph().as_default(), tf.Session() as session:
        whole_numbers = tf.placeholder(tf.int32, [None, 8, 12])
        with pytest.raises((ValueError, TypeError), match='int32'):
            tf.saved_model.load(
                session, ['serve'], export_dir, input_map={'images:0': whole_numbers}
            )


@pytest.mark.parametrize(
    ('name', 'share'),
    [
        ('saved_model.pb', 0.5),
        ('saved_model.pb', 0),
        ('saved_model.pb', None),
        ('variables/variables.data-00000-of-00001', 0.5),
        ('variables/variables.index', 0),
        ('variables/variables.index', None),
    ],
)
def test_damaged_exports_end_in_one_sentence(grey, tmp_path, name, share):
    damaged = str(tmp_path / 'export')
    shutil.copytree(grey[0], damaged)
    path = os.path.join(damaged, name)
    if share is None:
        os.remove(path)
    else:
        with open(path, 'rb+') as f:
            f.truncate(int(share * os.path.getsize(path)))
    with pytest.raises(UserError) as error:
        Export(damaged)
    assert damaged in str(error.value)
    assert '\n' not in str(error.value)


# assets.extra.


def test_golden_outputs_are_checked_and_a_changed_weight_noticed(grey):
    export_dir, _, _ = grey
    golden = verify_export.read_golden(os.path.join(export_dir, 'assets.extra', 'golden.npz'))
    assert set(golden) == {DEFAULT, *signatures.NAMES}
    calls = loaded(export_dir)
    for name, example in golden.items():
        result = verify_export.check(calls[name], example, 1e-4)
        assert result.get('error') is None, (name, result)
    shifted = {kind: dict(values) for kind, values in golden['decode'].items()}
    shifted['inputs']['latents'] = shifted['inputs']['latents'] + 0.01
    assert 'off by' in verify_export.check(calls['decode'], shifted, 1e-4)['error']


def test_a_runtime_that_takes_bad_input_for_good_is_noticed(grey):
    golden = verify_export.read_golden(os.path.join(grey[0], 'assets.extra', 'golden.npz'))
    example = golden['encode']
    result = verify_export.check(lambda inputs: example['outputs'], example, 1e-4)
    assert result['error'] == 'gives numbers for bad input'


def test_model_card_tells_step_and_signatures(grey):
    with open(os.path.join(grey[0], 'assets.extra', 'README.md')) as f:
        card = f.read()
    assert 'global step 4.' in card
    assert 'Data: grey levels; pixels are numbers in [0, 1]' in card
    assert 'is no log-likelihood' in card
    assert '| `decode` | `latents` float32 [n, 3] | `images` float32 [n, 8, 12] |' in card
    for name in signatures.NAMES:
        assert '| `{}` |'.format(name) in card
    assert 'temp' not in card.replace('temperature', '')  # No path of this machine.


@pytest.mark.slow
def test_warmup_requests_are_records_that_the_export_answers(grey):
    from tensorflow_serving.apis import prediction_log_pb2

    _, checkpoint_path, params = grey
    options = Options(warmup=True)
    validation = serving_models.validation_of(params, 5)
    export_dir = saved_model.export_saved_model(
        'warm', checkpoint_path, params, options, validation=validation
    )
    calls = loaded(export_dir)
    path = os.path.join(export_dir, 'assets.extra', 'tf_serving_warmup_requests')
    names = []
    for record in tf.python_io.tf_record_iterator(path):
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        name = request.model_spec.signature_name
        names.append(name)
        calls[name]({key: tf.make_ndarray(value) for key, value in request.inputs.items()})
    assert sorted(names) == sorted((DEFAULT,) + signatures.NAMES)
