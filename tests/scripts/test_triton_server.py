"""Triton's server itself, started by `scripts/serve --triton`; see test_triton_repository.py."""

import concurrent.futures
import contextlib
import dataclasses
import glob
import json
import os
import re
import shutil
import signal
import time

import numpy as np
import psutil
import pytest
import requests

from scripts.clients import in_tensorflow_1, in_triton, reference, table
from tests.support import serving_models
from trainer.base.errors import UserError
from trainer.serving import saved_model
from trainer.serving.saved_model import Options

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def venv(tmp_path_factory):
    return os.environ.get('VAE_TRITON_VENV') or str(tmp_path_factory.mktemp('triton') / 'venv')


@contextlib.contextmanager
def served(venv, folder):
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(in_triton.served(venv, str(folder)))
        except UserError as error:
            if 'binary' in str(error) or 'Python 3.11' in str(error) or 'pip' in str(error):
                pytest.skip(str(error))
            raise
        yield server


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return serving_models.write_export(tmp_path_factory.mktemp('model'), (28, 28, 1))


def encode(server, images):
    tensor = {'name': 'images', 'shape': images.shape, 'datatype': 'FP32', 'data': images.tolist()}
    return post(server, json.dumps({'inputs': [tensor]}))


def post(server, body):
    return requests.post(f'http://{server.http}/v2/models/encode/infer', data=body, timeout=60)


def means_of(response):
    assert response.status_code == 200, response.text
    outputs = {output['name']: output for output in response.json()['outputs']}
    return np.reshape(outputs['mean']['data'], outputs['mean']['shape'])


@pytest.mark.parametrize(
    'settings, low_latency',
    [
        ({'image_shape': (28, 28, 1)}, False),
        ({'image_shape': (70, 13, 3)}, True),
        ({**serving_models.SERIES, 'image_shape': (28, 1, 2)}, False),
    ],
    ids=['mnist', 'long-and-odd', 'series'],
)
def test_triton_answers_as_predict_and_the_decoder_do(venv, settings, low_latency, tmp_path):
    checkpoint_path, params = serving_models.write_model(tmp_path / 'model', **settings)
    make = serving_models.images_of if params.is_series else serving_models.pixels_of
    validation = serving_models.validation_of(params)
    golden = reference.answers(make(params, 6), validation, checkpoint_path, params)
    export_dir = saved_model.export_saved_model(
        'final', checkpoint_path, dataclasses.replace(params, model_dir=str(tmp_path)),
        Options(low_latency=low_latency), validation=validation,
    )  # fmt: skip
    with served(venv, os.path.dirname(export_dir)) as server:
        results = {
            protocol: in_triton.results(server, protocol, golden) for protocol in ('http', 'grpc')
        }
    text = table.markdown(results, [])
    assert 'FAILED' not in text, text


def rss_of_group(group):
    """Returns the bytes of memory of the processes of a group."""
    pages = 0
    for path in glob.glob('/proc/[0-9]*/stat'):
        with contextlib.suppress(OSError), open(path) as f:
            fields = f.read().rsplit(')', 1)[1].split()
            if int(fields[2]) == group:
                pages += int(fields[21])
    return pages * os.sysconf('SC_PAGE_SIZE')


def child_of(process):
    (path,) = glob.glob(f'/proc/{process}/task/*/children')[:1]
    with open(path) as f:
        return int(f.read().split()[0])


def test_a_bad_request_fails_alone(venv, model):
    export_dir, _, params = model
    images = serving_models.images_of(params, 200).astype(np.float32)
    expected = in_tensorflow_1.raw_session(export_dir)['encode']({'images': images})['mean']
    with served(venv, os.path.dirname(export_dir)) as server:

        def ask(number):
            image = images[number : number + 1]
            bad = number % 10 == 3
            response = encode(server, image * 255 + 1 if bad else image)
            if bad:
                assert response.status_code == 400
                assert 'divide bytes by 255' in response.json()['error']
            else:
                np.testing.assert_allclose(
                    means_of(response), expected[number : number + 1], rtol=1e-4, atol=1e-4
                )

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(100)))
        assert rss_of_group(child_of(server.process.pid)) < 2e9
        # Nobody who may ask may read shared memory, or load a model.
        for path in ('systemsharedmemory/region/x/register', 'logging'):
            url = f'http://{server.http}/v2/{path}'
            assert requests.post(url, json={}, timeout=60).status_code == 403
        url = f'http://{server.http}/v2/repository/models/encode/load'
        assert requests.post(url, json={}, timeout=60).status_code >= 400
        wrong = encode(server, images[:2].reshape(2, 784))
        assert wrong.status_code == 400 and 'Expected [-1,28,28]' in wrong.json()['error']
        assert 'nv_inference_count' in requests.get(f'http://{server.metrics}/metrics').text


def test_what_is_beyond_capacity_is_refused_at_once(venv, model):
    export_dir, _, params = model
    images = serving_models.images_of(params, 100).astype(np.float32)
    expected = in_tensorflow_1.raw_session(export_dir)['encode']({'images': images})['mean']
    tensor = {'name': 'images', 'shape': images.shape, 'datatype': 'FP32', 'data': images.tolist()}
    body = json.dumps({'inputs': [tensor]})
    with served(venv, os.path.dirname(export_dir)) as server:
        with concurrent.futures.ThreadPoolExecutor(48) as pool:
            responses = list(pool.map(lambda _: post(server, body), range(100)))
        codes = [response.status_code for response in responses]
        assert set(codes) == {200, 503}
        refused = responses[codes.index(503)].json()['error']
        assert 'busy: ask again later' in refused
        np.testing.assert_allclose(
            means_of(responses[codes.index(200)]), expected, rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(means_of(post(server, body)), expected, rtol=1e-4, atol=1e-4)


def test_a_newer_export_is_served_once_it_is_whole(venv, model, tmp_path):
    export_dir, _, params = model
    images = serving_models.images_of(params, 3).astype(np.float32)
    newer_dir, _, _ = serving_models.write_export(tmp_path / 'other', (28, 28, 1), inactive=2)
    before, after = (
        in_tensorflow_1.raw_session(path)['encode']({'images': images})['mean']
        for path in (export_dir, newer_dir)
    )
    assert np.abs(before - after).max() > 0.01
    folder = tmp_path / 'exports with a space'
    folder.mkdir()
    shutil.copytree(export_dir, str(folder / '100'))
    with served(venv, folder) as server:
        (folder / '300').mkdir()
        (folder / '300' / 'saved_model.pb').write_bytes(b'half')
        shutil.copytree(newer_dir, str(folder / 'temp-200'))
        (folder / 'temp-200').rename(folder / '200')
        deadline = time.monotonic() + 300
        means = means_of(encode(server, images))
        while np.abs(means - after).max() > 1e-3 and time.monotonic() < deadline:
            np.testing.assert_allclose(means, before, rtol=1e-4, atol=1e-4)
            time.sleep(0.05)
            means = means_of(encode(server, images))
        np.testing.assert_allclose(means, after, rtol=1e-4, atol=1e-4)


def test_nothing_runs_on_where_the_launcher_was_killed(venv, model):
    with served(venv, os.path.dirname(model[0])) as server:
        launcher = psutil.Process(server.process.pid)
        processes = launcher.children(recursive=True)
        assert len(processes) > 1  # Triton, and what answers for it.
        launcher.kill()
        assert not psutil.wait_procs(processes, timeout=30)[1]


def test_the_server_ends_when_its_requests_are_answered(venv, model):
    export_dir, _, params = model
    images = serving_models.images_of(params, 100).astype(np.float32)
    with served(venv, os.path.dirname(export_dir)) as server:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            with open(f'/proc/{child_of(server.process.pid)}/cmdline') as f:
                (models,) = re.findall('--model-repository=([^\0]*)', f.read())
            assert os.path.exists(models)
            asked = [pool.submit(encode, server, images) for _ in range(8)]
            time.sleep(0.05)
            server.process.send_signal(signal.SIGTERM)
            answered = [future.result() for future in asked if not future.exception()]
        # Others may have come when nobody was listening any more.
        assert answered and all(response.status_code == 200 for response in answered)
        assert server.process.wait(60) == 0
    assert not os.path.exists(models)
