"""Requests to an export in other runtimes, loaded as its own `verify_export.py` does."""

import argparse
import glob
import os
import subprocess
import sys
import tempfile

import numpy as np

from scripts.benchmark import timed_steps

# By the kind of the process.
_EXPORTS = {'client': 'final', 'client_low_latency': 'low_latency'}


def answers(kind, runtime, settings):
    """Yields after each answer of `serving_default`."""
    params, data = settings['params'], settings['data']
    (export_dir,) = glob.glob('{}/export/{}/*'.format(params['model_dir'], _EXPORTS[kind]))
    sys.path.insert(0, export_dir + '/assets.extra')
    import verify_export

    rows, columns, _ = params['image_shape']
    pixels = np.fromfile(data['files']['test'], np.uint8, params['batch_size'] * rows * columns)
    images = (pixels / 255.0).astype(np.float32).reshape(-1, rows, columns)
    with tempfile.TemporaryDirectory() as folder:
        if runtime == 'onnx':
            command = [sys.executable, '-m', 'tf2onnx.convert', '--saved-model', export_dir]
            command += ['--signature_def', 'serving_default', '--opset', '18']
            command += ['--output', folder + '/serving_default.onnx']
            subprocess.check_call(command, stdout=subprocess.DEVNULL)
        arguments = argparse.Namespace(export_dir=export_dir, onnx=folder)
        if (kind, runtime) == ('client_low_latency', 'tensorflow2'):
            # As trainer/serving/README.md says for one example at a time.
            os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0'
            import tensorflow as tf

            tf.config.threading.set_inter_op_parallelism_threads(1)
        answer = verify_export.RUNTIMES[runtime](arguments)['serving_default']
        while True:
            yield answer({'images': images})


if __name__ == '__main__':
    timed_steps.serve(answers)
