"""The contestants of the benchmark that answer requests with an export in other runtimes.

    python -m scripts.benchmark.in_other_runtimes tensorflow2|onnx|openvino SETTINGS_AS_JSON

They load the export as the program that it brings along does, `assets.extra/verify_export.py`.
"""

import argparse
import contextlib
import glob
import importlib.util
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

from scripts.benchmark.timed_steps import serve_steps


def main():
    runtime, settings = sys.argv[1], json.loads(sys.argv[2])
    params, data = settings['params'], settings['data']
    (export_dir,) = glob.glob(os.path.join(params['model_dir'], 'export', 'final', '*'))
    program = os.path.join(export_dir, 'assets.extra', 'verify_export.py')
    spec = importlib.util.spec_from_file_location('verify_export', program)
    verify_export = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(verify_export)
    rows, columns, _ = params['image_shape']
    pixels = np.fromfile(data['files']['test'], np.uint8, params['batch_size'] * rows * columns)
    images = (pixels / 255.0).astype(np.float32).reshape(-1, rows, columns)
    with contextlib.ExitStack() as stack:
        arguments = argparse.Namespace(export_dir=export_dir, onnx=None)
        if runtime == 'onnx':
            arguments.onnx = stack.enter_context(tempfile.TemporaryDirectory())
            convert(export_dir, os.path.join(arguments.onnx, 'serving_default.onnx'))
        answer = verify_export.RUNTIMES[runtime](arguments)['serving_default']
        serve_steps(lambda: answer({'images': images}))


def convert(export_dir, path):
    """Writes the ONNX file of `serving_default`."""
    command = [sys.executable, '-m', 'tf2onnx.convert', '--saved-model', export_dir]
    command += ['--signature_def', 'serving_default', '--opset', '18', '--output', path]
    subprocess.check_call(command, stdout=subprocess.DEVNULL)


if __name__ == '__main__':
    main()
