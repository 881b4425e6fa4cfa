"""Trains on real MNIST while things go wrong, and prints what became of it as a table in Markdown.

    ./scripts/run python -m tests.faults [--attempts=FILE] [-k NAME] [-n PROCESSES] ...

Other options are pytest's. Its report goes to stderr. Exit code 0: all rows are ok.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys

import pytest

from scripts.benchmark import trainings
from tests.faults.table import FAULTS

_TEST = os.path.join(os.path.dirname(__file__), 'test_faults.py') + '::test_fault'


class Attempts:
    """A plugin of pytest's that keeps what the good attempts noted."""

    def __init__(self, path):
        self._path, self.noted = path, []
        if path and os.path.exists(path):
            with open(path) as f:
                self.noted = [a for a in map(json.loads, f) if a['outcome'] == 'ok']

    def pytest_runtest_logreport(self, report):
        for _, noted in report.user_properties if report.when == 'call' else ():
            wrong, outcome = noted.pop('wrong'), 'ok'
            if report.skipped:
                outcome = report.longrepr[2].replace('Skipped', 'skipped', 1)
            elif report.failed:
                outcome = 'BAD: ' + '; '.join(wrong or [report.longrepr.reprcrash.message])
            noted.update(test=report.nodeid, seconds=report.duration, outcome=outcome)
            self.noted.append(noted)
            if self._path:
                with open(self._path, 'a') as f:
                    f.write(json.dumps(noted) + '\n')


def row(name, attempts):
    """Returns the row of a fault: the first attempt that was not ok is shown, else the last."""
    bad = [one for one in attempts if one['outcome'] != 'ok']
    outcome = '; '.join(dict.fromkeys(one['outcome'] for one in bad)) or 'ok'
    lost = max((a['lost'] for a in attempts), key=lambda text: int(text) if text.isdigit() else -1)
    cells = [name, len(attempts), outcome, (bad[:1] or attempts[-1:])[0]['saw'], lost]
    texts = [' '.join(str(cell).split()).replace('|', '\\|').replace('<', '&lt;') for cell in cells]
    return '| {} |'.format(' | '.join(texts))


def main(arguments):
    parser = argparse.ArgumentParser('tests.faults', description=__doc__.partition('\n')[0])
    parser.add_argument('--attempts', help='keeps what was tried; what is ok there is not repeated')
    options, others = parser.parse_known_args(arguments)
    attempts = Attempts(options.attempts)
    # xdist's processes get the words of this command, and nothing that a plugin here has set.
    command = [_TEST, '--all_attempts', '-m', 'slow', '-v', '-n', '2', '--dist', 'load', *others]
    with contextlib.redirect_stdout(sys.stderr):
        done = ['--deselect=' + one['test'] for one in attempts.noted]
        code = pytest.main(command + done, [attempts])
    if code in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.USAGE_ERROR):
        return int(code)
    print('| fault | times tried | outcome | what the user saw | lost steps |')
    print('| --- | ---: | --- | --- | ---: |')
    for fault in FAULTS:
        tried = [one for one in attempts.noted if one['fault'] == fault.name]
        if tried:
            print(row(fault.name, tried))
    repeat = ' '.join(['./scripts/run python -m tests.faults', *map(shlex.quote, others)])
    minutes = sum(one['seconds'] for one in attempts.noted) / 60
    text = '\n{date}, {cores} core(s) of {cpu}, {:.0f} min of attempts: `{}`'
    print(text.format(minutes, repeat, **trainings.machine()))
    return int(not attempts.noted or any(one['outcome'] != 'ok' for one in attempts.noted))


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
