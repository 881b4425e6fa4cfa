"""Checks an export against its golden inputs and outputs, in whatever runtime is installed.

    python verify_export.py                            # TensorFlow 1 or 2, all signatures
    python verify_export.py --runtime=openvino         # serving_default of the SavedModel
    python -m tf2onnx.convert --saved-model .. --signature_def encode --output onnx/encode.onnx
    python verify_export.py --runtime=onnx --onnx=onnx # each <signature>.onnx in that folder

It needs NumPy, the runtime and no other file of the project that made the export. A signature that
the runtime cannot run is a failure unless `--signatures` leaves it out. Exit code 0: all are right.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import re
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
TOLERANCE = 1e-4
# A score that is rounded otherwise may pass one of the scores that a quantile counts.
QUANTILE_TOLERANCE = 1e-3


def load_tensorflow_1(args):
    import tensorflow as tf

    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    import_ops(args.export_dir)
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.load(session, ['serve'], args.export_dir)

    def caller(definition):
        # Plain dicts: a protobuf map would make up what is missing.
        feeds = {key: info.name for key, info in definition.inputs.items()}
        fetches = {key: info.name for key, info in definition.outputs.items()}
        return lambda inputs: session.run(fetches, {feeds[key]: inputs[key] for key in inputs})

    return {name: caller(definition) for name, definition in loaded.signature_def.items()}


def import_ops(export_dir):
    """Has TensorFlow 1 know the op of an export of low latency; any other needs none."""
    with open(os.path.join(export_dir, 'saved_model.pb'), 'rb') as f:
        if b'BlockLSTM' in f.read():
            import tensorflow.contrib.rnn  # noqa: F401


def load_tensorflow_2(args):
    import tensorflow as tf

    loaded = tf.saved_model.load(args.export_dir)

    def caller(function):
        def call(inputs):
            outputs = function(**{key: tf.constant(value) for key, value in inputs.items()})
            return {key: value.numpy() for key, value in outputs.items()}

        call.owner = loaded  # A signature does not keep its model's variables alive.
        return call

    return {name: caller(function) for name, function in loaded.signatures.items()}


def load_onnx(args):
    import onnxruntime

    def caller(path):
        @functools.lru_cache(maxsize=None)
        def session():  # When it is called, so that only this signature fails where it cannot load.
            return onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])

        def call(inputs):
            names = [output.name for output in session().get_outputs()]
            return dict(zip(names, session().run(names, inputs)))

        return call

    if not args.onnx:
        raise SystemExit('--runtime=onnx needs --onnx, the folder of the <signature>.onnx files.')
    names = [
        name[: -len('.onnx')] for name in sorted(os.listdir(args.onnx)) if name.endswith('.onnx')
    ]
    return {name: caller(os.path.join(args.onnx, name + '.onnx')) for name in names}


def load_openvino(args):
    import openvino

    @functools.lru_cache(maxsize=None)
    def compiled():
        core = openvino.Core()
        # Processors with bfloat16 would use it, which has three significant digits.
        settings = {'INFERENCE_PRECISION_HINT': 'f32'}
        return core.compile_model(core.read_model(args.export_dir), 'CPU', settings)

    def call(inputs):
        outputs = compiled()(inputs)
        return {name: outputs[port] for port in compiled().outputs for name in port.get_names()}

    return {'serving_default': call}


RUNTIMES = {
    'tensorflow1': load_tensorflow_1,
    'tensorflow2': load_tensorflow_2,
    'onnx': load_onnx,
    'openvino': load_openvino,
}


def installed_runtime(args):
    """The name of the first runtime that this Python can import."""
    if importlib.util.find_spec('tensorflow'):
        import tensorflow as tf

        return 'tensorflow' + tf.__version__[0]
    for name in ['openvino'] + ['onnxruntime'] * bool(args.onnx):
        if importlib.util.find_spec(name):
            return 'onnx' if name == 'onnxruntime' else name
    raise SystemExit('Found no tensorflow, openvino or, with --onnx, onnxruntime to import.')


def read_golden(path):
    """`{signature: {'inputs': {name: array}, 'outputs': {name: array}}}`."""
    golden = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            signature, kind, name = key.split('/')
            value = arrays[key]
            value = value.astype(object) if value.dtype.kind == 'S' else value
            golden.setdefault(signature, {'inputs': {}, 'outputs': {}})[kind][name] = value
    return golden


def read(flag, path, reader):
    """What `reader` makes of `path`; where it cannot, the program ends with one sentence."""
    try:
        return reader(path)
    except Exception as error:  # Each runtime has classes of its own.
        reason = f'{type(error).__name__}: ' + str(error).strip().split('\n')[0]
        raise SystemExit(f'{flag}={path} cannot be read ({reason}).') from error


def largest_difference(call, example):
    """Runs a signature; returns its largest difference from what is expected.

    A difference counts as `|a - b| / max(1, |b|)`: losses of hundreds of nats have fewer digits
    behind the point than probabilities.
    """
    answer = call(example['inputs'])
    largest = 0.0
    for name, expected in example['outputs'].items():
        value = np.asarray(answer[name])
        if value.shape != expected.shape:
            raise ValueError('{} has shape {}, not {}'.format(name, value.shape, expected.shape))
        difference = np.abs(value - expected) / np.maximum(1.0, np.abs(expected))
        if name == 'quantile':
            difference = np.maximum(0.0, difference - QUANTILE_TOLERANCE)
        if not np.all(np.isfinite(value)) or not np.all(np.isfinite(expected)):
            raise ValueError('{} is not finite'.format(name))
        largest = max(largest, float(difference.max()) if difference.size else 0.0)
    return largest


# A first value that no image, window or latent vector has, and words of TensorFlow's message.
BAD_VALUES = {
    'images': (2.0, 'images must hold'),
    'windows': (np.nan, 'finite'),
    'latents': (np.inf, 'finite'),
}


def bad_input_is_noticed(call, example):
    """Whether a wrong shape is refused, and a bad value too or by NaN for just that example."""
    (name,) = example['inputs']
    bad_value, word = BAD_VALUES[name]
    values = np.array(example['inputs'][name])
    # As many numbers in another shape; grey images of one column have the first one.
    wrong = [-1, 1] if values.shape[2:] != (1,) else [1, -1, 1]
    with contextlib.suppress(Exception):  # Each runtime has classes of its own.
        call({name: values.reshape([len(values), *wrong])})
        return False
    values[0].flat[0] = bad_value
    try:
        answer = call({name: values})
    except Exception as error:
        return word in str(error)
    return all(
        np.all(np.isnan(answer[name][0])) and np.all(np.isfinite(answer[name][1:]))
        for name in example['outputs']
    )


def check(call, example, tolerance):
    """Returns `{'difference': ...}` or `{'error': ...}`."""
    if call is None:
        return {'error': 'the runtime does not offer this signature'}
    try:
        difference = largest_difference(call, example)
        if difference > tolerance:
            return {'error': 'off by {:.1e}'.format(difference), 'difference': difference}
        if set(example['inputs']) <= set(BAD_VALUES) and not bad_input_is_noticed(call, example):
            return {'error': 'gives numbers for bad input', 'difference': difference}
        return {'difference': difference}
    except Exception as error:  # Each runtime has classes of its own.
        return {'error': '{}: {}'.format(type(error).__name__, str(error).strip())}


def path(text):
    """Reads a path; the shell does not know the `~` of --json=~/x. A copied file has no trainer."""
    whole = os.path.expanduser(text)
    if whole.startswith('~'):
        raise argparse.ArgumentTypeError('there is no such home folder: give the whole path')
    return whole


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parent = os.path.dirname(HERE)
    parser.add_argument('--export_dir', type=path, default=parent, help='default: the parent')
    parser.add_argument('--golden', type=path, default=os.path.join(HERE, 'golden.npz'))
    parser.add_argument('--runtime', choices=sorted(RUNTIMES))
    parser.add_argument('--onnx', type=path, help='folder with <signature>.onnx files')
    parser.add_argument('--signatures', help='only these, with commas between them')
    parser.add_argument('--tolerance', type=float, default=TOLERANCE)
    parser.add_argument('--json', type=path, help='file to write the results to')
    args = parser.parse_args()
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

    golden = read('--golden', args.golden, read_golden)
    runtime = args.runtime or installed_runtime(args)
    special = re.search(r'[*?[]', args.export_dir)
    if special and runtime.startswith('tensorflow'):
        raise SystemExit(
            f'--export_dir={args.export_dir}: TensorFlow takes the {special.group()} in it for a '
            'part of a pattern: move the export to a path without.'
        )
    flag = 'onnx' if runtime == 'onnx' and args.onnx else 'export_dir'
    calls = read('--' + flag, getattr(args, flag), lambda _: RUNTIMES[runtime](args))
    names = sorted(golden)
    if args.signatures:
        names = args.signatures.split(',')
        unknown = sorted(set(names) - set(golden))
        if unknown:
            raise SystemExit('--signatures: {} has no {}.'.format(args.golden, ', '.join(unknown)))
    elif runtime == 'openvino':
        names = ['serving_default']
    elif runtime == 'onnx':
        names = sorted(calls)
    results = {name: check(calls.get(name), golden[name], args.tolerance) for name in names}
    if args.json:
        # In place: what a user names may be a pipe, or a link.
        try:
            with open(args.json, 'w') as f:
                json.dump(results, f, allow_nan=False)
        except OSError as error:
            raise SystemExit(f'--json={args.json} cannot be written ({error}).') from error
    for name, result in results.items():
        text = result.get('error') or 'ok, largest difference {:.1e}'.format(result['difference'])
        print('{:<12} {:<24} {}'.format(runtime, name, text))
    return int(not results or any('error' in result for result in results.values()))


def exit_code():
    """Runs `main`; whoever reads the output may have had enough of it, as `head` has."""
    try:
        code = main()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == '__main__':
    sys.exit(exit_code())
