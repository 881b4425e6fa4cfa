"""The export in other runtimes, of the newest versions on the registry."""

import base64
import collections
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from concurrent import futures

import numpy as np
import pytest
import requests

from scripts.clients import __main__ as program
from scripts.clients import environment, in_other_runtimes, in_tensorflow_1, reference, table
from tests.support import own, serving_models
from tests.support.paths import ROOT
from trainer.base import image_files
from trainer.base.errors import UserError
from trainer.serving import client

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def python(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('clients'))
    try:
        return environment.make('--clients_env', folder, environment.RUNTIMES)
    except UserError as error:
        pytest.skip('no environment for other runtimes: {}'.format(error))


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    # Of MNIST's size: other runtimes have optimisations for common shapes.
    return serving_models.write_export(tmp_path_factory.mktemp('model'), (28, 28, 1))


@pytest.mark.parametrize('prior', ['mixture', 'flow', 'vamp'])
def test_an_export_draws_from_a_learned_prior_as_the_reference_does(prior, tmp_path):
    export_dir, checkpoint_path, params = serving_models.write_export(
        tmp_path, prior=prior, prior_components=4
    )
    images = serving_models.pixels_of(params, 6)
    validation = serving_models.validation_of(params)
    golden = reference.answers(images, validation, checkpoint_path, params)
    results = table.checked(in_tensorflow_1.raw_session(export_dir), golden)
    assert {name: result.get('error') for name, result in results.items()} == dict.fromkeys(golden)


# Long and odd: a loop over rows, and sides that are cropped. A series has no signatures of files.
@pytest.mark.parametrize(
    'settings, low_latency, not_possible',
    [
        ({'image_shape': (28, 28, 1)}, False, 11),
        ({'image_shape': (28, 28, 1), 'prior': 'flow', 'decoder_activation': 'gated'}, False, 11),
        ({'image_shape': (70, 13, 3)}, False, 11),
        ({'image_shape': (70, 13, 3)}, True, 16),
        ({**serving_models.SERIES, 'image_shape': (28, 1, 2)}, False, 5),
    ],
    ids=['mnist', 'flow', 'long-and-odd', 'low-latency', 'series'],
)
def test_other_runtimes_answer_as_predict_and_the_decoder_do(
    python, settings, low_latency, not_possible, tmp_path
):
    checkpoint_path, params = serving_models.write_model(tmp_path / 'model', **settings)
    make = serving_models.images_of if params.is_series else serving_models.pixels_of
    images = make(params, 6)
    validation = serving_models.validation_of(params)
    golden = reference.answers(images, validation, checkpoint_path, params)
    of_exports = dataclasses.replace(params, model_dir=str(tmp_path))
    exports = program.exports_of(checkpoint_path, of_exports, validation, low_latency)
    results = table.by_other_runtimes(python, exports, golden)
    text = table.markdown(results, table.impossible(low_latency))
    assert 'FAILED' not in text, text
    # Random draws and image files in ONNX Runtime and OpenVINO; interpolate in OpenVINO, or what
    # has the LSTM in ONNX Runtime.
    assert text.count('not possible') == not_possible
    for by_name in results.values():
        for result in by_name.values():
            assert result.get('difference', 0.0) < 1e-4
        assert 'difference' in by_name['decode']


LITE = """
import sys
import numpy as np
import tensorflow as tf
export_dir, path, name = sys.argv[1:]
converter = tf.lite.TFLiteConverter.from_saved_model(export_dir, signature_keys=[name])
runner = tf.lite.Interpreter(model_content=converter.convert()).get_signature_runner(name)
golden = np.load(path)
outputs = runner(images=golden[name + '/inputs/images'])
for key in outputs:
    np.testing.assert_allclose(
        outputs[key], golden[name + '/outputs/' + key], rtol=1e-4, atol=1e-4, err_msg=key
    )
assert sorted(outputs) == ['mean', 'scale']
"""


def test_a_signature_runs_in_tensorflow_lite(python, model):
    export_dir, _, _ = model
    golden = os.path.join(export_dir, 'assets.extra', 'golden.npz')
    done = subprocess.run(
        [python, '-c', LITE, export_dir, golden, 'encode'],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={key: value for key, value in os.environ.items() if key != 'PYTHONPATH'},
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout.decode('utf-8', 'replace')


def scores_in(folder):
    return np.genfromtxt(str(folder / 'scores.csv'), delimiter=',', skip_header=2)[:, :5]


def test_predict_hears_of_a_server_what_it_does_of_the_export(python, model, tmp_path):
    export_dir, _, params = model
    pixels = serving_models.pixels_of(params, 130)
    sources = [
        own.write_array(tmp_path / 'bytes.npy', pixels),
        own.write_array(tmp_path / 'floats.npy', pixels / 255.0),
        own.write_folder(tmp_path / 'files', pixels[..., 0], '{:03}.png'),
    ]
    with in_other_runtimes.kserve(python, export_dir) as url:
        for number, source in enumerate(sources):
            for where in ('--url=' + url, '--export_dir=' + export_dir):
                folder = tmp_path / f'{where[2:5]}{number}'
                given = [f'--source={source}', where, f'--output={folder}', '--threshold=0.9']
                given += [f'--latents={folder}.npz'] + ['--explain'] * (number == 1)
                command = [sys.executable, '-m', 'trainer.predict', *given]
                subprocess.run(command, env=dict(os.environ, PYTHONPATH=ROOT), check=True)
            by_server, by_export = (scores_in(tmp_path / f'{w}{number}') for w in ('url', 'exp'))
            assert len(by_server) == 130
            columns = slice(0 if number < 2 else 1, 4)  # The names of files are no numbers.
            np.testing.assert_allclose(by_server[:, columns], by_export[:, columns], rtol=1e-4)
            np.testing.assert_allclose(by_server[:, 4], by_export[:, 4], atol=0.02)
            latents = [np.load(str(tmp_path / f'{w}{number}.npz')) for w in ('url', 'exp')]
            for name in ('mean', 'scale'):
                np.testing.assert_allclose(latents[0][name], latents[1][name], atol=1e-3)
    assert len(list((tmp_path / 'url1').glob('*-explanation.png'))) == 100


def test_kserve_refuses_bad_requests_with_a_reason_and_goes_on(python, model):
    export_dir, _, params = model
    images, pixels = serving_models.images_of(params, 2), serving_models.pixels_of(params, 2)
    with in_other_runtimes.kserve(python, export_dir) as url:

        def refusal(signature, inputs):
            request = {'signature_name': signature, 'inputs': inputs}
            response = requests.post(url + ':predict', json=request, timeout=60)
            assert response.status_code == 400
            return response.json()['error']

        assert 'divide bytes by 255' in refusal('encode', (2 * images + 1).tolist())
        assert 'shape [n, 28, 28]' in refusal('encode', images.reshape([2, 14, 56]).tolist())
        assert 'shape [n, 28, 28]' in refusal('encode', images.reshape([2, 784]).tolist())
        assert 'count must be a scalar' in refusal('generate', {'count': [3], 'seed': 1})
        assert 'steps must be a scalar' in refusal(
            'interpolate', {'images': images.tolist(), 'steps': [3]}
        )
        assert "no signature 'other'" in refusal('other', images.tolist())
        assert 'seed' in refusal('generate', {'count': 3})
        assert 'images must hold numbers' in refusal('encode', [['a']])
        range_of_int32 = 'must hold whole numbers from -2,147,483,648 to 2,147,483,647'
        assert 'count ' + range_of_int32 in refusal('generate', {'count': 2**32 + 3, 'seed': 1})
        assert 'seed ' + range_of_int32 in refusal('generate', {'count': 3, 'seed': 2**31})
        body = requests.post(url + ':predict', json=[1, 2], timeout=60)
        assert body.status_code == 400 and 'must be a JSON object' in body.json()['error']
        one = {'b64': base64.b64encode(image_files.encode_png(pixels[:1])[0]).decode('ascii')}
        assert 'image_bytes must have the shape [n]' in refusal('reconstruct_png', one)
        transparent = np.concatenate([np.repeat(pixels, 3, axis=3), pixels], axis=3)
        with pytest.raises(UserError, match='answered: .*without transparent pixels'):
            client.predict_by_rest(image_files.encode_png(transparent), 'score_png', url)
        with pytest.raises(UserError, match='answered: .*must hold PNG or JPEG files'):
            client.predict_by_rest([b'no image'], 'score_png', url)
        # Without a content type, as curl sends it.
        body = json.dumps({'instances': images.tolist()})
        rows = requests.post(url + ':predict', data=body, timeout=60).json()['predictions']
    expected = in_tensorflow_1.raw_session(export_dir)['reconstruct']({'images': images})
    for name, value in expected.items():
        np.testing.assert_allclose([row[name] for row in rows], value, rtol=1e-4, atol=1e-4)


@contextlib.contextmanager
def asked_for_health(url):
    """Asks whether the server is ready, again and again; yields how long that took, seconds."""
    found, is_over = [], threading.Event()

    def ask():
        while not is_over.wait(0.05):
            begin = time.monotonic()
            assert requests.get(url, timeout=30).json()['ready']
            found.append(time.monotonic() - begin)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()


def test_kserve_answers_many_clients_each_its_own(python, model):
    """Of several signatures, a bad one in ten: each hears of its own image, and nobody waits."""
    export_dir, _, params = model
    images = serving_models.images_of(params, 96)
    names = ['encode', 'score', 'serving_default']
    right = {name: in_tensorflow_1.raw_session(export_dir)[name]({'images': images})
             for name in names}  # fmt: skip

    def ask(number):
        name, row = names[number % 3], number % 96
        image = images[row] + (2.0 if number % 10 == 7 else 0.0)
        request = {'signature_name': name, 'instances': [image.tolist()]}
        response = requests.post(url + ':predict', json=request, timeout=60)
        if number % 10 == 7:
            assert response.status_code == 400 and 'divide bytes by 255' in response.json()['error']
            return 'bad'
        (answer,) = response.json()['predictions']
        assert set(answer) == set(right[name])
        for key, value in answer.items():
            # A score that is rounded otherwise may pass one that it counts.
            tolerance = 0.02 if key == 'quantile' else 1e-4
            np.testing.assert_allclose(value, right[name][key][row], tolerance, tolerance)
        return 'good'

    with in_other_runtimes.kserve(python, export_dir) as url:
        with asked_for_health(url) as seconds, futures.ThreadPoolExecutor(32) as clients:
            kinds = collections.Counter(clients.map(ask, range(960)))
        assert kinds == {'good': 864, 'bad': 96}
        assert np.median(seconds) < 0.3  # The threads of this process take most of it.
        # Not of rows, and so never joined.
        draws = [requests.post(url + ':predict', timeout=60, json={
            'signature_name': 'generate', 'inputs': {'count': 2, 'seed': seed},
        }).json()['outputs'] for seed in (1, 2, 1)]  # fmt: skip
        assert draws[0] == draws[2] != draws[1]
        assert requests.post(url + ':predict', data=b'{', timeout=60).status_code == 400
