"""What a run leaves for TensorBoard: read from its event files, and through the real server."""

import collections
import contextlib
import dataclasses
import glob
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

from tests.support import datasets, tiny
from tests.support.paths import ROOT
from trainer.base.errors import UserError
from trainer.data import inputs, prepare
from trainer.monitoring import animation, picture_files, projector_files, run_card
from trainer.monitoring import curves as curve_files
from trainer.settings.table import HParams
from trainer.training import checks
from trainer.training import run as training_run
from trainer.training.progress import TrainingProgress

# Two trainings with all that TensorBoard shows, and TensorBoard itself.
pytestmark = pytest.mark.slow

BOUND = ('elbo/negative_elbo', 'elbo/reconstruction_loss', 'elbo/kl_divergence')
PICTURES = {'reconstructions', 'interpolations', 'traversals', 'prior_samples'}


class Runs:
    """Two small runs in one logdir, `three` and `two` latents.

    The second was resumed, and its images are binarised. `printed` is what each printed.
    """

    def __init__(self, folder):
        self.logdir = str(folder / 'runs')
        data_dir = str(folder / 'data')
        small = datasets.small_mnist(datasets.write_idx(folder / 'idx', label=None))
        with small, tiny.no_saved_models():
            self.data = prepare.prepare('mnist', data_dir, str(folder / 'idx'))
            self.params = HParams(
                model_dir=os.path.join(self.logdir, 'three'), data_dir=data_dir, latent_size=3,
                lstm_units=4, decoder_units=8, decoder_channels=2, batch_size=20, max_steps=10,
                warmup_steps=1, save_checkpoints_steps=5, save_summary_steps=2, num_threads=2,
                num_images=9, profile_steps=5,
            )  # fmt: skip
            self.printed = {name: io.StringIO() for name in ('three', 'two')}
            with _captured(self.printed['three']):
                self.results = training_run.run(self.params)
            with _captured(self.printed['two']):
                self.binarized = dataclasses.replace(
                    self.params, latent_size=2, profile_steps=0, binarization='dynamic',
                    num_threads=1, model_dir=os.path.join(self.logdir, 'two'),
                )  # fmt: skip
                # As if killed after step 5.
                first = dataclasses.replace(self.binarized, max_steps=5)
                checks.record(first)
                run_card.describe_run(first, None, 0, self.data)
                training_run.train_and_evaluate(
                    training_run.make_estimator(first),
                    self.data,
                    first,
                    TrainingProgress(first),
                )
                training_run.run(self.binarized)

        pixels = np.fromfile(self.data.files['validation'], np.uint8)
        # In the order of TFDS, which shuffles.
        self.numbers = datasets.numbers_of(pixels.reshape(20, 784))

    def path(self, *names):
        return os.path.join(self.logdir, *names)


@contextlib.contextmanager
def _captured(printed):
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        yield


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp('board'))


def events(folder):
    for name in sorted(os.listdir(folder)):
        if name.startswith('events.out.tfevents.'):
            yield from tf.train.summary_iterator(os.path.join(folder, name))


def steps_by_tag(folder):
    steps = collections.defaultdict(list)
    for event in events(folder):
        for value in event.summary.value:
            if value.WhichOneof('value'):
                steps[value.tag].append(event.step)
    return steps


def test_training_and_validation_share_their_tags(runs):
    train_steps = steps_by_tag(runs.path('three'))
    validation = steps_by_tag(runs.path('three', 'eval_validation'))
    for tag in BOUND:
        assert train_steps[tag] == [1, 3, 5, 7, 9]
        assert validation[tag] == [5, 10]
    for tag in ('optimizer/learning_rate', 'optimizer/gradient_norm', 'latents/posterior_scale'):
        assert train_steps[tag]
    assert train_steps['speed/examples_per_second']
    # Estimator's own copy of the loss is left out.
    assert 'loss' not in train_steps
    for tag in ('latents/active_units', 'elbo/negative_importance_weighted_bound'):
        assert validation[tag] == [5, 10]


def test_histograms_of_latents_weights_and_gradients(runs):
    folder = runs.path('three')
    kinds = {
        value.tag: value.WhichOneof('value')
        for event in events(folder)
        for value in event.summary.value
    }
    histograms = {tag for tag, kind in kinds.items() if kind == 'histo'}
    assert {'posterior/mean', 'posterior/scale', 'posterior/kl_by_dimension'} <= histograms
    for group in ('weights/', 'gradients/'):
        assert group + 'encoder/lstm/kernel' in histograms
        assert group + 'decoder/transpose_convolution_2/bias' in histograms


def test_last_validation_values_are_those_of_results_json(runs):
    curves = curve_files.read_curves(runs.path('three', 'eval_validation'), BOUND)
    for tag in BOUND:
        expected = runs.results['validation'][tag.split('/')[1]]
        assert curves[tag].values[-1] == pytest.approx(expected, rel=1e-5)
    final = curve_files.read_curves(runs.path('three'), ['final/test_negative_elbo'])
    assert final['final/test_negative_elbo'] == (
        [10],
        [pytest.approx(runs.results['test']['negative_elbo'], rel=1e-6)],
    )


def test_active_units_and_kl_by_dimension_are_numpys(runs):
    predicted = list(
        training_run.make_estimator(runs.params).predict(
            lambda: inputs.eval_input_fn(runs.data, 'validation', 7, 'none')
        )
    )
    mean, scale = [np.stack([row[name] for row in predicted]) for name in ('mean', 'scale')]
    kl = (0.5 * (mean**2 + scale**2 - 1) - np.log(scale)).mean(axis=0)
    tags = ['latents/active_units'] + ['kl_by_dimension/0{}'.format(i) for i in range(3)]
    curves = curve_files.read_curves(runs.path('three', 'eval_validation'), tags)
    active, *by_dimension = [curves[tag].values[-1] for tag in tags]
    assert active == (mean.var(axis=0) > 0.01).sum()
    np.testing.assert_allclose(by_dimension, kl, rtol=1e-4)


def test_active_units_over_batches_of_different_sizes():
    from trainer.monitoring import summaries

    means = np.random.RandomState(1).randn(30, 4) * [1.0, 0.05, 0.2, 0.01] + [0, 9, 0, 3]
    with tf.Graph().as_default(), tf.Session() as session:
        batch = tf.placeholder(tf.float32, [None, 4])
        value, update = summaries.active_units(batch)
        session.run(tf.local_variables_initializer())
        for part in (means[:25], means[25:]):
            session.run(update, {batch: part})
        assert session.run(value) == (means.var(axis=0) > 0.01).sum() == 2


def test_pictures_are_of_the_same_images_and_noise_at_each_evaluation(runs):
    folder = runs.path('three', 'eval_validation')
    frames = {
        name: curve_files.read_images(folder, 'pictures/{}/image'.format(name)) for name in PICTURES
    }
    sizes = {
        'reconstructions': (112, 280),  # 20 images in two rows of ten, each above its row.
        'interpolations': (280, 308),
        'traversals': (84, 308),
        'prior_samples': (280, 280),
    }
    with tf.Graph().as_default(), tf.Session() as session:
        for name, by_step in frames.items():
            assert sorted(by_step) == [5, 10], name
            images = [session.run(tf.image.decode_png(by_step[step])) for step in (5, 10)]
            assert images[0].shape == images[1].shape == sizes[name] + (1,)
            assert np.any(images[0] != images[1]), name
            if name == 'reconstructions':
                np.testing.assert_array_equal(images[0][:28], images[1][:28])
                numbers = datasets.numbers_of(
                    images[0][:28].reshape(28, 10, 28).transpose(1, 0, 2).astype(np.uint8)
                )
                assert numbers == runs.numbers[:10]


CONVENTIONS = {
    'three': ('grey levels', 'no log-likelihood, as a Bernoulli is no density of grey levels'),
    'two': ('dynamic binarisation', 'a log-probability of binary images'),
}


@pytest.mark.parametrize('run', ['three', 'two'])
def test_every_number_carries_its_convention(runs, run):
    convention, log_likelihood = CONVENTIONS[run]
    printed = runs.printed[run].getvalue()
    number = r'-?[\d.]+ = -?[\d.]+ \+ -?[\d.]+'
    assert len(re.findall(r'\(reconstruction \+ KL\) nats, {}'.format(convention), printed)) == 2
    assert 'on mnist ({}): batches'.format(convention) in printed
    assert re.search(r'step 10/10 \({}\): negative ELBO'.format(convention), printed)
    table = r'{}; log p\(x\) is {}\nnats per example .*\ntrain +{}\n'
    assert re.search(table.format(convention, log_likelihood, number), printed)

    with open(runs.path(run, 'results.json')) as f:
        results = json.load(f)
    assert (results['convention'], results['log_likelihood']) == (convention, log_likelihood)
    assert convention in results['units'] and log_likelihood in results['units']
    with open(runs.path(run, 'export', 'best', 'best.json')) as f:
        assert json.load(f)['convention'] == convention

    for kind, number in (('final', ''), ('best', ' nats per example ({})'.format(convention))):
        for card in glob.glob(runs.path(run, 'export', kind, '*', 'assets.extra', 'README.md')):
            with open(card) as f:
                content = f.read()
            for part in ('Data: ' + convention, log_likelihood, number):
                assert part in content, card


@pytest.mark.parametrize('run, session', [('three', 'three'), ('two', 'two/resumed_at_5')])
def test_every_curve_and_card_carries_its_convention(runs, run, session):
    descriptions = {
        (folder, value.tag): value.metadata.summary_description
        for folder in {run, session, os.path.join(run, 'eval_validation')}
        for event in events(runs.path(folder))
        for value in event.summary.value
        if value.metadata.summary_description
    }
    bound = 'elbo/negative_importance_weighted_bound'
    described = [(run, tag) for tag in BOUND] + [(session, 'final/test_negative_elbo')]
    described += [(os.path.join(run, 'eval_validation'), tag) for tag in BOUND + (bound,)]
    convention, log_likelihood = CONVENTIONS[run]
    for key in described:
        assert convention in descriptions[key], key
        assert 'log p(x) is {}'.format(log_likelihood) in descriptions[key], key
    texts = {
        value.tag: value.tensor.string_val[0].decode()
        for event in events(runs.path(run))
        for value in event.summary.value
        if value.tag in ('data/text_summary', 'model/text_summary')
    }
    assert '| convention | {} |'.format(convention) in texts['data/text_summary']
    assert '| log p(x) | {} |'.format(log_likelihood) in texts['model/text_summary']


def test_pictures_of_a_binarised_run_show_the_images_that_the_model_sees(runs):
    seen = 255 * inputs.first_images(runs.data, 'validation', 20, 'dynamic')
    assert set(np.unique(seen)) == {0, 255}
    frames = curve_files.read_images(
        runs.path('two', 'eval_validation'), 'pictures/reconstructions/image'
    )
    pictures = {'frame': frames[10]}
    for name in ('reconstructions.png', os.path.join('projector', 'sprite.png')):
        with open(runs.path('two', name), 'rb') as f:
            pictures[name] = f.read()
    with tf.Graph().as_default(), tf.Session() as session:
        decoded = {name: session.run(tf.image.decode_png(png)) for name, png in pictures.items()}
    # Twenty originals: two rows of ten, each above the row of their reconstructions.
    for name in ('frame', 'reconstructions.png'):
        rows = decoded[name].reshape(2, 2, 28, 10, 28)[:, 0]
        np.testing.assert_array_equal(rows.transpose(0, 2, 1, 3).reshape(20, 28, 28), seen)
    sprite = decoded[os.path.join('projector', 'sprite.png')].reshape(4, 28, 5, 28)
    np.testing.assert_array_equal(sprite.transpose(0, 2, 1, 3).reshape(20, 28, 28), seen)


def test_new_images_are_the_last_frame_of_the_prior_samples(runs, tmp_path):
    checkpoint = tf.train.latest_checkpoint(runs.path('three'))
    path = picture_files.write_new_images(str(tmp_path / 'a.png'), 100, 1, checkpoint, runs.params)
    frames = curve_files.read_images(runs.path('three', 'eval_validation'), SAMPLES)
    with tf.Graph().as_default(), tf.Session() as session, open(path, 'rb') as f:
        drawn, shown = [
            session.run(tf.image.decode_png(png)).astype(int) for png in (f.read(), frames[10])
        ]
    assert np.abs(drawn - shown).max() <= 1


SAMPLES = 'pictures/prior_samples/image'


@pytest.mark.parametrize('run', ['three', 'two'])
def test_the_graph_is_written_once_and_its_top_level_is_readable(runs, run):
    graphs = [event for event in events(runs.path(run)) if event.HasField('graph_def')]
    assert len(graphs) == 1
    assert not any(event.HasField('meta_graph_def') for event in events(runs.path(run)))
    nodes = tf.GraphDef.FromString(graphs[0].graph_def).node
    scopes = {node.name.split('/')[0] for node in nodes if '/' in node.name}
    assert {'encoder', 'decoder', 'elbo', 'optimizer', 'input', 'posterior'} <= scopes
    # Within a tower the model's parts, and nothing of the LSTM's steps outside of the encoder.
    tower = {re.sub(r'_\d+$', '', n.name.split('/')[1]) for n in nodes if 'tower_0/' in n.name}
    assert {'encoder', 'posterior', 'decoder', 'elbo'} <= tower
    assert not {'MatMul', 'Sigmoid', 'Tanh'} & (tower | {node.name for node in nodes})
    for folder in os.listdir(runs.path(run)):
        if folder.startswith('eval_'):
            found = events(runs.path(run, folder))
            assert not any(event.HasField('graph_def') for event in found)


def test_profiles_are_chrome_traces_and_run_metadata(runs):
    with open(runs.path('three', 'timeline-5.json')) as f:
        trace = json.load(f)
    assert any('MatMul' in event['name'] for event in trace['traceEvents'])
    tagged = [e.tagged_run_metadata.tag for e in events(runs.path('three')) if
              e.HasField('tagged_run_metadata')]  # fmt: skip
    assert 'step_5' in tagged


@pytest.mark.slow
def test_no_summaries_when_they_are_off(runs, tmp_path):
    params = runs.params.__class__(
        **dict(vars(runs.params), model_dir=str(tmp_path), save_summary_steps=0, profile_steps=0)
    )
    training_run.train_and_evaluate(
        training_run.make_estimator(params), runs.data, params, TrainingProgress(params)
    )
    tf.summary.FileWriterCache.clear()  # Closes the files.
    assert not steps_by_tag(str(tmp_path))
    tags = steps_by_tag(str(tmp_path / 'eval_validation'))
    assert tags['elbo/negative_elbo'] == [5, 10]
    assert not any(tag.startswith(('pictures/', 'posterior/')) for tag in tags)


def test_projector_files_hold_means_labels_and_digits(runs):
    folder = runs.path('three', 'projector')
    estimator = training_run.make_estimator(runs.params)
    predicted = estimator.predict(lambda: inputs.eval_input_fn(runs.data, 'validation', 20, 'none'))
    expected = np.stack([row['mean'] for row in predicted])
    stored = tf.train.load_variable(os.path.join(folder, 'embedding.ckpt'), 'posterior_mean')
    np.testing.assert_allclose(stored, expected, atol=1e-5)
    table = np.loadtxt(os.path.join(folder, 'posterior_mean.tsv'), delimiter='\t')
    np.testing.assert_allclose(table, expected, rtol=1e-4, atol=1e-5)
    with open(os.path.join(folder, 'metadata.tsv')) as f:
        lines = f.read().splitlines()
    labels = ['{}\t{}'.format(number % 10, i) for i, number in enumerate(runs.numbers)]
    assert lines == ['label\tindex'] + labels
    with open(os.path.join(folder, 'sprite.png'), 'rb') as f:
        png = f.read()
    with tf.Graph().as_default(), tf.Session() as session:
        sprite = session.run(tf.image.decode_png(png))
    assert sprite.shape == (4 * 28, 5 * 28, 1)
    digits = sprite.reshape(4, 28, 5, 28).transpose(0, 2, 1, 3).reshape(20, 28, 28)
    assert datasets.numbers_of(digits) == runs.numbers
    for path in (folder, runs.path('three')):
        with open(os.path.join(path, 'projector_config.pbtxt')) as f:
            assert runs.logdir not in f.read()
    with open(runs.path('three', 'checkpoint')) as f:
        assert 'embedding' not in f.read()


def test_projector_of_a_dataset_without_labels_numbers_its_points(runs, tmp_path):
    checkpoint = tf.train.latest_checkpoint(runs.path('three'))
    params = dataclasses.replace(runs.params, model_dir=str(tmp_path))
    folder = projector_files.write(checkpoint, runs.data, lambda count: None, params)
    with open(os.path.join(folder, 'metadata.tsv')) as f:
        assert f.read().splitlines() == [str(i) for i in range(20)]


def test_an_animation_has_a_frame_for_each_evaluation(runs, tmp_path):
    from PIL import Image

    path = animation.animate(str(tmp_path / 'a.gif'), runs.path('two'), 'manifold')
    with Image.open(path) as gif:
        assert gif.n_frames == 2
        assert gif.size == (560, 560)
    os.makedirs(str(tmp_path / 'empty'))
    with pytest.raises(UserError, match='holds no prior_samples'):
        animation.animate(str(tmp_path / 'b.gif'), str(tmp_path / 'empty'), 'prior')


def test_generate_draws_every_mode_in_a_process_of_its_own(runs, tmp_path):
    def draw(run, *arguments, code=0):
        command = [sys.executable, '-m', 'trainer.generate', '--model_dir=' + runs.path(run)]
        done = subprocess.run(
            command + list(arguments), capture_output=True, text=True, cwd=ROOT, timeout=400
        )
        assert done.returncode == code, done.stderr
        assert 'Traceback' not in done.stderr
        return done

    path = str(tmp_path / 'm.png')
    draw('two', '--mode=manifold', '--output=' + path)
    with open(path, 'rb') as f, open(runs.path('two', 'latent_manifold.png'), 'rb') as expected:
        assert f.read() == expected.read()
    assert '--mode=traverse' in draw('three', '--mode=manifold', code=1).stderr


@contextlib.contextmanager
def server(logdir):
    """The real TensorBoard, as scripts/run starts it; its output has to stay clean."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    command = [os.path.join(os.path.dirname(sys.executable), 'tensorboard')]
    board = subprocess.Popen(
        command + ['--logdir=' + logdir, '--host=localhost', '--port={}'.format(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    address = 'http://localhost:{}'.format(port)
    try:
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(address + '/data/logdir', timeout=5)
                break
            assert board.poll() is None and time.monotonic() < deadline, board.communicate()
            time.sleep(0.3)
        yield address
    finally:
        board.terminate()
        output = board.communicate()[0]
    worth_reading = [line for line in output.splitlines() if '"GET ' not in line]
    worth_reading = [line for line in worth_reading if '"POST ' not in line]
    assert 'Traceback' not in output, output
    assert [line.split(' at ')[0] for line in worth_reading if 'caught SIGTERM' not in line] == [
        'TensorBoard 1.14.0'
    ], output


def ask(address, path, body=None):
    request = urllib.request.Request(address + '/data/plugin/' + path)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header('Content-Type', 'application/json')
    with urllib.request.urlopen(request, timeout=30) as answer:
        content = answer.read()
        if 'json' in answer.headers['Content-Type']:
            return json.loads(content.decode())
        return content


def wait_for(condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_the_server_answers_for_every_plugin(runs):
    with server(runs.logdir) as address:
        wait_for(lambda: 'two/projector' in ask(address, 'text/tags'))
        wait_for(lambda: 'loss' in ask(address, 'scalars/tags')['three/eval_validation'])
        tags = ask(address, 'scalars/tags')
        described = tags['three/eval_validation']['elbo/negative_elbo']
        assert 'Nats per example' in described['description']
        scalars = ask(address, 'scalars/scalars?run=three/eval_validation&tag=elbo/negative_elbo')
        value = runs.results['validation']['negative_elbo']
        assert [scalars[-1][1], scalars[-1][2]] == [10, pytest.approx(value, rel=1e-5)]
        # No chart of a tag that is described but has no value.
        for run, by_tag in tags.items():
            for tag in by_tag:
                assert ask(address, 'scalars/scalars?run={}&tag={}'.format(run, tag)), (run, tag)
        images = ask(address, 'images/images?run=three/eval_validation&tag=' + SAMPLES)
        assert [image['step'] for image in images] == [5, 10]
        for plugin in ('histograms', 'distributions'):
            path = '{0}/{0}?run=three&tag=posterior/scale'.format(plugin)
            assert len(ask(address, path)) == 5
        assert b'optimizer' in ask(address, 'graphs/graph?run=three')
        check_projector(address)
        check_hparams(address, runs)
        check_texts(address)


def check_projector(address):
    assert {'three', 'three/projector'} <= set(ask(address, 'projector/runs'))
    for run in ('three', 'three/projector'):
        embedding = ask(address, 'projector/info?run=' + run)['embeddings'][0]
        assert embedding['tensorName'] == 'posterior_mean'
        assert embedding['tensorShape'] == [20, 3]
        query = '?run={}&name=posterior_mean&num_rows=20'.format(run)
        assert len(ask(address, 'projector/tensor' + query)) == 20 * 3 * 4
        assert ask(address, 'projector/metadata' + query).startswith(b'label\tindex\n')
        assert ask(address, 'projector/sprite_image' + query).startswith(b'\x89PNG')


def check_hparams(address, runs):
    experiment = ask(address, 'hparams/experiment', {'experimentName': ''})
    assert 'latent_size' in [info['name'] for info in experiment['hparamInfos']]
    statuses = ['STATUS_UNKNOWN', 'STATUS_SUCCESS', 'STATUS_FAILURE', 'STATUS_RUNNING']
    body = {'experimentName': '', 'allowedStatuses': statuses, 'colParams': [], 'sliceSize': 9}
    groups = ask(address, 'hparams/session_groups', dict(body, startIndex=0))['sessionGroups']
    by_name = {group['name']: group for group in groups}
    # It was resumed under other settings than it began with.
    resumed = by_name.pop('two/resumed_at_5')
    assert sorted(by_name) == ['three', 'two']
    assert by_name['two']['hparams']['max_steps'] == 5
    assert resumed['hparams']['max_steps'] == 10
    assert 'final/test_negative_elbo' in {m['name']['tag'] for m in resumed['metricValues']}
    metrics = {m['name']['tag']: m['value'] for m in by_name['three']['metricValues']}
    expected = runs.results['test']['negative_elbo']
    assert metrics['final/test_negative_elbo'] == pytest.approx(expected, rel=1e-6)
    assert by_name['three']['sessions'][0]['status'] == 'STATUS_SUCCESS'


def check_texts(address):
    wait_for(lambda: ask(address, 'text/tags').get('three'))
    names = ask(address, 'text/tags')['three']
    assert {'model', 'data', 'settings', 'command_line', 'versions'} == {
        name.split('/')[0] for name in names
    }
    versions = ask(address, 'text/text?run=three&tag=versions/text_summary')[0]['text']
    assert '1.14.0' in versions and '<table>' in versions


def test_the_server_shows_what_it_can_of_broken_folders(runs, tmp_path):
    os.makedirs(str(tmp_path / 'empty'))
    shutil.copytree(runs.path('three'), str(tmp_path / 'cut'))
    (event_file,) = (tmp_path / 'cut').glob('events.out.tfevents.*')
    event_file.write_bytes(event_file.read_bytes()[:-7])
    with server(str(tmp_path)) as address:
        wait_for(lambda: 'cut' in ask(address, 'scalars/tags'))
        assert len(ask(address, 'scalars/scalars?run=cut&tag=elbo/negative_elbo')) == 5
        assert 'empty' not in ask(address, 'scalars/tags')
    with server(str(tmp_path / 'empty')) as address:
        assert ask(address, 'scalars/tags') == {}


@pytest.mark.slow
def test_a_browser_shows_the_tabs(runs, tmp_path):
    chromium = shutil.which('chromium') or shutil.which('chromium-browser')
    if not chromium:
        pytest.skip('no chromium on this machine')
    expected = {
        'scalars': ['negative_elbo', 'three/eval_validation', 'latents'],
        'images': ['pictures/prior_samples/image', 'data:image|/data/plugin/images'],
        'projector': ['posterior_mean', 'metadata.tsv'],
        'hparams': ['latent_size', 'Session Group'],
    }
    with server(runs.logdir) as address:
        wait_for(lambda: 'two/projector' in ask(address, 'text/tags'))
        wait_for(lambda: ask(address, 'projector/runs'))
        for tab, texts in expected.items():
            page = subprocess.run(
                [
                    chromium, '--headless=new', '--no-sandbox', '--disable-gpu', '--dump-dom',
                    '--timeout=20000', '--virtual-time-budget=20000', '--window-size=1400,900',
                    '--user-data-dir={}'.format(tmp_path / 'profile'), address + '/#' + tab,
                ],
                capture_output=True, text=True, timeout=120,
            ).stdout  # fmt: skip
            for text in texts:
                assert re.search(text, page), (tab, text)
            assert 'No dashboards are active' not in page
