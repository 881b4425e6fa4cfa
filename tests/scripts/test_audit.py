"""The reviewed advisories of the locked packages, and the program that compares the two."""

import contextlib
import copy
import http.server
import json
import re
import threading

import pytest

from scripts import ROOT
from scripts.maintain import audit

LOCK = ROOT + '/scripts/requirements.lock'
REVIEWED = ROOT + '/scripts/maintain/audit.json'


@pytest.fixture(scope='module')
def reviewed():
    with open(REVIEWED) as file:
        return json.load(file)


@contextlib.contextmanager
def _pypi(answers, status=200):
    """A loopback server of `/NAME/VERSION/json`; what `answers` lacks has no advisories."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            _, name, version, _ = self.path.split('/')
            answer = answers.get(name, {'vulnerabilities': []})
            assert version == audit.pins(LOCK)[name][0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *unused):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield 'http://127.0.0.1:{}'.format(server.server_address[1])
        server.shutdown()


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the program against a server and a changed file; returns code, stdout and stderr."""

    def run_audit(url, content=None):
        monkeypatch.setenv('VAE_AUDIT_URL', url)
        monkeypatch.setenv('NO_PROXY', '*')
        path = REVIEWED
        if content is not None:
            path = str(tmp_path / 'audit.json')
            with open(path, 'w') as file:
                json.dump(content, file)
        monkeypatch.setattr('sys.argv', ['audit.py', '--reviewed=' + path])
        return (audit.main(), *capsys.readouterr())

    return run_audit


def _advisory(*names, **more):
    return {'id': names[0], 'aliases': list(names[1:]), 'summary': 'bad', **more}


def test_all_that_is_locked_is_reviewed(reviewed):
    assert list(audit.differences(audit.pins(LOCK), reviewed['packages'])) == []


def test_the_lock_is_read_with_its_places():
    locked = audit.pins(LOCK)
    assert locked['tensorflow'] == ('1.14.0', 'image')
    assert {locked[name][1] for name in ('pip', 'setuptools', 'wheel')} == {'build'}
    assert (locked['uv'][1], locked['pytest'][1]) == ('fetch', 'tests')
    with open(LOCK) as file:
        assert len(locked) == file.read().count('==')


def test_every_row_says_what_it_has_to(reviewed):
    fields = {'package', 'id', 'affected', 'severity', 'what', 'reaches_us', 'why', 'fixed_in'}
    ids = [row['id'] for row in reviewed['advisories']]
    assert len(ids) == len(set(ids)) > 50
    for row in reviewed['advisories']:
        assert all(row[field] for field in fields | {'kept_because', 'source'}), row
        assert row['package'] in reviewed['packages']
        assert re.fullmatch(r'(CVE-\d{4}-\d+|tensorflow-others)', row['id'])
        assert row['source'].startswith('https://')
    assert re.fullmatch(r'\d{4}-\d\d-\d\d', reviewed['as_of'])


def test_with_nothing_new_it_ends_with_0(run):
    listed = _advisory('PYSEC-2026-1994', 'CVE-2025-66471')
    with _pypi({'urllib3': {'vulnerabilities': [listed]}}) as url:
        code, output, errors = run(url)
    assert (code, errors) == (0, '')
    assert 'CVE-2025-66471' in output and 'only the file' not in output


def test_an_advisory_that_the_file_lacks_is_named(run):
    new = _advisory('PYSEC-2099-1', 'CVE-2099-1')
    gone = _advisory('PYSEC-2099-2', withdrawn='2099-01-01')
    with _pypi({'six': {'vulnerabilities': [new, gone]}}) as url:
        code, _, errors = run(url)
    assert code == 1
    assert errors == 'to review: six: CVE-2099-1, PYSEC-2099-1 (bad)\n'


def test_an_advisory_of_another_package_is_not_known(run):
    with _pypi({'six': {'vulnerabilities': [_advisory('CVE-2025-66471')]}}) as url:
        assert run(url)[0] == 1


@pytest.mark.parametrize('name, code', [('CVE-2021-29527', 0), ('CVE-2024-3660', 1)])
def test_old_advisories_of_tensorflow_are_known_as_a_group(run, name, code):
    with _pypi({'tensorflow': {'vulnerabilities': [_advisory('GHSA-x', name)]}}) as url:
        assert run(url)[0] == code


@pytest.mark.parametrize('answers, status', [({}, 404), ({'uv': {'info': {}}}, 200)])
def test_where_pypi_does_not_know_it_says_so_in_a_sentence(run, answers, status):
    with _pypi(answers, status) as url:
        code, output, errors = run(url)
    assert (code, errors) == (3, '')
    assert output.splitlines()[-1].startswith('PyPI knows no advisories here')


def test_where_pypi_is_silent_in_the_midst_nothing_counts_as_asked(run):
    with _pypi({'zipp': {}}) as url:
        assert run(url)[0] == 3


def test_without_network_a_package_that_is_not_reviewed_is_still_named(run, reviewed):
    changed = copy.deepcopy(reviewed)
    del changed['packages']['absl-py']
    changed['packages']['numpy']['version'] = '1.16.5'
    changed['packages']['six']['place'] = 'tests'
    changed['packages']['old'] = {'version': '1', 'place': 'image', 'reviewed': '2020-01-01'}
    code, _, errors = run('http://127.0.0.1:9', changed)
    assert code == 1
    assert errors.splitlines() == [
        'to review: absl-py 1.4.0 is new',
        'to review: numpy 1.16.6 was reviewed as 1.16.5',
        'to review: six has moved from tests to image',
        'to review: old is locked no more',
    ]
