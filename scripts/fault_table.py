"""Trains the default model on real MNIST while things go wrong, and prints what became of it.

    ./scripts/run python scripts/fault_table.py [--quick] [--only=NAME,NAME] [--jobs=2]

Each row is a fault: real processes, real signals, real disks and files (scripts/laboratory.py).
It is ok when the training ends, at once or after the same command was given again, with all that a
run without the fault leaves; or, where it has to be refused, with one sentence. Exit code 0: all
rows are ok. The same command with the same --work_dir goes on after an interruption.
"""

import concurrent.futures
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from tests.support.paths import OLD_RUN

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import numpy as np  # noqa: E402
import psutil  # noqa: E402
import tensorflow as tf  # noqa: E402
from absl import flags  # noqa: E402

from scripts import laboratory  # noqa: E402
from scripts.benchmark import trainings as runs  # noqa: E402
from scripts.laboratory import CHECKPOINT_DATA, KINDS, Bench, Laboratory, Process, Skipped  # noqa: E402
from trainer.base import files, image_files, path_flags, program  # noqa: E402
from trainer.data import dataset_folder, prepare  # noqa: E402
from trainer.settings import command_line, storage  # noqa: E402
from trainer.settings import table as settings_table

_NATS = 1.0
_SECONDS_TO_SAVE = 10.0
# A line to wait for, and the seconds after it between which the moment is drawn; in the order in
# which a run comes to them.
_MOMENTS = [
    ('', 2.0, 30.0),
    (': validation', 0.0, 6.0),
    (': validation', 0.0, 8.0),
    ('Exporting the final model', 0.0, 5.0),
    ('Evaluating the final model', 0.0, 6.0),
]
_PREPARING = 'writing its TFDS records'
_HOUR = 3600
# Beside a trainer, and where the clock decides, rather than steps.
_ENDLESS = 10**6
_SOAK_SAMPLE_SECONDS = 10.0
_GROWTH = 1.05
# Evaluations, one a minute, leave the memory as large as it gets after some five of them.
_SOAK_MINUTES_TO_JUDGE = 20.0


class Row(NamedTuple):
    """A line of the table.

    Attributes:
      name: what goes wrong.
      fault: one try of it.
      tries: how often it is tried; in the quick form once.
      is_quick: whether it is part of the quick form.
    """

    name: str
    fault: Callable[[Bench], None]
    tries: int = 1
    is_quick: bool = False


# Killed.


def killed_at_random(bench: Bench) -> None:
    """A chain: the run is killed and the same command given again, several times."""
    quick, steps = bench.laboratory.quick, bench.laboratory.chain_steps
    interval = steps // 5
    moments = [(': validation', 0.0, 2.0)] if quick else _MOMENTS

    def start() -> Process:
        return bench.train(max_steps=steps, **laboratory.CHAIN)

    processes = [start()]
    for number, moment in enumerate(moments):
        if not _killed_at(moment, bench, processes[-1]):
            bench.expect(False, 'it ended before kill {}'.format(number + 1))
            return
        note('{}: kill {} after {!r}'.format(bench.name, number + 1, moment[0] or 'some time'))
        processes.append(start())
    bench.finishes(processes[-1], max_steps=steps)
    _note_losses(bench, processes, interval)
    if not quick:
        wanted = laboratory.negative_elbo(bench.laboratory.unbroken())
        found = laboratory.negative_elbo(bench.model_dir)
        # NaN is wrong too.
        bench.expect(
            abs(found - wanted) <= _NATS, '{:.2f} nats, {:.2f} unbroken'.format(found, wanted)
        )


def _killed_at(moment: Tuple[str, float, float], bench: Bench, process: Process) -> bool:
    """Kills a process some time after it printed a line; returns whether it lived so long."""
    line, low, high = moment
    process.wait_for(line)
    process.sleep(bench.random.uniform(low, high))
    was_running = process.send(signal.SIGKILL)
    process.wait()
    return was_running


def _note_losses(bench: Bench, processes: List[Process], interval: int) -> None:
    reached = 0
    for process in processes:
        start = laboratory.first_step(process)
        if start >= 0:
            bench.lose(max(0, reached - start), interval)
            reached = max(start, laboratory.shown_step(process))
    bench.lost = '≤ {} (one interval)'.format(interval)


def killed_in_preparation(bench: Bench) -> None:
    """By turns of the preparation's own command and of the trainer."""
    idx_dir = bench.laboratory.idx_dir()
    bench.laboratory.empty_data_dir(bench)

    def start() -> Process:
        if bench.number % 2:
            return bench.train(idx_dir=idx_dir)
        return bench.prepare(idx_dir=idx_dir)

    for number in range(1 if bench.laboratory.quick else 3):
        process = start()
        if number:
            process.wait_for(_PREPARING, 60)
        process.sleep(bench.random.uniform(1, 25))
        process.send(signal.SIGKILL)
        process.wait()
    _prepared(bench, start())


def _prepared(bench: Bench, process: Process) -> None:
    """Expects the last start of a preparation, or of a trainer, to end well."""
    if 'trainer.task' in process.command:
        bench.finishes(process)
        bench.lost = '0'
    else:
        bench.expect(process.wait() == 0, 'the last start failed')
        if not bench.said:
            bench.saw(process)
        bench.expect_no_traceback(process)
    wanted = laboratory.decoded_sums(bench.laboratory.data_dir)
    bench.expect(laboratory.decoded_sums(bench.data_dir) == wanted, 'other images were prepared')
    left = laboratory.leftovers(bench.data_dir)
    bench.expect(not left, 'left behind: {}'.format(', '.join(left)))


# Told to end.


def told_in_steps(number: int, word: str) -> Callable[[Bench], None]:
    def fault(bench: Bench) -> None:
        bench.max_steps *= 3  # Some seconds between two checkpoints.
        process = bench.train()
        process.wait_for('step {}: validation'.format(bench.max_steps // 3))
        process.sleep(bench.random.uniform(0.2, 2.0))
        process.send(number)
        _ended_by(bench, process, number, word)
        saved = laboratory.last_step(bench.model_dir)
        resumed = bench.train()
        bench.finishes(resumed)
        start = laboratory.first_step(resumed)
        bench.expect(start == saved, 'saved at {}, resumed at {}'.format(saved, start))
        bench.expect(str(saved) in bench.said.replace(',', ''), 'the sentence lacks the step')
        bench.lose(max(0, laboratory.shown_step(process) - start), 0)

    return fault


def _ended_by(bench: Bench, process: Process, number: int, word: str) -> None:
    """Expects a process to end by a signal as it should."""
    code = process.wait(60)
    bench.expect(code == 128 + number, 'code {}'.format(code))
    sentence = bench.saw(process, word)
    bench.expect(sentence.startswith(word), 'no line begins with {}'.format(word))
    bench.expect_no_traceback(process)
    bench.expect(
        process.seconds <= _SECONDS_TO_SAVE, 'it ended after {:.1f} s'.format(process.seconds)
    )


def told_after(line: str, low: float, high: float) -> Callable[[Bench], None]:
    """SIGTERM a moment after a line was printed."""

    def fault(bench: Bench) -> None:
        process = bench.train()
        bench.expect(process.wait_for(line), 'the line {!r} did not come'.format(line))
        process.sleep(bench.random.uniform(low, high))
        process.send(signal.SIGTERM)
        _ended_by(bench, process, signal.SIGTERM, 'terminated: ')
        resumed = bench.train()
        bench.finishes(resumed)
        bench.lose(
            max(0, laboratory.shown_step(process) - max(0, laboratory.first_step(resumed))), 0
        )

    return fault


def told_in_evaluation(bench: Bench) -> None:
    """Of a checkpoint, then of the final model."""
    if bench.number % 2:
        told_after('Evaluating the final model', 0.2, 4.0)(bench)
        return
    process = bench.train()
    step = bench.max_steps // 3
    index = os.path.join(bench.model_dir, 'model.ckpt-{}.index'.format(step))
    process.wait_until(lambda: os.path.exists(index))
    process.sleep(bench.random.uniform(0.2, 1.0))
    process.send(signal.SIGTERM)
    _ended_by(bench, process, signal.SIGTERM, 'terminated: ')
    resumed = bench.train()
    bench.finishes(resumed)
    bench.lose(max(0, step - laboratory.first_step(resumed)), 0)


def told_in_preparation(bench: Bench) -> None:
    idx_dir = bench.laboratory.idx_dir()
    bench.laboratory.empty_data_dir(bench)
    process = bench.train(idx_dir=idx_dir)
    process.wait_for(_PREPARING)
    process.sleep(bench.random.uniform(0.0, 6.0))
    process.send(signal.SIGTERM)
    _ended_by(bench, process, signal.SIGTERM, 'terminated: ')
    _prepared(bench, bench.prepare(idx_dir=idx_dir))


# Disks.


def full_after(line: str) -> Callable[[Bench], None]:
    """The disk of the model folder is full after a line; `line` may name {step}, a third."""

    def fault(bench: Bench) -> None:
        wanted = line.format(step=bench.max_steps // 3)
        _full_when(bench, lambda process: process.wait_for(wanted))

    return fault


def full_in_best_export(bench: Bench) -> None:
    """The disk is full as soon as a checkpoint, which is then evaluated and exported, is there."""
    name = 'model.ckpt-{}.index'.format(bench.max_steps // 3)

    def wait(process: Process) -> bool:
        return process.wait_until(lambda: os.path.exists(os.path.join(bench.model_dir, name)))

    _full_when(bench, wait)


def full_in_events(bench: Bench) -> None:
    """Summaries of each step, no checkpoint before the end."""
    first = 'step {}: validation'.format(bench.max_steps // 2)
    changes = {'save_summary_steps': 1, 'save_checkpoints_steps': bench.max_steps // 2}
    _full_when(bench, lambda process: process.wait_for(first), **changes)


def _full_when(bench: Bench, wait: Callable[[Process], bool], **changes: Any) -> None:
    with laboratory.disk(bench, 400) as folder:
        bench.model_dir = os.path.join(folder, 'model')
        process = bench.train(**changes)
        bench.expect(wait(process), 'the moment did not come')
        # Until the process has ended, as a disk that others fill.
        while process.is_running:
            ballast = laboratory.fill(folder)
            process.sleep(0.05)
        saved = laboratory.last_step(bench.model_dir)
        bench.refused(process, 'o space left on device')
        bench.good_checkpoints()
        os.remove(ballast)
        resumed = bench.train(**changes)
        bench.finishes(resumed)
        start = laboratory.first_step(resumed)
        bench.expect(start >= saved, 'saved at {}, resumed at {}'.format(saved, start))
        interval = changes.get('save_checkpoints_steps', bench.max_steps // 3)
        bench.lose(max(0, laboratory.shown_step(process) - start), interval)


def full_in_preparation(bench: Bench) -> None:
    idx_dir = bench.laboratory.idx_dir()
    with laboratory.disk(bench, 30 if bench.number % 2 else 80) as folder:
        bench.data_dir = os.path.join(folder, 'data')
        process = bench.prepare(idx_dir=idx_dir)
        bench.refused(process, 'o space left on device', bench.data_dir)
        laboratory.mount('-o', 'remount,size=600m', folder)
        _prepared(bench, bench.prepare(idx_dir=idx_dir))


def read_only_data(bench: Bench) -> None:
    # A copy: the user's own data is never mounted where a try is cleaned up.
    with laboratory.disk(bench, 120) as folder:
        bench.laboratory.copied_data_dir(bench, folder)
        laboratory.mount('-o', 'remount,ro', folder)
        bench.finishes(bench.train())
        bench.lost = '0'


def read_only_data_empty(bench: Bench) -> None:
    with laboratory.disk(bench, 1) as folder:
        laboratory.mount('-o', 'remount,ro', folder)
        bench.data_dir = folder
        bench.refused(bench.train(), folder)


def read_only_model(bench: Bench) -> None:
    """With a run in it, then without."""
    with laboratory.disk(bench, 200) as folder:
        bench.model_dir = os.path.join(folder, 'model')
        if bench.number % 2:
            os.makedirs(bench.model_dir)
        else:
            bench.copy_base()
        laboratory.mount('-o', 'remount,ro', folder)
        bench.refused(bench.train(), bench.model_dir)
        laboratory.mount('-o', 'remount,rw', folder)
        bench.finishes(bench.train())
        bench.lost = '0'


# The network.


def no_network(bench: Bench) -> None:
    bench.laboratory.empty_data_dir(bench)
    bench.refused(bench.train(prefix=laboratory.without_network()), '--idx_dir')


def hanging_network(bench: Bench) -> None:
    bench.laboratory.empty_data_dir(bench)
    with laboratory.hanging_server() as address:
        variables = laboratory.through(address)
        command = [sys.executable, '-m', 'trainer.task', *bench.options()]
        # Two sources, half a minute each.
        process = bench.run(command, variables)
        bench.refused(process, '--idx_dir', 'no byte for 30 s', seconds=150)


# Damaged files.


def damaged(name: str, *words: str, must_lose: bool = False) -> Callable[[Bench], None]:
    """A file of a half-finished run is damaged; it is named and the run goes on.

    Args:
      name: of the file; {last} is the step of the last checkpoint.
      words: what the user has to be told; {last} as above.
      must_lose: whether the last checkpoint cannot be used.
    """

    def fault(bench: Bench) -> None:
        last = bench.copy_base()
        path = os.path.join(bench.model_dir, name.format(last=last))
        bench.spoilt.append(os.path.join(bench.model_dir, 'model.ckpt-{}'.format(last)))
        kind = KINDS[bench.number % len(KINDS)]
        # Text is damaged in its first words: elsewhere it might be as good as before.
        is_text = path.endswith('.json') or os.path.basename(path) == 'checkpoint'
        laboratory.damage(path, kind, 0 if is_text else None)
        process = bench.train()
        bench.finishes(process, *[word.format(last=last) for word in words])
        start = laboratory.first_step(process)
        bench.lose(last - start, last)
        if must_lose:
            bench.expect(0 < start < last, 'it went on from step {}'.format(start))

    return fault


def no_good_checkpoint(bench: Bench) -> None:
    bench.copy_base()
    for path in laboratory.checkpoints(bench.model_dir):
        laboratory.damage(path + CHECKPOINT_DATA, KINDS[bench.number % len(KINDS)])
    bench.refused(bench.train(), 'no other checkpoint')


def damaged_events(bench: Bench) -> None:
    last = bench.copy_base()
    kind = KINDS[bench.number % len(KINDS)]
    for folder in (bench.model_dir, os.path.join(bench.model_dir, 'eval_validation')):
        for name in os.listdir(folder):
            if name.startswith('events.out'):
                laboratory.damage(os.path.join(folder, name), kind)
    process = bench.train()
    bench.finishes(process, ' is empty' if kind == 'empty' else ' is damaged after ')
    bench.lose(last - laboratory.first_step(process), 0)


def damaged_records(bench: Bench) -> None:
    records = bench.laboratory.copied_data_dir(bench)
    shutil.rmtree(records + '-decoded')
    name = 'mnist-train.tfrecord-00000-of-00001'
    laboratory.damage(os.path.join(records, name), KINDS[bench.number % len(KINDS)])
    bench.refused(bench.train(), records, 'broken')
    left = laboratory.leftovers(bench.data_dir)
    bench.expect(not left, 'left behind: {}'.format(', '.join(left)))


def damaged_decoded(bench: Bench) -> None:
    """Of the trainer the first time; then of the preparation alone, which is the same code."""
    records = bench.laboratory.copied_data_dir(bench)
    kind = KINDS[bench.number % len(KINDS)]
    laboratory.damage(os.path.join(records + '-decoded', 'train.uint8'), kind)
    process = bench.prepare() if bench.number else bench.train()
    process.wait()
    bench.saw(process, 'anew')
    _prepared(bench, process)
    bench.expect(process.has_printed('train.uint8'), 'the file was not named')


def damaged_idx(bench: Bench) -> None:
    source = bench.laboratory.idx_dir()
    bench.laboratory.empty_data_dir(bench)
    folder = os.path.join(bench.folder, 'idx')
    shutil.copytree(source, folder)
    name = next(n for n in sorted(os.listdir(folder)) if n.startswith('train-images'))
    laboratory.damage(os.path.join(folder, name), KINDS[bench.number % len(KINDS)])
    bench.refused(bench.train(idx_dir=folder), os.path.join(folder, name))
    left = laboratory.leftovers(bench.data_dir)
    bench.expect(not left, 'left behind: {}'.format(', '.join(left)))


def damaged_export(file_name: str) -> Callable[[Bench], None]:
    """What loads the export says so: its own check, and the client."""

    def fault(bench: Bench) -> None:
        source = os.path.join(bench.laboratory.finished(), 'export', 'final')
        folder = os.path.join(bench.folder, 'export')
        shutil.copytree(os.path.join(source, sorted(os.listdir(source))[-1]), folder)
        kind = KINDS[bench.number % len(KINDS)]
        laboratory.damage(os.path.join(folder, file_name), kind)
        picture = os.path.join(bench.folder, 'picture.png')
        with open(picture, 'wb') as f:
            f.write(image_files.encode_png(np.zeros([1, 28, 28, 1], np.uint8))[0])
        verify = os.path.join(folder, 'assets.extra', 'verify_export.py')
        check = bench.run([sys.executable, verify])
        code = check.wait()
        # A bit in a place that changes no answer is no harm.
        bench.expect(code != 0 or kind == 'bit flipped', 'its own check found nothing')
        bench.expect_no_traceback(check)
        command = [sys.executable, '-m', 'trainer.predict', '--images=' + picture]
        client = bench.run(command + ['--export_dir=' + folder])
        if client.wait() == 0:
            bench.expect(kind == 'bit flipped', 'the client took it')
            bench.saw(check)
        else:
            bench.refused(client, folder)

    return fault


def damaged_results(bench: Bench) -> None:
    """Of a finished run, whose times a further start takes from there."""
    shutil.copytree(bench.laboratory.finished(), bench.model_dir)
    kind = KINDS[bench.number % len(KINDS)]
    laboratory.damage(os.path.join(bench.model_dir, 'results.json'), kind, 0)
    bench.finishes(bench.train(), 'results.json is damaged')
    bench.lost = '0'


def damaged_settings(bench: Bench) -> None:
    bench.copy_base()
    path = os.path.join(bench.model_dir, storage.FILE_NAME)
    laboratory.damage(path, KINDS[bench.number % len(KINDS)], 0)
    bench.refused(bench.train(), path)


def damaged_flag_file(bench: Bench) -> None:
    """An empty one is as good as none; then the settings differ from those of the run."""
    bench.copy_base()
    settings = os.path.join(bench.model_dir, storage.FILE_NAME)
    recorded = dict(laboratory.read_json(settings), batch_size=64)
    with open(settings, 'w') as f:
        json.dump(recorded, f)
    path = os.path.join(bench.folder, 'flags')
    with open(path, 'w') as f:
        f.write('--batch_size=64')
    kind = KINDS[bench.number % len(KINDS)]
    laboratory.damage(path, kind, 4)
    process = bench.train(flagfile=path)
    code = process.wait()
    bench.expect(code == 1, 'code {}'.format(code))
    sentence = bench.saw(process, 'error: ')
    bench.expect_no_traceback(process)
    bench.expect('batch' in sentence or '--b' in sentence, 'the flag was not named')
    bench.expect(path in sentence or kind == 'empty', 'the file was not named')


# Two at a time.


def two_trainers(bench: Bench) -> None:
    first = bench.train()
    bench.expect(first.wait_for('Training '), 'the first did not start')
    bench.refused(bench.train(), 'is in use', str(first.pid))
    bench.finishes(first)
    bench.lose(0)


def after_kill(bench: Bench) -> None:
    """A dead trainer does not keep the folder."""
    process = bench.train()
    process.wait_for(': validation')
    process.sleep(bench.random.uniform(0.0, 2.0))
    process.send(signal.SIGKILL)
    process.wait()
    resumed = bench.train()
    bench.finishes(resumed)
    _note_losses(bench, [process, resumed], bench.max_steps // 3)


def others_beside(bench: Bench) -> None:
    process = bench.train(max_steps=_ENDLESS, save_checkpoints_steps=200)
    bench.expect(process.wait_for('step 200: validation'), 'the trainer did not start')
    here = '--model_dir=' + bench.model_dir
    data = '--data_dir=' + bench.data_dir
    for name, more in [
        ('evaluate', [data, '--importance_samples=10', '--num_images=100']),
        ('generate', []),
        ('export', []),
    ]:
        beside = bench.run([sys.executable, '-m', 'trainer.' + name, here, *more])
        code = beside.wait()
        bench.expect(code == 0, 'trainer.{} ended with code {}'.format(name, code))
        bench.expect_no_traceback(beside)
        bench.saw(beside)
    bench.expect(process.is_running, 'the trainer ended')
    process.send(signal.SIGTERM)
    bench.expect(process.wait(60) == 143, 'the trainer ended badly')
    bench.expect_no_traceback(process)
    bench.good_checkpoints()
    bench.lost = '0'


# Numbers.


def not_finite_weight(value: float) -> Callable[[Bench], None]:
    """The next start refuses the checkpoint; the one after it takes the one before it."""

    def fault(bench: Bench) -> None:
        last = bench.copy_base()
        path = os.path.join(bench.model_dir, 'model.ckpt-{}'.format(last))
        bench.spoilt.append(path)
        laboratory.poison_checkpoint(path, value)
        bench.refused(bench.train(), os.path.basename(path), 'not finite')
        resumed = bench.train()
        bench.finishes(resumed)
        bench.lose(last - laboratory.first_step(resumed), last)

    return fault


_POISONED_INPUT = """
import tensorflow as tf
from trainer import input as images
made = images.train_input_fn
def poisoned(data, batch_size, seed, start_step, binarization):
    def poison(features, step):
        pixels = features['images']
        bad = lambda: tf.tensor_scatter_nd_update(pixels, [[0, 0, 0]], [float('{value}')])
        mixed = tf.cond(tf.equal(step, {step}), bad, lambda: pixels)
        return {{'images': tf.reshape(mixed, pixels.shape)}}
    batches = made(data, batch_size, seed, start_step, binarization)
    steps = tf.data.Dataset.range(start_step, tf.int64.max)
    return tf.data.Dataset.zip((batches, steps)).map(poison)
images.train_input_fn = poisoned
"""


def not_finite_pixel(value: float) -> Callable[[Bench], None]:
    def fault(bench: Bench) -> None:
        interval = bench.max_steps // 3
        step = 2 * interval + 5
        process = bench.train(patch=_POISONED_INPUT.format(step=step, value=value))
        bench.refused(process, 'not finite')
        bench.good_checkpoints()
        resumed = bench.train()
        bench.finishes(resumed)
        bench.lose(max(0, step - laboratory.first_step(resumed)), interval)

    return fault


def absurd_learning_rate(bench: Bench) -> None:
    process = bench.train(learning_rate=1e6, warmup_steps=0)
    if process.wait() == 0:
        bench.finishes(process)
    else:
        bench.refused(process, '--learning_rate')
    bench.good_checkpoints()
    bench.expect(laboratory.checkpoints(bench.model_dir), 'no checkpoint was kept')


# Time passes.


def clock_set_back(bench: Bench) -> None:
    """What is there already is of an hour later than what the resumed run writes."""
    last = bench.copy_base()
    before = {}
    for parent, _, names in os.walk(bench.model_dir):
        for name in names:
            parts = name.split('.')
            if name.startswith('events.out.tfevents.'):
                # TF names event files by the system's clock, which the patch below does not reach.
                parts[3] = str(int(parts[3]) + _HOUR)
                path = os.path.join(parent, '.'.join(parts))
                os.rename(os.path.join(parent, name), path)
                with open(path, 'rb') as f:
                    before[path] = f.read()
    patch = 'import time\nnow = time.time\ntime.time = lambda: now() - {}\n'.format(_HOUR)
    process = bench.train(patch=patch)
    bench.finishes(process)
    bench.lose(last - laboratory.first_step(process), 0)
    for path, content in before.items():
        with open(path, 'rb') as f:
            bench.expect(f.read().startswith(content), '{} was overwritten'.format(path))


def other_settings(bench: Bench) -> None:
    bench.copy_base()
    bench.refused(bench.train(latent_size=16), '--latent_size=16', 'was 32')
    bench.lost = '0'


def older_version(bench: Bench) -> None:
    source = OLD_RUN
    if not os.path.isdir(source):
        raise Skipped('tests/support/old_run is not there')
    shutil.copytree(source, bench.model_dir)
    recorded = laboratory.read_json(os.path.join(source, storage.FILE_NAME))
    known = {row.name for row in settings_table.settings()}
    step = laboratory.last_step(bench.model_dir)
    changes = {k: v for k, v in recorded.items() if k in known}
    changes.update(
        model_dir=bench.model_dir,
        data_dir=bench.data_dir,
        max_steps=step + 10,
        save_checkpoints_steps=5,
    )
    process = bench.train(**changes)
    if process.wait() == 1:
        bench.refused(process)
        return
    bench.finishes(process, max_steps=step + 10)
    bench.lose(step - laboratory.first_step(process), 0)


# A long run.


def soak(bench: Bench) -> None:
    """Trains for long with an evaluation a minute; memory, files and threads must not grow."""
    minutes = bench.laboratory.soak_minutes
    # On one thread, as other rows go on beside it.
    interval = max(1, int(60 * _steps_a_second(bench, num_threads=1)))
    process = bench.train(
        max_steps=100 * _ENDLESS, save_checkpoints_steps=interval, save_summary_steps=100,
        num_threads=1,
    )  # fmt: skip
    samples = _sampled(bench, process, minutes)
    bench.expect(process.is_running, 'the trainer ended')
    process.send(signal.SIGTERM)
    _ended_by(bench, process, signal.SIGTERM, 'terminated: ')
    bench.lose(0)
    _bounded(bench, process, samples)


def _steps_a_second(bench: Bench, **changes: Any) -> float:
    """Measures it between two progress lines of a training that is then thrown away."""
    folder, bench.model_dir = bench.model_dir, os.path.join(bench.folder, 'measured')
    process = bench.train(max_steps=_ENDLESS, save_checkpoints_steps=_ENDLESS, **changes)
    seen = []
    while len(seen) < 2 and process.is_running:
        step = laboratory.shown_step(process)
        process.wait_until(lambda step=step: laboratory.shown_step(process) > step)
        seen.append((laboratory.shown_step(process), time.monotonic()))
    process.end()
    bench.model_dir = folder
    return (seen[1][0] - seen[0][0]) / (seen[1][1] - seen[0][1])


def _sampled(bench: Bench, process: Process, minutes: float) -> List[Dict[str, int]]:
    """Resources of a process, each ten seconds, without those of the first sixth of the time."""
    watched, samples = psutil.Process(process.pid), []
    start = time.monotonic()
    while process.is_running and time.monotonic() - start < 60 * minutes:
        process.sleep(_SOAK_SAMPLE_SECONDS)
        with watched.oneshot():
            sample = {
                'rss': watched.memory_info().rss,
                'files': watched.num_fds(),
                'threads': watched.num_threads(),
                'events': sum('tfevents' in n for _, _, ns in os.walk(bench.model_dir) for n in ns),
            }
        passed = time.monotonic() - start
        if passed > 60 * minutes / 6:
            samples.append(sample)
        if int(passed / 60) != int((passed - _SOAK_SAMPLE_SECONDS) / 60):
            megabytes = sample['rss'] >> 20
            note(
                '{}: {:.0f} of {:g} min, {} MB'.format(bench.name, passed / 60, minutes, megabytes)
            )
    return samples


def _bounded(bench: Bench, process: Process, samples: List[Dict[str, int]]) -> None:
    """Compares the first fifth of the samples with the last, and counts what lies on the disk."""
    fifth = max(1, len(samples) // 5)
    if not bench.expect(samples, 'no samples'):
        return

    def ends(name: str, of: Callable[[List[int]], float]) -> List[float]:
        values = [sample[name] for sample in samples]
        return [of(values[:fifth]), of(values[-fifth:])]

    rss = [value / 2**20 for value in ends('rss', lambda values: sum(values) / len(values))]
    if bench.laboratory.soak_minutes >= _SOAK_MINUTES_TO_JUDGE:
        grown = 'memory grew from {:.0f} to {:.0f} MB'.format(*rss)
        bench.expect(rss[1] <= _GROWTH * rss[0], grown)
    else:
        bench.said += ' (too short to judge its memory)'
    counts = {name: ends(name, max) for name in ('files', 'threads', 'events')}
    for name, (early, late) in counts.items():
        bench.expect(late <= early, '{} grew from {} to {}'.format(name, early, late))
    kept = len(laboratory.checkpoints(bench.model_dir))
    best = os.path.join(bench.model_dir, 'export', 'best')
    exports = [name for name in os.listdir(best) if name.isdigit()]
    bench.expect(kept <= 5, '{} checkpoints'.format(kept))
    bench.expect(len(exports) <= 5, '{} exports'.format(len(exports)))
    evaluations = sum(': validation' in line for line in process.lines())
    bench.said += (
        ' {} steps, {} evaluations; memory {:.0f} to {:.0f} MB, open files {} to {}, threads {} to '
        '{}, event files {} to {}; {} checkpoints, {} best exports'.format(
            laboratory.last_step(bench.model_dir),
            evaluations,
            *rss,
            *counts['files'],
            *counts['threads'],
            *counts['events'],
            kept,
            len(exports),
        )
    )


def all_rows() -> List[Row]:
    """The table, the longest row first: the others take place beside it."""
    nan, infinity = float('nan'), float('inf')
    last = 'model.ckpt-{last}'
    data, index = last + CHECKPOINT_DATA, last + '.index'
    best = os.path.join('export', 'best', 'best.json')
    term, interrupt = signal.SIGTERM, signal.SIGINT
    return [
        Row('soak', soak),
        Row('SIGKILL at random moments', killed_at_random, 4, True),
        Row('SIGKILL in preparation', killed_in_preparation, 2),
        Row('SIGTERM during steps', told_in_steps(term, 'terminated: '), 3, True),
        Row('SIGINT during steps', told_in_steps(interrupt, 'interrupted: '), 3),
        Row('SIGTERM in an evaluation', told_in_evaluation, 2),
        Row('SIGTERM in the final export', told_after('Exporting the final', 0.0, 3.0), 2),
        Row('SIGTERM in preparation', told_in_preparation),
        Row('disk full at a checkpoint', full_after('step {step}: validation'), 1, True),
        Row('disk full at event writes', full_in_events),
        Row('disk full at the best export', full_in_best_export),
        Row('disk full at the final export', full_after('Exporting the final model')),
        Row('disk full in preparation', full_in_preparation, 2),
        Row('read-only data_dir, prepared', read_only_data),
        Row('read-only data_dir, empty', read_only_data_empty),
        Row('read-only model_dir', read_only_model, 2),
        Row('no network', no_network),
        Row('server that never answers', hanging_network),
        Row(
            'damaged checkpoint data', damaged(data, last + ' is damaged', must_lose=True), 3, True
        ),
        Row('damaged checkpoint index', damaged(index, last + ' is damaged', must_lose=True), 3),
        Row('damaged checkpoint state file', damaged('checkpoint', 'MODEL_DIR/checkpoint is '), 3),
        Row('no good checkpoint left', no_good_checkpoint, 3),
        Row('damaged event files', damaged_events, 3),
        Row('damaged TFRecord', damaged_records, 3),
        Row('damaged decoded copy', damaged_decoded, 3),
        Row('damaged IDX file', damaged_idx, 3),
        Row('damaged export, graph', damaged_export('saved_model.pb'), 3),
        Row(
            'damaged export, weights',
            damaged_export(os.path.join('variables', 'variables' + CHECKPOINT_DATA)),
            3,
        ),
        Row('damaged best.json', damaged(best, 'best.json is damaged'), 3),
        Row('damaged results.json', damaged_results, 3),
        Row('damaged hyper_parameters.json', damaged_settings, 3),
        Row('damaged flag file', damaged_flag_file, 3),
        Row('two trainers on one model_dir', two_trainers, 1, True),
        Row('a trainer after a killed one', after_kill),
        Row('evaluate, generate, export beside a trainer', others_beside),
        Row('NaN in weights', not_finite_weight(nan), 1, True),
        Row('infinity in weights', not_finite_weight(infinity)),
        Row('NaN in a batch', not_finite_pixel(nan)),
        Row('infinity in a batch', not_finite_pixel(infinity)),
        Row('learning rate of a million', absurd_learning_rate),
        Row('clock set back an hour', clock_set_back),
        Row('other settings on resume', other_settings),
        Row('checkpoint of an older version', older_version),
    ]


def chosen_rows(rows: List[Row], only: List[str], quick: bool) -> List[Row]:
    """Those whose name has one of `only` in it; without any, all, or those of the quick form."""
    if only:
        return [row for row in rows if any(part.lower() in row.name.lower() for part in only)]
    return [row for row in rows if row.is_quick or not quick]


def run_row(row: Row, bench_laboratory: Laboratory) -> Dict[str, Any]:
    """Tries a fault as often as it says; returns what the table says of it."""
    tries = 1 if bench_laboratory.quick else row.tries
    benches, first_start = [], time.monotonic()
    for number in range(tries):
        start = time.monotonic()
        benches.append(run_try(row, bench_laboratory, number))
        note(
            '{}, try {} of {}: {} ({:.0f} s)'.format(
                row.name, number + 1, tries, outcome([benches[-1]]), time.monotonic() - start
            )
        )
        if benches[-1].skipped:
            break
    # What the user saw where it went wrong, else in the last try.
    shown = next((bench for bench in benches if bench.wrong), benches[-1])
    worst = max(benches, key=lambda bench: int(bench.lost) if bench.lost.isdigit() else -1)
    return {
        'fault': row.name,
        'form': form(bench_laboratory),
        'tries': len(benches),
        'outcome': outcome(benches),
        'saw': shown.said,
        'lost': worst.lost,
        'seconds': time.monotonic() - first_start,
    }


def run_try(row: Row, bench_laboratory: Laboratory, number: int) -> Bench:
    bench = Bench(bench_laboratory, row.name, number)
    try:
        row.fault(bench)
    except Skipped as reason:
        bench.skipped = str(reason)
    except Exception as error:  # A row that the laboratory cannot judge is not ok.
        bench_laboratory.check_going_on()
        bench.wrong.append('{}: {}'.format(type(error).__name__, bench.shortened(str(error))))
        with open(os.path.join(bench.folder, 'laboratory.log'), 'w') as f:
            traceback.print_exc(file=f)
    finally:
        bench.end()
    return bench


def outcome(benches: List[Bench]) -> str:
    wrong = [text for bench in benches for text in bench.wrong]
    if wrong:
        return 'BAD: ' + '; '.join(dict.fromkeys(wrong))
    skipped = [bench.skipped for bench in benches if bench.skipped]
    return 'skipped: ' + skipped[0] if skipped else 'ok'


def form(bench_laboratory: Laboratory) -> str:
    return 'quick' if bench_laboratory.quick else 'full'


def table(results: List[Dict[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        '| fault | times tried | outcome | what the user saw | lost steps |',
        '| --- | ---: | --- | --- | ---: |',
    ]
    for result in results:
        cells = [result[name] for name in ('fault', 'tries', 'outcome', 'saw', 'lost')]
        lines.append('| {} |'.format(' | '.join(cell(value) for value in cells)))
    return '\n'.join(lines)


def cell(value: Any) -> str:
    """A value as a table of Markdown can hold it."""
    return ' '.join(str(value).split()).replace('|', '\\|').replace('<', '&lt;')


def facts(bench_laboratory: Laboratory, seconds: float, jobs: int) -> str:
    """The line below the table."""
    machine = runs.machine()
    arguments = [
        a for a in sys.argv[1:] if not a.startswith(('--work_dir', '--data_dir', '--json'))
    ]
    return (
        '{date}, {cores} core(s) of {cpu}, TensorFlow {tensorflow}: `{command}`; runs of {steps} '
        'steps, chains of kills of {chain}. The rows took {minutes:.0f} min together, {jobs} at a '
        'time.'.format(
            tensorflow=tf.__version__,
            minutes=seconds / 60,
            jobs=jobs,
            command=' '.join(['./scripts/run python scripts/fault_table.py', *arguments]),
            steps=bench_laboratory.max_steps,
            chain=bench_laboratory.chain_steps,
            **machine,
        )
    )


def finished_rows(path: str, bench_laboratory: Laboratory) -> Dict[str, Dict[str, Any]]:
    """The good rows of an interrupted table, by name; the others are tried again."""
    found = {}
    if os.path.exists(path):
        with open(path) as f:
            for result in map(json.loads, f):
                if result['outcome'] == 'ok' and result['form'] == form(bench_laboratory):
                    found[result['fault']] = result
    return found


def run_rows(
    rows: List[Row], bench_laboratory: Laboratory, jobs: int
) -> List[Optional[Dict[str, Any]]]:
    """Runs rows side by side; returns their results in order."""
    path = os.path.join(bench_laboratory.work_dir, 'rows.json')
    done, lock = finished_rows(path, bench_laboratory), threading.Lock()

    def result_of(row: Row) -> Dict[str, Any]:
        if row.name in done:
            return done[row.name]
        result = run_row(row, bench_laboratory)
        with lock, open(path, 'a') as f:
            f.write(json.dumps(result) + '\n')
        return result

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(result_of, row) for row in rows]
        try:
            return [future.result() for future in futures]
        except BaseException:
            bench_laboratory.stop()
            for future in futures:
                future.cancel()
            raise


def note(text: str) -> None:
    print('fault_table: ' + text, file=sys.stderr, flush=True)


def main(argv: List[str]) -> None:
    del argv
    values = flags.FLAGS
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Not ignored, as in the background of a shell: what this process starts would ignore it too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if values.work_dir:
        files.check_folder('--work_dir', values.work_dir)
    if values.json:
        files.check_output('--json', values.json)
    prepare.prepare('mnist', values.data_dir or None, separate_process=True)
    work_dir = values.work_dir or tempfile.mkdtemp(prefix='faults-')
    os.makedirs(work_dir, exist_ok=True)
    data_dir = dataset_folder.find('mnist', values.data_dir or None).data_dir
    bench_laboratory = Laboratory(work_dir, data_dir, values.quick, values.soak_minutes)
    rows = chosen_rows(all_rows(), values.only, values.quick)
    results = run_rows(rows, bench_laboratory, values.jobs)
    if values.json:
        files.write_output(values.json, files.json_bytes(results))
    print(table(results))
    seconds = sum(result['seconds'] for result in results)
    print('\n' + facts(bench_laboratory, seconds, values.jobs))
    bad = [r for r in results if not is_good(r['outcome'], values.quick)]
    if bad or not results:
        note('{} of {} rows are not ok; logs: {}'.format(len(bad), len(results), work_dir))
        sys.exit(1)
    if not values.work_dir:
        laboratory.remove(work_dir)


def is_good(text: str, quick: bool) -> bool:
    """What a machine cannot have does not fail the quick form, that of continuous integration."""
    return text == 'ok' or (quick and text.startswith('skipped'))


def define_flags() -> None:
    command_line.define_flags(['data_dir'])
    flags.DEFINE_list('only', [], 'Only rows with one of these, with commas between, in the name.')
    flags.DEFINE_bool('quick', False, 'A few rows, 60 steps, one try each; any row with --only.')
    flags.DEFINE_integer('jobs', 2, 'Rows at a time.', lower_bound=1)
    path_flags.define('work_dir', '', 'Where the trainings are made, and the logs of bad rows.')
    path_flags.define('json', '', 'File for the results.')
    flags.DEFINE_float('soak_minutes', 30.0, 'Length of the row "soak".', lower_bound=0.5)


if __name__ == '__main__':
    define_flags()
    program.run(main)
