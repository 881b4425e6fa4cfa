"""Every flag that is a path means by `~` what a shell would, or is refused."""

import argparse
import os
import pwd
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from scripts.maintain import audit
from tests.fuzz.test_fuzz_flags import ROOT, SCRIPTS, TABLES, defined_by
from trainer.base import path_flags
from trainer.base import program as programs
from trainer.base.errors import UserError
from trainer.data import prepare, sources
from trainer.serving import verify_export
from trainer.settings import command_line

# Those that are no path. What is new has to be put here, or be a path.
NO_PATHS = {
    'dataset', 'image_size', 'columns', 'label_column', 'time_column', 'url', 'threshold', 'only',
    'absent', 'flagfile', 'undefok',
}  # fmt: skip
ALL = {**TABLES, **{name: defined_by(define) for name, define in SCRIPTS.items()}}


def text_flags():
    """Every flag of every program that takes any text, as program and name."""
    for program, table in sorted(ALL.items()):
        for name in sorted(set(table) - NO_PATHS):
            if table[name].flag_type() == 'string':
                yield program, name


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    return str(tmp_path)


def read(program, name, value):
    table = ALL[program]
    for flag in table._flags().values():
        flag.unparse()
    given = dict({key: 'x' for key in ('images', 'model_dir') if key in table}, **{name: value})
    table(programs.expanded([program] + ['--{}={}'.format(*item) for item in given.items()], table))
    return table[name].value


@pytest.mark.parametrize('program, name', text_flags())
def test_a_path_of_any_program_begins_in_the_home_folder(home, program, name):
    assert read(program, name, '~/runs/x') == os.path.join(home, 'runs/x')
    for path in ('gs://bucket/~/x', 'a~b/~', './~/x', '/~', ''):
        assert read(program, name, path) == path
    with pytest.raises(flags.Error) as refused:
        read(program, name, '~no-such-user/x')
    assert 'there is no user no-such-user' in str(refused.value)
    shown = 'model_dir' if name in ('job-dir', 'job_dir') else name
    assert '--{}=~no-such-user/x'.format(shown) in str(refused.value)


# Below these lie checkpoints, whose paths TensorFlow takes for patterns.
OF_CHECKPOINTS = {
    'model_dir',
    'background_model_dir',
    'init_from',
    'job-dir',
    'job_dir',
    'checkpoint',
    'export_dir',
    'flat_dir',
}
OF_CHECKPOINTS |= {'results_dir', 'work_dir'}


@pytest.mark.parametrize('program, name', text_flags())
def test_what_tensorflow_would_take_for_a_pattern_is_refused(program, name):
    assert read(program, name, 'a {b} (c) ]é!^') == 'a {b} (c) ]é!^'
    for character in '[*?\\':
        path = 'runs/a{}1]'.format(character)
        if name not in OF_CHECKPOINTS:
            assert read(program, name, path) == path
            continue
        with pytest.raises(flags.Error) as refused:
            read(program, name, path)
        assert '={}: TensorFlow takes the {} in it'.format(path, character) in str(refused.value)


@pytest.mark.parametrize('name, found', [('a]{1}', True), ('a[1]', False), ('a\\', False)])
def test_tensorflow_takes_these_characters_for_patterns(tmp_path, name, found):
    """What the refusal rests on; * and ? are found, with files of other folders."""
    (tmp_path / name).mkdir()
    (tmp_path / name / 'model.ckpt-1.index').write_bytes(b'')
    assert tf.train.checkpoint_exists(str(tmp_path / name / 'model.ckpt-1')) == found


def test_the_default_folder_of_a_run_is_no_pattern():
    values = flags.FlagValues()
    command_line.define_flags(flag_values=values)
    values(['program', '--dataset=mnist:3.*.*'])
    assert command_line.from_flags(values).model_dir == 'runs/mnist:3.x.x-z32'


def test_an_export_that_was_moved_to_such_a_folder_is_refused(monkeypatch, tmp_path):
    golden = str(tmp_path / 'golden.npz')
    np.savez(golden, **{'encode/inputs/images': np.zeros(1), 'encode/outputs/mean': np.zeros(1)})
    monkeypatch.setattr(
        'sys.argv', ['verify', '--golden=' + golden, '--export_dir=m[1]', '--runtime=tensorflow1']
    )
    with pytest.raises(SystemExit) as ended:
        verify_export.main()
    assert '--export_dir=m[1]: TensorFlow takes the [ in it' in str(ended.value)


def test_each_of_several_images_begins_in_the_home_folder(home):
    assert read('predict', 'images', '~/a.png,b.png,~') == '{0}/a.png,b.png,{0}'.format(home)
    with pytest.raises(flags.Error):
        read('predict', 'images', 'a.png,~no-such-user/b.png')


def test_help_lists_a_path_among_the_flags_of_its_program():
    values = flags.FlagValues()
    path_flags.define('some_dir', None, 'A folder.', values)
    assert [flag.name for flag in values.get_key_flags_for_module(__name__)] == ['some_dir']


@pytest.fixture
def entry(monkeypatch):
    """The entry of a user named `someone`, which this process's own user may not have."""
    known = pwd.struct_passwd(('someone', 'x', os.getuid(), 0, '', '/home/of someone', '/bin/sh'))
    monkeypatch.setattr(pwd, 'getpwuid', {os.getuid(): known}.__getitem__)
    monkeypatch.setattr(pwd, 'getpwnam', {'someone': known}.__getitem__)
    return known


def test_the_home_of_another_user(entry):
    assert path_flags.expanded('~someone/x') == os.path.join(entry.pw_dir, 'x')


def test_without_home_the_user_s_entry_counts(entry, monkeypatch):
    monkeypatch.delenv('HOME')
    assert path_flags.expanded('~/x') == os.path.join(entry.pw_dir, 'x')


@pytest.mark.parametrize('home', [None, '', 'relative'])
def test_without_a_home_a_path_and_the_default_data_dir_are_refused(monkeypatch, home):
    def no_entry(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, 'getpwuid', no_entry)
    monkeypatch.delenv('HOME')
    if home is not None:
        monkeypatch.setenv('HOME', home)
    for path in ('~/x', '~'):
        with pytest.raises(ValueError, match='set HOME'):
            path_flags.expanded(path)
    with pytest.raises(UserError) as refused:
        prepare.dataset_facts('mnist')
    assert str(refused.value).startswith('--data_dir=~/tensorflow_datasets: ')
    with pytest.raises(UserError, match='--idx_dir=~/mnist: the home folder is not known'):
        sources.check_folder('mnist', '~/mnist')


@pytest.mark.parametrize('read_path', [verify_export.path, path_flags.expanded])
def test_the_copy_beside_an_export_reads_paths_likewise(home, read_path):
    assert read_path('~/x') == os.path.join(home, 'x')
    assert read_path('a/~') == 'a/~'
    with pytest.raises((ValueError, argparse.ArgumentTypeError)):
        read_path('~no-such-user/x')


def test_programs_without_absl_read_paths_likewise(home, monkeypatch, capsys):
    for program, name in ((verify_export, '--json'), (audit, '--lock')):
        monkeypatch.setattr('sys.argv', ['program', name + '=~no-such-user/x'])
        with pytest.raises(SystemExit) as ended:
            program.main()
        assert ended.value.code == 2
        assert name in capsys.readouterr().err


@pytest.mark.slow
def test_no_folder_of_that_name_is_made(tmp_path):
    """By a process in an empty folder, which bash starts: it leaves --name=~/x as it stands."""
    home, folder = tmp_path / 'home', tmp_path / 'work'
    home.mkdir()
    folder.mkdir()
    command = '"{}" -m trainer.task --model_dir=~/runs/x --data_dir=~/none --idx_dir=~/idx'
    done = subprocess.run(
        ['bash', '-c', command.format(sys.executable)],
        cwd=str(folder),
        env={'HOME': str(home), 'PATH': os.environ['PATH'], 'PYTHONPATH': ROOT},
        stderr=subprocess.PIPE,
    )
    assert done.returncode == 1
    assert re.match(r'error: --idx_dir={}/idx: '.format(home), done.stderr.decode())
    assert os.listdir(str(folder)) == []
