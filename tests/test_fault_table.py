"""The table of faults: its laboratory, and its quick form on the real MNIST."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from scripts import fault_table, laboratory
from scripts.laboratory import Bench, Laboratory

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture
def bench(tmp_path):
    return Bench(Laboratory(str(tmp_path / 'work'), str(tmp_path / 'data'), quick=True), 'a | b', 0)


def python(bench, code):
    return bench.run([sys.executable, '-c', code])


def save(folder, step, value=1.0):
    """Saves a checkpoint of one weight; returns its prefix."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable('dense/kernel', initializer=[value, 2.0])
        tf.get_variable('global_step', initializer=np.int64(step), trainable=False)
        session.run(tf.global_variables_initializer())
        prefix = os.path.join(str(folder), 'model.ckpt')
        return tf.train.Saver().save(session, prefix, step, write_meta_graph=False)


@pytest.mark.parametrize(
    'kind, expected', [('bit flipped', b'absd'), ('truncated', b'ab'), ('empty', b'')]
)
def test_a_file_is_damaged_as_its_kind_says(tmp_path, kind, expected):
    path = tmp_path / 'file'
    path.write_bytes(b'abcd')
    laboratory.damage(str(path), kind)
    assert path.read_bytes() == expected


def test_a_byte_can_be_chosen(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'{}')
    laboratory.damage(str(path), 'bit flipped', 0)
    assert path.read_bytes() == b'k}'
    with pytest.raises(ValueError):
        laboratory.damage(str(path), 'burnt')


def test_a_poisoned_checkpoint_differs_in_one_weight(tmp_path):
    path = save(tmp_path, 7)
    assert laboratory.trouble_of(path) == ''
    laboratory.poison_checkpoint(path, float('nan'))
    assert laboratory.trouble_of(path) == 'dense/kernel is not finite'
    reader = tf.train.load_checkpoint(path)
    np.testing.assert_array_equal(reader.get_tensor('dense/kernel'), [np.nan, 2.0])
    assert reader.get_tensor('global_step') == 7


@pytest.mark.parametrize('suffix', ['.index', laboratory.CHECKPOINT_DATA])
@pytest.mark.parametrize('kind', laboratory.KINDS)
def test_a_damaged_checkpoint_is_noticed(tmp_path, suffix, kind):
    path = save(tmp_path, 7)
    # Byte 10 is of the weights, or of the names: the middle of so small an index is of neither.
    laboratory.damage(path + suffix, kind, 10)
    assert laboratory.trouble_of(path).startswith('it cannot be read')


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    paths = [save(tmp_path, step) for step in (10, 9)]
    assert laboratory.checkpoints(str(tmp_path)) == paths[::-1]
    assert laboratory.last_step(str(tmp_path)) == 9
    assert laboratory.last_step(str(tmp_path / 'none')) == -1


def test_temporary_files_are_found(tmp_path):
    for name in ('export/temp-1', 'model.ckpt-1_temp_ab', '.preparing-x', 'export/17'):
        (tmp_path / name).mkdir(parents=True)
    for name in ('a.json', 'a.json.12.tmp', 'checkpoint.tmp1', 'x.tempstate1', 'template.txt'):
        (tmp_path / name).write_text('')
    assert laboratory.leftovers(str(tmp_path)) == [
        '.preparing-x', 'a.json.12.tmp', 'checkpoint.tmp1', 'export/temp-1',
        'model.ckpt-1_temp_ab', 'x.tempstate1',
    ]  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason='only root may mount')
def test_a_part_of_a_disk_that_is_mounted_is_never_removed(tmp_path, bench):
    source, target = tmp_path / 'source', tmp_path / 'try' / 'disk'
    source.mkdir()
    target.mkdir(parents=True)
    (source / 'precious').write_text('')
    try:
        laboratory.mount('--bind', str(source), str(target))
    except laboratory.Skipped as reason:
        pytest.skip(str(reason))
    try:
        with pytest.raises(RuntimeError, match='mounted'):
            laboratory.remove(str(tmp_path / 'try'))
    finally:
        laboratory.unmount(str(target))
    laboratory.remove(str(tmp_path / 'try'))
    assert (source / 'precious').exists() and not (tmp_path / 'try').exists()


def test_a_folder_without_results_is_not_a_finished_run(tmp_path):
    save(tmp_path, 7)
    found = list(laboratory.troubles(str(tmp_path), 8))
    assert found == [
        'results.json has global_step None',
        'the last checkpoint is of step 7',
        'the final export does not answer',
        "best.json's export does not answer",
    ]


def test_steps_are_read_from_what_was_printed(bench):
    process = python(
        bench,
        'print("Resuming /a at step 1,020, going to step 2,000 on mnist, at step 9");'
        'print("step 1,040/2,000 (grey levels): x"); print("step 1,050: validation")',
    )
    assert process.wait(60) == 0
    assert laboratory.first_step(process) == 1020
    assert laboratory.shown_step(process) == 1050


def test_a_process_that_hangs_is_killed_with_its_children(bench):
    child = 'import time; time.sleep(100)'
    code = 'import subprocess, sys; subprocess.run([sys.executable, "-c", "{}"])'.format(child)
    process = python(bench, 'import time; print("up", flush=True); time.sleep(100)')
    assert process.wait_for('up', 60)
    assert process.wait(0.1) is None
    assert not process.is_running
    process = python(bench, code)
    process.wait_until(lambda: len(process.members()) == 2, 60)
    process.send(signal.SIGKILL)
    process.wait(60)
    assert len(process.members()) == 1
    process.end()
    assert not process.members()


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
def test_a_refusal_is_one_sentence_and_code_1(bench, code, wrong):
    bench.refused(python(bench, 'import sys; ' + code), '--a')
    assert bench.wrong == wrong


def test_what_the_user_saw_names_folders_by_what_they_are(bench):
    text = 'error: {0}: {0}-x {1}/mnist'.format(bench.model_dir, bench.data_dir)
    assert bench.shortened(text) == 'error: MODEL_DIR: MODEL_DIR-x DATA_DIR/mnist'
    assert len(bench.shortened('x' * 1000)) == laboratory._LONGEST_SENTENCE


def test_more_lost_steps_than_allowed_are_wrong(bench):
    bench.lose(3, 5)
    bench.lose(2)
    assert (bench.lost, bench.wrong) == ('3', [])
    bench.lose(6, 5)
    assert (bench.lost, bench.wrong) == ('6', ['6 steps were lost'])


def test_rows_are_chosen_by_parts_of_their_names():
    rows = fault_table.all_rows()
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert fault_table.chosen_rows(rows, [], quick=False) == rows
    assert [row.name for row in fault_table.chosen_rows(rows, [], quick=True)] == [
        'SIGKILL at random moments', 'SIGTERM during steps', 'disk full at a checkpoint',
        'damaged checkpoint data', 'two trainers on one model_dir', 'NaN in weights',
    ]  # fmt: skip
    chosen = fault_table.chosen_rows(rows, ['nan in', 'soak'], quick=True)
    assert [row.name for row in chosen] == ['soak', 'NaN in weights', 'NaN in a batch']


def result_of(tmp_path, fault, tries=2, quick=False):
    made = Laboratory(str(tmp_path / 'work'), str(tmp_path / 'data'), quick)
    return fault_table.run_row(fault_table.Row('row', fault, tries), made)


def test_a_row_that_fails_once_is_bad_and_keeps_its_logs(tmp_path):
    def fault(bench):
        bench.said = 'try {}'.format(bench.number)
        bench.lose(bench.number)
        bench.expect(bench.number, 'it | broke')

    result = result_of(tmp_path, fault)
    assert result.pop('seconds') >= 0
    assert result == {
        'fault': 'row', 'form': 'full', 'tries': 2, 'outcome': 'BAD: it | broke', 'saw': 'try 0',
        'lost': '1',
    }  # fmt: skip
    assert os.listdir(str(tmp_path / 'work' / 'row')) == ['0']
    lines = fault_table.table([result]).splitlines()
    assert lines[2:] == ['| row | 2 | BAD: it \\| broke | try 0 | 1 |']


def test_what_the_laboratory_cannot_do_is_skipped_or_bad(tmp_path):
    def cannot(bench):
        raise laboratory.Skipped('no root')

    def fails(bench):
        raise RuntimeError('in ' + bench.model_dir)

    assert result_of(tmp_path, cannot)['outcome'] == 'skipped: no root'
    assert result_of(tmp_path, fails)['outcome'] == 'BAD: RuntimeError: in MODEL_DIR'
    assert fault_table.is_good('skipped: no root', quick=True)
    assert not fault_table.is_good('skipped: no root', quick=False)


def test_an_interrupted_table_goes_on(tmp_path):
    made = Laboratory(str(tmp_path), str(tmp_path / 'data'), quick=True)
    tried = []

    def row(name, good):
        def fault(bench):
            tried.append(name)
            bench.expect(good, 'bad')

        return fault_table.Row(name, fault)

    rows = [row('good', True), row('bad', False)]
    first = fault_table.run_rows(rows, made, jobs=2)
    again = fault_table.run_rows(rows, made, jobs=1)
    assert again[0] == first[0]
    assert again[1]['outcome'] == first[1]['outcome'] == 'BAD: bad'
    assert sorted(tried) == ['bad', 'bad', 'good']


def test_nothing_goes_on_after_an_interruption(tmp_path):
    made = Laboratory(str(tmp_path), str(tmp_path / 'data'), quick=True)

    def fault(bench):
        running.append(python(bench, 'import time; time.sleep(600)'))
        made.stop()
        bench.train()

    running = []
    with pytest.raises(KeyboardInterrupt):
        fault_table.run_rows([fault_table.Row('row', fault)], made, jobs=1)
    assert not running[0].is_running
    assert not os.path.exists(str(tmp_path / 'rows.json'))


@pytest.mark.slow
def test_the_quick_form_is_all_right(mnist_data_dir, tmp_path):
    path = tmp_path / 'rows.json'
    command = [sys.executable, os.path.join(ROOT, 'scripts', 'fault_table.py'), '--quick']
    command += ['--data_dir=' + mnist_data_dir, '--work_dir=' + str(tmp_path / 'work')]
    done = subprocess.run(
        command + ['--json=' + str(path)],
        env=dict(os.environ, PYTHONPATH=ROOT),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(json.loads(path.read_text())) == 6
    assert done.stdout.startswith('| fault |')
