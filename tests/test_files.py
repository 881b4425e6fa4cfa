"""Tests that files are whole or not there at all."""

import ast
import glob
import json
import os
import threading

import pytest
import tensorflow as tf

from tests.conftest import ROOT
from trainer import files

# Where files are written by another way, and why that is right.
_OTHER_WAYS = {
    'files.py': 'write_bytes itself',
    'decoded_copy.py': 'to a work folder, which is renamed when it is whole',
    'packages.py': 'to the same work folder',
    'sources.py': 'to the same work folder',
    'verify_export.py': 'renames too; it stands alone beside an export',
}


def test_a_reader_sees_one_value_or_the_other(tmp_path):
    path = str(tmp_path / 'value.json')
    values = [{'value': [number] * 50000} for number in range(2)]
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
    for path in glob.glob(os.path.join(ROOT, 'trainer', '*.py')):
        with open(path) as f:
            if list(writes(ast.parse(f.read()))):
                found.add(os.path.basename(path))
    assert found == set(_OTHER_WAYS)
