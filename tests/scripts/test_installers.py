"""What installs packages: uv or pip for scripts/run, pip for environments of later Pythons."""

import os
import re
import subprocess

import pytest

from scripts import ROOT
from tests.support.environments import start, write_wheel

# Notes how it was called; then installs what it was told to, or fails.
UV = """#!/bin/sh
echo "$*; certificate ${SSL_CERT_FILE-}" >>"$UV_NOTES"
[ "$UV_WORKS" ] || exit 2
for word; do
  case $word in
    --python=*) python=${word#--python=} ;;
    */build.txt | */rest.txt) file=$word ;;
  esac
done
exec "$python" -Im pip install --quiet --no-deps --require-hashes -r "$file"
"""


@pytest.fixture
def with_uv(tiny, tmp_path):
    """The environment variables of a start that finds an uv as above, of a later Python."""
    folder = tmp_path / 'wheels'
    folder.mkdir()
    uv = write_wheel(folder, 'uv', '0.5.0', UV)
    lock = folder / 'with_uv.lock'
    with open(tiny['VAE_LOCK']) as file:
        lock.write_text(re.sub('uv==.*\n', uv, file.read()))
    return dict(
        tiny,
        VAE_LOCK=str(lock),
        VAE_VENV=str(tmp_path / 'venv'),
        PIP_FIND_LINKS='{} {}'.format(tiny['PIP_FIND_LINKS'], folder),
        UV_NOTES=str(tmp_path / 'notes'),
    )


def made_with(env):
    """Starts with these variables; returns the lines of uv's notes."""
    got = start(env, 'python', '-c', 'import tinybuild, tinyrest')
    assert got.returncode == 0, got.stderr
    assert len(got.stderr.splitlines()) < 8
    assert not os.path.exists(env['VAE_VENV'] + '/uv')
    if not os.path.exists(env['UV_NOTES']):
        return []
    with open(env['UV_NOTES']) as file:
        return file.read().splitlines()


@pytest.mark.slow
def test_uv_installs_with_what_pip_is_set_to(with_uv, tmp_path):
    certificate = str(tmp_path / 'certificate.pem')
    with open(certificate, 'w'):
        pass
    notes = made_with(dict(with_uv, UV_WORKS='1', PIP_CERT=certificate, PIP_TIMEOUT='7'))
    assert len(notes) == 2  # What builds packages first.
    for line, name in zip(notes, ('build', 'rest')):
        words, _, last = line.partition('; ')
        words = words.split()
        assert {'--require-hashes', '--no-deps', '--no-index'} <= set(words)
        assert '{}/{}.txt'.format(with_uv['VAE_VENV'], name) in words
        folders = [f'--find-links={folder}' for folder in with_uv['PIP_FIND_LINKS'].split()]
        assert [word for word in words if word.startswith('--find-links')] == folders
        assert last == 'certificate ' + certificate


@pytest.mark.slow
def test_pip_installs_where_uv_fails(with_uv):
    assert len(made_with(with_uv)) == 2


@pytest.mark.slow
def test_pip_installs_where_it_is_set_to_what_uv_does_not_know(with_uv):
    assert made_with(dict(with_uv, UV_WORKS='1', PIP_PROXY='http://localhost:9')) == []


@pytest.mark.slow
def test_an_environment_of_a_later_python_is_made_once_by_two_starts_at_once(tmp_path):
    write_wheel(tmp_path, 'tinyrest')
    venv, wheel = str(tmp_path / 'venv'), str(tmp_path / 'tinyrest-1.0-py3-none-any.whl')
    command = [os.path.join(ROOT, 'scripts', 'clients', 'make_environment'), venv, wheel]
    starts = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=600)[1] for process in starts]
    if any('was found' in text for text in said):
        pytest.skip(said[0])
    assert [process.returncode for process in starts] == [0, 0], said
    assert sorted(text.count('installing') for text in said) == [0, 1]
    subprocess.run([venv + '/bin/python', '-Ic', 'import tinyrest'], check=True)
