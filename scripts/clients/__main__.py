"""Runs every signature of a trained model's export through every client; prints the table.

    ./scripts/run python scripts/clients --model_dir=runs/mnist-z32 [--json=FILE]

Each answer is compared, to 1e-4, with what PREDICT and the decoder give for the same test images
and the same weights, not with the export itself. Where a signature cannot work in a client, the
cell has a reason, and the client has failed with just that error: any other failure ends the
program with code 1.

TensorFlow 2, KServe, tf2onnx, ONNX Runtime and OpenVINO, the newest on the registry, need a Python
3.11 or later. Their environment is made in a temporary folder, or kept in the one that
--clients_env names. The exports are made in a temporary folder too.
"""

import base64
import contextlib
import dataclasses
import functools
import glob
import io
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import numpy as np
import requests
import tensorflow as tf
from absl import flags

from scripts import ROOT
from scripts.clients import kserve_model
from trainer.base import files, image_files, path_flags
from trainer.base import program as programs
from trainer.base.errors import UserError
from trainer.checkpoints import chosen
from trainer.data import inputs as inputs_module
from trainer.data import prepare
from trainer.monitoring import drawing
from trainer.serving import saved_model, signatures, verify_export
from trainer.serving.saved_model import Golden, Options
from trainer.serving.signatures import DEFAULT
from trainer.settings import storage
from trainer.settings.table import HParams
from trainer.training import run

PACKAGES = ['tensorflow-cpu', 'tf2onnx', 'onnxruntime', 'openvino', 'kserve']
SIGNATURES = (DEFAULT,) + signatures.NAMES
_NUM_IMAGES = 20

Results = Dict[str, Dict[str, Any]]  # by signature: `difference`, and `error` where there is one


class Impossible(NamedTuple):
    """Why a signature cannot work in a client, and the words of the error that prove it."""

    reason: str
    proof: str


_ROWS = 'one instance is one row of every input, and a scalar has none'
_NO_STRINGS = 'no TensorArray of strings'
_NO_RANDOM = 'no StatelessRandomNormal op'
_NO_RANK = 'no input of unknown rank; `steps` is one, so that a wrong rank can be refused elsewhere'
IMPOSSIBLE = {
    'TF Serving REST, rows': {
        'generate': Impossible(_ROWS, 'must be a scalar'),
        'generate_at_temperature': Impossible(_ROWS, 'must be a scalar'),
        'interpolate': Impossible(_ROWS, 'must be a scalar'),
    },
    'ONNX Runtime (tf2onnx)': {
        'generate': Impossible(_NO_RANDOM, 'StatelessRandomNormal'),
        'generate_at_temperature': Impossible(_NO_RANDOM, 'StatelessRandomNormal'),
        'reconstruct_png': Impossible('no DecodePng op', 'DecodePng'),
    },
    'OpenVINO': {
        'generate': Impossible(_NO_RANDOM, 'StatelessRandomNormal'),
        'generate_at_temperature': Impossible(_NO_RANDOM, 'StatelessRandomNormal'),
        'reconstruct_png': Impossible(_NO_STRINGS, 'Unknown type'),
        'interpolate': Impossible(_NO_RANK, 'dynamic rank'),
    },
}


# What the answers are compared with.


def reference(images: np.ndarray, checkpoint_path: str, params: HParams) -> Dict[str, Golden]:
    """Returns inputs and outputs of every signature, computed without any export.

    Args:
      images: uint8 `[n, rows, columns, channels]`.
    """
    scaled = (images / 255).astype(np.float32)
    features = {'images': scaled.reshape([-1, params.rows, params.row_features])}
    predicted = list(
        run.make_estimator(params).predict(
            lambda: tf.data.Dataset.from_tensors(features), checkpoint_path=checkpoint_path
        )
    )
    outputs = {name: np.stack([row[name] for row in predicted]) for name in predicted[0]}

    def decode(latents: np.ndarray) -> np.ndarray:
        decoded = drawing.decode(latents, checkpoint_path, params)
        return decoded.reshape([-1] + params.served_shape)

    inputs = {'images': scaled.reshape([-1] + params.served_shape)}
    posterior = {name: outputs[name] for name in ('mean', 'scale')}
    latents = np.random.RandomState(1).standard_normal(outputs['mean'].shape).astype(np.float32)
    drawn = {'count': np.int32(5), 'seed': np.int32(11)}
    with tf.Graph().as_default(), tf.Session() as session:
        noise = session.run(tf.random.stateless_normal([5, params.latent_size], [11, 0]))
    steps = 3
    mean = outputs['mean'][:, np.newaxis]
    share = np.linspace(0, 1, steps).reshape([steps, 1]).astype(np.float32)
    between = (1 - share) * mean[:-1] + share * mean[1:]
    path = decode(between.reshape([-1, params.latent_size]))
    return {
        DEFAULT: Golden(inputs, outputs),
        'reconstruct': Golden(inputs, outputs),
        'encode': Golden(inputs, posterior),
        'decode': Golden({'latents': latents}, {'images': decode(latents)}),
        'generate': Golden(drawn, {'images': decode(noise)}),
        'generate_at_temperature': Golden(
            dict(drawn, temperature=np.float32(0.5)), {'images': decode(0.5 * noise)}
        ),
        'reconstruct_png': Golden(
            {'image_bytes': np.array(image_files.encode_png(images), object)}, outputs
        ),
        'interpolate': Golden(
            dict(inputs, steps=np.int32(steps)),
            {'interpolations': path.reshape([-1, steps] + params.served_shape)},
        ),
    }


def test_images(params: HParams, data_dir: Optional[str]) -> np.ndarray:
    """Returns the first test images, uint8 `[n, rows, columns, channels]`."""
    data = prepare.prepare(params.dataset, data_dir, separate_process=True)
    images = inputs_module.first_images(data, 'test', _NUM_IMAGES, params.binarization)
    return np.rint(255 * images).astype(np.uint8).reshape((-1,) + params.image_shape)


# The clients of TensorFlow 1.14, in this process.

Call = Callable[[Dict[str, Any]], Dict[str, np.ndarray]]


def checked(calls: Dict[str, Call], golden: Dict[str, Golden]) -> Results:
    """Compares the answers of each signature with the reference."""
    return {
        name: verify_export.check(calls.get(name), golden[name]._asdict(), verify_export.TOLERANCE)
        for name in golden
    }


def raw_session(export_dir: str) -> Dict[str, Call]:
    """`tf.saved_model.load` into a session."""
    return verify_export.load_tensorflow_1(_Arguments(export_dir))


class _Arguments(NamedTuple):
    export_dir: str


def contrib_predictor(export_dir: str) -> Dict[str, Call]:
    """`tf.contrib.predictor.from_saved_model`."""
    with contextlib.redirect_stderr(io.StringIO()):  # Notices of importing tf.contrib.
        from tensorflow.contrib import predictor
    return {
        name: predictor.from_saved_model(export_dir, signature_def_key=name) for name in SIGNATURES
    }


def saved_model_cli(export_dir: str) -> Dict[str, Call]:
    """`saved_model_cli run`, with its inputs and outputs in files."""
    from tensorflow.python.tools import saved_model_cli as cli

    def caller(signature: str) -> Call:
        def call(inputs: Dict[str, Any]) -> Dict[str, np.ndarray]:
            with tempfile.TemporaryDirectory() as folder:
                stated = []
                for name, value in inputs.items():
                    path = os.path.join(folder, 'in-{}.npy'.format(name))
                    value = np.asarray(value)
                    np.save(path, value.astype('S') if value.dtype == object else value)
                    stated.append('{}={}'.format(name, path))
                arguments = ['run', '--dir', export_dir, '--tag_set', 'serve']
                arguments += ['--signature_def', signature, '--outdir', folder]
                parsed = cli.create_parser().parse_args(arguments + ['--inputs', ';'.join(stated)])
                with contextlib.redirect_stdout(io.StringIO()), tf.Graph().as_default():
                    parsed.func(parsed)
                paths = glob.glob(os.path.join(folder, '*.npy'))
                arrays = {
                    os.path.basename(path)[: -len('.npy')]: np.load(path, allow_pickle=False)
                    for path in paths
                }
            return {name: value for name, value in arrays.items() if name[:3] != 'in-'}

        return call

    return {name: caller(name) for name in SIGNATURES}


def rest(export_dir: str, by_row: bool) -> Dict[str, Call]:
    """TensorFlow Serving's JSON: turned into tensors, run, and the answer turned into JSON."""
    runs, types = raw_session(export_dir), input_types(export_dir)

    def caller(name: str) -> Call:
        def call(inputs: Dict[str, Any]) -> Dict[str, np.ndarray]:
            request = json.loads(json.dumps(request_of(name, inputs, by_row)))
            values, rows = kserve_model.inputs_of(request, types[name])
            fed = {
                key: kserve_model.array_of(key, value, types[name][key])
                for key, value in values.items()
            }
            outputs = runs[name](fed)
            answer = json.loads(json.dumps(kserve_model.response_of(outputs, rows)))
            return arrays_of(answer, list(outputs))

        return call

    return {name: caller(name) for name in types}


def request_of(signature: str, inputs: Dict[str, Any], by_row: bool) -> Dict[str, Any]:
    """Returns the documented JSON of a request; the name of an only input is left out."""

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return {'b64': base64.b64encode(value).decode('ascii')}
        return [plain(part) for part in value] if isinstance(value, list) else value

    columns = {name: plain(np.asarray(value).tolist()) for name, value in inputs.items()}
    only = next(iter(columns)) if len(columns) == 1 else None
    if not by_row:
        return {'signature_name': signature, 'inputs': columns[only] if only else columns}
    count = max([len(value) for value in columns.values() if isinstance(value, list)] + [1])
    rows = [
        {key: value[row] if isinstance(value, list) else value for key, value in columns.items()}
        for row in range(count)
    ]
    return {'signature_name': signature, 'instances': [row[only] if only else row for row in rows]}


def arrays_of(answer: Dict[str, Any], names: List[str]) -> Dict[str, np.ndarray]:
    """Reads the documented JSON of an answer whose outputs have these names."""
    if 'outputs' in answer:
        columns = answer['outputs'] if len(names) > 1 else {names[0]: answer['outputs']}
        return {name: np.array(columns[name]) for name in names}
    rows = answer['predictions']
    rows = rows if len(names) > 1 else [{names[0]: row} for row in rows]
    return {name: np.array([row[name] for row in rows]) for name in names}


def input_types(export_dir: str) -> Dict[str, Dict[str, Any]]:
    """Returns the NumPy type of each input of each signature."""
    return {
        name: {
            key: tf.as_dtype(info.dtype).as_numpy_dtype for key, info in definition.inputs.items()
        }
        for name, definition in _signature_defs(export_dir).items()
    }


def output_names(export_dir: str) -> Dict[str, List[str]]:
    """Returns the names of the outputs of each signature."""
    return {name: list(one.outputs) for name, one in _signature_defs(export_dir).items()}


def _signature_defs(export_dir: str) -> Dict[str, Any]:
    with tf.Graph().as_default(), tf.Session() as session:
        return tf.saved_model.load(session, [tf.saved_model.SERVING], export_dir).signature_def


def grpc(export_dir: str) -> Dict[str, Call]:
    """TensorFlow Serving's `PredictRequest`: turned into tensors, run, answered by a message."""
    from tensorflow_serving.apis import predict_pb2

    runs = raw_session(export_dir)

    def call(name: str, inputs: Dict[str, Any]) -> Dict[str, np.ndarray]:
        sent = predict_pb2.PredictRequest()
        sent.model_spec.signature_name = name
        for key, value in inputs.items():
            sent.inputs[key].CopyFrom(tf.make_tensor_proto(value))
        request = predict_pb2.PredictRequest.FromString(sent.SerializeToString())
        fed = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        answer = predict_pb2.PredictResponse()
        for key, value in runs[request.model_spec.signature_name](fed).items():
            answer.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        received = predict_pb2.PredictResponse.FromString(answer.SerializeToString())
        return {key: tf.make_ndarray(value) for key, value in received.outputs.items()}

    return {name: functools.partial(call, name) for name in runs}


# The clients of other runtimes, in an environment of their own.


class Clients:
    """The other runtimes' environment: a Python 3.11 or later with PACKAGES, in `folder`.

    Raises:
      UserError: there is no such Python, or the registry does not answer.
    """

    def __init__(self, folder: str):
        self.python = os.path.join(folder, 'bin', 'python')
        mark = os.path.join(folder, 'packages.json')
        if not os.path.exists(mark):
            _run([_newer_python(), '-m', 'venv', folder], '--clients_env')
            install = [self.python, '-m', 'pip', 'install', '--quiet', '--upgrade']
            _run(install + PACKAGES, '--clients_env')
            with open(mark, 'w') as f:
                json.dump(PACKAGES, f)

    def versions(self) -> List[str]:
        """Returns the packages with their versions, `name==version`."""
        frozen = _run([self.python, '-m', 'pip', 'freeze'], 'pip freeze').replace('_', '-').split()
        return [line for line in frozen if line.split('==')[0] in PACKAGES]

    def verify(self, export_dir: str, golden_path: str, *arguments: str) -> Results:
        """Runs the `verify_export.py` of an export here."""
        program = os.path.join(export_dir, 'assets.extra', 'verify_export.py')
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'results.json')
            command = [self.python, program, '--json=' + path, '--golden=' + golden_path]
            done = subprocess.run(
                command + list(arguments),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_environment(),
            )
            if not os.path.exists(path):
                raise UserError(done.stdout.decode('utf-8', 'replace').strip())
            with open(path) as f:
                return json.load(f)

    def tensorflow_2(self, export_dir: str, golden_path: str) -> Results:
        """`tf.saved_model.load` and its `signatures`."""
        return self.verify(export_dir, golden_path, '--runtime=tensorflow2')

    def onnx(self, export_dir: str, golden_path: str) -> Results:
        """Each signature through `python -m tf2onnx.convert`."""
        # In one process, because importing TensorFlow takes longer than a conversion.
        program = 'import sys; from tf2onnx import convert\n'
        program += 'for sys.argv in {}: convert.main()\n'
        with tempfile.TemporaryDirectory() as folder:
            convert = ['convert', '--saved-model', export_dir, '--tag', 'serve', '--opset', '18']
            commands = [
                convert + ['--signature_def', name, '--output', f'{folder}/{name}.onnx']
                for name in SIGNATURES
            ]
            _run([self.python, '-c', program.format(commands)], 'tf2onnx')
            return self.verify(export_dir, golden_path, '--runtime=onnx', '--onnx=' + folder)

    def openvino(self, by_signature: Dict[str, str], golden: Dict[str, Golden]) -> Results:
        """Each signature from the export where it is the `serving_default`."""
        results = {}
        for name, export_dir in by_signature.items():
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, 'golden.npz')
                with open(path, 'wb') as f:
                    f.write(saved_model.npz({DEFAULT: golden[name]}))
                found = self.verify(export_dir, path, '--runtime=openvino')
            results[name] = found[DEFAULT]
        return results

    @contextlib.contextmanager
    def kserve(self, export_dir: str) -> Iterator[str]:
        """Starts KServe with the export; yields the URL of the model."""
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        url = 'http://127.0.0.1:{}/v1/models/vae'.format(port)
        program = os.path.join(ROOT, 'scripts', 'clients', 'kserve_model.py')
        with tempfile.TemporaryFile() as log:
            server = subprocess.Popen(
                [self.python, program, '--model_name=vae', f'--http_port={port}', export_dir],
                stdout=log,
                stderr=log,
                env=_environment(),
            )
            try:
                _wait_until_ready(url, server)
                yield url
            finally:
                server.terminate()
                server.wait()


def _wait_until_ready(url: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 180
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            if requests.get(url, timeout=5).ok:
                return
        time.sleep(0.2)
    raise UserError('KServe did not start: try ./scripts/serve --kserve with the export.')


def served(url: str, export_dir: str) -> Dict[str, Call]:
    """A server of TensorFlow Serving's REST API, asked for columns."""
    outputs = output_names(export_dir)

    def call(name: str, inputs: Dict[str, Any]) -> Dict[str, np.ndarray]:
        request = request_of(name, inputs, by_row=False)
        try:
            answer = requests.post(url + ':predict', json=request, timeout=60).json()
        except requests.exceptions.InvalidJSONError as error:
            raise ValueError('JSON has only finite numbers') from error
        if 'outputs' not in answer:
            raise ValueError(answer)
        return arrays_of(answer, outputs[name])

    return {name: functools.partial(call, name) for name in outputs}


def _newer_python() -> str:
    for name in ('python3.14', 'python3.13', 'python3.12', 'python3.11', 'python3'):
        code = 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'
        # A shim of that name may be on the path and only fail.
        if shutil.which(name) and subprocess.call([name, '-Ic', code], stderr=subprocess.PIPE) == 0:
            return name
    raise UserError('other runtimes need a Python 3.11 or later on the PATH; none was found.')


def _environment() -> Dict[str, str]:
    # PYTHONPATH would mix the modules of this Python into the other.
    kept = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    return dict(kept, TF_CPP_MIN_LOG_LEVEL='2')


def _run(command: List[str], what: str) -> str:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_environment()
    )
    output = done.stdout.decode('utf-8', 'replace').strip()
    if done.returncode != 0:
        raise UserError('{} failed: {}'.format(what, output.split('\n')[-1]))
    return output


# The table.


def in_this_process(export_dir: str, golden: Dict[str, Golden]) -> Dict[str, Results]:
    """Returns the results by client of those that need nothing but this environment."""
    calls = {
        'raw session': raw_session(export_dir),
        '`tf.contrib.predictor`': contrib_predictor(export_dir),
        '`saved_model_cli run`': saved_model_cli(export_dir),
        'TF Serving REST, rows': rest(export_dir, by_row=True),
        'TF Serving REST, columns': rest(export_dir, by_row=False),
        'TF Serving gRPC': grpc(export_dir),
    }
    return {client: checked(by_name, golden) for client, by_name in calls.items()}


def in_other_runtimes(
    clients: Clients, by_signature: Dict[str, str], golden: Dict[str, Golden]
) -> Dict[str, Results]:
    """Returns the results by client of those in the other environment.

    Args:
      by_signature: the export in which each signature is `serving_default`.
    """
    export_dir = by_signature[DEFAULT]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'golden.npz')
        with open(path, 'wb') as f:
            f.write(saved_model.npz(golden))
        with clients.kserve(export_dir) as url:
            by_rest = checked(served(url, export_dir), golden)
        return {
            'KServe REST, columns': by_rest,
            'TensorFlow 2': clients.tensorflow_2(export_dir, path),
            'ONNX Runtime (tf2onnx)': clients.onnx(export_dir, path),
            'OpenVINO': clients.openvino(by_signature, golden),
        }


def by_signature(export_dir: str, checkpoint_path: str, params: HParams) -> Dict[str, str]:
    """Exports each signature alone, but for those that the whole export has as its default."""
    alone = {
        name: saved_model.export_saved_model(name, checkpoint_path, params, Options(signature=name))
        for name in signatures.NAMES
        if name != 'reconstruct'
    }
    return dict(alone, reconstruct=export_dir, **{DEFAULT: export_dir})


def verdict(client: str, signature: str, result: Dict[str, Any]) -> str:
    """Returns 'ok', why the signature is not possible there, or 'FAILED: ' and the error."""
    impossible = IMPOSSIBLE.get(client, {}).get(signature)
    error = result.get('error')
    if impossible is None:
        return 'FAILED: {}'.format(error) if error else 'ok'
    if error and impossible.proof in error:
        return impossible.reason
    return 'FAILED: should say {!r} but {}'.format(impossible.proof, error or 'works')


def table(results: Dict[str, Results]) -> str:
    """Returns the results as Markdown: clients down, signatures across, reasons below."""
    lines = ['| client | {} |'.format(' | '.join('`{}`'.format(name) for name in SIGNATURES))]
    lines.append('|---' * (1 + len(SIGNATURES)) + '|')
    reasons: List[str] = []
    for client, by_name in results.items():
        cells = []
        for name in SIGNATURES:
            cell = verdict(client, name, by_name[name])
            if cell != 'ok':
                if cell not in reasons:
                    reasons.append(cell)
                word = 'FAILED' if cell.startswith('FAILED') else 'not possible'
                cell = '{} ({})'.format(word, 1 + reasons.index(cell))
            cells.append(cell)
        lines.append('| {} | {} |'.format(client, ' | '.join(cells)))
    lines.append('')
    lines += ['{}. {}'.format(number, reason) for number, reason in enumerate(reasons, start=1)]
    return '\n'.join(lines)


def _define_flags() -> None:
    path_flags.define('model_dir', None, 'Folder of a run of trainer.task.', required=True)
    path_flags.define('data_dir', None, "Folder of prepared TFDS datasets. Default: the run's.")
    path_flags.define('clients_env', None, "Folder to keep the other runtimes' environment in.")
    path_flags.define('json', None, 'File to write all results to.')


def main(argv: List[str]) -> int:
    """Exports the last checkpoint, runs the clients, prints the table; 1 if a cell failed."""
    del argv
    values = flags.FLAGS
    if values.json:
        files.check_output('--json', values.json)
    if values.clients_env:
        files.check_folder('--clients_env', values.clients_env)
    params = storage.trained(values.model_dir)
    checkpoint_path = chosen.trained_checkpoint(values.model_dir, None)
    golden = reference(
        test_images(params, values.data_dir or params.data_dir or None), checkpoint_path, params
    )
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = dataclasses.replace(params, model_dir=folder)
        export_dir = saved_model.export_saved_model('final', checkpoint_path, elsewhere)
        clients = Clients(values.clients_env or os.path.join(folder, 'env'))
        results = in_this_process(export_dir, golden)
        exports = by_signature(export_dir, checkpoint_path, elsewhere)
        results.update(in_other_runtimes(clients, exports, golden))
        versions = clients.versions()
    if values.json:
        files.write_output(values.json, files.json_bytes(results))
    text = table(results)
    print(text)
    done = [result for by_name in results.values() for result in by_name.values()]
    largest = max(result.get('difference', 0.0) for result in done)
    print(
        '\nLargest difference {:.1e}; tensorflow==1.14.0, {}.'.format(largest, ', '.join(versions))
    )
    return int('FAILED' in text)


if __name__ == '__main__':
    _define_flags()
    programs.run(main)
