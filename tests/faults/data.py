"""Faults of the data: of their preparation, their folder and their sources."""

import filecmp
import functools
import os
import shutil
import signal

from tests.faults import machine, run_folder
from trainer.data import dataset_folder

_PREPARING = 'writing its TFDS records'
_DECODED = ['train.uint8', 'validation.uint8', 'test.uint8']


def _copied_folder(attempt, parent):
    """Gives the attempt prepared data of its own; returns their DatasetFolder."""
    source, attempt.data_dir = attempt.data_dir, os.path.join(parent, 'data')
    shutil.copytree(os.path.join(source, 'mnist'), os.path.join(attempt.data_dir, 'mnist'))
    return dataset_folder.find('mnist', attempt.data_dir)


def _prepare(attempt, **flags):
    return attempt.start('prepare_data', data_dir=attempt.data_dir, **flags)


def _ends_well(attempt, process):
    """Expects the last start, of a trainer or of the preparation alone, to leave whole data."""
    if 'trainer.task' in process.args:
        attempt.finishes(process)
        attempt.lose(0)
    else:
        attempt.ends(process, 0, 900)
        if not attempt.user_saw:
            attempt.saw(process)
    folders = [attempt.data_dir, attempt.shared.data_dir]
    decoded = [dataset_folder.find('mnist', folder).decoded for folder in folders]
    same, _, _ = filecmp.cmpfiles(*decoded, _DECODED, shallow=False)
    attempt.expect(same == _DECODED, 'other images were prepared')
    attempt.expect_none(run_folder.leftovers(attempt.data_dir))


def killed(attempt):
    """Three times: the trainer that prepares, or the preparation's own command, in turn."""
    idx_dir = attempt.shared.idx_files()
    attempt.data_dir = os.path.join(attempt.folder, 'data')
    start = attempt.train if attempt.number % 2 else functools.partial(_prepare, attempt)
    for number in range(3):
        process = start(idx_dir=idx_dir)
        if number:
            process.wait_until(lambda one=process: _PREPARING in one.printed(), 60)
        process.sleep(attempt.random.uniform(1, 25))
        process.kill()
        process.wait()
    _ends_well(attempt, start(idx_dir=idx_dir))


def told_to_end(attempt):
    idx_dir = attempt.shared.idx_files()
    attempt.data_dir = os.path.join(attempt.folder, 'data')
    process = attempt.train(idx_dir=idx_dir)
    attempt.reach(process, _PREPARING, 0.0, 6.0)
    attempt.told_to_end(process, signal.SIGTERM)
    _ends_well(attempt, _prepare(attempt, idx_dir=idx_dir))


def disk_full(attempt):
    """While the records are written, then while they are decoded."""
    idx_dir = attempt.shared.idx_files()
    with machine.disk(attempt.folder, 30 if attempt.number % 2 else 80) as folder:
        attempt.data_dir = os.path.join(folder, 'data')
        process = _prepare(attempt, idx_dir=idx_dir)
        attempt.refused(process, 'o space left on device', attempt.data_dir)
        machine.mount('-o', 'remount,size=600m', folder)
        _ends_well(attempt, _prepare(attempt, idx_dir=idx_dir))


def read_only(attempt):
    with machine.disk(attempt.folder, 120) as folder:
        _copied_folder(attempt, folder)
        machine.mount('-o', 'remount,ro', folder)
        attempt.resumes(0, 0)


def read_only_and_empty(attempt):
    with machine.disk(attempt.folder, 1) as attempt.data_dir:
        machine.mount('-o', 'remount,ro', attempt.data_dir)
        attempt.refused(attempt.train(), attempt.data_dir)


def no_network(attempt):
    attempt.data_dir = os.path.join(attempt.folder, 'data')
    attempt.refused(attempt.train(prefix=machine.without_network()), '--idx_dir')


def silent_server(attempt):
    attempt.data_dir = os.path.join(attempt.folder, 'data')
    with machine.silent_server() as prefix:
        # Two sources, half a minute each.
        attempt.refused(attempt.train(prefix=prefix), '--idx_dir', 'no byte for 30 s')


def damaged_records(attempt):
    folder = _copied_folder(attempt, attempt.folder)
    shutil.rmtree(folder.decoded)
    attempt.damage(folder.record_files('train')[0])
    attempt.refused(attempt.train(), folder.records, 'broken')
    attempt.expect_none(run_folder.leftovers(attempt.data_dir))


def damaged_decoded_copy(attempt):
    """The trainer writes it anew; in later attempts the preparation alone, by the same code."""
    attempt.damage(os.path.join(_copied_folder(attempt, attempt.folder).decoded, 'train.uint8'))
    process = _prepare(attempt) if attempt.number else attempt.train()
    process.exit_code()
    attempt.saw(process, 'anew')
    _ends_well(attempt, process)
    attempt.expect('train.uint8' in process.printed(), 'the file was not named')


def damaged_idx_file(attempt):
    folder = os.path.join(attempt.folder, 'idx')
    shutil.copytree(attempt.shared.idx_files(), folder)
    attempt.data_dir = os.path.join(attempt.folder, 'data')
    path = os.path.join(folder, 'train-images-idx3-ubyte')
    attempt.damage(path)
    attempt.refused(attempt.train(idx_dir=folder), path)
    attempt.expect_none(run_folder.leftovers(attempt.data_dir))
