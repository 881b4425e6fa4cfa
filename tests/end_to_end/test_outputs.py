"""--output of the programs: links, pipes, what is open already, and what no file can be."""

import json
import os
import shutil
import types

import numpy as np
import pytest
from absl import flags

from tests.support import users
from tests.support.paths import OLD_RUN
from trainer import evaluate, generate
from trainer.base import files
from trainer.base.errors import UserError
from trainer.data import prepare
from trainer.data.dataset import PreparedDataset


@pytest.fixture(scope='module')
def model_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('run') / 'model')
    return shutil.copytree(OLD_RUN, folder)


@pytest.fixture(params=['generate', 'evaluate'])
def write(request, model_dir, tmp_path_factory, monkeypatch):
    """Runs a program with --output in this process; returns the start of what it writes."""
    counts = {'train': 5, 'validation': 5, 'test': 5}
    path = tmp_path_factory.mktemp('data') / 'images'
    path.write_bytes(np.random.RandomState(0).randint(0, 256, [5, 28, 28, 1], np.uint8).tobytes())
    paths = dict.fromkeys(counts, str(path))
    data = PreparedDataset('mnist', '3.0.0', (28, 28, 1), paths, counts)
    monkeypatch.setattr(prepare, 'prepare', lambda *_, **__: data)
    values = types.SimpleNamespace(
        model_dir=model_dir, data_dir='', idx_dir='', seed=1, num_images=2, mode='prior',
        animate=False, split='test', importance_samples=2, checkpoint='last', num_threads=1,
        against='', background_model_dir='', label_column='',
    )  # fmt: skip
    monkeypatch.setattr(flags, 'FLAGS', values)
    program, start = {'generate': (generate, b'\x89PNG'), 'evaluate': (evaluate, b'{\n')}[
        request.param
    ]

    def run(output):
        values.output = str(output)
        program.main([])
        return start

    return run


def test_an_output_that_is_open_already_gets_nothing_else(write, tmp_path, capsys):
    """As /dev/stdout: what else is printed goes to stderr, and nothing lies beside it."""
    with open(str(tmp_path / 'file'), 'wb') as f:
        start = write('/dev/fd/{}'.format(f.fileno()))
    content = (tmp_path / 'file').read_bytes()
    assert content.startswith(start)
    if start == b'{\n':
        json.loads(content.decode())
    printed = capsys.readouterr()
    assert printed.out == ''
    assert '/dev/fd/' in printed.err


def test_an_output_may_be_a_link(write, tmp_path, capsys):
    (tmp_path / 'elsewhere').mkdir()
    link = tmp_path / 'link'
    link.symlink_to(tmp_path / 'elsewhere' / 'file')
    start = write(link)
    assert (tmp_path / 'elsewhere' / 'file').read_bytes().startswith(start)
    assert link.is_symlink()
    assert sorted(os.listdir(str(tmp_path))) == ['elsewhere', 'link']
    assert capsys.readouterr().out.endswith('{}\n'.format(link))


def test_an_output_that_no_file_can_be_is_one_sentence(write, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='--output={} is a folder'.format(tmp_path)):
        write(tmp_path)
    with pytest.raises(UserError, match='cannot be written .*Not a directory'):
        write(tmp_path / 'file' / 'below')


def test_what_stands_alone_has_no_room_beside_it(tmp_path):
    with users.folder_of_another(0o555) as folder, users.another_user():
        assert files.is_alone(folder + '/file')
        assert not files.is_alone(folder + '/missing')  # It cannot be written either.
    with users.folder_of_another(0o777) as folder, users.another_user():
        assert not files.is_alone(folder + '/file')
    assert files.is_alone('/dev/null')
    assert not files.is_alone('gs://bucket/file')
