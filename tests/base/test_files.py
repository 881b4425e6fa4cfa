"""Tests that files are whole or not there at all."""

import ast
import glob
import json
import os
import re
import subprocess
import sys
import threading

import pytest
import tensorflow as tf

from tests.support import fake_gcs, users
from tests.support.paths import ROOT
from trainer.base import files
from trainer.base.errors import UserError

# Where files are written by another way, and why that is right.
_OTHER_WAYS = {
    'files.py': 'write_bytes itself, and write_output what cannot be replaced',
    'array_file.py': 'to a work folder, which is renamed when it is whole',
    'image_folder.py': 'to the same work folder',
    'series.py': 'to the same work folder',
    'tfds_records.py': 'to the same work folder',
    'packages.py': 'to the same work folder',
    'sources.py': 'to the same work folder',
    'terminal.py': 'to the null device, in place of a terminal that is gone',
    'verified.py': 'under a name of its own, and renamed when it is whole',
    'verify_export.py': 'what --json names, and nobody reads while it runs',
}


def test_a_reader_sees_one_value_or_the_other(tmp_path):
    path = str(tmp_path / 'value.json')
    values = [{'value': [number] * 1000} for number in range(2)]
    files.write_json(path, values[0])
    done = threading.Event()

    def write():
        for number in range(60):
            files.write_json(path, values[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        with open(path) as f:
            seen.add(values.index(json.load(f)))
    writer.join()
    assert seen == {0, 1}
    assert os.listdir(str(tmp_path)) == ['value.json']


def test_unfinished_files_are_found_beside_any_name(tmp_path, monkeypatch):
    path = str(tmp_path / 'a [1] *')
    names = ['a [1] *.{}.tmp'.format(files.temporary_name()), 'a 1 x.1.tmp', 'a [1] *']
    for name in names:
        (tmp_path / name).write_bytes(b'')
    assert files.unfinished(path) == [str(tmp_path / names[0])]
    monkeypatch.chdir(tmp_path)
    assert files.unfinished('a [1] *') == [names[0]]


def test_what_its_writer_has_renamed_meanwhile_is_not_abandoned(tmp_path, monkeypatch):
    """Another host's download: its last write tells, and there is nothing left to ask."""
    monkeypatch.setattr(files.socket, 'gethostname', lambda: 'another')
    name = 'temp-' + files.temporary_name()
    monkeypatch.undo()
    assert not files.is_abandoned(str(tmp_path / name))
    (tmp_path / name).write_bytes(b'')
    os.utime(str(tmp_path / name), (0, 0))
    assert files.is_abandoned(str(tmp_path / name))


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = files.write_bytes(str(tmp_path / 'file'), b'before')

    def rename(source, target, overwrite):
        with open(source, 'rb') as f:
            assert f.read() == b'after'
        raise tf.errors.ResourceExhaustedError(None, None, 'No space left on device')

    monkeypatch.setattr(tf.gfile, 'Rename', rename)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        files.write_bytes(path, b'after')
    assert (tmp_path / 'file').read_bytes() == b'before'
    assert os.listdir(str(tmp_path)) == ['file']


@pytest.mark.parametrize(
    'mode', [0o555, pytest.param(0o1777, marks=users.needs_root)], ids=['closed', 'sticky']
)
def test_an_output_in_a_folder_of_another_owner_is_written_in_place(mode):
    with users.folder_of_another(mode) as folder:
        path = os.path.join(folder, 'file')
        with users.another_user():
            with pytest.raises(tf.errors.PermissionDeniedError):
                files.write_bytes(path, b'new')
            assert files.write_output(path, b'new') == path
        with open(path, 'rb') as f:
            assert f.read() == b'new'
        assert os.listdir(folder) == ['file']


def test_an_output_that_cannot_be_written_at_all_is_an_error():
    with users.folder_of_another(0o555) as folder:
        paths = [folder + '/missing', folder, folder + '/file/below', '/proc/version/below']
        for path in paths:
            with users.another_user(), pytest.raises(UserError) as refused:
                files.write_output(path, b'new')
            message = str(refused.value)
            assert re.fullmatch(path + r' cannot be written \([A-Z][a-z ]+\): .*', message)
        assert os.listdir(folder) == ['file']


def test_an_output_is_written_in_place_only_where_it_cannot_be_replaced(tmp_path, monkeypatch):
    """A full disk, say, must not take away what was there."""
    path = str(tmp_path / 'file')
    files.write_output(path, b'before')
    before = os.stat(path).st_ino
    assert files.write_output(path, b'after') == path
    assert os.stat(path).st_ino != before

    def rename(source, target, overwrite):
        raise tf.errors.ResourceExhaustedError(None, None, 'No space left on device')

    monkeypatch.setattr(tf.gfile, 'Rename', rename)
    with pytest.raises(UserError, match='cannot be written .No space left on device.: make room'):
        files.write_output(path, b'never')
    assert (tmp_path / 'file').read_bytes() == b'after'


def test_a_link_that_a_user_names_stays_one(tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    link, target = tmp_path / 'link', tmp_path / 'elsewhere' / 'file'
    link.symlink_to(target)
    for content in (b'new', b'newer'):  # the first time it leads to nothing yet
        assert files.write_output(str(link), content) == str(link)
        assert link.is_symlink()
        assert target.read_bytes() == content
    # In a folder of ours it is no one's wish: a run that was downloaded may hold any.
    files.write_bytes(str(link), b'ours')
    assert not link.is_symlink()
    assert target.read_bytes() == b'newer'


def test_a_pipe_is_written_and_stays_one(tmp_path):
    pipe = str(tmp_path / 'pipe')
    os.mkfifo(pipe)
    assert files.is_stream(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.write_output(pipe, b'content')
    assert os.read(reader, 100) == b'content'
    os.close(reader)
    assert os.listdir(str(tmp_path)) == ['pipe']


def test_a_file_that_is_open_already_is_a_stream(tmp_path):
    with open(str(tmp_path / 'file'), 'wb') as f:
        path = '/dev/fd/{}'.format(f.fileno())
        assert files.is_stream(path)
        files.write_output(path, b'content')
    assert (tmp_path / 'file').read_bytes() == b'content'
    assert not files.is_stream(str(tmp_path / 'file'))
    assert not files.is_stream(str(tmp_path))
    assert not files.is_stream(str(tmp_path / 'missing'))


@pytest.mark.slow
def test_a_file_that_is_mounted_alone_is_written_in_place(tmp_path):
    """As `docker run -v FILE:FILE` mounts it: it cannot be renamed over."""
    for name in ('source', 'mounted'):
        (tmp_path / name).write_text('a longer text that was there before')
    code = 'import sys; from trainer.base import files; files.write_output(sys.argv[1], b"new")'
    script = 'mount --bind source mounted || exit 77; exec "$0" -c "$1" mounted'
    done = subprocess.run(
        [*fake_gcs.UNSHARE, 'bash', '-c', script, sys.executable, code],
        cwd=str(tmp_path), env=dict(os.environ, PYTHONPATH=ROOT), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode == 77 or 'unshare' in done.stderr:
        pytest.skip('no mounts are permitted here: ' + done.stderr)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'source').read_text() == 'new'
    assert sorted(os.listdir(str(tmp_path))) == ['mounted', 'source']


def test_a_file_that_is_written_in_pieces_appears_whole(tmp_path):
    path = str(tmp_path / 'new' / 'x.csv')
    for content in (b'one', b'other'):
        with files.replacing(path) as write:
            write(content[:1])
            assert os.listdir(str(tmp_path / 'new')) != [] and files.unfinished(path)
            write(content[1:])
        assert (tmp_path / 'new' / 'x.csv').read_bytes() == content
    with pytest.raises(RuntimeError), files.replacing(path) as write:
        write(b'a part')
        raise RuntimeError
    assert (tmp_path / 'new' / 'x.csv').read_bytes() == b'other'
    assert os.listdir(str(tmp_path / 'new')) == ['x.csv']


def test_a_file_that_cannot_be_written_in_pieces_is_an_error(tmp_path):
    (tmp_path / 'file').write_text('')
    path = str(tmp_path / 'file' / 'x.csv')
    with pytest.raises(UserError, match='cannot be written') as error, files.replacing(path):
        pass
    assert path in str(error.value)
    with pytest.raises(tf.errors.InternalError), files.replacing(str(tmp_path / 'x.csv')):
        raise tf.errors.InternalError(None, None, 'of a model')  # None of its own.


def writes(tree):
    """Lines of calls of `open` or `GFile` that may write."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, 'id', getattr(node.func, 'attr', ''))
        modes = [getattr(value, 's', None) for value in node.args[1:2]]
        modes += [getattr(k.value, 's', None) for k in node.keywords if k.arg == 'mode']
        if name in ('open', 'GFile', 'FastGFile') and any(
            isinstance(mode, str) and set(mode) & set('wax+') for mode in modes
        ):
            yield node.lineno


def test_the_check_below_finds_writes():
    code = "open(p, 'wb')\ntf.gfile.GFile(p, mode='a')\nopen(p, 'rb')\nopen(p)\nos.open(p, 3)"
    assert sorted(writes(ast.parse(code))) == [1, 2]


def test_everything_is_written_by_write_bytes():
    found = set()
    for path in glob.glob(os.path.join(glob.escape(ROOT), 'trainer', '**', '*.py'), recursive=True):
        with open(path) as f:
            if list(writes(ast.parse(f.read()))):
                found.add(os.path.basename(path))
    assert found == set(_OTHER_WAYS)


def test_json_has_null_for_what_is_no_number():
    value = {'b': [1.5, float('nan'), (float('inf'), 2)], 'a': {'c': -float('inf'), 'd': 'NaN'}}
    content = files.json_bytes(value).decode('utf-8')

    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads(content, parse_constant=refuse)
    assert read == {'b': [1.5, None, [None, 2]], 'a': {'c': None, 'd': 'NaN'}}
