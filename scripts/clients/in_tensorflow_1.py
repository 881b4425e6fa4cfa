"""The clients of TensorFlow 1.14, in this process: calls by signature, from arrays to arrays."""

import argparse
import base64
import contextlib
import functools
import glob
import io
import json
import os
import subprocess
import sys
import tempfile
from typing import Any, Callable, Dict, List

import numpy as np
import tensorflow as tf

from scripts.servers import predict_protocol
from trainer.serving import signatures, verify_export
from trainer.serving.signatures import DEFAULT

Call = Callable[[Dict[str, Any]], Dict[str, np.ndarray]]


def signatures_of(export_dir: str) -> List[str]:
    """Returns the names of the signatures of an export, in their order."""
    known = input_types(export_dir)
    return [name for name in (DEFAULT, *signatures.NAMES) if name in known]


def raw_session(export_dir: str) -> Dict[str, Call]:
    """`tf.saved_model.load` into a session."""
    return verify_export.load_tensorflow_1(argparse.Namespace(export_dir=export_dir))


def contrib_predictor(export_dir: str) -> Dict[str, Call]:
    """`tf.contrib.predictor.from_saved_model`."""
    with contextlib.redirect_stderr(io.StringIO()):  # Notices of importing tf.contrib.
        from tensorflow.contrib import predictor
    return {
        name: predictor.from_saved_model(export_dir, signature_def_key=name)
        for name in signatures_of(export_dir)
    }


def saved_model_cli(export_dir: str) -> Dict[str, Call]:
    """`saved_model_cli run`, a process for each answer, with its inputs and outputs in files."""
    command = [sys.executable, '-m', 'tensorflow.python.tools.saved_model_cli', 'run']

    def call(signature: str, inputs: Dict[str, Any]) -> Dict[str, np.ndarray]:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as answers:
            stated = []
            for name, value in inputs.items():
                path = os.path.join(folder, name + '.npy')
                value = np.asarray(value)
                np.save(path, value.astype('S') if value.dtype == object else value)
                stated.append('{}={}'.format(name, path))
            arguments = ['--dir', export_dir, '--tag_set', 'serve', '--outdir', answers]
            arguments += ['--signature_def', signature, '--inputs', ';'.join(stated)]
            _run(command + arguments)
            return {
                os.path.basename(path)[: -len('.npy')]: np.load(path, allow_pickle=False)
                for path in glob.glob(os.path.join(answers, '*.npy'))
            }

    return {name: functools.partial(call, name) for name in signatures_of(export_dir)}


def _run(command: List[str]) -> None:
    """Runs a command; where it fails raises RuntimeError with its words, the last ones first."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout.strip().split('\n')[-1] + '\n' + done.stdout)


def grpc(export_dir: str) -> Dict[str, Call]:
    """TensorFlow Serving's `PredictRequest`: turned into tensors, run, answered by a message."""
    from tensorflow_serving.apis import predict_pb2

    runs = raw_session(export_dir)

    def passed_on(message: Any, field: str, arrays: Dict[str, Any]) -> Dict[str, np.ndarray]:
        for key, value in arrays.items():
            getattr(message, field)[key].CopyFrom(tf.make_tensor_proto(value))
        received = type(message).FromString(message.SerializeToString())
        return {key: tf.make_ndarray(value) for key, value in getattr(received, field).items()}

    def call(name: str, inputs: Dict[str, Any]) -> Dict[str, np.ndarray]:
        fed = passed_on(predict_pb2.PredictRequest(), 'inputs', inputs)
        return passed_on(predict_pb2.PredictResponse(), 'outputs', runs[name](fed))

    return {name: functools.partial(call, name) for name in runs}


def rest(export_dir: str, by_row: bool) -> Dict[str, Call]:
    """TensorFlow Serving's JSON: turned into tensors, run, and the answer turned into JSON."""
    runs, types = raw_session(export_dir), input_types(export_dir)

    def call(name: str, inputs: Dict[str, Any]) -> Dict[str, np.ndarray]:
        request = request_of(name, inputs, by_row)
        fed, rows = predict_protocol.arrays_of(request, types[name])
        outputs = runs[name](fed)
        answer = json.loads(json.dumps(predict_protocol.response_of(outputs, rows)))
        return arrays_of(answer, list(outputs))

    return {name: functools.partial(call, name) for name in types}


def _base64(value: bytes) -> Dict[str, str]:
    return {'b64': base64.b64encode(value).decode('ascii')}


def request_of(signature: str, inputs: Dict[str, Any], by_row: bool) -> Dict[str, Any]:
    """Returns the documented JSON of a request; the name of an only input is left out."""
    lists = {name: np.asarray(value).tolist() for name, value in inputs.items()}
    columns = json.loads(json.dumps(lists, default=_base64))
    lengths = [len(value) for value in columns.values() if isinstance(value, list)]
    rows = [
        {key: value[row] if isinstance(value, list) else value for key, value in columns.items()}
        for row in range(max(lengths, default=1))
    ]
    if len(columns) == 1:
        (columns,), rows = columns.values(), [next(iter(row.values())) for row in rows]
    return {'signature_name': signature, **({'instances': rows} if by_row else {'inputs': columns})}


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
    verify_export.import_ops(export_dir)
    with tf.Graph().as_default(), tf.Session() as session:
        loaded = tf.saved_model.load(session, [tf.saved_model.SERVING], export_dir)
    return {
        name: {
            key: tf.as_dtype(info.dtype).as_numpy_dtype for key, info in definition.inputs.items()
        }
        for name, definition in loaded.signature_def.items()
    }
