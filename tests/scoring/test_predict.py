"""Prediction from image files, through an export and through a server; and what starts servers."""

import json
import os
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from scripts.clients import in_tensorflow_1
from scripts.servers import predict_protocol
from tests.support import serving_models
from tests.support.paths import ROOT
from trainer.base import image_files
from trainer.base.errors import UserError
from trainer.serving import client
from trainer.serving.client import Export


@pytest.fixture(scope='module')
def digits(model, tmp_path_factory):
    """A folder of three PNG files, and something else."""
    folder = tmp_path_factory.mktemp('digits')
    for number, content in enumerate(image_files.encode_png(serving_models.pixels_of(model[2], 3))):
        (folder / '{}.png'.format(number)).write_bytes(content)
    (folder / 'notes.txt').write_text('no image')
    return folder


@pytest.fixture(scope='module')
def expected(model):
    images = serving_models.images_of(model[2], 3)
    return in_tensorflow_1.raw_session(model[0])['reconstruct']({'images': images})


def run(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, '-m', 'trainer.predict'] + list(arguments),
        capture_output=True,
        text=True,
        env=dict(os.environ, PYTHONPATH=ROOT),
    )
    assert done.returncode == code, done.stderr
    assert 'Traceback' not in done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.mark.parametrize('source', ['export', 'server'])
def test_scores_are_printed_and_everything_saved(
    model, digits, expected, url, tmp_path, source, monkeypatch
):
    where = '--export_dir=' + model[0] if source == 'export' else '--url=' + url
    output = run('--images={}'.format(digits), where, '--output={}'.format(tmp_path / 'out'))
    lines = output.split('\n')[1:4]
    assert [line.split()[-1] for line in lines] == [
        str(digits / n) for n in ('0.png', '1.png', '2.png')
    ]
    scores = [float(line.split()[0]) for line in lines]
    np.testing.assert_allclose(scores, expected['negative_elbo'], atol=0.006)
    with open(tmp_path / 'out' / 'results.json') as f:
        results = json.load(f)
    for name in ('negative_elbo', 'mean', 'scale'):
        values = [row[name] for row in results]
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-4)
    with open(results[2]['reconstruction_file'], 'rb') as f:
        content = f.read()
    with tf.Graph().as_default(), tf.Session() as session:
        picture = session.run(tf.image.decode_png(content))
    np.testing.assert_allclose(picture[..., 0] / 255, expected['reconstruction'][2], atol=0.003)


@pytest.mark.parametrize('batch', [1, 2])
def test_batches_are_put_together_in_order(
    model, digits, expected, batch, monkeypatch, capsys, ask
):
    monkeypatch.setattr(client, 'BATCH', batch)
    ask(digits, model[0])
    captured = capsys.readouterr()
    scores = [float(line.split()[0]) for line in captured.out.split('\n')[1:4]]
    np.testing.assert_allclose(scores, expected['negative_elbo'], atol=0.006)
    assert (
        'left out what does not end in .png, .jpg, .jpeg, .bmp or .gif: notes.txt' in captured.err
    )


def strict_json(path):
    """As readers of other languages read it."""

    def refuse(constant):
        raise ValueError(constant)

    with open(str(path)) as f:
        return json.load(f, parse_constant=refuse)


def pixels(path):
    with open(path, 'rb') as f:
        return np.array(Image.open(f))


def test_images_of_one_name_have_a_picture_each(model, digits, expected, tmp_path, ask):
    places = ['a/0.png', 'b/0.png', 'c/0.PNG', 'c/0-2.png', '0.jpg', 'C/0.png']
    for number, place in enumerate(places):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        shutil.copy(str(digits / '{}.png'.format(number % 3)), str(tmp_path / place))
    images = ','.join(str(tmp_path / place) for place in places)
    ask(images, model[0], output=tmp_path / 'out')
    results = strict_json(tmp_path / 'out' / 'results.json')
    assert [row['file'] for row in results] == images.split(',')
    written = [row['reconstruction_file'] for row in results]
    assert len({path.lower() for path in written}) == len(places)
    for number, path in enumerate(written):
        wanted = expected['reconstruction'][number % 3]
        np.testing.assert_allclose(pixels(path) / 255, wanted, atol=0.003)


def test_files_without_scores_do_not_keep_the_others_back(
    model, digits, expected, tmp_path, ask, capsys
):
    folder = tmp_path / 'digits'
    shutil.copytree(str(digits), str(folder))
    (folder / '._0.png').write_bytes(b'\0\5\x16\7\0\2\0\0Mac OS X        ')  # As macOS leaves it.
    (folder / '1b.png').mkdir()
    Image.new('RGBA', (12, 8)).save(str(folder / '2b.png'))
    with pytest.raises(UserError, match='3 of 6 files have no scores'):
        ask(folder, model[0], output=tmp_path / 'out')
    captured = capsys.readouterr()
    for name in ('._0.png', '1b.png', '2b.png'):
        assert captured.err.count('--images={}'.format(folder / name)) == 1
    assert captured.out.count('.png') == 3
    results = strict_json(tmp_path / 'out' / 'results.json')
    good = [row for row in results if row['error'] is None]
    scores = [row['negative_elbo'] for row in good]
    np.testing.assert_allclose(scores, expected['negative_elbo'], rtol=1e-5)
    bad = {os.path.basename(row['file']): row for row in results if row['error']}
    assert sorted(bad) == ['._0.png', '1b.png', '2b.png']
    assert 'without transparent pixels' in bad['2b.png']['error']
    for row in bad.values():
        assert [row[key] for key in ('negative_elbo', 'mean', 'reconstruction_file')] == [None] * 3


@pytest.mark.parametrize('number', [float('nan'), float('inf'), None])
def test_an_answer_that_is_no_number_counts_as_failed(
    digits, expected, tmp_path, ask, monkeypatch, number
):
    rows = [{key: value[n].tolist() for key, value in expected.items()} for n in range(3)]
    rows = [dict(row, quantile=0.5) for row in rows]
    rows[1]['kl_divergence'] = number

    class Answered:
        def json(self):
            return json.loads(json.dumps({'predictions': rows}))

    monkeypatch.setattr(client.requests, 'post', lambda *args, **more: Answered())
    with pytest.raises(UserError) as error:
        ask(digits, url='http://server/v1/models/vae', output=tmp_path)
    assert '1.png: the model answered NaN or infinity (kl_divergence)' in str(error.value)
    results = strict_json(tmp_path / 'results.json')
    assert [row['negative_elbo'] is None for row in results] == [False, True, False]
    assert results[1]['error'] == str(error.value)


def test_what_a_server_answered_before_it_went_is_kept(
    digits, model, tmp_path, ask, monkeypatch, capsys
):
    answering = Export(model[0]).predict
    calls = []

    def gone_after_one(contents, signature, url):
        calls.append(contents)
        if len(calls) > 2:  # Two signatures are asked.
            raise UserError('--url={} does not answer'.format(url))
        return answering(contents, signature)

    monkeypatch.setattr(client, 'predict_by_rest', gone_after_one)
    monkeypatch.setattr(client, 'BATCH', 2)
    with pytest.raises(UserError, match='does not answer'):
        ask(digits, url='http://server', output=tmp_path)
    assert len(strict_json(tmp_path / 'results.json')) == 2
    assert capsys.readouterr().out.count('.png') == 2


def test_a_server_s_refusal_is_passed_on(url):
    with pytest.raises(UserError, match='answered: .*must hold PNG or JPEG files'):
        client.predict_by_rest([b'no image'], 'score_png', url)


def test_wrong_requests_end_in_one_sentence(model, digits, tmp_path, ask):
    def refusal(*arguments, **values):
        with pytest.raises(UserError) as error:
            ask(*arguments, **values)
        assert '\n' not in str(error.value)
        return str(error.value)

    assert 'there is no such file' in refusal('nowhere.png', model[0])
    assert 'holds no file that ends in .png' in refusal(tmp_path, model[0])
    wanted = '{}: assertion failed: [image_bytes must hold PNG or JPEG'.format(digits / 'notes.txt')
    assert wanted in refusal(digits / 'notes.txt', model[0])
    assert 'give one of them' in refusal(digits)
    assert 'cannot be loaded' in refusal(digits, str(tmp_path))
    assert 'does not answer' in refusal(digits, url='http://127.0.0.1:1/v1/models/vae')


@pytest.mark.parametrize(
    ('request_', 'message'),
    [
        ({}, 'either "instances" or "inputs"'),
        ({'instances': [1], 'inputs': [1]}, 'either "instances" or "inputs"'),
        ({'instances': []}, 'not empty'),
        ({'instances': [{'a': 1, 'b': 2}, {'a': 1}]}, 'the same inputs'),
        ({'instances': [1]}, 'by name: a, b'),
        ({'inputs': {'a': {'b64': 'eA==', 'c': 1}, 'b': 1}}, 'b64'),
    ],
)
def test_malformed_json_requests_are_refused(request_, message):
    with pytest.raises(ValueError, match=message):
        predict_protocol.inputs_of(request_, ['b', 'a'])


def test_json_forms_are_those_that_tensorflow_serving_documents():
    inputs_of, response_of = predict_protocol.inputs_of, predict_protocol.response_of
    # https://www.tensorflow.org/tfx/serving/api_rest, "Encoding binary values" and "Example".
    one = inputs_of({'instances': [1.0, 2.0, 5.0]}, ['x'])
    assert one == ({'x': [1.0, 2.0, 5.0]}, True)
    rows = {'instances': [{'tag': 'foo', 'signal': [1, 2]}, {'tag': 'bar', 'signal': [3, 4]}]}
    columns = {'inputs': {'tag': ['foo', 'bar'], 'signal': [[1, 2], [3, 4]]}}
    assert inputs_of(rows, ['tag', 'signal'])[0] == inputs_of(columns, ['tag', 'signal'])[0]
    named = {'instances': [{'image': {'b64': 'aW1hZ2UgYnl0ZXM='}, 'caption': 'seaside'}]}
    assert inputs_of(named, ['image', 'caption'])[0]['image'] == [b'image bytes']
    assert inputs_of({'instances': [{'b64': 'eA=='}]}, ['x'])[0] == {'x': [b'x']}
    two = {'a': np.array([1, 2]), 'b': np.array([[3], [4]])}
    assert response_of(two, True) == {'predictions': [{'a': 1, 'b': [3]}, {'a': 2, 'b': [4]}]}
    assert response_of(two, False) == {'outputs': {'a': [1, 2], 'b': [[3], [4]]}}
    assert response_of({'a': np.array([1, 2])}, True) == {'predictions': [1, 2]}
    assert response_of({'a': np.array([1, 2])}, False) == {'outputs': [1, 2]}


def test_only_the_reason_of_an_error_is_answered():
    error = 'Graph execution error:\n\nDetected at node A defined at:\n File "/x.py"\n\nassertion '
    error += 'failed: [n must be 1]\n\t [[{{node A/Assert}}]] [Op:__inference_pruned_1]'
    assert predict_protocol.reason_of(error) == 'assertion failed: [n must be 1]'
    assert predict_protocol.reason_of(ValueError('no signature')) == 'no signature'


# scripts/serve.


@pytest.fixture
def serve(tmp_path):
    """Runs scripts/serve where `docker` is a script of this text, or is not there."""

    def run_serve(*arguments, docker=None):
        folder = tmp_path / 'bin'
        folder.mkdir()
        for name in ('bash', 'dirname', 'env'):
            os.symlink(shutil.which(name), str(folder / name))
        if docker is not None:
            (folder / 'docker').write_text('#!/usr/bin/env bash\n' + docker)
            (folder / 'docker').chmod(stat.S_IRWXU)
        return subprocess.run(
            [os.path.join(ROOT, 'scripts', 'serve')] + list(arguments),
            capture_output=True,
            text=True,
            env={'PATH': str(folder), 'VAE_REST_PORT': '18501'},
        )

    return run_serve


def test_serve_starts_the_official_container(model, serve):
    folder = os.path.dirname(model[0])
    done = serve(folder, docker='[[ $1 == info ]] || printf "%s\\n" "$@"')
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split('\n')
    assert lines[:2] == ['run', '--rm']
    assert '127.0.0.1:18501:8501' in lines and '127.0.0.1:8500:8500' in lines
    mount = 'type=bind,source={},target=/models/vae,readonly'.format(os.path.realpath(folder))
    assert mount in lines and 'MODEL_NAME=vae' in lines
    assert lines[-2].startswith('tensorflow/serving:')


@pytest.mark.parametrize('docker', [None, 'exit 1'])
def test_serve_without_docker_says_what_else_there_is(model, serve, docker):
    done = serve(os.path.dirname(model[0]), docker=docker)
    assert done.returncode == 1
    assert 'Docker is not running here' in done.stderr and '--kserve' in done.stderr
    assert done.stderr.count('\n') == 1


@pytest.mark.parametrize('character', list('[*?\\'))
def test_serve_without_docker_refuses_what_tensorflow_takes_for_a_pattern(
    serve, tmp_path, character
):
    folder = tmp_path / 'm {}1]'.format(character)
    (folder / '1700000000').mkdir(parents=True)
    (folder / '1700000000' / 'saved_model.pb').write_bytes(b'')
    done = serve('--kserve', str(folder))
    assert done.returncode == 1
    assert '{}: TensorFlow takes the {} in it'.format(folder, character) in done.stderr


def test_serve_sees_an_export_in_a_folder_of_any_name(serve, tmp_path):
    (tmp_path / 'm [1]' / '1700000000').mkdir(parents=True)
    (tmp_path / 'm [1]' / '1700000000' / 'saved_model.pb').write_bytes(b'')
    done = serve(str(tmp_path / 'm [1]'), docker='[[ $1 == info ]] || printf "%s\\n" "$@"')
    assert done.returncode == 0, done.stderr
    assert '/m [1],target=/models/vae' in done.stdout


def test_serve_refuses_folders_without_an_export(serve, tmp_path):
    done = serve(str(tmp_path))
    assert done.returncode == 1
    assert 'holds no export' in done.stderr
