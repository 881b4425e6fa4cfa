"""Real trainings with real faults: processes, disks and damaged files for fault_table.py.

A `Laboratory` owns the work folder and what the tries share: a half-finished run, a finished one,
MNIST's IDX files. A `Bench` is one try of one fault: it starts processes, and notes what was wrong,
what the user saw and how many steps were lost.
"""

import contextlib
import fnmatch
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import numpy as np
import psutil
import tensorflow as tf

from trainer.base import files
from trainer.data import catalog
from trainer.data.packages import SourceFailed

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KINDS = ('bit flipped', 'truncated', 'empty')
CHECKPOINT_DATA = '.data-00000-of-00001'
_LEFTOVERS = ('*.tmp*', 'temp-*', '*.tempstate*', '.preparing-*', '*_temp_*', '.new')
_LONGEST_SENTENCE = 300
# What a killed trainer started may still finish a thought.
_SECONDS_FOR_CHILDREN = 15.0
_DEADLINE_SECONDS = 900.0


class Skipped(Exception):
    """This machine cannot have the fault; the message is the reason."""


class Process:
    """A running command, its output in the file `log`, in a session of its own.

    Attributes:
      seconds: from the last signal to the end.
    """

    def __init__(self, command: Sequence[str], log: str, environment: Dict[str, str]):
        os.makedirs(os.path.dirname(log), exist_ok=True)
        self.command, self.log, self._signalled = list(command), log, time.monotonic()
        with open(log, 'w') as output:
            output.write('$ {}\n'.format(' '.join(command)))
            output.flush()
            self._popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._popen.pid
        self.seconds = 0.0

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    def lines(self) -> List[str]:
        """What it has printed so far, without empty lines."""
        with open(self.log, errors='replace') as f:
            return [line.rstrip() for line in f if line.strip()][1:]

    def has_printed(self, text: str) -> bool:
        return any(text in line for line in self.lines())

    def wait_until(self, condition: Callable[[], bool], seconds: float = _DEADLINE_SECONDS) -> bool:
        """Waits for the condition; returns False where the process ended first, or time ran out."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.is_running or time.monotonic() > deadline:
                return condition()
            time.sleep(0.05)
        return True

    def wait_for(self, text: str, seconds: float = _DEADLINE_SECONDS) -> bool:
        return self.wait_until(lambda: self.has_printed(text), seconds)

    def sleep(self, seconds: float) -> None:
        """Waits for so long, but not beyond the process's end."""
        self.wait_until(lambda: False, seconds)

    def send(self, number: int) -> bool:
        """Sends a signal to this process alone; returns whether it was running."""
        self._signalled = time.monotonic()
        if self.is_running:
            self._popen.send_signal(number)
            return True
        return False

    def wait(self, seconds: float = _DEADLINE_SECONDS) -> Optional[int]:
        """Returns the exit code; None where the process had to be killed after `seconds`."""
        ended = self.wait_until(lambda: not self.is_running, seconds)
        self.seconds = time.monotonic() - self._signalled
        if ended:
            return self._popen.returncode
        self.end()
        return None

    def end(self) -> None:
        """Kills the process and what it started."""
        members = self.members()
        for process in members:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._popen.wait()
        psutil.wait_procs(members, _SECONDS_FOR_CHILDREN)

    def members(self) -> List[psutil.Process]:
        """The running processes of its session: itself, and what it started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(process.pid) == self.pid and process.status() != 'zombie':
                    found.append(process)
        return found

    def ends_with_children(self) -> bool:
        """Whether nothing that it started outlives it for long."""
        deadline = time.monotonic() + _SECONDS_FOR_CHILDREN
        while self.members():
            if time.monotonic() > deadline:
                self.end()
                return False
            time.sleep(0.2)
        return True


class Bench:
    """One try of one fault."""

    def __init__(self, laboratory: 'Laboratory', name: str, number: int):
        self.laboratory, self.name, self.number = laboratory, name, number
        self.folder = os.path.join(laboratory.work_dir, slug(name), str(number))
        # That of an interrupted table.
        unmount(os.path.join(self.folder, 'disk'))
        remove(self.folder)
        os.makedirs(self.folder)
        self.model_dir = os.path.join(self.folder, 'model')
        self.data_dir = laboratory.data_dir
        self.random = random.Random(zlib.crc32('{} {}'.format(name, number).encode()))
        self.max_steps = laboratory.max_steps
        self.wrong: List[str] = []
        self.said, self.lost, self.skipped = '', '-', ''
        # Checkpoints that the fault spoilt: they may lie there, but not be gone on from.
        self.spoilt: List[str] = []
        self._most_lost = -1
        self._processes: List[Process] = []

    # What is started.

    def options(self, **changes: Any) -> List[str]:
        """Flags of a cheap training of the default model; of `None` is none made."""
        values: Dict[str, Any] = {
            'model_dir': self.model_dir,
            'data_dir': self.data_dir,
            'max_steps': self.max_steps,
            'save_checkpoints_steps': max(1, self.max_steps // 3),
            'evaluation_samples': 1,
            'save_summary_steps': 20,
        }
        values.update(changes)
        return ['--{}={}'.format(k, v) for k, v in values.items() if v is not None]

    def train(self, patch: str = '', prefix: Sequence[str] = (), **changes: Any) -> Process:
        """Starts `python -m trainer.task`, behind Python lines of a `patch` where there are any."""
        start = ['-m', 'trainer.task']
        if patch:
            module = "import runpy\nrunpy.run_module('trainer.task', None, '__main__', True)"
            start = ['-c', patch + module]
        return self.run([*prefix, sys.executable, *start, *self.options(**changes)])

    def prepare(self, prefix: Sequence[str] = (), **changes: Any) -> Process:
        """Starts `python -m trainer.prepare_data`."""
        flags = ['--{}={}'.format(k, v) for k, v in dict(data_dir=self.data_dir, **changes).items()]
        return self.run([*prefix, sys.executable, '-m', 'trainer.prepare_data', *flags])

    def run(self, command: Sequence[str], environment: Optional[Dict[str, str]] = None) -> Process:
        number = len(self._processes)
        log = os.path.join(self.folder, 'logs', '{}.log'.format(number))
        variables = dict(os.environ, PYTHONPATH=ROOT, PYTHONUNBUFFERED='1', **environment or {})
        self.laboratory.check_going_on()
        self._processes.append(Process(command, log, variables))
        self.laboratory.started(self._processes[-1])
        return self._processes[-1]

    def copy_base(self) -> int:
        """Copies the half-finished run; returns the step of its last checkpoint."""
        shutil.copytree(self.laboratory.base(), self.model_dir)
        return last_step(self.model_dir)

    def end(self) -> None:
        """Ends all that is running, and notes what outlived its parent."""
        for process in self._processes:
            if process.is_running:
                process.end()
            elif not process.ends_with_children():
                self.wrong.append('a process outlived the trainer that started it')
        unmount(os.path.join(self.folder, 'disk'))
        if not self.wrong:
            remove(self.folder)

    # What is noted.

    def expect(self, condition: Any, otherwise: str) -> bool:
        if not condition:
            self.wrong.append(self.shortened(otherwise))
        return bool(condition)

    def saw(self, process: Process, *words: str) -> str:
        """Notes the last line with one of the words, or the last of all, as what the user saw."""
        lines = [(line, self.named(line)) for line in process.lines()]
        chosen = [line for line, named in lines if any(word in named for word in words)]
        chosen = chosen or [line for line, _ in lines]
        self.said = self.shortened(chosen[-1]) if chosen else '(nothing)'
        return chosen[-1] if chosen else ''

    def has_said(self, process: Process, word: str) -> bool:
        """Whether a word was printed; names of folders are replaced, as they hold many words."""
        return any(word in self.named(line) for line in process.lines())

    def shortened(self, text: str) -> str:
        """Names folders by what they are, and cuts what is too long for a table."""
        text = self.named(text)
        cut = len(text) > _LONGEST_SENTENCE
        return text[: _LONGEST_SENTENCE - 1] + '…' if cut else text

    def named(self, text: str) -> str:
        """Names folders by what they are."""
        names = {
            self.model_dir: 'MODEL_DIR',
            self.data_dir: 'DATA_DIR',
            self.laboratory.data_dir: 'DATA_DIR',
            os.path.join(self.laboratory.work_dir, 'idx'): 'IDX_DIR',
            self.folder: 'FOLDER',
            socket.gethostname(): 'HOST',
        }
        for path, name in names.items():
            text = re.sub(r'(?<![\w.]){}(?![\w])'.format(re.escape(path)), name, text)
        return text

    def lose(self, steps: int, most: Optional[int] = None) -> None:
        """Notes steps that have to be made again; `most` is how many they may be."""
        self._most_lost = max(self._most_lost, steps)
        self.lost = str(self._most_lost)
        if most is not None:
            self.expect(0 <= steps <= most, '{} steps were lost'.format(steps))

    # What is expected.

    def refused(self, process: Process, *words: str, seconds: float = 180.0) -> str:
        """Expects one sentence with all the words, and code 1; returns the sentence."""
        code = process.wait(seconds)
        sentence = self.saw(process, 'error: ')
        self.expect(code is not None, 'it did not end within {:g} s'.format(seconds))
        self.expect(code in (1, None), 'code {}'.format(code))
        self.expect(sentence.startswith('error: '), 'no line begins with error:')
        self.expect_no_traceback(process)
        for word in words:
            told = self.named(word) in self.named(sentence)
            self.expect(told, 'the sentence lacks {!r}'.format(word))
        return sentence

    def expect_no_traceback(self, process: Process) -> None:
        self.expect(not process.has_printed('Traceback'), 'a traceback was printed')

    def finishes(self, process: Process, *words: str, max_steps: Optional[int] = None) -> None:
        """Expects the training to end with all its artifacts, after it named the words.

        What the user saw before, of a refusal, stays noted.
        """
        wanted = max_steps or self.max_steps
        code = process.wait()
        if not self.said:
            self.saw(process, *(words or ('Resuming', 'Training', 'already')))
        if not self.expect(code == 0, 'the last start ended with code {}'.format(code)):
            self.saw(process, 'error: ', *words)
        for word in words:
            self.expect(self.has_said(process, word), 'nothing was said of {!r}'.format(word))
        self.expect_no_traceback(process)
        for trouble in troubles(self.model_dir, wanted, self.spoilt) if code == 0 else ():
            self.expect(False, trouble)

    def good_checkpoints(self) -> None:
        """Expects all checkpoints of the folder to be readable and finite."""
        for path in checkpoints(self.model_dir):
            trouble = trouble_of(path)
            self.expect(not trouble, '{}: {}'.format(os.path.basename(path), trouble))


class Laboratory:
    """What the tries share.

    Args:
      work_dir: holds a folder for each try, and the shared runs.
      data_dir: the prepared MNIST.
      quick: fewer steps, one try.
    """

    def __init__(self, work_dir: str, data_dir: str, quick: bool, soak_minutes: float = 30.0):
        self.work_dir, self.data_dir = os.path.abspath(work_dir), os.path.abspath(data_dir)
        self.quick, self.soak_minutes = quick, soak_minutes
        self.max_steps = 60 if quick else 120
        self.chain_steps = 60 if quick else 600
        self._is_stopping = False
        self._running: List[Process] = []
        self._making: Dict[str, Any] = {}
        self._lock = threading.Lock()

    def check_going_on(self) -> None:
        if self._is_stopping:
            raise KeyboardInterrupt

    def started(self, process: Process) -> None:
        """Remembers a process, for `stop`."""
        with self._lock:
            self._running = [other for other in self._running if other.is_running] + [process]

    def stop(self) -> None:
        """Ends all processes; none is started any more."""
        self._is_stopping = True
        for process in self._running:
            process.end()

    def shared(self, name: str, make: Callable[[Bench], None]) -> str:
        """Returns a folder that `make` filled: once, and only if it noted nothing wrong."""
        with self._lock:
            making = self._making.setdefault(name, threading.Lock())
        folder = os.path.join(self.work_dir, 'shared', '{}-{}'.format(name, self.max_steps))
        with making:
            if not os.path.exists(folder):
                bench = Bench(self, 'shared ' + name, self.max_steps)
                try:
                    make(bench)
                    if bench.wrong:
                        raise RuntimeError('{}: {}'.format(name, '; '.join(bench.wrong)))
                    os.makedirs(os.path.dirname(folder), exist_ok=True)
                    os.rename(bench.model_dir, folder)
                finally:
                    bench.end()
        return folder

    def base(self) -> str:
        """A run that SIGTERM ended after two thirds of its steps."""

        def make(bench: Bench) -> None:
            process = bench.train()
            target = bench.max_steps * 2 // 3
            process.wait_for('step {}: validation'.format(target))
            process.send(signal.SIGTERM)
            process.wait(60)
            found = last_step(bench.model_dir)
            bench.expect(target <= found < bench.max_steps, 'it ended at step {}'.format(found))

        return self.shared('base', make)

    def finished(self) -> str:
        """The same, after it went on to its end."""

        def make(bench: Bench) -> None:
            bench.copy_base()
            bench.finishes(bench.train())

        return self.shared('finished', make)

    def unbroken(self) -> str:
        """A run of as many steps as those of the chains of kills, without any fault."""

        def make(bench: Bench) -> None:
            steps = self.chain_steps
            bench.finishes(bench.train(max_steps=steps, **CHAIN), max_steps=steps)

        return self.shared('unbroken', make)

    def idx_dir(self) -> str:
        """MNIST's four IDX files.

        Raises:
          Skipped: they cannot be had.
        """
        folder = os.path.join(self.work_dir, 'idx')
        with self._lock:
            if not os.path.exists(folder):
                _fetch_idx_files(folder)
        return folder

    def empty_data_dir(self, bench: Bench) -> str:
        bench.data_dir = os.path.join(bench.folder, 'data')
        os.makedirs(bench.data_dir)
        return bench.data_dir

    def copied_data_dir(self, bench: Bench, parent: str = '') -> str:
        """A copy of the records and the decoded images; returns the folder of the records."""
        bench.data_dir = os.path.join(parent or bench.folder, 'data')
        for name in ('3.0.0', '3.0.0-decoded'):
            source = os.path.join(self.data_dir, 'mnist', name)
            shutil.copytree(source, os.path.join(bench.data_dir, 'mnist', name))
        return os.path.join(bench.data_dir, 'mnist', '3.0.0')


# Default cadence of checkpoints and summaries.
CHAIN: Dict[str, Any] = {'save_checkpoints_steps': None, 'save_summary_steps': None}


def _fetch_idx_files(folder: str) -> None:
    row = catalog.FILE_DATASETS['mnist']
    temporary = folder + '.fetching'
    shutil.rmtree(temporary, ignore_errors=True)
    os.makedirs(temporary)
    try:
        paths = row.second_source.fetch(list(row.sha256), temporary, 60.0)
    except SourceFailed as error:
        raise Skipped('the IDX files cannot be had ({})'.format(error)) from error
    kept = os.path.join(temporary, 'kept')
    os.mkdir(kept)
    for path in paths.values():
        os.rename(path, os.path.join(kept, os.path.basename(path)))
    os.rename(kept, folder)
    shutil.rmtree(temporary)


def slug(name: str) -> str:
    """A name as it can be one of a folder."""
    return re.sub(r'\W+', '-', name).strip('-')


# What became of a run.


def last_step(model_dir: str) -> int:
    """The step of the last checkpoint that the `checkpoint` file names; -1 without one."""
    state = tf.train.get_checkpoint_state(model_dir)
    return step_of(state.model_checkpoint_path) if state else -1


def step_of(checkpoint_path: str) -> int:
    return int(checkpoint_path.rsplit('-', 1)[1])


def checkpoints(model_dir: str) -> List[str]:
    """Prefixes of the training checkpoints in a folder, in the order of their steps."""
    names = os.listdir(model_dir) if os.path.isdir(model_dir) else []
    found = [re.fullmatch(r'(model\.ckpt-\d+)\.index', name) for name in names]
    return sorted((os.path.join(model_dir, m.group(1)) for m in found if m), key=step_of)


def trouble_of(checkpoint_path: str) -> str:
    """What is wrong with a checkpoint, '' for nothing."""
    try:
        reader = tf.train.load_checkpoint(checkpoint_path)
        for name, dtype in reader.get_variable_to_dtype_map().items():
            value = reader.get_tensor(name)
            if dtype.is_floating and not np.isfinite(value).all():
                return '{} is not finite'.format(name)
    except (tf.errors.OpError, ValueError) as error:
        return 'it cannot be read ({})'.format(str(error).split('\n')[0])
    return ''


def shown_step(process: Process) -> int:
    """The last training step that the progress lines of a process tell of; 0 for none."""
    found = [re.match(r'step ([\d,]+)[/:]', line) for line in process.lines()]
    return max([int(m.group(1).replace(',', '')) for m in found if m], default=0)


def first_step(process: Process) -> int:
    """The step from which a process went on; 0 for the start, -1 where it did not say."""
    for line in process.lines():
        if line.startswith('Training '):
            return 0
        match = re.search(r'(?:Resuming .*? at|reached) step ([\d,]+)', line)
        if match:
            return int(match.group(1).replace(',', ''))
    return -1


def troubles(model_dir: str, max_steps: int, spoilt: Sequence[str] = ()) -> Iterator[str]:
    """What is wrong with a finished run: its steps, checkpoints, exports, things left behind.

    Args:
      spoilt: checkpoints that may be damaged, as long as the `checkpoint` file does not name them.
    """
    record = read_json(os.path.join(model_dir, 'results.json'))
    step = last_step(model_dir)
    if record.get('global_step') != max_steps:
        yield 'results.json has global_step {}'.format(record.get('global_step'))
    if step != max_steps:
        yield 'the last checkpoint is of step {}'.format(step)
    named = tf.train.get_checkpoint_state(model_dir).all_model_checkpoint_paths if step >= 0 else []
    for path in checkpoints(model_dir):
        trouble = trouble_of(path) if path in named or path not in spoilt else ''
        if trouble:
            yield '{}: {}'.format(os.path.basename(path), trouble)
    if not export_answers(os.path.join(model_dir, 'export', 'final')):
        yield 'the final export does not answer'
    best = read_json(os.path.join(model_dir, 'export', 'best', 'best.json'))
    if not export_answers(os.path.join(model_dir, 'export', 'best'), best.get('export', '')):
        yield "best.json's export does not answer"
    left = leftovers(model_dir)
    if left:
        yield 'left behind: {}'.format(', '.join(left))


def read_json(path: str) -> Dict[str, Any]:
    """The content of a JSON file; {} where there is none, or none that can be read."""
    try:
        with open(path) as f:
            return json.load(f)
    except (OSError, ValueError):
        return {}


def export_answers(folder: str, name: Optional[str] = None) -> bool:
    """Whether an export, the newest in `folder` unless named, can be loaded and gives numbers."""
    names = sorted(n for n in os.listdir(folder) if n.isdigit()) if os.path.isdir(folder) else []
    chosen = names[-1] if names and name is None else name
    if chosen not in names:
        return False
    try:
        with tf.Graph().as_default(), tf.Session() as session:
            model = tf.saved_model.load(session, ['serve'], os.path.join(folder, str(chosen)))
            signature = model.signature_def['serving_default']
            values = session.run(
                signature.outputs['negative_elbo'].name,
                {signature.inputs['images'].name: np.zeros([2, 28, 28], np.float32)},
            )
    except (OSError, RuntimeError, ValueError, KeyError, tf.errors.OpError):
        return False
    return bool(np.isfinite(values).all())


def leftovers(folder: str) -> List[str]:
    """Temporary files and folders below a folder."""
    found = []
    for parent, folders, names in os.walk(folder):
        for name in folders + names:
            if any(fnmatch.fnmatch(name, pattern) for pattern in _LEFTOVERS):
                found.append(os.path.relpath(os.path.join(parent, name), folder))
    return sorted(found)


def negative_elbo(model_dir: str) -> float:
    """The final loss on the validation images, NaN where there is none."""
    record = read_json(os.path.join(model_dir, 'results.json'))
    return float(record.get('validation', {}).get('negative_elbo', np.nan))


# Damage.


def damage(path: str, kind: str, at: Optional[int] = None) -> None:
    """Flips a bit of a file in its middle (or byte `at`), cuts it into half, or empties it."""
    size = os.path.getsize(path)
    with open(path, 'r+b') as f:
        if kind == 'bit flipped':
            f.seek(size // 2 if at is None else at)
            byte = f.read(1)[0]
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte ^ 0x10]))
        elif kind == 'truncated':
            f.truncate(size // 2)
        elif kind == 'empty':
            f.truncate(0)
        else:
            raise ValueError(kind)


def poison_checkpoint(checkpoint_path: str, value: float) -> None:
    """Puts `value` into one weight of a checkpoint; all else stays."""
    reader = tf.train.load_checkpoint(checkpoint_path)
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    name = next(n for n in sorted(values) if n.endswith('kernel'))
    values[name].flat[0] = value
    with tf.Graph().as_default(), tf.Session() as session:
        for name, content in values.items():
            tf.get_variable(name, initializer=tf.constant(content))
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver()
        saver.save(session, checkpoint_path, write_meta_graph=False, write_state=False)


def decoded_sums(data_dir: str) -> Any:
    """The sha256 of the decoded images of MNIST, read from the files."""
    folder = os.path.join(data_dir, 'mnist', '3.0.0-decoded')
    names = sorted(n for n in os.listdir(folder)) if os.path.isdir(folder) else []
    return {n: files.sha256(os.path.join(folder, n)) for n in names if n.endswith('.uint8')}


# Disks.


@contextlib.contextmanager
def disk(bench: Bench, megabytes: int) -> Iterator[str]:
    """A file system of its own, in memory, as long as the context.

    Raises:
      Skipped: this process may not mount.
    """
    folder = os.path.join(bench.folder, 'disk')
    os.makedirs(folder)
    mount('-t', 'tmpfs', '-o', 'size={}m'.format(megabytes), 'tmpfs', folder)
    yield folder


def mount(*arguments: str) -> None:
    """Calls mount(8).

    Raises:
      Skipped: it fails.
    """
    tool = shutil.which('mount')
    if tool is None or os.geteuid() != 0:
        raise Skipped('only root may mount a small disk')
    done = subprocess.run([tool, *arguments], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Skipped('mount failed ({})'.format(' '.join(done.stderr.split())))


def unmount(folder: str) -> None:
    """Takes away all that is mounted at a folder."""
    while is_mounted(folder):
        subprocess.run(['umount', '--lazy', folder], check=True)


def is_mounted(folder: str) -> bool:
    """Whether something is mounted at a folder or below it.

    `os.path.ismount` does not see a part of a file system that is mounted elsewhere in it.
    """
    with open('/proc/self/mounts') as f:
        points = [line.split(' ')[1].encode().decode('unicode_escape') for line in f]
    folder = os.path.realpath(folder)
    return any(point == folder or point.startswith(folder + os.sep) for point in points)


def remove(folder: str) -> None:
    """Removes a folder of a try, never what is mounted in it.

    Raises:
      RuntimeError: something is.
    """
    if is_mounted(folder):
        raise RuntimeError('{} holds a mounted disk: unmount it'.format(folder))
    if os.path.exists(folder):
        shutil.rmtree(folder)


def fill(folder: str) -> str:
    """Takes the last free byte of a disk; returns the file that holds it."""
    path = os.path.join(folder, 'ballast')
    size = 1 << 20
    with open(path, 'ab', buffering=0) as f:
        while size:
            try:
                f.write(b'\0' * size)
            except OSError:
                size //= 2
    return path


# Networks.


@contextlib.contextmanager
def hanging_server() -> Iterator[str]:
    """The address of a server that takes every connection and never says a word."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        server.listen(64)
        yield 'http://127.0.0.1:{}'.format(server.getsockname()[1])


def through(address: str) -> Dict[str, str]:
    """Variables that send all that fetches something to an address."""
    names = ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'all_proxy', 'ALL_PROXY')
    variables = dict.fromkeys(names, address)
    for name in ('registry', 'proxy', 'https_proxy'):
        variables['npm_config_' + name] = address
    return dict(variables, no_proxy='', NO_PROXY='', npm_config_noproxy='')


def without_network() -> List[str]:
    """What to put in front of a command so that it has no network.

    Raises:
      Skipped: this process may not take it away.
    """
    tool = shutil.which('unshare')
    if tool is None or subprocess.run([tool, '-n', 'true'], stderr=subprocess.DEVNULL).returncode:
        raise Skipped('only root may take the network away')
    return [tool, '-n']
