"""Tests of the sentences for what goes wrong with files."""

import errno
import os

import pytest
import tensorflow as tf

from trainer import errors, logs

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
        logs.run(main, ['program'])


def test_a_program_ends_with_the_sentence_and_code_1(capsys):
    with pytest.raises(SystemExit) as ended:
        logs.run(lambda argv: write_tensorflow(), ['program'])
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        'error: /dev/full: No space left on device: make room.' + _WHOLE + '\n'
    )
