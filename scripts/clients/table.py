"""The table of signatures and clients: what is compared, and which failures are right."""

from typing import Any, Dict, List

from scripts.clients import in_other_runtimes, in_tensorflow_1
from scripts.clients.in_other_runtimes import Results
from scripts.clients.in_tensorflow_1 import Call
from trainer.serving import verify_export
from trainer.serving.golden import Golden
from trainer.serving.signatures import DEFAULT

# Client, signatures, why these cannot work there, and words of the error that prove it.
_IMPOSSIBLE = [
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
    ('OpenVINO', 'interpolate',
     'no input of unknown rank; `steps` is one, so that a wrong rank can be refused elsewhere',
     'dynamic rank'),
]  # fmt: skip


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


def checked(calls: Dict[str, Call], golden: Dict[str, Golden]) -> Results:
    """Compares the answers of each signature with the reference."""
    return {
        name: verify_export.check(calls.get(name), golden[name]._asdict(), verify_export.TOLERANCE)
        for name in golden
    }


def verdict(client: str, signature: str, result: Dict[str, Any]) -> str:
    """Returns 'ok', why the signature is not possible there, or 'FAILED: ' and the error."""
    error = result.get('error')
    for of_client, signatures, reason, proof in _IMPOSSIBLE:
        if client == of_client and signature in signatures.split():
            shown = error and proof in error
            return reason if shown else f'FAILED: should say {proof!r} but {error or "works"}'
    return f'FAILED: {error}' if error else 'ok'


def markdown(results: Dict[str, Results]) -> str:
    """Returns the results by client: clients down, signatures across, reasons below."""
    names = list(next(iter(results.values())))
    lines = ['| client | {} |'.format(' | '.join('`{}`'.format(name) for name in names))]
    lines.append('|---' * (1 + len(names)) + '|')
    reasons: List[str] = []
    for client, by_name in results.items():
        cells = []
        for name in names:
            cell = verdict(client, name, by_name[name])
            if cell != 'ok':
                if cell not in reasons:
                    reasons.append(cell)
                word = 'FAILED' if cell.startswith('FAILED') else 'not possible'
                cell = '{} ({})'.format(word, 1 + reasons.index(cell))
            cells.append(cell)
        lines.append('| {} | {} |'.format(client, ' | '.join(cells)))
    reasons = ['{}. {}'.format(number, reason) for number, reason in enumerate(reasons, start=1)]
    return '\n'.join([*lines, '', *reasons])
