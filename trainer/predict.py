"""Scores and reconstructs image files with a served model or an export.

    ./scripts/predict --images=digits --export_dir=runs/mnist-z32/export/final/<timestamp>
    ./scripts/predict --images=a.png,b.png --url=http://localhost:8501/v1/models/vae

The files go to the signature `reconstruct_png` as they are.
"""

import base64
import functools
import os
import struct
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import requests
import tensorflow as tf
from absl import flags

from trainer import drawing, files, logs, path_flags
from trainer.errors import UserError

SIGNATURE = 'reconstruct_png'
_ENDINGS = ('.png', '.jpg', '.jpeg')
_BATCH = 100
_TIMEOUT_SECONDS = 60
# Sides of images that are sent to be decoded. A small file may claim to hold a billion pixels.
_MOST_ROWS = _MOST_COLUMNS = 8192
_SCORES = ('negative_elbo', 'reconstruction_loss', 'kl_divergence')
# What the signature gives, and the axes that it has, at least.
_OUTPUTS = dict(dict.fromkeys(_SCORES, 1), mean=2, scale=2, reconstruction=3)


class _Refused(UserError):
    """The model takes no such images."""


def image_paths(text: str) -> List[str]:
    """Returns the files that `--images` means: those it lists, or the images of a folder.

    Raises:
      UserError: there are none.
    """
    paths: List[str] = []
    for path in text.split(','):
        try:
            exists = tf.gfile.Exists(path)
        except tf.errors.OpError as error:
            raise UserError(f'--images={path} cannot be read ({error.message}).') from error
        if tf.gfile.IsDirectory(path):
            names = sorted(tf.gfile.ListDirectory(path))
            found = [name for name in names if name.lower().endswith(_ENDINGS)]
            if not found:
                raise UserError(f'--images={path} holds no file that ends in .png, .jpg or .jpeg.')
            paths += [os.path.join(path, name) for name in found]
        elif exists:
            paths.append(path)
        else:
            raise UserError(f'--images={path}: there is no such file or folder.')
    return paths


def read_image(path: str) -> bytes:
    """Returns the content of an image file.

    Raises:
      UserError: it cannot be read, or is far too large by its header.
    """
    try:
        with tf.gfile.GFile(path, 'rb') as f:
            content = f.read()
    except tf.errors.OpError as error:
        raise UserError(f'--images={path} cannot be read ({error.message}).') from error
    rows, columns = _claimed_size(content)
    if rows > _MOST_ROWS or columns > _MOST_COLUMNS:
        raise UserError(
            f'--images={path} holds {columns:,} x {rows:,} pixels by its header: give images of '
            "the model's size."
        )
    return content


def _claimed_size(content: bytes) -> Tuple[int, int]:
    """Rows and columns of a PNG, JPEG or GIF file by its header; zeros of what is none."""
    if content.startswith(b'\x89PNG') and len(content) >= 24:
        columns, rows = struct.unpack('>II', content[16:24])
        return rows, columns
    if content.startswith(b'GIF8') and len(content) >= 10:
        columns, rows = struct.unpack('<HH', content[6:10])
        return rows, columns
    at = 2
    while content.startswith(b'\xff\xd8') and at + 9 <= len(content):
        marker, length = struct.unpack('>xBH', content[at : at + 4])
        # A start of frame; among them are three that are none.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            rows, columns = struct.unpack('>HH', content[at + 5 : at + 9])
            return rows, columns
        at += 2 + length
    return 0, 0


def predict_by_rest(contents: List[bytes], url: str) -> Dict[str, np.ndarray]:
    """Asks a server of TensorFlow Serving's REST API for the outputs, by name.

    Raises:
      UserError: it does not answer, or answers with an error.
    """
    encoded = [{'b64': base64.b64encode(content).decode('ascii')} for content in contents]
    body = {'signature_name': SIGNATURE, 'instances': encoded}
    try:
        response = requests.post(url.rstrip('/') + ':predict', json=body, timeout=_TIMEOUT_SECONDS)
        answer = response.json()
    except (requests.RequestException, ValueError, RecursionError) as error:
        raise UserError(
            f'--url={url} does not answer as TensorFlow Serving does ({error}): give the URL of a '
            'model, as http://localhost:8501/v1/models/vae.'
        ) from error
    if isinstance(answer, dict) and 'error' in answer:
        raise _Refused('--url={} answered: {}'.format(url, _first_line(answer['error'])))
    try:
        rows = answer['predictions']
        outputs = {name: np.array([row[name] for row in rows], np.float32) for name in _OUTPUTS}
        ranks = [outputs[name].ndim - minimum for name, minimum in _OUTPUTS.items()]
        if len(rows) != len(contents) or min(ranks) < 0:
            raise ValueError('other shapes')
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            '--url={} does not answer as an export of this trainer does ({}: {}).'.format(
                url, type(error).__name__, _first_line(error)
            )
        ) from error
    return outputs


class Export:
    """An export in this process.

    Raises:
      UserError: it cannot be loaded or has no signature for image files.
    """

    def __init__(self, export_dir: str):
        self._session = tf.Session(graph=tf.Graph())
        try:
            with self._session.graph.as_default():
                model = tf.saved_model.load(self._session, [tf.saved_model.SERVING], export_dir)
            # A plain dict: a protobuf map would make up what is missing.
            self._signature = dict(model.signature_def)[SIGNATURE]
        except (OSError, RuntimeError, ValueError, KeyError, tf.errors.OpError) as error:
            raise UserError(
                f'--export_dir={export_dir} cannot be loaded ({_first_line(error)}): give the '
                'folder of an export, as runs/mnist-z32/export/final/<timestamp>.'
            ) from error

    def predict(self, contents: List[bytes]) -> Dict[str, np.ndarray]:
        """Returns the outputs for encoded images, by name."""
        outputs = {name: info.name for name, info in self._signature.outputs.items()}
        feed = {self._signature.inputs['image_bytes'].name: contents}
        try:
            return self._session.run(outputs, feed)
        except tf.errors.InvalidArgumentError as error:
            raise _Refused(_first_line(error.message)) from error


def _first_line(error: Any) -> str:
    return str(error).strip().split('\n')[0]


def _define_flags() -> None:
    path_flags.define(
        'images',
        None,
        'PNG or JPEG files, with commas between them, or a folder.',
        several=True,
        required=True,
    )
    flags.DEFINE_string('url', None, 'Model on a server, as http://localhost:8501/v1/models/vae.')
    path_flags.define('export_dir', None, 'Folder of an export, in place of a server.')
    path_flags.define(
        'output', None, 'Folder for results.json and <name>-reconstruction.png of each image.'
    )


def main(argv: List[str]) -> None:
    """Reads the flags, predicts, prints one line an image; saves where `--output` says."""
    del argv
    values = flags.FLAGS
    if bool(values.url) == bool(values.export_dir):
        raise UserError('either --url or --export_dir says where the model is; give one of them.')
    paths = image_paths(values.images)
    contents = [read_image(path) for path in paths]
    if values.export_dir:
        predict: Callable[[List[bytes]], Dict[str, np.ndarray]] = Export(values.export_dir).predict
    else:
        predict = functools.partial(predict_by_rest, url=values.url)
    parts = [
        _predict_files(predict, paths[at : at + _BATCH], contents[at : at + _BATCH])
        for at in range(0, len(contents), _BATCH)
    ]
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    print('{:>13} = {:>14} + {:>4}  nats'.format('negative ELBO', 'reconstruction', 'KL'))
    for number, path in enumerate(paths):
        total, loss, divergence = [float(outputs[name][number]) for name in _SCORES]
        print('{:13.2f} = {:14.2f} + {:4.2f}  {}'.format(total, loss, divergence, path))
    if values.output:
        save(values.output, paths, outputs)


def _predict_files(
    predict: Callable[[List[bytes]], Dict[str, np.ndarray]], paths: List[str], contents: List[bytes]
) -> Dict[str, np.ndarray]:
    """Predicts for a batch.

    Raises:
      UserError: names the file that the model does not take.
    """
    try:
        return predict(contents)
    except _Refused as error:
        if len(paths) > 1:
            for path, content in zip(paths, contents):
                _predict_files(predict, [path], [content])
        raise UserError(f'--images={paths[0]}: {error}') from error


def save(folder: str, paths: List[str], outputs: Dict[str, np.ndarray]) -> None:
    """Writes the reconstructions as PNG files and everything else to `results.json`."""
    images = outputs['reconstruction']
    images = images.reshape(images.shape[:3] + (-1,))
    encoded = drawing.encode_png(np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8))
    results = []
    for number, path in enumerate(paths):
        name = os.path.splitext(os.path.basename(path))[0]
        target = os.path.join(folder, '{}-reconstruction.png'.format(name))
        files.write_output(target, encoded[number])
        results.append({'file': path, 'reconstruction_file': target})
        for key in _SCORES + ('mean', 'scale'):
            results[-1][key] = outputs[key][number].tolist()
    path = os.path.join(folder, 'results.json')
    print(files.write_output(path, files.json_bytes(results)))


if __name__ == '__main__':
    _define_flags()
    logs.run(main)
