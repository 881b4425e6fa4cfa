"""Times training steps of this trainer and of its peers, in turn, in one run.

    ./scripts/run python scripts/benchmark.py [--quick] [--json=FILE]

The contestants train the same architecture on the same batches of the real MNIST:

    ours    model_fn and input_fn of this trainer in a bare session
    plain   the same network as a first TensorFlow program has it: feed_dict, static_rnn, one tower
    torch   PyTorch with fused Adam, eager and compiled: the better of the two; its LSTM has a
            second bias, which adds nothing to the function

Each is a process of its own that waits while the others run; they take turns, some steps each, so
that a ratio compares the same seconds of a machine whose speed drifts. The peak of the machine is
the rate of a 2048 x 2048 x 2048 single-precision product, measured in the same turns.

PyTorch needs a Python 3.11 or later; its environment is made in a temporary folder, or kept in the
one that --torch_env names.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any, Callable, Dict, List

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

from scripts.turns import serve_steps  # noqa: E402
from trainer import decoded_copy, hparams, input, model, prepare_data, train  # noqa: E402
from trainer.hparams import HParams  # noqa: E402

TORCH = 'torch==2.13.0'
CONTESTANTS = ['ours', 'plain', 'torch_eager', 'torch_compiled', 'gemm']
_WARM_UP_STEPS = 30
_GEMM_SIZE = 2048


def training_flops(params: HParams) -> int:
    """Returns the floating-point operations of a training step's products, forward and backward.

    A multiplication and an addition count as two. A layer's backward pass is two products of the
    size of its forward one, for its weights and for its input; images need no gradient.
    Element-wise operations are left out.
    """
    rows, columns, channels = params.image_shape
    units, latents = params.lstm_units, params.latent_size
    macs = 2 * rows * params.row_features * 4 * units  # no gradient of the images
    macs += 3 * (rows - 1) * units * 4 * units  # the first step has no state before it
    macs += 3 * 2 * 4 * units * latents
    quarter = (rows // 4) * (columns // 4)
    widths = [latents, params.decoder_units, params.decoder_units]
    widths.append(quarter * params.decoder_channels)
    macs += 3 * sum(a * b for a, b in zip(widths, widths[1:]))
    macs += 3 * quarter * 9 * params.decoder_channels**2
    macs += 3 * 4 * quarter * 16 * params.decoder_channels * channels
    return 2 * macs * params.batch_size


# The contestants: each a process that runs as many steps as a line of its stdin says.


def run_ours(params: HParams, data: decoded_copy.PreparedDataset) -> None:
    """Trains with this trainer's graph and input in a bare session."""
    import tensorflow as tf

    config = train.make_estimator(params).config.session_config
    tf.set_random_seed(params.seed)
    tf.train.create_global_step()
    dataset = input.train_input_fn(data, params.batch_size, params.seed, start_step=0)
    features = dataset.make_one_shot_iterator().get_next()
    spec = model.model_fn(features, None, tf.estimator.ModeKeys.TRAIN, params)
    with tf.Session(config=config) as session:
        session.run(tf.global_variables_initializer())
        serve_steps(lambda: session.run([spec.train_op, spec.loss]))


def run_plain(params: HParams, data: decoded_copy.PreparedDataset) -> None:
    """Trains the same network as a first TensorFlow program would."""
    import tensorflow as tf

    from trainer import optimizer
    from trainer.decoder import decoder
    from trainer.distributions import DiagonalGaussian
    from trainer.elbo import elbo_terms

    tf.train.create_global_step()
    images = tf.placeholder(tf.float32, [None, params.rows, params.row_features])
    cell = tf.nn.rnn_cell.BasicLSTMCell(params.lstm_units)
    hidden, _ = tf.nn.static_rnn(cell, tf.unstack(images, axis=1), dtype=tf.float32)
    quarters = [params.rows * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
    summary = tf.concat([hidden[row] for row in quarters], axis=1)
    mean = tf.layers.dense(summary, params.latent_size)
    posterior = DiagonalGaussian(
        mean, tf.layers.dense(summary, params.latent_size, tf.nn.softplus) + 1e-4
    )
    likelihood = decoder(posterior.sample(tf.random.normal(tf.shape(mean))), params)
    loss = tf.reduce_mean(elbo_terms(images, posterior, likelihood).negative_elbo)
    gradients = tf.gradients(loss, tf.trainable_variables())
    train_op = optimizer.training_step(gradients, params).train_op
    pixels = np.fromfile(data.files['train'], np.uint8)
    pixels = pixels.reshape([-1, params.rows, params.row_features])
    random = np.random.RandomState(params.seed)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())

        def step() -> None:
            batch = pixels[random.randint(len(pixels), size=params.batch_size)]
            session.run([train_op, loss], {images: batch / 255.0})

        serve_steps(step)


def run_gemm(params: HParams, data: decoded_copy.PreparedDataset) -> None:
    """Multiplies two large matrices on as many threads as the trainer uses."""
    import tensorflow as tf

    del data
    square = tf.Variable(tf.random.normal([_GEMM_SIZE, _GEMM_SIZE]))
    product = tf.matmul(square, square).op
    config = tf.ConfigProto(intra_op_parallelism_threads=params.threads)
    with tf.Session(config=config) as session:
        session.run(tf.global_variables_initializer())
        serve_steps(lambda: session.run(product))


# The parent: starts them, lets them take turns, compares.


class Contestant:
    """A process that runs steps on demand, and what it answered so far."""

    def __init__(self, name: str, command: List[str]):
        self.name = name
        self.turns: List[Dict[str, Any]] = []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True
        )

    def take_turn(self, steps: int) -> Dict[str, Any]:
        """Runs `steps` steps; returns the answer of `serve_steps`."""
        self._process.stdin.write('{}\n'.format(steps))
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                'error: {} ended with code {}.'.format(self.name, self._process.wait())
            )
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def medians(self) -> List[float]:
        return [statistics.median(turn['milliseconds']) for turn in self.turns]

    def all_milliseconds(self) -> List[float]:
        return [value for turn in self.turns for value in turn['milliseconds']]


def start(name: str, params: HParams, data_file: str, torch_python: str) -> Contestant:
    """Starts a contestant and lets it warm up."""
    settings = ['--batch_size={}'.format(params.batch_size), '--data_dir=' + params.data_dir]
    command = [sys.executable, os.path.abspath(__file__), '--contestant=' + name] + settings
    if name.startswith('torch'):
        script = os.path.join(ROOT, 'scripts', 'benchmark_torch.py')
        values = json.dumps(dict(vars(params), threads=params.threads, data_file=data_file))
        command = [torch_python, script, name, values]
    contestant = Contestant(name, command)
    contestant.take_turn(3 if name == 'gemm' else _WARM_UP_STEPS)
    return contestant


def compare(
    params: HParams, data_file: str, torch_python: str, rounds: int, steps: int
) -> Dict[str, Any]:
    """Lets all contestants take turns at one batch size; returns the row of the table."""
    contestants = [start(name, params, data_file, torch_python) for name in CONTESTANTS]
    for _ in range(rounds):
        for contestant in contestants:
            turn = contestant.take_turn(3 if contestant.name == 'gemm' else steps)
            contestant.turns.append(turn)
    by_name = {contestant.name: contestant for contestant in contestants}
    for contestant in contestants:
        contestant.close()
    return row_of(params, by_name)


def row_of(params: HParams, by_name: Dict[str, Contestant]) -> Dict[str, Any]:
    """Turns the answers into medians, 10th percentiles and pairwise ratios."""
    ours = by_name['ours']
    peers = [by_name['torch_eager'], by_name['torch_compiled']]
    torch = min(peers, key=lambda peer: statistics.median(peer.all_milliseconds()))
    peak = 2 * _GEMM_SIZE**3 / (1e-3 * statistics.median(by_name['gemm'].all_milliseconds()))
    row: Dict[str, Any] = {'batch_size': params.batch_size, 'torch_best': torch.name}
    for name, contestant in [('ours', ours), ('torch', torch), ('plain', by_name['plain'])]:
        milliseconds = contestant.all_milliseconds()
        cpu = sum(turn['cpu_seconds'] for turn in contestant.turns)
        row[name + '_median_ms'] = statistics.median(milliseconds)
        row[name + '_p10_ms'] = float(np.percentile(milliseconds, 10))
        row[name + '_cpu_ms'] = 1e3 * cpu / len(milliseconds)
        row[name + '_peak_megabytes'] = contestant.turns[-1]['peak_megabytes']
    for name, peer in [('torch', torch), ('plain', by_name['plain'])]:
        ratios = [theirs / mine for theirs, mine in zip(peer.medians(), ours.medians())]
        row['ratio_vs_' + name] = statistics.median(ratios)
    row['gemm_gflops'] = peak / 1e9
    row['gemm_share'] = training_flops(params) / (1e-3 * row['ours_median_ms']) / peak
    return row


def make_torch_environment(folder: str) -> str:
    """Returns the Python of an environment in `folder` that has PyTorch, made if need be."""
    python = os.path.join(folder, 'bin', 'python')
    probe = 'import sys, torch; sys.exit(torch.__version__.split("+")[0] != "{}")'
    if not os.path.exists(python):
        base = _find_new_python()
        print('making an environment for {} in {}'.format(TORCH, folder), file=sys.stderr)
        subprocess.check_call([base, '-Im', 'venv', folder])
        install = [python, '-Im', 'pip', 'install', '--quiet', '--disable-pip-version-check']
        subprocess.check_call(install + [TORCH, 'numpy'], stderr=subprocess.DEVNULL)
    subprocess.check_call([python, '-Ic', probe.format(TORCH.split('==')[1])])
    return python


def _find_new_python() -> str:
    for name in ('python3.13', 'python3.12', 'python3.11', 'python3', '/usr/bin/python3'):
        probe = [name, '-Ic', 'import sys, venv; assert sys.version_info >= (3, 11)']
        try:
            if subprocess.call(probe, stderr=subprocess.DEVNULL) == 0:
                return name
        except OSError:
            continue
    raise SystemExit('error: PyTorch needs a Python 3.11 or later on PATH, and there is none.')


def show(rows: List[Dict[str, Any]]) -> None:
    """Prints the table: median (10th percentile) milliseconds a step, CPU, ratios, memory."""
    print('batch   ours           torch          plain          torch/ours plain/ours  of peak')
    for row in rows:
        cells = [
            '{:6.1f} ({:.1f})'.format(row[name + '_median_ms'], row[name + '_p10_ms'])
            for name in ('ours', 'torch', 'plain')
        ]
        print(
            '{:<5} {:<14} {:<14} {:<14} {:>10.2f} {:>10.2f} {:>8.0%}'.format(
                row['batch_size'],
                *cells,
                row['ratio_vs_torch'],
                row['ratio_vs_plain'],
                row['gemm_share'],
            )
        )


def main(argv: List[str]) -> None:
    del argv
    values = flags.FLAGS
    data = prepare_data.prepare('mnist', values.data_dir, separate_process=True)
    if values.contestant:
        params = hparams.from_flags(values, data.image_shape)
        run: Dict[str, Callable] = {'ours': run_ours, 'plain': run_plain, 'gemm': run_gemm}
        run[values.contestant](params, data)
        return
    with tempfile.TemporaryDirectory() as temporary:
        torch_python = make_torch_environment(values.torch_env or os.path.join(temporary, 'torch'))
        rows = []
        for batch_size in (128, 256) if values.quick else (64, 128, 256, 512):
            params = HParams(batch_size=batch_size, data_dir=values.data_dir)
            rounds, steps = (8, 20) if values.quick else (20, 20)
            rows.append(compare(params, data.files['train'], torch_python, rounds, steps))
            show(rows[-1:])
    if values.json:
        with open(values.json, 'w') as f:
            json.dump({'training': rows}, f, indent=2)


def define_flags() -> None:
    hparams.define_flags()
    flags.DEFINE_bool('quick', False, 'Batch sizes 128 and 256 only, fewer turns.')
    flags.DEFINE_string('json', None, 'File for the raw figures.')
    flags.DEFINE_string('torch_env', None, 'Folder in which the PyTorch environment is kept.')
    flags.DEFINE_enum('contestant', None, ['ours', 'plain', 'gemm'], 'Used by the script itself.')


if __name__ == '__main__':
    define_flags()
    app.run(main)
