"""The soak of scripts/load: what it says of growth, of a newer export, of an end; a real one."""

import collections
import json
import os
import re
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from scripts.clients import environment
from scripts.load import bad_clients, server, soak
from scripts.load.protocols import PROTOCOLS
from tests.support import serving_models
from tests.support.paths import ROOT
from trainer.base.errors import UserError

# Other tests beside this one may take the processor for a while.
OF_PACE = {
    'health answered within 100 ms, at 32 clients',
    'no request lost below capacity',
    'none lost while a newer export is loaded',
}
IMAGE = np.array([[[0.0, 1.0], [0.2, 0.2]]], np.float32)


@pytest.mark.parametrize(
    'values, expected',
    [
        ([900.0, 100.0, 10.0, 20.0, 500.0, 1.0, 30.0, 40.0], 20.0),
        ([100.0, 100.0, 100.0, 100.0], 0.0),
        ([0.0, 300.0, 50.0, 200.0], -100.0),
        ([5.0, 6.0], 0.0),
        ([], 0.0),
    ],
)
def test_growth_is_from_the_second_to_the_last_quarter(values, expected):
    assert soak.growth(values) == expected


def test_a_soak_spends_its_time_half_above_capacity():
    assert soak.parts_of(600.0) == (60.0, 120.0, 120.0, 300.0)


def test_what_a_bad_client_may_hear():
    habit = bad_clients.Habit(iter([]), '4..|closed', 0.0)
    counts = collections.Counter({('a', '400'): 2, ('b', 'closed'): 1})
    assert bad_clients.not_allowed(habit, counts) is None
    counts.update({('a', '500'): 3, ('b', 'silent'): 1, ('c', '200'): 1})
    assert bad_clients.not_allowed(habit, counts) == (
        'a: 500 (3 times); b: silent (1 times); c: 200 (1 times)'
    )


@pytest.fixture
def soaking():
    server = mock.Mock(kind=mock.Mock(protocols=['rest'], reloads=True))
    return soak.Soak(server, 'pool.npz', {'images': IMAGE})


def fake_results(**changes):
    counts = dict.fromkeys(('right', 'after', 'wrong', 'refused', 'failed', 'not sent'), 0)
    times = {'first_after': None, 'last_right': None, 'p50_ms': 1.0, 'p99_ms': 2.0}
    more = {'kinds': {}, 'noted': [], 'refused_with': '', 'requests_per_second': 9.0}
    return {**counts, **times, **more, **changes}


@pytest.mark.parametrize(
    'reloads, results, is_kept',
    [
        (True, {'right': 5, 'after': 5, 'first_after': 103.0, 'last_right': 104.0}, True),
        (True, {'right': 5, 'after': 5, 'first_after': 103.0, 'last_right': 102.0}, True),
        (True, {'right': 5, 'after': 5, 'first_after': 103.0, 'last_right': 120.0}, False),
        (True, {'right': 5, 'after': 5, 'failed': 1, 'first_after': 3.0, 'last_right': 2.0}, False),
        (True, {'right': 9}, False),
        (False, {'right': 9}, None),
        (False, {'right': 9, 'after': 1}, False),
    ],
)
def test_a_newer_export_takes_over_without_a_failure(soaking, reloads, results, is_kept, tmp_path):
    soaking._server.kind.reloads = reloads
    (tmp_path / 'newer').mkdir()
    asked = mock.MagicMock()
    asked.return_value.__enter__.return_value.results.return_value = fake_results(**results)
    with mock.patch.object(soaking, '_asking', asked):
        soaking.stay_below(0.0, str(tmp_path / 'newer'), str(tmp_path / '2'))
    assert os.listdir(str(tmp_path)) == ['2']
    below, meanwhile, newer = soaking.checks
    assert newer.is_kept is is_kept
    assert below.is_kept is meanwhile.is_kept is not bool(results.get('failed'))


@pytest.mark.parametrize(
    'results, code, outlived, kept',
    [
        ({'times': [[1.0, 9.0], [11.0, 9.5]], 'noted': [[10.5, 'lost: x']]}, 0, [], [1, 1, 1]),
        # Under way, and lost.
        ({'times': [[1.0], [11.0]], 'noted': [[9.9, 'lost: x']]}, 0, [], [0, 1, 1]),
        ({'times': [[1.0], [11.0]], 'noted': [[9.9, 'status 503']]}, 0, [], [1, 1, 1]),
        # Nothing was under way.
        ({'times': [[1.0], [9.0]], 'noted': []}, 143, [], [0, 1, 1]),
        ({'times': [[1.0], [11.0]], 'noted': []}, None, [], [1, 0, 1]),
        ({'times': [[1.0], [11.0]], 'noted': []}, 0, ['stub'], [1, 0, 1]),
        ({'times': [[1.0], [11.0]], 'noted': []}, 1, [], [1, 0, 1]),
    ],
)
def test_an_end_answers_what_was_under_way(soaking, results, code, outlived, kept):
    server = soaking._server
    server.end.return_value, server.outlived.return_value = code, outlived
    server.printed.return_value = ''
    asked = mock.MagicMock()
    asked.return_value.__enter__.return_value.results.return_value = fake_results(**results)
    with mock.patch.object(soaking, '_asking', asked), mock.patch.object(soak, 'time') as time:
        time.monotonic.return_value = 10.0
        soaking.tell_to_end()
    assert [one.is_kept for one in soaking.checks] == [bool(one) for one in kept]


@pytest.fixture(scope='module')
def export_dir(tmp_path_factory):
    return serving_models.write_export(tmp_path_factory.mktemp('model'), (28, 28, 1))[0]


def environment_of(name, tmp_path):
    """The environment of a server, as `scripts/serve` makes it; skips where it cannot be had."""
    with open(os.path.join(ROOT, 'scripts', 'serve')) as f:
        packages = re.search(r'^{}=\((.*)\)$'.format(name), f.read(), re.M).group(1).split()
    folder = str(tmp_path / 'env')
    try:
        environment.make('scripts/serve', folder, packages)
    except UserError as error:
        pytest.skip('no environment for {}: {}'.format(name, error))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('name', list(server.KINDS))
def test_a_minute_of_every_load(name, export_dir, tmp_path):
    environ = dict(os.environ, PYTHONPATH=ROOT)
    environ[server.KINDS[name].venv[1]] = environment_of(name, tmp_path)
    command = [sys.executable, 'scripts/load', f'--export_dir={export_dir}', f'--servers={name}']
    command += ['--clients=8', '--seconds=2', '--soak_minutes=1', f'--json={tmp_path}/json']
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert os.path.exists(f'{tmp_path}/json'), done.stderr
    results = json.loads((tmp_path / 'json').read_text())
    rows, checks = results['rows'], results['checks'][name]
    assert {row['protocol'] for row in rows if row['generator'] == 'ours' and row['p50_ms']} == {
        PROTOCOLS[protocol].title for protocol in server.KINDS[name].protocols
    }
    assert all(row['failed'] == 0 and not row['wrong'] for row in rows)
    kept = {one['name']: one['is_kept'] for one in checks if one['name'] not in OF_PACE}
    expected = dict.fromkeys(kept, True)
    if not server.KINDS[name].reloads:
        expected['a newer export takes over'] = None
    assert kept == expected and len(checks) == 17, done.stdout
