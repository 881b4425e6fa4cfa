"""Writes the model repository from which Triton serves an export.

    python scripts/servers/triton_repository.py EXPORT REPOSITORY

Each signature is a model, an ensemble of one step, which costs no process. All have the same step:
the model `vae`, two processes with the export (`triton_worker.py`), to which Triton sends what
waits together as one batch. Its inputs are optional, and tell by their names which signature is
asked.
"""

import json
import os
import py_compile
import sys
from typing import Dict, List, NamedTuple, Optional

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORKER = 'vae'
# The most examples of a batch: fewer where examples are large, as they pass through shared memory.
_LARGEST_BATCH = 1024
_BATCH_BYTES = 24 << 20
_TYPES = {'float32': 'TYPE_FP32', 'int32': 'TYPE_INT32', 'string': 'TYPE_STRING'}
_FILE_BYTES = 16 << 10  # What an image file is taken to have.

_MODEL = """import sys
sys.path.insert(0, {root!r})
from scripts.servers import triton_worker
class TritonPythonModel(triton_worker.TritonPythonModel):
    export = {export!r}
"""


class Tensor(NamedTuple):
    dtype: str  # 'float32', 'int32' or 'string'
    shape: Optional[List[int]]  # -1: any number; None: a scalar of which the export does not say so


class Signature(NamedTuple):
    inputs: Dict[str, Tensor]
    outputs: Dict[str, Tensor]

    @property
    def is_batched(self) -> bool:
        """Whether rows of the inputs, the examples, are rows of the outputs, and no number else."""
        shapes = [tensor.shape for tensor in (*self.inputs.values(), *self.outputs.values())]
        return all(shape and shape[0] == -1 and -1 not in shape[1:] for shape in shapes)


def batch_size(signatures: Dict[str, Signature]) -> int:
    """Returns the most examples of a batch."""
    largest = max(
        sum(map(_bytes_of, (*signature.inputs.values(), *signature.outputs.values())))
        for signature in signatures.values()
    )
    return max(1, min(_LARGEST_BATCH, _BATCH_BYTES // largest))


def _bytes_of(tensor: Tensor) -> int:
    if tensor.dtype == 'string':
        return _FILE_BYTES
    number = 4
    for size in (tensor.shape or [])[1:]:
        number *= abs(size)
    return number


def worker_config(signatures: Dict[str, Signature]) -> str:
    """Returns the configuration of the model that answers for all signatures."""
    inputs, outputs = [], []
    for name, signature in signatures.items():
        # Of a batch of one, as Triton sees it, where requests are not batched.
        first = 1 if signature.is_batched else 0
        for key, tensor in signature.inputs.items():
            inputs.append(_tensor(f'{name}/{key}', tensor, first, 'optional: true'))
        for key, tensor in signature.outputs.items():
            outputs.append(_tensor(f'{name}/{key}', tensor, first))
    unbatched = [name for name, signature in signatures.items() if not signature.is_batched]
    return '\n'.join(
        [
            f'name: "{WORKER}"',
            'backend: "python"',
            f'max_batch_size: {batch_size(signatures)}',
            *(f'input {text}' for text in inputs),
            *(f'output {text}' for text in outputs),
            'dynamic_batching { }',
            # While Triton hands out the answers of one, the other computes.
            f'instance_group {{ kind: KIND_CPU count: {min(2, len(os.sched_getaffinity(0)))} }}',
            f'parameters {{ key: "unbatched" value {{ string_value: {_text(unbatched)} }} }}',
            '',
        ]
    )


def ensemble_config(name: str, signature: Signature, max_batch_size: int) -> str:
    """Returns the configuration of the model of one signature."""
    first = 1 if signature.is_batched else 0
    lines = [
        f'name: "{name}"',
        'platform: "ensemble"',
        f'max_batch_size: {max_batch_size if signature.is_batched else 0}',
    ]
    lines += [f'input {_tensor(key, value, first)}' for key, value in signature.inputs.items()]
    lines += [f'output {_tensor(key, value, first)}' for key, value in signature.outputs.items()]
    lines += ['ensemble_scheduling { step {', f'  model_name: "{WORKER}" model_version: -1']
    for kind, tensors in (('input_map', signature.inputs), ('output_map', signature.outputs)):
        lines += [f'  {kind} {{ key: "{name}/{key}" value: "{key}" }}' for key in tensors]
    return '\n'.join([*lines, '} }', ''])


def _tensor(name: str, tensor: Tensor, first: int, *more: str) -> str:
    # A tensor of Triton has one axis at least, beside that of the examples.
    dims = ', '.join(map(str, (tensor.shape or [])[first:] or [1]))
    return ' '.join(
        ['{', f'name: "{name}" data_type: {_TYPES[tensor.dtype]} dims: [ {dims} ]', *more, '}']
    )


def _text(value: List[str]) -> str:
    # A string of JSON is one of protobuf's text format too.
    return json.dumps(json.dumps(value))


def write(export_dir: str, signatures: Dict[str, Signature], repository: str) -> None:
    """Writes the models of an export; the version of the worker is the number of the export."""
    size = batch_size(signatures)
    for name, signature in signatures.items():
        _write(repository, name, 'config.pbtxt', ensemble_config(name, signature, size))
        os.makedirs(os.path.join(repository, name, '1'))
    _write(repository, WORKER, 'config.pbtxt', worker_config(signatures))
    text = _MODEL.format(root=_ROOT, export=os.path.abspath(export_dir))
    folder = os.path.join(WORKER, str(version_of(export_dir)))
    _write(repository, folder, 'model.py', text)
    # Triton takes a file that is added to a model, as by Python, for another version of it.
    py_compile.compile(os.path.join(repository, folder, 'model.py'), doraise=True)


def version_of(export_dir: str) -> int:
    """Returns the number of an export, or 1 where its folder has another name."""
    name = os.path.basename(os.path.abspath(export_dir))
    return int(name) if name.isdigit() else 1


def _write(repository: str, folder: str, name: str, text: str) -> None:
    path = os.path.join(repository, folder)
    os.makedirs(path, exist_ok=True)
    with open(os.path.join(path, name), 'w', encoding='utf-8') as f:
        f.write(text)


def signatures_of(export_dir: str) -> Dict[str, Signature]:
    """Returns the signatures of an export by name, in the order of their names."""
    import tensorflow as tf
    from tensorflow.python.saved_model import loader_impl

    def tensors(infos) -> Dict[str, Tensor]:
        return {key: tensor(infos[key]) for key in sorted(infos)}

    def tensor(info) -> Tensor:
        shape = info.tensor_shape
        sizes = None if shape.unknown_rank else [axis.size for axis in shape.dim]
        return Tensor(tf.as_dtype(info.dtype).name, sizes)

    graphs = loader_impl.parse_saved_model(export_dir).meta_graphs
    if not graphs:
        raise SystemExit('its saved_model.pb holds no graph: export again.')
    definitions = graphs[0].signature_def
    return {
        name: Signature(tensors(definitions[name].inputs), tensors(definitions[name].outputs))
        for name in sorted(definitions)
        if not name.startswith('__')
    }


if __name__ == '__main__':
    write(sys.argv[1], signatures_of(sys.argv[1]), sys.argv[2])
