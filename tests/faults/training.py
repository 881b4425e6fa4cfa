"""Faults of a training: it is broken off, or its folder, its files or its numbers are bad."""

import glob
import os
import pathlib
import re
import shutil
import signal
import statistics
import sys
import time

import numpy as np
import psutil

from tests.faults import machine, run_folder
from tests.faults.attempt import LONG
from tests.support import tiny
from tests.support.paths import OLD_RUN
from trainer.base import files, image_files
from trainer.checkpoints import listing
from trainer.settings import storage, table

# What to wait for before a kill, and for how many seconds after it; as a run comes to them.
_MOMENTS = [
    ('', 2, 30), (': validation', 0, 6), (': validation', 0, 8),
    ('Exporting the final model', 0, 5), ('Evaluating the final model', 0, 6),
]  # fmt: skip
_SPOIL_INPUT = "from tests.support import tiny; tiny.spoil_input({}, float('{}'))"
# It takes evaluations of some minutes until the memory is as large as it gets.
_SOAK_MINUTES, _MEMORY, _GROWTH = 30.0, 'MB of memory', 1.05


def killed(attempt, *moments, **settings):
    """The training is killed at each moment, and the same command given again."""
    attempt.settings.update(settings)
    reached, most = 0, attempt.settings['save_checkpoints_steps']
    for moment in (*moments, None):
        process = attempt.train()
        if moment is None:
            attempt.finishes(process)
        else:
            attempt.reach(process, *moment)
            attempt.expect(process.is_running(), 'it ended before a kill')
            process.kill()
            process.wait()
        start = process.first_step()
        if start >= 0:  # Else it was killed before it said.
            attempt.lose(max(0, reached - start), most)
            reached = max(start, process.last_step())
    attempt.lost = '≤ {} (one interval)'.format(most)


def killed_at_random(attempt):
    killed(attempt, *_MOMENTS, **LONG)
    nats, unbroken = (
        run_folder.recorded_results(folder)['validation']['negative_elbo']
        for folder in (attempt.model_dir, attempt.shared.unbroken())
    )
    is_near = abs(nats - unbroken) <= 1.0  # NaN is not.
    attempt.expect(is_near, '{:.2f} nats, {:.2f} unbroken'.format(nats, unbroken))


def told_to_end(attempt, number, *moments, **settings):
    """A signal comes at one of the moments, in turn: the step is finished and saved."""
    attempt.settings.update(settings)
    process = attempt.train()
    attempt.reach(process, *moments[attempt.number % len(moments)])
    attempt.told_to_end(process, number)
    saved = listing.start_step(attempt.model_dir)
    attempt.expect('{:,}'.format(saved) in attempt.user_saw, 'the sentence lacks the step')
    start = attempt.resumes(process.last_step(), 0)
    attempt.expect(start == saved, 'saved at {}, resumed at {}'.format(saved, start))


def disk_full(attempt, moment, **settings):
    """The disk of the model folder is full from a moment on, until the trainer has ended."""
    attempt.settings.update(settings)
    with machine.disk(attempt.folder, 400) as folder:
        attempt.model_dir, ballast = os.path.join(folder, 'model'), os.path.join(folder, 'ballast')
        process = attempt.train()
        attempt.reach(process, moment)
        while process.is_running():
            machine.fill(ballast)
            process.sleep(0.05)
        saved = listing.start_step(attempt.model_dir)
        attempt.refused(process, 'o space left on device')
        attempt.expect_none(run_folder.checkpoint_problems(attempt.model_dir))
        os.remove(ballast)
        start = attempt.resumes(process.last_step(), attempt.settings['save_checkpoints_steps'])
        attempt.expect(start >= saved, 'saved at {}, resumed at {}'.format(saved, start))


def read_only(attempt):
    """With a run in the folder, then without."""
    with machine.disk(attempt.folder, 200) as folder:
        attempt.model_dir = os.path.join(folder, 'model')
        reached = os.makedirs(attempt.model_dir) if attempt.number % 2 else attempt.copy()
        machine.mount('-o', 'remount,ro', folder)
        attempt.refused(attempt.train(), attempt.model_dir)
        machine.mount('-o', 'remount,rw', folder)
        attempt.resumes(reached or 0, 0)


def two_trainers(attempt):
    first = attempt.train()
    attempt.reach(first, 'Training ')
    attempt.refused(attempt.train(), 'is in use', str(first.pid))
    attempt.finishes(first)
    attempt.lose(0)


def others_beside(attempt):
    """Other programs read the folder of a training that goes on."""
    attempt.settings.update(max_steps=10**6, save_checkpoints_steps=200)
    process = attempt.train()
    attempt.reach(process, 'step 200: validation')
    images = {'data_dir': attempt.data_dir, 'importance_samples': 10, 'num_images': 100}
    for program, flags in [('evaluate', images), ('generate', {}), ('export', {})]:
        other = attempt.start(program, model_dir=attempt.model_dir, **flags)
        attempt.ends(other, 0)
    attempt.expect(process.is_running(), 'the trainer ended')
    attempt.told_to_end(process, signal.SIGTERM)
    attempt.expect_none(run_folder.checkpoint_problems(attempt.model_dir))
    attempt.saw(other)
    attempt.lose(0)


def clock_set_back(attempt):
    """What is there is of an hour later than what the resumed run writes."""
    last, before = attempt.copy(), {}
    for path in _event_files(attempt.model_dir):
        # TF names event files by the system's clock, which the patch below does not reach.
        seconds = os.path.basename(path).split('.')[3]
        later = path.replace(seconds, str(int(seconds) + 3600))
        os.rename(path, later)
        before[later] = pathlib.Path(later).read_bytes()
    patch = 'import time\nnow = time.time\ntime.time = lambda: now() - 3600'
    attempt.resumes(last, 0, patch=patch)
    for path, content in before.items():
        kept = pathlib.Path(path).read_bytes().startswith(content)
        attempt.expect(kept, path + ' was overwritten')


def other_settings(attempt):
    attempt.copy()
    attempt.refused(attempt.train(latent_size=16), '--latent_size=16', 'was 32')
    attempt.lose(0)


def older_version(attempt):
    shutil.copytree(OLD_RUN, attempt.model_dir)
    step = listing.start_step(attempt.model_dir)
    recorded = files.read_json(os.path.join(attempt.model_dir, storage.FILE_NAME))
    known = {row.name for row in table.settings()} - {'model_dir', 'data_dir'}
    attempt.settings = {name: recorded[name] for name in known & set(recorded)}
    attempt.settings.update(max_steps=step + 10, save_checkpoints_steps=5)
    attempt.resumes(step, 0)


def _event_files(model_dir):
    return glob.glob(os.path.join(model_dir, '**', 'events.out*'), recursive=True)


def damaged(attempt, name, words, run='half_finished'):
    """A damaged file is named, and the run goes on."""
    last = attempt.copy(run)
    attempt.damage(os.path.join(attempt.model_dir, name))
    attempt.resumes(last, last, os.path.basename(name) + words)


def damaged_checkpoint(attempt, suffix):
    """The last checkpoint is damaged and named, and the run goes on from the one before."""
    last, path = attempt.copy(), listing.latest(attempt.model_dir)
    attempt.damage(path + suffix)
    start = attempt.resumes(last, last, os.path.basename(path) + ' is damaged')
    attempt.expect(0 < start < last, 'it went on from step {}'.format(start))


def damaged_event_files(attempt):
    last = attempt.copy()
    for path in _event_files(attempt.model_dir):
        attempt.damage(path)
    attempt.resumes(last, 0, ' is empty' if attempt.kind == 'empty' else ' is damaged after ')


def irreplaceable(attempt, pattern, words=''):
    """Files are damaged without which the run cannot go on."""
    attempt.copy()
    for path in glob.glob(os.path.join(attempt.model_dir, pattern)):
        attempt.damage(path)
    attempt.refused(attempt.train(), words or pattern)


def damaged_export(attempt, file_name):
    """What loads the export says so: its own check, and the client."""
    folder = os.path.join(attempt.folder, 'export')
    shutil.copytree(run_folder.final_export(attempt.shared.finished()), folder)
    attempt.damage(os.path.join(folder, file_name))
    picture = os.path.join(attempt.folder, 'picture.png')
    files.write_bytes(picture, image_files.encode_png(np.zeros([1, 28, 28, 1], np.uint8))[0])
    may_pass = attempt.kind == 'bit flipped'  # In a place that changes no answer it does no harm.
    check = attempt.run([sys.executable, os.path.join(folder, 'assets.extra', 'verify_export.py')])
    attempt.expect(check.exit_code() != 0 or may_pass, 'its own check found nothing')
    attempt.expect('Traceback' not in check.printed(), 'a traceback was printed')
    client = attempt.start('predict', images=picture, export_dir=folder)
    if client.exit_code() == 0:
        attempt.expect(may_pass, 'the client took it')
        attempt.saw(check)
    else:
        attempt.refused(client, folder)


def damaged_flag_file(attempt):
    """An empty one is as good as none; then the settings differ from those of the run."""
    attempt.copy()
    settings = os.path.join(attempt.model_dir, storage.FILE_NAME)
    files.write_json(settings, dict(files.read_json(settings), batch_size=64))
    path = files.write_bytes(os.path.join(attempt.folder, 'flags'), b'--batch_size=64')
    attempt.damage(path, 4)
    attempt.refused(attempt.train(flagfile=path), '--b' if attempt.kind == 'empty' else path)
    attempt.expect(re.search('batch|--b', attempt.user_saw), 'the flag was not named')


def bad_weight(attempt, value):
    """The next start refuses the checkpoint; the one after it takes the checkpoint before."""
    last, path = attempt.copy(), listing.latest(attempt.model_dir)
    tiny.poison(path, value)
    attempt.refused(attempt.train(), os.path.basename(path), 'not finite')
    attempt.resumes(last, last)


def bad_pixel(attempt, value):
    interval = attempt.settings['save_checkpoints_steps']
    step = 2 * interval + 5
    process = attempt.train(patch=_SPOIL_INPUT.format(step + 1, value))
    attempt.refused(process, 'not finite')
    attempt.expect_none(run_folder.checkpoint_problems(attempt.model_dir))
    attempt.resumes(step, interval)


def absurd_learning_rate(attempt):
    attempt.refused(attempt.train(learning_rate=1e6, warmup_steps=0), '--learning_rate')
    attempt.expect_none(run_folder.checkpoint_problems(attempt.model_dir))
    attempt.expect(listing.latest(attempt.model_dir), 'no checkpoint was kept')


def soak(attempt):
    """Trains for long, with many evaluations; on one thread, as others go on beside it."""
    attempt.settings.update(max_steps=10**8, save_checkpoints_steps=600, num_threads=1)
    samples, folder = [], attempt.model_dir
    process, end = attempt.train(), time.monotonic() + 60 * _SOAK_MINUTES
    # An evaluation opens files and starts threads that then stay.
    process.wait_until(lambda: process.printed().count(': validation') >= 2)
    while time.monotonic() < end:
        process.sleep(10.0)
        if not attempt.expect(process.is_running(), 'the trainer ended'):
            return
        watched = psutil.Process(process.pid)
        samples.append({
            _MEMORY: watched.memory_info().rss >> 20,
            'open files': watched.num_fds(),
            'threads': watched.num_threads(),
            'event files': len(_event_files(folder)),
            'checkpoints': len(glob.glob(folder + '/model.ckpt-*.index')),
            'best exports': len(glob.glob(folder + '/export/best/[0-9]*')),
        })  # fmt: skip
    attempt.told_to_end(process, signal.SIGTERM)
    attempt.lose(0)
    evaluations = process.printed().count(': validation')
    attempt.user_saw += ' {} steps, {} evaluations'.format(listing.start_step(folder), evaluations)
    samples = samples[len(samples) // 6 :]
    fifth = max(1, len(samples) // 5)
    for name in samples[0]:
        of = statistics.mean if name == _MEMORY else max
        early = of([sample[name] for sample in samples[:fifth]])
        late = of([sample[name] for sample in samples[-fifth:]])
        most = {_MEMORY: _GROWTH * early, 'checkpoints': 5, 'best exports': 5}.get(name, early)
        text = '{} {:.0f} to {:.0f}'.format(name, early, late)
        attempt.expect(late <= most, text)
        attempt.user_saw += ', ' + text
