"""The set-up: scripts/run, .ci/run, scripts/requirements.lock and setup.py.

The environments made here hold a package of a few bytes instead of TensorFlow, named by a lock
file of their own (VAE_LOCK). CI itself starts with the real one.
"""

import glob
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time

import pytest
import setuptools
from packaging.requirements import Requirement

from scripts import ROOT
from tests.support.environments import RUN, SYSTEM_PATH, start

LOCK = os.path.join(ROOT, 'scripts', 'requirements.lock')
PYTHON_BIN = os.path.join(sys.base_prefix, 'bin')


def find_other_python():
    """The path of the system's own Python, where that is not 3.7; else of a program that fails."""
    python = shutil.which('python3', path=SYSTEM_PATH)
    is_37 = 'import sys; sys.exit(sys.version_info[:2] != (3, 7))'
    if python is None or subprocess.run([python, '-Ic', is_37]).returncode == 0:
        return '/bin/false'
    return python


OTHER_PYTHON = find_other_python()


def without(env, *names):
    return {name: value for name, value in env.items() if name not in names}


@pytest.fixture(scope='module')
def made(tiny, tmp_path_factory):
    """An environment's variables, and what the start that made it said.

    First on its PATH is a python3.7 that only fails. A good one is but in pyenv's folder, to which
    neither HOME nor PYENV_ROOT leads, as in a cron job or a container.
    """
    folder = tmp_path_factory.mktemp('made')
    shims = folder / 'pyenv' / 'shims'
    shims.mkdir(parents=True)
    shim = shims / 'python3.7'
    shim.write_text('#!/bin/sh\necho "pyenv: python3.7: command not found"\nexit 127\n')
    shim.chmod(0o755)
    (folder / 'pyenv' / 'versions').mkdir()
    (folder / 'pyenv' / 'versions' / '3.7.16').symlink_to(sys.base_prefix)
    env = without(tiny, 'VAE_PYTHON')
    env.update(VAE_VENV=str(folder / 'venv'), PATH=f'{shims}:{SYSTEM_PATH}')
    return env, start(env, 'python', '-c', 'import sys, tinyrest; print(sys.prefix)')


def is_of_bash(path):
    with open(path, 'rb') as file:
        return b'bash' in file.readline()


def test_shell_scripts_are_clean():
    root, names = glob.escape(ROOT), ('.ci/*', 'scripts/*', 'scripts/*/*')
    paths = [path for name in names for path in glob.glob(os.path.join(root, name))]
    scripts = [path for path in paths if os.path.isfile(path) and is_of_bash(path)]
    assert RUN in scripts
    subprocess.run(['shellcheck', *scripts], check=True)


def test_a_command_is_needed(tiny):
    got = start(tiny)
    assert got.returncode == 2
    assert got.stderr.startswith('Usage: ')


@pytest.mark.slow
def test_first_start_skips_a_broken_shim(made):
    env, got = made
    assert got.returncode == 0, got.stderr
    assert got.stdout == env['VAE_VENV'] + '\n'
    assert 'command not found' not in got.stderr
    assert 'setting up' in got.stderr
    assert len(got.stderr.splitlines()) < 8


def test_second_start_is_quick_and_quiet(made):
    env, _ = made
    assert start(env, 'true').returncode == 0
    times = []
    for _ in range(3):
        before = time.time()
        got = start(env, 'true')
        times.append(time.time() - before)
        assert (got.returncode, got.stdout, got.stderr) == (0, '', '')
    assert min(times) < 0.5


def test_command_sees_the_environment_and_its_own_folder(made, tmp_path):
    env, _ = made
    code = (
        'import importlib.util as util, os; '
        'print(os.getcwd(), os.environ["VIRTUAL_ENV"], util.find_spec("trainer").origin, '
        'os.environ["PYTHONPATH"].split(":")[1:], sep="\\n")'
    )
    got = start({**env, 'PYTHONPATH': '/elsewhere'}, 'python', '-c', code, cwd=str(tmp_path))
    trainer = os.path.join(ROOT, 'trainer', '__init__.py')
    assert got.stdout.splitlines() == [
        os.path.realpath(str(tmp_path)),
        env['VAE_VENV'],
        trainer,
        "['/elsewhere']",
    ]


def test_exit_code_is_the_commands(made):
    assert start(made[0], 'bash', '-c', 'exit 7').returncode == 7


@pytest.mark.parametrize('python', [OTHER_PYTHON, '/bin/false', '/nowhere/python3.7'])
def test_unusable_vae_python_is_refused(tiny, tmp_path, python):
    venv = tmp_path / 'venv'
    got = start({**tiny, 'VAE_PYTHON': python, 'VAE_VENV': str(venv)}, 'true')
    assert got.returncode == 1
    assert got.stderr.startswith(f'scripts/run: VAE_PYTHON is {python}, which is no working Python')
    assert len(got.stderr.splitlines()) == 1
    assert not venv.exists()


@pytest.mark.parametrize(
    'has_python3',
    [
        pytest.param(False, id='no python3'),
        pytest.param(True, id='another python3', marks=pytest.mark.slow),
    ],
)
def test_without_python_37_it_says_how_to_get_one(tiny, tmp_path, has_python3):
    tools = tmp_path / 'tools'
    tools.mkdir()
    for name in ('bash', 'cp', 'dirname', 'env', 'find', 'ls', 'mkdir', 'mktemp', 'rm', 'sed'):
        (tools / name).symlink_to(shutil.which(name))
    if has_python3:  # the fetching then starts, and fails for want of a network
        (tools / 'python3').symlink_to(OTHER_PYTHON)
    env = without(tiny, 'VAE_PYTHON')
    env.update(PATH=str(tools), VAE_VENV=str(tmp_path / 'venv'))
    before = time.time()
    got = start(env, 'true')
    assert got.returncode == 1
    assert time.time() - before < 60
    for way in ('pyenv', 'conda', 'Docker', 'VAE_PYTHON'):
        assert way in got.stderr
    assert len(got.stderr.splitlines()) < 8
    assert not (tmp_path / 'venv').exists()


def test_a_folder_of_someone_else_is_left_alone(tiny, tmp_path):
    (tmp_path / 'pyvenv.cfg').write_text('home = /somewhere\n')
    got = start({**tiny, 'VAE_VENV': str(tmp_path)}, 'true')
    assert got.returncode == 1
    assert got.stderr.startswith(f'scripts/run: {tmp_path} was not made by scripts/run.')
    assert os.listdir(str(tmp_path)) == ['pyvenv.cfg']


@pytest.mark.slow
def test_two_first_starts_at_once(tiny, tmp_path):
    env = without(tiny, 'VAE_PYTHON')
    env.update(VAE_VENV=str(tmp_path / 'venv'), PATH=f'{PYTHON_BIN}:{SYSTEM_PATH}')
    starts = [
        subprocess.Popen([RUN, 'python', '-c', 'import tinyrest'], env=env, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=600)[1].decode() for process in starts]
    assert [process.returncode for process in starts] == [0, 0], said
    assert sum('setting up' in text and 'ready after' in text for text in said) == 1


@pytest.mark.slow
def test_a_killed_first_start_is_repaired(tiny, tmp_path):
    env = {**tiny, 'VAE_VENV': str(tmp_path / 'venv')}
    first = subprocess.Popen(
        [RUN, 'true'], env=env, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.time() + 900
    while not list((tmp_path / 'venv').glob('lib/python3.7/site-packages/tinybuild*')):
        assert time.time() < deadline and first.poll() is None
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    got = start(env, 'python', '-c', 'import tinybuild, tinyrest')
    assert got.returncode == 0, got.stderr
    assert 'setting up' in got.stderr
    assert start(env, 'true').stderr == ''


@pytest.mark.slow
def test_a_failed_install_says_why_and_is_tried_again(tiny, tmp_path):
    lock = tmp_path / 'wrong.lock'
    with open(tiny['VAE_LOCK']) as file:
        lock.write_text(re.sub('(?<=tinyrest==1.0 --hash=sha256:)....', '0000', file.read()))
    env = {**tiny, 'VAE_VENV': str(tmp_path / 'venv'), 'PIP_EXTRA_INDEX_URL': 'file:///none'}
    got = start({**env, 'VAE_LOCK': str(lock)}, 'true')
    assert got.returncode == 1
    assert 'tinyrest' in got.stderr
    assert 'setup.log' in got.stderr
    assert 'WARNING' not in got.stderr
    # Nothing to make it anew with: that it is refused tells that it would be made.
    env = {**env, 'VAE_LOCK': str(lock), 'VAE_PYTHON': '/bin/false'}
    assert 'VAE_PYTHON' in start(env, 'true').stderr


def test_outdated_environment_is_not_used(made, tmp_path):
    with open(made[0]['VAE_LOCK']) as file:
        newer = file.read() + '# newer\n'
    lock = tmp_path / 'newer.lock'
    lock.write_text(newer)
    env = {**made[0], 'VAE_PYTHON': '/bin/false'}  # as above
    assert start(env, 'true').returncode == 0
    assert 'VAE_PYTHON' in start({**env, 'VAE_LOCK': str(lock)}, 'true').stderr


@pytest.mark.slow
def test_moved_environment_is_made_again(tiny, made, tmp_path):
    venv = tmp_path / 'venv'
    shutil.copytree(made[0]['VAE_VENV'], str(venv), symlinks=True)
    got = start({**tiny, 'VAE_VENV': str(venv)}, 'pip', '--version')
    assert 'setting up' in got.stderr
    assert str(venv) in got.stdout


def read_setup(monkeypatch):
    found = {}
    monkeypatch.setattr(setuptools, 'setup', found.update)
    runpy.run_path(os.path.join(ROOT, 'setup.py'))
    return found


def test_lock_pins_all_that_setup_asks_for(monkeypatch):
    with open(LOCK) as file:
        text = file.read()
    assert '://' not in text
    entries = re.findall(
        r'^([\w.-]+)==(\S+) \\\n((?:    --hash=sha256:\w{64}(?: \\)?\n)+)', text, re.M
    )
    assert len(entries) == len(re.findall('^[^# ]', text, re.M))
    pins = {name.lower(): version for name, version, _ in entries}
    assert len(pins) == len(entries)
    found = read_setup(monkeypatch)
    for text in sum(found['extras_require'].values(), found['install_requires']):
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[requirement.name.lower()]), text


def test_tensorflow_loads_without_a_word():
    code = 'import trainer, tensorflow, tensorflow_datasets'
    got = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert (got.returncode, got.stdout) == (0, b'')


@pytest.mark.slow
def test_plain_pip_install(tmp_path):
    source = tmp_path / 'source'
    shutil.copytree(os.path.join(ROOT, 'trainer'), str(source / 'trainer'))
    shutil.copy(os.path.join(ROOT, 'setup.py'), str(source))
    venv = tmp_path / 'venv'
    env = without(os.environ, 'PYTHONPATH', 'VIRTUAL_ENV')
    subprocess.run([sys.executable, '-m', 'venv', str(venv)], check=True, env=env)
    python = str(venv / 'bin' / 'python')
    subprocess.run([python, '-m', 'pip', 'install', '-q', str(source)], check=True, env=env)
    for command in (
        ['-c', 'import trainer, tensorflow, tensorflow_datasets'],
        ['-m', 'trainer.task', '--help'],
    ):
        got = subprocess.run(
            [python, *command], cwd=str(tmp_path), env=env, capture_output=True, text=True
        )
        assert got.stderr == ''
        assert (got.stdout == '') == (command[0] == '-c')


@pytest.mark.parametrize(
    ('folder', 'arguments', 'reason'),
    [
        ('a,b', ['--logdir=a,b'], 'split it at the comma'),
        ('a,b', ['--logdir', '{here}/a,b'], 'split it at the comma'),
        ('a:b', ['--logdir=a:b'], 'give the absolute path, --logdir={here}/a:b'),
        ('a:b', ['--logdir', 'a:b', '--port=1'], 'before the colon for a name'),
        ('a:b', ['--logdir={here}/a:b'], None),
        ('a', ['--logdir=one:a,two:a'], None),  # What the characters are for.
        ('a', ['--logdir=a'], None),
        ('a', ['--inspect'], None),
    ],
)
def test_a_folder_that_tensorboard_would_take_for_several_is_refused(
    made, tmp_path, folder, arguments, reason
):
    here = os.path.realpath(str(tmp_path))
    os.mkdir(os.path.join(here, folder))
    words = [argument.format(here=here) for argument in arguments]
    done = start(made[0], 'tensorboard', *words, cwd=here)
    if reason is None:
        assert '--logdir' not in done.stderr  # There is no TensorBoard in that environment.
        return
    assert done.returncode == 1
    assert reason.format(here=here) in done.stderr and done.stderr.count('\n') == 1
