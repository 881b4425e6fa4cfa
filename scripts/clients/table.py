"""The table of signatures and clients: what is compared, and which failures are right."""

import os
from typing import Any, Dict, List, NamedTuple

from scripts.clients import in_other_runtimes, in_tensorflow_1, in_triton
from scripts.clients.in_other_runtimes import Results
from scripts.clients.in_tensorflow_1 import Call
from trainer.serving import verify_export
from trainer.serving.golden import Golden
from trainer.serving.signatures import DEFAULT, NAMES

_OF_ALL = ' '.join((DEFAULT, *NAMES))


class Impossible(NamedTuple):
    """What cannot work."""

    client: str
    signatures: str  # With blanks between them.
    reason: str
    proof: str  # Words of the error.


_IN_ALL_EXPORTS = [Impossible(*row) for row in [
    ('TF Serving REST, rows', 'generate generate_at_temperature interpolate',
     'one instance is one row of every input, and a scalar has none', 'must be a scalar'),
    ('ONNX Runtime (tf2onnx)', 'generate generate_at_temperature',
     'no StatelessRandomNormal op', 'StatelessRandomNormal'),
    ('ONNX Runtime (tf2onnx)', 'reconstruct_png score_png explain_png',
     'no DecodePng op', 'DecodePng'),
    ('OpenVINO', 'generate generate_at_temperature',
     'no StatelessRandomNormal op', 'StatelessRandomNormal'),
    ('OpenVINO', 'reconstruct_png score_png explain_png',
     'no TensorArray of strings', 'Unknown type'),
]]  # fmt: skip
_IN_DEFAULT_EXPORTS = [Impossible(*row) for row in [
    ('OpenVINO', 'interpolate',
     'no input of unknown rank; `steps` is one, so that a wrong rank can be refused elsewhere',
     'dynamic rank'),
]]  # fmt: skip
_IN_EXPORTS_OF_LOW_LATENCY = [Impossible(*row) for row in [
    ('`saved_model_cli run`', _OF_ALL,
     'it does not import `tf.contrib`, which has the op BlockLSTM in TensorFlow 1', 'BlockLSTM'),
    ('ONNX Runtime (tf2onnx)', 'serving_default reconstruct encode interpolate score explain',
     'tf2onnx has no BlockLSTM', 'BlockLSTM'),
]]  # fmt: skip


def impossible(low_latency: bool) -> List[Impossible]:
    """Returns what cannot work with exports of low latency, or with the default ones."""
    return _IN_ALL_EXPORTS + (_IN_EXPORTS_OF_LOW_LATENCY if low_latency else _IN_DEFAULT_EXPORTS)


def by_tensorflow_1(export_dir: str, golden: Dict[str, Golden]) -> Dict[str, Results]:
    """Returns the results by client of those that need nothing but this environment."""
    calls = {
        'raw session': in_tensorflow_1.raw_session(export_dir),
        '`tf.contrib.predictor`': in_tensorflow_1.contrib_predictor(export_dir),
        '`saved_model_cli run`': in_tensorflow_1.saved_model_cli(export_dir),
        'TF Serving REST, rows': in_tensorflow_1.rest(export_dir, by_row=True),
        'TF Serving REST, columns': in_tensorflow_1.rest(export_dir, by_row=False),
        'TF Serving gRPC': in_tensorflow_1.grpc(export_dir),
    }
    return {client: checked(by_name, golden) for client, by_name in calls.items()}


def by_other_runtimes(
    python: str, exports: Dict[str, str], golden: Dict[str, Golden]
) -> Dict[str, Results]:
    """Returns the results by client of those in the other environment.

    Args:
      exports: for each signature the export that has it as its default.
    """
    export_dir = exports[DEFAULT]
    outputs = {name: example.outputs for name, example in golden.items()}
    with in_other_runtimes.kserve(python, export_dir) as url:
        by_rest = checked(in_other_runtimes.served(url, outputs), golden)
    tensorflow_2 = in_other_runtimes.verify(python, export_dir, golden, '--runtime=tensorflow2')
    return {
        'KServe REST, columns': by_rest,
        'TensorFlow 2': tensorflow_2,
        'ONNX Runtime (tf2onnx)': in_other_runtimes.onnx(python, export_dir, golden),
        'OpenVINO': in_other_runtimes.openvino(python, exports, golden),
    }


def by_triton(venv: str, exports: Dict[str, str], golden: Dict[str, Golden]) -> Dict[str, Results]:
    """Returns the results by client of those of a Triton server.

    Args:
      venv: folder of its environment, which is made where it is missing.
      exports: for each signature the export that has it as its default.
    """
    with in_triton.served(venv, os.path.dirname(exports[DEFAULT])) as server:
        return {
            'Triton HTTP': in_triton.results(server, 'http', golden),
            'Triton gRPC': in_triton.results(server, 'grpc', golden),
        }


def checked(calls: Dict[str, Call], golden: Dict[str, Golden]) -> Results:
    """Compares the answers of each signature with the reference."""
    return {
        name: verify_export.check(calls.get(name), golden[name]._asdict(), verify_export.TOLERANCE)
        for name in golden
    }


def verdict(
    client: str, signature: str, result: Dict[str, Any], impossible: List[Impossible]
) -> str:
    """Returns 'ok', why the signature is not possible there, or 'FAILED: ' and the error."""
    error = result.get('error')
    for row in impossible:
        if client == row.client and signature in row.signatures.split():
            shown = error and row.proof in error
            if shown:
                return row.reason
            return f'FAILED: should say {row.proof!r} but {error or "works"}'
    return f'FAILED: {error}' if error else 'ok'


def markdown(results: Dict[str, Results], impossible: List[Impossible]) -> str:
    """Returns the results by client: clients down, signatures across, reasons below."""
    names = list(next(iter(results.values())))
    lines = ['| client | {} |'.format(' | '.join('`{}`'.format(name) for name in names))]
    lines.append('|---' * (1 + len(names)) + '|')
    reasons: List[str] = []
    for client, by_name in results.items():
        cells = []
        for name in names:
            cell = verdict(client, name, by_name[name], impossible)
            if cell != 'ok':
                if cell not in reasons:
                    reasons.append(cell)
                word = 'FAILED' if cell.startswith('FAILED') else 'not possible'
                cell = '{} ({})'.format(word, 1 + reasons.index(cell))
            cells.append(cell)
        lines.append('| {} | {} |'.format(client, ' | '.join(cells)))
    reasons = ['{}. {}'.format(number, reason) for number, reason in enumerate(reasons, start=1)]
    return '\n'.join([*lines, '', *reasons])
