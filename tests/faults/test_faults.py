"""A sample of the table of faults, or all of it; and what tells a good attempt from a bad one."""

import os
import shutil
import signal
import subprocess
import sys
from unittest import mock

import pytest
import tensorflow as tf

from tests.faults import __main__ as program
from tests.faults import machine, run_folder
from tests.faults.attempt import KINDS, Attempt, SharedRuns
from tests.faults.table import FAULTS, SAMPLE, Fault
from tests.support import tiny
from tests.support.paths import ROOT


def pytest_generate_tests(metafunc):
    if 'fault' in metafunc.fixturenames:
        are_all = metafunc.config.getoption('all_attempts')
        if are_all:
            tries = [(one, number) for one in FAULTS for number in range(one.tries)]
        else:
            tries = [(one, 0) for one in FAULTS if one.name in SAMPLE]
        ids = ['{}, {}'.format(one.name, number + 1) for one, number in tries]
        metafunc.parametrize('fault, number', tries, ids=ids)


@pytest.fixture(scope='session')
def shared(mnist_data_dir, tmp_path_factory):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's background ignores it.
    return SharedRuns(tmp_path_factory.mktemp('shared'), mnist_data_dir)


@pytest.mark.slow
def test_fault(fault, number, shared, tmp_path, record_property):
    attempt = Attempt(fault.name, number, shared, tmp_path)
    try:
        fault.run(attempt)
    finally:
        attempt.close()
        noted = {'fault': fault.name, 'saw': attempt.user_saw, 'lost': attempt.lost}
        record_property('attempt', dict(noted, wrong=attempt.wrong))
    assert attempt.wrong == []
    shutil.rmtree(str(tmp_path))  # Logs and files of what went wrong stay.


@pytest.fixture
def attempt(tmp_path):
    attempt = Attempt('x', 0, SharedRuns(tmp_path, tmp_path / 'data'), tmp_path)
    yield attempt
    attempt.close()


def python(attempt, code):
    return attempt.run([sys.executable, '-c', code])


@pytest.mark.parametrize(
    'kind, name, expected',
    [(0, 'x', b'absd'), (0, 'x.json', b'qbcd'), (1, 'x', b'ab'), (2, 'x', b'')],
)
def test_a_file_is_damaged_as_its_kind_says(attempt, tmp_path, kind, name, expected):
    (tmp_path / name).write_bytes(b'abcd')
    attempt.kind = KINDS[kind]
    attempt.damage(str(tmp_path / name))
    assert (tmp_path / name).read_bytes() == expected


def test_all_that_is_wrong_with_a_run_is_found(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable('dense/kernel', initializer=[1.0, 2.0])
        session.run([tf.train.create_global_step().initializer, tf.global_variables_initializer()])
        path = tf.train.Saver().save(session, str(tmp_path / 'model.ckpt'), 7)
    tiny.poison(path)
    left = ['.preparing-x', 'a.json.12.tmp', 'checkpoint.tmp1', 'export/temp-1', 'x.tempstate1']
    for name in [*left, 'a.json', 'template.txt', 'export/17']:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('')
    assert sorted(run_folder.problems(str(tmp_path), 8)) == [
        *('left behind: ' + name for name in left),
        'model.ckpt-7: dense/kernel is not finite',
        'results.json has global_step None',
        'the best export does not answer',
        'the final export does not answer',
        'the last checkpoint is of step 0',
    ]


def test_a_full_disk_takes_no_byte_and_is_gone_afterwards(tmp_path):
    with machine.disk(str(tmp_path), 1) as folder:
        machine.fill(os.path.join(folder, 'ballast'))
        with pytest.raises(OSError, match='No space left'):
            (tmp_path / 'disk' / 'other').write_text('x')
    assert os.listdir(folder) == []


def test_steps_are_read_from_what_was_printed(attempt):
    process = python(
        attempt,
        'print("Resuming /a at step 1,020, going to step 2,000 on mnist, at step 9");'
        'print("step 1,040/2,000 (grey levels): x"); print("step 1,050: validation")',
    )
    assert process.exit_code(60) == 0
    assert (process.first_step(), process.last_step()) == (1020, 1050)


def test_a_process_that_hangs_is_killed_with_its_children(attempt):
    process = python(attempt, 'import time; print("up", flush=True); time.sleep(100)')
    attempt.reach(process, 'up')
    assert process.exit_code(0.1) is None and not process.is_running()
    child = 'import time; time.sleep(100)'
    code = 'import subprocess, sys; subprocess.run([sys.executable, "-c", "{}"])'.format(child)
    process = python(attempt, code)
    assert process.wait_until(lambda: len(process.members()) == 2, 60)
    process.kill()
    process.wait()
    assert process.kill_all() and not process.kill_all()


@pytest.mark.parametrize(
    'code, wrong',
    [
        ('sys.exit("error: --a=1 is bad.")', []),
        ('print("error: --a=1"); sys.exit(2)', ['code 2']),
        ('sys.exit("--a=1")', ['no line begins with error:']),
        ('print("error: no")', ['code 0', "the sentence lacks '--a'"]),
        ('print("error: --a"); 1 / 0', ['a traceback was printed']),
    ],
)
def test_a_refusal_is_one_sentence_and_code_1(attempt, code, wrong):
    attempt.refused(python(attempt, 'import sys; ' + code), '--a')
    assert attempt.wrong == wrong


def test_what_the_user_saw_names_folders_by_what_they_are(attempt):
    text = 'error: {0}: {0}-x {1}/mnist'.format(attempt.model_dir, attempt.data_dir)
    assert attempt.shortened(text) == 'error: MODEL_DIR: MODEL_DIR-x DATA_DIR/mnist'
    assert len(attempt.shortened('x' * 1000)) == 300


def test_more_lost_steps_than_allowed_are_wrong(attempt):
    attempt.lose(3, 5)
    attempt.lose(2)
    assert (attempt.lost, attempt.wrong) == ('3', [])
    attempt.lose(6, 5)
    assert (attempt.lost, attempt.wrong) == ('6', ['6 steps were lost'])


def test_nothing_goes_on_after_an_interruption(attempt, tmp_path):
    def interrupted(attempt):
        running.append(python(attempt, 'import time; time.sleep(600)'))
        raise KeyboardInterrupt

    running, record = [], mock.Mock()
    with pytest.raises(KeyboardInterrupt):
        test_fault(Fault('x', interrupted, 1), 0, attempt.shared, tmp_path, record)
    assert not running[0].is_running() and record.called


def test_a_table_shows_what_was_bad_and_goes_on_from_what_was_good(tmp_path, capsys, monkeypatch):
    tries = [('soak', '2', []), ('soak', '10', []), ('no network', '-', ['b | <c>'])]
    rows = ['| soak | 2 | ok | 10 | 10 |', '| no network | 1 | BAD: b \\| &lt;c> | - | - |']

    def tried(command, plugins):
        for name, lost, wrong in tries:
            report = mock.Mock(when='call', nodeid=name + lost, duration=60.0, skipped=False)
            report.failed, noted = bool(wrong), {'fault': name, 'saw': lost, 'lost': lost}
            report.user_properties = [('attempt', dict(noted, wrong=wrong))]
            plugins[0].pytest_runtest_logreport(report)

    arguments = ['--attempts={}'.format(tmp_path / 'attempts'), '-k', 'o']
    monkeypatch.setattr(program.pytest, 'main', tried)
    assert program.main(arguments) == 1
    assert capsys.readouterr().out.splitlines()[2:-2] == rows
    monkeypatch.setattr(program.pytest, 'main', mock.Mock())
    assert program.main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[2:-2] == rows[:1]
    command, _ = program.pytest.main.call_args[0]
    assert command[-4:] == ['-k', 'o', '--deselect=soak2', '--deselect=soak10']


@pytest.mark.slow
def test_the_processes_of_a_table_try_all_rows_and_not_the_sample_alone():
    # No row is begun, as the time for slow tests is over at once.
    done = subprocess.run(
        [sys.executable, '-m', 'tests.faults', '-k', 'damaged and TFRecord', '-n', '1'],
        cwd=ROOT,
        env=dict(os.environ, SLOW_MINUTES='0'),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    (row,) = [one for one in FAULTS if one.name == 'damaged TFRecord']
    assert row.tries > 1 and '{} skipped'.format(row.tries) in done.stdout
