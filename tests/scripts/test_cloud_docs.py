"""Every gcloud line of the docs, through the real gcloud, against a fake of the services."""

import io
import json
import os
import re
import subprocess
import tarfile

import numpy as np
import pytest

from scripts.servers import predict_protocol
from tests.support import fake_cloud, readmes
from tests.support.cloud_checks import ROOT, VERTEX, needs_gcloud, schema_errors

# What a body has to be that is sent to a path with this end.
_SCHEMAS = {
    '/builds': ('cloud_build', 'Build'),
    '/models:upload': ('vertex', VERTEX + 'UploadModelRequest'),
    '/endpoints': ('vertex', VERTEX + 'Endpoint'),
    '/endpoints/7:deployModel': ('vertex', VERTEX + 'DeployModelRequest'),
    '/endpoints/7:predict': ('vertex', VERTEX + 'PredictRequest'),
}
# Files with commands in comments or docstrings, as people find them from scripts/README.md.
_FILES = ('cloudbuild.yaml', 'scripts/Dockerfile', 'scripts/tfjob.yaml', 'scripts/submit')


def in_blocks(word='gcloud '):
    """The shell blocks of the README files that contain `word`."""
    return [code for code in readmes.blocks('sh') if word in code]


def documented():
    """Shell code with gcloud in it: blocks of README files, and indented lines of other files."""
    code = in_blocks()
    for name in _FILES:
        with open(os.path.join(ROOT, name)) as f:
            code += re.findall(r'^# {2,}(gcloud .*)$', f.read(), re.M)
    return code


def in_text():
    """The gcloud commands in the running text of the README files."""
    return [code for code in readmes.spans() if re.match(r'gcloud \w', code)]


@pytest.fixture(scope='module')
def sent(tmp_path_factory):
    """Runs all of it; returns the (path, body) of what was sent."""
    folder, sent = tmp_path_factory.mktemp('gcloud'), []
    for code in documented():
        with fake_cloud.running(folder) as (environ, requests):
            done = subprocess.run(
                ['bash', '-euc', code],
                # Nothing is written where a build's source is.
                cwd=ROOT if 'gcloud builds' in code else str(folder),
                env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        assert done.returncode == 0, code + done.stdout
        sent += [(path, body) for method, path, body in requests if method == 'POST']
    return sent


@needs_gcloud
@pytest.mark.slow
def test_what_gcloud_sends_fits_the_schemas(sent):
    found = set()
    for path, body in sent:
        if path.startswith('/upload/'):
            continue
        [end] = [end for end in _SCHEMAS if path.endswith(end)]
        assert schema_errors(body, *_SCHEMAS[end]) == [], path
        found.add(end)
    assert found == set(_SCHEMAS)


@needs_gcloud
@pytest.mark.slow
def test_a_model_is_uploaded_deployed_and_asked(sent):
    bodies = {path.rsplit('/', 1)[1]: body for path, body in sent}
    upload = bodies['models:upload']
    assert upload['model']['artifactUri'] == 'gs://my-bucket/runs/first/model'
    # Without it the endpoint sends the model nothing.
    assert bodies['7:deployModel']['trafficSplit'] == {'0': 100}
    assert bodies['7:deployModel']['deployedModel']['model'].endswith(
        '/models/' + upload['modelId']
    )
    assert np.shape(bodies['7:predict']['instances']) == (1, 28, 28)


@needs_gcloud
@pytest.mark.slow
def test_the_source_of_a_build_is_what_git_has(sent):
    if not os.path.exists(os.path.join(ROOT, '.git')):
        pytest.skip('not a git checkout: which files are the project is not known')
    listed = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    uploads = [body for path, body in sent if path.startswith('/upload/')]
    assert len(uploads) == 2
    for upload in uploads:
        with tarfile.open(fileobj=io.BytesIO(upload)) as archive:
            names = {member.name for member in archive if not member.isdir()}
        assert names == set(listed.stdout.split()) - {'.gitignore'}


@needs_gcloud
@pytest.mark.slow
def test_gcloud_knows_the_commands_in_the_text(tmp_path):
    """Those that ask a person to log in, or are named without what they need."""
    assert in_text()
    with fake_cloud.running(tmp_path) as (environ, _):
        for command in in_text():
            subprocess.run(
                [*command.split(), '--help'],
                env=environ, check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip


def test_no_gcloud_line_is_left_out():
    mentioned = re.findall(r'\bgcloud (?:ai|builds|auth|storage|artifacts)\b', readmes.text())
    run = ' '.join(documented() + in_text())
    readme = ' '.join(in_blocks() + in_text())
    assert len(mentioned) == len(re.findall(r'\bgcloud [a-z]', readme)) > 5
    for name in os.listdir(ROOT) + ['scripts/' + name for name in os.listdir(ROOT + '/scripts')]:
        if name in _FILES or os.path.isdir(os.path.join(ROOT, name)):
            continue
        with open(os.path.join(ROOT, name), 'rb') as f:
            for line in re.findall(r'^#? *(gcloud .*)$', f.read().decode('utf-8', 'ignore'), re.M):
                assert line in run, name


def test_the_readmes_request_is_one_image(tmp_path):
    [block] = in_blocks('> request.json')
    [line] = [line for line in block.splitlines() if '> request.json' in line]
    subprocess.run(['bash', '-euc', line], check=True, cwd=str(tmp_path))
    request = json.loads((tmp_path / 'request.json').read_text())
    assert schema_errors(request, *_SCHEMAS['/endpoints/7:predict']) == []
    inputs, by_row = predict_protocol.inputs_of(request, ['images'])
    assert by_row and np.shape(inputs['images']) == (1, 28, 28)
