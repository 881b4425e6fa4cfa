"""What a run can do without never ends it, and looks the same whatever the user's settings."""

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest
import tensorflow as tf

from tests.support import tiny
from tests.support.paths import ROOT
from trainer.base import figures, optional
from trainer.base.errors import UserError
from trainer.base.signals import Interrupted
from trainer.data import prepare
from trainer.monitoring import curves, picture_files, projector_files, run_card
from trainer.settings import storage
from trainer.training import results, run
from trainer.training.estimator import Estimator
from trainer.training.hooks import ProfilerHook


def plot(figure):
    axes = figure.subplots(1, 2)
    axes[0].plot([1, 2, 3], [3, 1, 2], label='a')
    axes[0].set(title='title', xlabel='x', ylabel='y')
    axes[0].legend()


def test_a_figure_is_alike_whatever_was_set(monkeypatch):
    plain = figures.png((4, 2), plot)
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcParams.update(
            {'text.usetex': True, 'font.size': 20, 'lines.linewidth': 9, 'savefig.dpi': 30}
        )
        assert figures.png((4, 2), plot) == plain
        assert matplotlib.rcParams['lines.linewidth'] == 9  # The program's own, and so left.
        assert matplotlib.rcParams['savefig.dpi'] == 30
    with tf.Graph().as_default(), tf.Session() as session:
        assert session.run(tf.image.decode_png(plain)).shape[:2] == (200, 400)


def test_a_figure_is_alike_in_a_process_with_bad_settings_and_no_home(tmp_path):
    """TensorFlow is not needed for it."""
    (tmp_path / 'matplotlibrc').write_bytes(b'text.usetex: True\nbackend: TkAgg\nfont.size: \xff\n')
    program = (
        'import hashlib, pwd\n'
        'def no_entry(number): raise KeyError("getpwuid(): uid not found")\n'
        'pwd.getpwuid = no_entry\n'
        'from trainer.base import figures\n'
        'def plot(figure):\n'
        '    axes = figure.subplots(1, 2)\n'
        '    axes[0].plot([1, 2, 3], [3, 1, 2], label="a")\n'
        '    axes[0].set(title="title", xlabel="x", ylabel="y")\n'
        '    axes[0].legend()\n'
        'print(hashlib.sha256(figures.png((4, 2), plot)).hexdigest())\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program],
        cwd='/',
        env={'PYTHONPATH': ROOT, 'MATPLOTLIBRC': str(tmp_path), 'MPLBACKEND': 'no such'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.stdout == hashlib.sha256(figures.png((4, 2), plot)).hexdigest() + '\n'


def test_without_matplotlib_it_is_said_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    with optional.part('curves.png'):
        figures.png((4, 2), plot)
    assert capsys.readouterr().err.startswith(
        "curves.png could not be made (pip install 'matplotlib<=3.4.3'"
    )


@pytest.mark.parametrize(
    'error, reason',
    [
        (RuntimeError('no\nsuch'), 'RuntimeError: no'),
        (MemoryError(), 'MemoryError: '),
        (KeyError('getpwuid(): uid not found: 7'), "KeyError: 'getpwuid(): uid not found: 7'"),
        (tf.errors.InternalError(None, None, 'within'), 'InternalError: within'),
        (UserError('install it'), 'install it'),
        (AssertionError('x' * 1000), 'AssertionError: ' + 'x' * 500),
    ],
)
def test_what_is_optional_goes_wrong_in_one_sentence(capsys, error, reason):
    with optional.part('a.png', 'b.png'):
        raise error
    assert capsys.readouterr().err == (
        'a.png, b.png could not be made ({}): going on without.\n'.format(reason)
    )


def test_a_signal_ends_what_is_optional_too():
    with pytest.raises(Interrupted), optional.part('a.png'):
        raise Interrupted(signal.SIGTERM)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The settings of a run whose training is left out, and which has no weights."""
    params = tiny.params_in(tmp_path / 'run', save_summary_steps=2)
    with tf.Graph().as_default(), tf.Session() as session:
        session.run(tf.train.create_global_step().assign(3))
        tf.train.Saver().save(session, os.path.join(params.model_dir, 'model.ckpt'), 3)
    storage.save(params)
    data = tiny.write_data(tmp_path)
    monkeypatch.setattr(prepare, 'prepare', lambda *args, **kwargs: data)
    monkeypatch.setattr(run, 'train_and_evaluate', lambda *args: None)
    monkeypatch.setattr(run, '_export', lambda *args: {'final export': 'none'})
    terms = ('negative_elbo', 'reconstruction_loss', 'kl_divergence')
    metrics = dict(dict.fromkeys(terms, 1.0), global_step=3)
    monkeypatch.setattr(Estimator, 'evaluate', lambda *args, **options: metrics)
    return params


def test_a_run_whose_every_optional_part_fails_has_its_numbers(trained, monkeypatch, capsys):
    """They are on the disk before anything is drawn."""
    path = os.path.join(trained.model_dir, results.FILE_NAME)
    failed = []

    def failing(module, name, when_results_are_there=True):
        def fail(*args):
            assert os.path.exists(path) == when_results_are_there
            failed.append(name)
            raise RuntimeError(name)

        monkeypatch.setattr(module, name, fail)

    failing(run_card, 'describe_run', when_results_are_there=False)
    failing(picture_files, 'write_new_images')
    failing(picture_files, 'write_pictures')
    failing(curves, 'write_training_curves')
    failing(run_card, 'describe_results')
    failing(projector_files, 'write')
    record = run.run(trained)
    assert len(failed) == 6
    said = capsys.readouterr()
    for name in failed:
        assert said.err.count('RuntimeError: {})'.format(name)) == 1
    assert 'test               1.00' in said.out
    with open(path) as f:
        assert json.load(f) == json.loads(json.dumps(record))


def test_a_profile_that_cannot_be_written_ends_no_step(tmp_path, capsys):
    (tmp_path / 'timeline-2.json').mkdir()
    with tf.Graph().as_default():
        step = tf.train.create_global_step().assign_add(1)
        hook = ProfilerHook(save_steps=1, output_dir=str(tmp_path))
        with tf.train.SingularMonitoredSession([hook]) as session:
            assert [session.run(step) for _ in range(3)] == [1, 2, 3]
    assert capsys.readouterr().err.count('timeline-2.json could not be made') == 1
    assert os.path.isfile(str(tmp_path / 'timeline-3.json'))
