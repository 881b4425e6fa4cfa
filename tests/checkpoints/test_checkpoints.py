"""Tests of which checkpoint counts, where files are damaged, missing or left half-written."""

import os
import subprocess
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from trainer.base import files
from trainer.base.errors import UserError
from trainer.checkpoints import listing, weights


def write_checkpoints(folder, steps):
    """Checkpoints of a weight that is the step, as Estimator's Saver names them."""
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.train.create_global_step()
        weight = tf.get_variable('weight', [1000])
        saver = tf.train.Saver(save_relative_paths=True)
        for number in steps:
            session.run([step.assign(number), weight.assign(tf.fill([1000], float(number)))])
            saver.save(session, os.path.join(str(folder), 'model.ckpt'), global_step=step)


def prefix(folder, step):
    return os.path.join(str(folder), 'model.ckpt-{}'.format(step))


@pytest.fixture()
def folder(tmp_path):
    write_checkpoints(tmp_path, [3, 6, 9])
    return tmp_path


def empty(content):
    return b''


def truncated(content):
    return content[: len(content) // 2]


def flipped(content):
    # Not further on: there an index has bytes that mean nothing.
    place = len(content) // 4
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def noise(content):
    return np.random.RandomState(0).bytes(len(content))


DAMAGES = [empty, truncated, flipped, noise]


def damage(path, how):
    path.write_bytes(how(path.read_bytes()))


@pytest.mark.parametrize('how', DAMAGES)
@pytest.mark.parametrize('part', ['data-00000-of-00001', 'index'])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_goes_on(folder, capsys, part, how):
    damage(folder / 'model.ckpt-9.{}'.format(part), how)
    assert weights.damage(prefix(folder, 9))
    assert weights.damage(prefix(folder, 6)) == ''

    listing.repair(str(folder))

    assert listing.latest(str(folder)) == prefix(folder, 6)
    assert tf.train.latest_checkpoint(str(folder)) == prefix(folder, 6)
    said = capsys.readouterr().err
    assert '{} is damaged'.format(prefix(folder, 9)) in said
    assert 'going on from {}'.format(prefix(folder, 6)) in said
    assert (folder / 'model.ckpt-9.index').exists()


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'model_checkpoint_path: "model.ck',
        b'\xff\xfe\x00',
        b'all_model_checkpoint_paths: "model.ckpt-3"\n',
        b'model_checkpoint_path: "model.ckpt-12"\n',
        None,
    ],
)
def test_without_a_state_file_the_newest_checkpoint_counts(folder, capsys, content):
    state = folder / 'checkpoint'
    state.unlink()
    if content is not None:
        state.write_bytes(content)
    assert listing.latest(str(folder)) == prefix(folder, 9)
    assert capsys.readouterr().err == ''

    listing.repair(str(folder))

    assert tf.train.latest_checkpoint(str(folder)) == prefix(folder, 9)
    said = capsys.readouterr().err
    assert '{} is {}'.format(state, 'missing' if content is None else 'damaged') in said


def test_a_folder_in_order_is_left_alone(folder, capsys):
    before = (folder / 'checkpoint').read_bytes()
    listing.repair(str(folder))
    assert (folder / 'checkpoint').read_bytes() == before
    assert capsys.readouterr().err == ''


def test_a_checkpoint_that_was_set_aside_stays_so(folder):
    listing.make_latest(prefix(folder, 6), str(folder))
    listing.repair(str(folder))
    assert listing.latest(str(folder)) == prefix(folder, 6)
    assert listing.listed(str(folder)) == [prefix(folder, 3), prefix(folder, 6)]


def test_one_that_was_set_aside_is_better_than_none(folder):
    listing.make_latest(prefix(folder, 3), str(folder))
    damage(folder / 'model.ckpt-3.index', empty)
    listing.repair(str(folder))
    assert listing.latest(str(folder)) == prefix(folder, 9)


def test_where_none_can_be_read_nothing_begins_anew(folder):
    for index in folder.glob('*.index'):
        damage(index, truncated)
    before = (folder / 'checkpoint').read_bytes()
    with pytest.raises(UserError, match=r'model\.ckpt-3 is damaged .*no other checkpoint'):
        listing.repair(str(folder))
    assert (folder / 'checkpoint').read_bytes() == before


def test_a_new_folder_has_none(tmp_path):
    for folder in (tmp_path, tmp_path / 'missing'):
        assert listing.latest(str(folder)) is None
        listing.repair(str(folder))
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_removed_unless_its_process_lives(folder):
    dead = subprocess.Popen(['true'])
    dead.wait()
    alive, other_host = files.temporary_name(), '0a1b2c3d-1-0a1b2c3d'
    alive = alive.replace('-{}-'.format(os.getpid()), '-{}-'.format(os.getppid()))
    ours = files.temporary_name().replace('-{}-'.format(os.getpid()), '-{}-'.format(dead.pid))
    of_tensorflow = ['checkpoint', 'graph.pbtxt', 'model.ckpt-12.meta']
    names = [
        *(name + '.tmp' + 'edeba5a957404b1a80f1baadfb18dece' for name in of_tensorflow),
        'results.json.{}.tmp'.format(ours), 'model.ckpt-12_temp_0a/part',
        'model.ckpt-12.data-00000-of-00001.tempstate99', '.new/new_model.ckpt.index',
        'export/best/temp-{}/saved_model.pb'.format(ours),
        'export/best/model.ckpt-9.index.{}.tmp'.format(ours),
        'export/final/temp-{}/saved_model.pb'.format(files.temporary_name()),
        'old.png.{}.tmp'.format(other_host),
    ]  # fmt: skip
    kept = [
        'export/best/1700000000/saved_model.pb', 'notes.tmp', 'export/final/temperature.txt',
        'export/final/temp-{}/saved_model.pb'.format(alive), 'results.json.{}.tmp'.format(alive),
        'export/final/temp-{}/saved_model.pb'.format(other_host),
    ]  # fmt: skip
    for name in names + kept:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'half')
    two_hours_ago = time.time() - 7200
    os.utime(str(folder / names[-1]), (two_hours_ago, two_hours_ago))

    listing.repair(str(folder))

    assert [name for name in names if (folder / name).exists()] == []
    assert [name for name in kept if not (folder / name).exists()] == []
    assert listing.latest(str(folder)) == prefix(folder, 9)


def test_others_wait_for_the_chief_to_mend_and_say_so(folder, capsys):
    damage(folder / 'model.ckpt-9.index', empty)
    chief = threading.Timer(0.5, listing.repair, [str(folder)])
    chief.start()
    listing.wait_until_repaired(str(folder))
    assert listing.latest(str(folder)) == prefix(folder, 6)
    chief.join()
    damage(folder / 'model.ckpt-6.index', empty)
    capsys.readouterr()
    listing.wait_until_repaired(str(folder), seconds=0.1)  # It does not wait for ever.
    assert capsys.readouterr().err.endswith(
        'model.ckpt-6 is damaged: waiting for the chief to mend that.\n'
    )


def test_restore_names_a_checkpoint_that_cannot_be_used(folder):
    damage(folder / 'model.ckpt-9.data-00000-of-00001', flipped)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable('weight', [1000])
        weights.restore(session, prefix(folder, 6))
        with pytest.raises(UserError, match=r'model\.ckpt-9 cannot be used'):
            weights.restore(session, prefix(folder, 9))
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable('another', [1000])
        with pytest.raises(UserError, match='another is missing in it'):
            weights.restore(session, prefix(folder, 6))
