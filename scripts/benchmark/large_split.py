"""Trains on a split that memory does not hold, against one that it holds, in turns.

    ./scripts/run python scripts/benchmark/large_split.py [--gigabytes=8] [--folder=FOLDER]

Writes a split of noise of MNIST's shape, looks at it as two starts would, and trains on it: from
its file; from its file, which is not in the page cache before a turn; and with a wait in place of a
disk of --reads_per_second random reads. The yardstick is the largest split that is held in memory.
Ends with 1 where a process that reads the file held more than 3/8 of its size, and 1 GB, in
anonymous memory (RssAnon).
"""

import contextlib
import dataclasses
import multiprocessing
import os
import tempfile
import threading
import time

import numpy as np
import tensorflow as tf
from absl import flags

from trainer.base import path_flags, program
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.data import decoded_copy, inputs
from trainer.data.dataset import SPLITS, DatasetFacts, ImageSource, Written
from trainer.data.stored_images import ImageFile
from trainer.settings.table import HParams
from trainer.training import model_fn, run

_SHAPE, _IMAGE_BYTES = (28, 28, 1), 784
_SMALL_COUNT = 1000  # Images for validation, and for test.
_COLUMNS = ('ms a step', 'ratio to memory', 'CPU ms a step', 'RssAnon, MB')
_LINE = '  {:<30} {:>12.1f} {:>16.3f} {:>14.1f} {:>12,.0f}'


def write_noise(path, count):
    block = np.random.RandomState(1).bytes(50_000 * _IMAGE_BYTES)
    left = count * _IMAGE_BYTES
    with open(path, 'wb') as f:
        while left:
            left -= f.write(block[:left])


class Noise(ImageSource):
    """A train split of so many GB."""

    name = 'noise'

    def __init__(self, gigabytes):
        counts = dict.fromkeys(SPLITS, _SMALL_COUNT)
        self._counts = dict(counts, train=int(gigabytes * 1e9) // _IMAGE_BYTES)

    def facts(self):
        return DatasetFacts(self.name, '1.0.0', _SHAPE, self._counts)

    def write_splits(self, folder):
        for split, count in self._counts.items():
            write_noise(os.path.join(folder, split + '.uint8'), count)
        return Written(_SHAPE, self._counts)


def timed_start(folder):
    """Returns the images as a start finds them, and the seconds that it took."""
    begin = time.perf_counter()
    data, reason = decoded_copy.load(folder)
    if data is None:
        raise UserError('--folder={}: {}.'.format(folder, reason))
    return data, time.perf_counter() - begin


def anonymous_megabytes():
    with open('/proc/self/status') as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith('RssAnon:'))


def _train(connection, data, most_bytes, reads_per_second, is_cold):
    """Trains as many steps as it is told; answers with (seconds, CPU seconds, MB at the peak)."""
    inputs._MOST_BYTES_IN_MEMORY = most_bytes
    usual = ImageFile._read

    def slowly(self, offsets):
        time.sleep(len(offsets) / reads_per_second)
        return usual(self, offsets)

    if reads_per_second:
        ImageFile._read = slowly
    peak, folder = [0.0], os.path.dirname(data.files['train'])
    params = HParams(model_dir=folder, binarization='dynamic')

    def watch():
        while True:
            peak[0] = max(peak[0], anonymous_megabytes())
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()
    tf.set_random_seed(1)
    tf.train.create_global_step()
    batches = inputs.train_input_fn(data, params.batch_size, 1, 0, params.binarization)
    batch = batches.make_one_shot_iterator().get_next()
    spec = model_fn.model_fn(batch, None, tf.estimator.ModeKeys.TRAIN, params)
    with tf.Session(config=run.make_estimator(params).config.session_config) as session:
        session.run(tf.global_variables_initializer())
        for steps in iter(connection.recv, 0):
            if is_cold:
                with open(data.files['train'], 'rb') as f:
                    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            begin, cpu = time.perf_counter(), time.process_time()
            for _ in range(steps):
                session.run(spec.train_op)
            connection.send((time.perf_counter() - begin, time.process_time() - cpu, peak[0]))


@contextlib.contextmanager
def _started(*arguments):
    context = multiprocessing.get_context('spawn')
    connection, other = context.Pipe()
    process = context.Process(target=_train, args=(other, *arguments))
    process.start()
    other.close()
    try:
        yield connection
        connection.send(0)
    finally:
        process.join(60)
        process.terminate()


def turns(cases, rounds, steps):
    """Returns what `_train` answers, by the names of `cases`, whose values it takes."""
    found = {name: [] for name in cases}
    with contextlib.ExitStack() as stack:
        started = {name: stack.enter_context(_started(*case)) for name, case in cases.items()}
        for number in range(rounds + 1):
            say('  round {} of {}'.format(number, rounds))
            for name, connection in started.items():
                connection.send(steps)
                found[name].append(connection.recv())
    return {name: answers[1:] for name, answers in found.items()}  # The first warms up.


def main(argv):
    del argv
    values = flags.FLAGS
    # What is held in memory is as much smaller as the split is than the usual one.
    most_bytes = int(min(1.0, values.gigabytes / 8) * inputs._MOST_BYTES_IN_MEMORY)
    with tempfile.TemporaryDirectory(dir=values.folder) as folder:
        say('writing {} GB to {}'.format(values.gigabytes, folder))
        copy = os.path.join(folder, 'copy')
        decoded_copy.seal(copy, decoded_copy.write(Noise(values.gigabytes), copy))
        (_, first), (data, second) = timed_start(copy), timed_start(copy)
        text = '{:,} images, looked at in {:.1f} s at the first start, {:.2f} s at the second'
        print(text.format(data.num_examples['train'], first, second))
        held = dict(data.num_examples, train=most_bytes // _IMAGE_BYTES)
        part = dict(data.files, train=os.path.join(folder, 'part.uint8'))
        write_noise(part['train'], held['train'])
        in_memory = dataclasses.replace(data, files=part, num_examples=held)
        slow = 'file, {:,} reads a second'.format(values.reads_per_second)
        cases = {
            'memory, {:,} images'.format(held['train']): (in_memory, most_bytes, 0, False),
            'file': (data, most_bytes, 0, False),
            'file, not in the page cache': (data, most_bytes, 0, True),
            slow: (data, most_bytes, values.reads_per_second, False),
        }
        found = turns(cases, values.rounds, values.steps)
    most_megabytes = max(1000.0, 375.0 * values.gigabytes)
    return int(max(show(found, values.steps)[1:]) > most_megabytes)


def show(found, steps):
    """Prints a row for each case, the first the yardstick; returns the peaks of RssAnon in MB."""
    print('  {:<30} {:>12} {:>16} {:>14} {:>12}'.format('', *_COLUMNS))
    yardstick = np.array(next(iter(found.values())))[:, 0]
    peaks = []
    for name, answers in found.items():
        seconds, cpu, megabytes = np.array(answers).T
        milliseconds, cpu_milliseconds = (1e3 * np.median(each) / steps for each in (seconds, cpu))
        peaks.append(megabytes[-1])
        row = (milliseconds, np.median(seconds / yardstick), cpu_milliseconds, peaks[-1])
        print(_LINE.format(name, *row), flush=True)
    return peaks


if __name__ == '__main__':
    flags.DEFINE_float('gigabytes', 8.0, 'Size of the train split, 10^9 bytes.', 0.01)
    flags.DEFINE_integer('reads_per_second', 10000, 'Of the disk that is waited for.', 1)
    flags.DEFINE_integer('rounds', 6, 'Turns of each process.', 1)
    flags.DEFINE_integer('steps', 50, 'Training steps in a turn.', 1)
    path_flags.define('folder', None, 'Where the images are written; a temporary folder.')
    program.run(main)
