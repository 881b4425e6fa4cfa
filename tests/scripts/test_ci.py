""".ci/run and .ci/as_user, on a checkout whose scripts/run only tells how it was started."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

_PROGRAM = """#!/bin/bash
[[ $1 != python ]] || exec "$PYTHON_OF_TEST" "${@:2}"
echo "ran $* as $UID in $PWD"
[[ $1 != pytest ]] || { env; ls -A ~; }
[[ $* != "$FAILING" ]]
"""


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / 'a [check] out'
    shutil.copytree(os.path.join(ROOT, '.ci'), str(folder / '.ci'))
    (folder / 'scripts').mkdir()
    return folder


def start(checkout, program, *arguments, failing='', **environ):
    script = checkout / 'scripts' / 'run'
    text = _PROGRAM.replace('$PYTHON_OF_TEST', sys.executable)
    script.write_text(text.replace('$FAILING', failing))
    script.chmod(0o755)
    return subprocess.run(
        [str(checkout / '.ci' / program), *arguments],
        env={'PATH': os.environ['PATH'], 'TMPDIR': str(checkout.parent), **environ},
        cwd='/', stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def test_ci_keeps_nothing_of_the_environment_but_what_it_names(checkout):
    kept = {
        'CI': 'true', 'HTTPS_PROXY': 'http://a b:1', 'no_proxy': '*', 'PIP_INDEX_URL': 'file:///x',
        'SSL_CERT_FILE': '/x.pem', 'XDG_CACHE_HOME': '/x', 'npm_config_registry': 'http://x/',
    }  # fmt: skip
    ours = {
        'HOME': str(checkout), 'PYTHONDONTWRITEBYTECODE': '1', 'PIP_USER': '1', 'TF_CONFIG': '{}',
        'LC_ALL': 'C', 'MPLBACKEND': 'x', 'BASH_ENV': '/dev/null', 'XPIP_INDEX_URL': '1',
    }  # fmt: skip
    done = start(checkout, 'run', **kept, **ours)
    assert done.returncode == 0, done.stdout
    first = done.stdout.split('ran pytest')[1].partition('\n=== ')[0]
    variables = dict(line.split('=', 1) for line in first.splitlines()[1:])
    for name in ('PWD', 'OLDPWD', 'SHLVL', '_'):
        variables.pop(name, None)
    home = variables.pop('HOME')
    assert variables == dict(
        kept, PATH=os.environ['PATH'], TMPDIR=str(checkout.parent), LANG='C.UTF-8'
    )
    assert home != str(checkout) and not os.path.exists(home)
    assert os.listdir(str(checkout.parent)) == [checkout.name]


@pytest.mark.parametrize('failing', ['mypy', 'pytest', 'pytest -m slow', ''])
def test_ci_ends_with_what_fails(checkout, failing):
    done = start(checkout, 'run', failing=failing)
    assert done.returncode == (1 if failing else 0)
    assert ('=== passed' in done.stdout) == (not failing)
    assert os.listdir(str(checkout.parent)) == [checkout.name]


def test_a_command_runs_as_another_user_or_a_line_says_why_not(checkout):
    (checkout / 'kept').write_text('')
    checkout.parent.chmod(0o711)
    done = start(checkout, 'as_user', 'bash', '-c', 'echo $UID; ls; touch new; exit 3')
    if 'Not done: ' in done.stdout:
        assert done.returncode == 0 and done.stdout.count('\n') == 1
    else:
        assert (done.returncode, done.stdout.split()) == (3, ['54321', 'kept', 'scripts'])
    assert sorted(os.listdir(str(checkout))) == ['.ci', 'kept', 'scripts']
    assert os.listdir(str(checkout.parent)) == [checkout.name]
