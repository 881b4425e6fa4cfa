"""Scores and reconstructs image files with a served model or an export.

    ./scripts/predict --images=digits --export_dir=runs/mnist-z32/export/final/<timestamp>
    ./scripts/predict --images=a.png,b.png --url=http://localhost:8501/v1/models/vae

The files go to the signature `reconstruct_png` as they are.
"""

import base64
import functools
import os
from typing import Any, Callable, Dict, List

import numpy as np
import requests
import tensorflow as tf
from absl import flags

from trainer import drawing, files, logs
from trainer.errors import UserError

SIGNATURE = 'reconstruct_png'
_ENDINGS = ('.png', '.jpg', '.jpeg')
_BATCH = 100
_TIMEOUT_SECONDS = 60
_SCORES = ('negative_elbo', 'reconstruction_loss', 'kl_divergence')


def image_paths(text: str) -> List[str]:
    """Returns the files that `--images` means: those it lists, or the images of a folder.

    Raises:
      UserError: there are none.
    """
    paths: List[str] = []
    for path in text.split(','):
        if tf.gfile.IsDirectory(path):
            names = sorted(tf.gfile.ListDirectory(path))
            found = [name for name in names if name.lower().endswith(_ENDINGS)]
            if not found:
                raise UserError(f'--images={path} holds no file that ends in .png, .jpg or .jpeg.')
            paths += [os.path.join(path, name) for name in found]
        elif tf.gfile.Exists(path):
            paths.append(path)
        else:
            raise UserError(f'--images={path}: there is no such file or folder.')
    return paths


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
    except (requests.RequestException, ValueError) as error:
        raise UserError(
            f'--url={url} does not answer as TensorFlow Serving does ({error}): give the URL of a '
            'model, as http://localhost:8501/v1/models/vae.'
        ) from error
    if 'predictions' not in answer:
        raise UserError('--url={} answered: {}'.format(url, _first_line(answer.get('error'))))
    rows = answer['predictions']
    return {name: np.array([row[name] for row in rows], np.float32) for name in rows[0]}


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
            self._signature = model.signature_def[SIGNATURE]
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
            raise UserError('--images: {}'.format(_first_line(error.message))) from error


def _first_line(error: Any) -> str:
    return str(error).strip().split('\n')[0]


def _define_flags() -> None:
    flags.DEFINE_string(
        'images', None, 'PNG or JPEG files, with commas between them, or a folder.', required=True
    )
    flags.DEFINE_string('url', None, 'Model on a server, as http://localhost:8501/v1/models/vae.')
    flags.DEFINE_string('export_dir', None, 'Folder of an export, in place of a server.')
    flags.DEFINE_string(
        'output', None, 'Folder for results.json and <name>-reconstruction.png of each image.'
    )


def main(argv: List[str]) -> None:
    """Reads the flags, predicts, prints one line an image; saves where `--output` says."""
    del argv
    values = flags.FLAGS
    if bool(values.url) == bool(values.export_dir):
        raise UserError('either --url or --export_dir says where the model is; give one of them.')
    paths = image_paths(values.images)
    contents = []
    for path in paths:
        with tf.gfile.GFile(path, 'rb') as f:
            contents.append(f.read())
    if values.export_dir:
        predict: Callable[[List[bytes]], Dict[str, np.ndarray]] = Export(values.export_dir).predict
    else:
        predict = functools.partial(predict_by_rest, url=values.url)
    parts = [predict(contents[at : at + _BATCH]) for at in range(0, len(contents), _BATCH)]
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    print('{:>13} = {:>14} + {:>4}  nats'.format('negative ELBO', 'reconstruction', 'KL'))
    for number, path in enumerate(paths):
        total, loss, divergence = [float(outputs[name][number]) for name in _SCORES]
        print('{:13.2f} = {:14.2f} + {:4.2f}  {}'.format(total, loss, divergence, path))
    if values.output:
        save(values.output, paths, outputs)


def save(folder: str, paths: List[str], outputs: Dict[str, np.ndarray]) -> None:
    """Writes the reconstructions as PNG files and everything else to `results.json`."""
    images = outputs['reconstruction']
    images = images.reshape(images.shape[:3] + (-1,))
    encoded = drawing.encode_png(np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8))
    results = []
    for number, path in enumerate(paths):
        name = os.path.splitext(os.path.basename(path))[0]
        target = os.path.join(folder, '{}-reconstruction.png'.format(name))
        files.write_bytes(target, encoded[number])
        results.append({'file': path, 'reconstruction_file': target})
        for key in _SCORES + ('mean', 'scale'):
            results[-1][key] = outputs[key][number].tolist()
    print(files.write_json(os.path.join(folder, 'results.json'), results))


if __name__ == '__main__':
    _define_flags()
    logs.run(main)
