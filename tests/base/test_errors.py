"""Tests of the sentences for what goes wrong with files."""

import errno
import os

import pytest
import tensorflow as tf
from absl import flags

from trainer.base import errors, path_flags, program

_WHOLE = ' What was saved before is whole: the same command goes on from it.'


def raised(action):
    with pytest.raises((OSError, tf.errors.OpError)) as caught:
        action()
    return caught.value


def write_python():
    with open('/dev/full', 'w') as f:
        f.write('x')


def write_tensorflow():
    with tf.gfile.GFile('/dev/full', 'w') as f:
        f.write('x' * 100000)


def open_in_graph(path):
    def function(number):
        return os.open(path, os.O_RDONLY) + number

    with tf.Graph().as_default(), tf.Session() as session:
        session.run(tf.py_func(function, [1], tf.int64))


def test_a_full_disk_is_a_sentence_from_python_and_from_tensorflow():
    made = errors.of_files(raised(write_python))
    assert made == 'a file: No space left on device: make room.' + _WHOLE
    made = errors.of_files(raised(write_tensorflow))
    assert made == '/dev/full: No space left on device: make room.' + _WHOLE


def test_a_saver_names_the_file(tmp_path):
    (tmp_path / 'weights').write_bytes(b'')
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable('weight', initializer=1.0)
        session.run(tf.global_variables_initializer())
        name = 'x' * 250
        error = raised(lambda: tf.train.Saver().save(session, str(tmp_path / name)))
    sentence = errors.of_files(error)
    assert str(tmp_path) in sentence and os.strerror(errno.ENAMETOOLONG) in sentence


@pytest.mark.parametrize('name', ['a b', 'a; b', "it's", 'é [1]', 'No space left on device'])
def test_the_whole_path_is_shown_whatever_the_error(tmp_path, name):
    """Of errors that nobody has thought of, too."""
    (tmp_path / name).write_text('')
    path = str(tmp_path / name / 'x')
    for action in (
        lambda: os.open(path, os.O_RDONLY),
        lambda: os.mkdir(path),
        lambda: tf.gfile.MakeDirs(path),
        lambda: tf.gfile.GFile(path).read(),
        lambda: open_in_graph(path),
    ):
        sentence = errors.of_files(raised(action))
        assert sentence == path + ': Not a directory: see what is there, or name another.'
    link = str(tmp_path / (name + ' link'))
    os.symlink(link, link)
    assert link + ': ' + os.strerror(errno.ELOOP) in errors.of_files(
        raised(lambda: os.open(link, os.O_RDONLY))
    )


def test_the_flag_that_led_to_a_path_is_named(tmp_path, monkeypatch):
    values = flags.FlagValues()
    for name in ('model_dir', 'output', 'other'):
        path_flags.define(name, None, 'A path.', values)
    monkeypatch.chdir(str(tmp_path))
    values(['program', '--model_dir=a b', '--output=a b/c.png', '--other='])
    for path, name in (
        ('a b', '--model_dir=a b'),
        (str(tmp_path / 'a b' / 'x' / 'y'), '--model_dir=a b'),
        ('a b/c.png', '--output=a b/c.png'),
        ('a b/c.png.0-1-2.tmp', '--output=a b/c.png'),
        ('Unsuccessful constructor: Failed on a b/x: Not found: a b/x', '--model_dir=a b'),
        ('a bc', ''),
        ('b', ''),
    ):
        assert path_flags.naming(path, values) == name
    monkeypatch.setattr(flags, 'FLAGS', values)
    (tmp_path / 'a b').write_text('')
    made = errors.of_files(raised(lambda: os.open('a b/x', os.O_RDONLY)), path_flags.naming)
    assert made.startswith('--model_dir=a b: a b/x: Not a directory: ')
    made = errors.of_files(raised(lambda: os.listdir('a b')), path_flags.naming)
    assert made.startswith('--model_dir=a b: Not a directory: ')


@pytest.mark.parametrize(
    'error',
    [
        ValueError('No space left on device'),
        OSError(errno.ECONNRESET, 'Connection reset by peer'),
        tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating tensor'),
        tf.errors.UnavailableError(None, None, 'OS Error'),
    ],
)
def test_other_exceptions_keep_their_traceback(error):
    assert errors.of_files(error) is None

    def main(argv):
        raise error

    with pytest.raises(type(error)):
        program.run(main, ['program'])


def test_a_program_ends_with_the_sentence_and_code_1(capsys):
    with pytest.raises(SystemExit) as ended:
        program.run(lambda argv: write_tensorflow(), ['program'])
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        'error: /dev/full: No space left on device: make room.' + _WHOLE + '\n'
    )
