"""Scores and reconstructions of image files, by a server or by an export in this process."""

import base64
import os
from typing import Callable, Dict, List, NamedTuple, Optional

import numpy as np
import requests
import tensorflow as tf

from trainer.base import files, image_files, image_pixels
from trainer.base.console import say
from trainer.base.errors import UserError, first_line

SIGNATURE = 'reconstruct_png'
BATCH = 100
_TIMEOUT_SECONDS = 60
_SCORES = ('negative_elbo', 'reconstruction_loss', 'kl_divergence')
# What the signature gives, and the axes that it has, at least.
_OUTPUTS = dict(dict.fromkeys(_SCORES, 1), mean=2, scale=2, reconstruction=3)


class Refused(UserError):
    """The model takes no such images."""


class Answer(NamedTuple):
    """What became of a file."""

    path: str
    outputs: Optional[Dict[str, np.ndarray]] = None  # By name, without the axis of examples.
    error: Optional[str] = None  # Why there are no outputs, a sentence.


Predict = Callable[[List[bytes]], Dict[str, np.ndarray]]


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
        raise Refused('--url={} answered: {}'.format(url, first_line(answer['error'])))
    try:
        rows = answer['predictions']
        outputs = {name: np.array([row[name] for row in rows], np.float32) for name in _OUTPUTS}
        ranks = [outputs[name].ndim - minimum for name, minimum in _OUTPUTS.items()]
        if len(rows) != len(contents) or min(ranks) < 0:
            raise ValueError('other shapes')
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f'--url={url} does not answer as an export of this trainer does '
            f'({type(error).__name__}: {first_line(error)}).'
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
                f'--export_dir={export_dir} cannot be loaded ({first_line(error)}): give the '
                'folder of an export, as runs/mnist-z32/export/final/<timestamp>.'
            ) from error

    def predict(self, contents: List[bytes]) -> Dict[str, np.ndarray]:
        """Returns the outputs for encoded images, by name."""
        outputs = {name: info.name for name, info in self._signature.outputs.items()}
        feed = {self._signature.inputs['image_bytes'].name: contents}
        try:
            return self._session.run(outputs, feed)
        except tf.errors.InvalidArgumentError as error:
            raise Refused(first_line(error.message)) from error


def answers_to(paths: List[str], predict: Predict) -> List[Answer]:
    """Reads files and predicts for them; one that cannot be used does not keep the others back.

    Raises:
      UserError: the model does not answer, whatever the files.
    """
    answers = [Answer(path) for path in paths]
    readable, contents = [], []
    for number, path in enumerate(paths):
        try:
            contents.append(image_pixels.as_png(image_files.read(path, f'--images={path}')))
            readable.append(number)
        except UserError as error:
            answers[number] = Answer(path, error=str(error))
        except (OSError, ValueError) as error:
            answers[number] = Answer(path, error=f'--images={path}: {first_line(error)}')
    try:
        outputs = predict(contents) if contents else {}
    except Refused as error:
        for number in readable:
            path = paths[number]
            if len(contents) == 1:
                answers[number] = Answer(path, error=f'--images={path}: {error}')
            else:
                (answers[number],) = answers_to([path], predict)
        return answers
    for row, number in enumerate(readable):
        values = {name: value[row] for name, value in outputs.items()}
        answers[number] = _answer(paths[number], values)
    return answers


def _answer(path: str, outputs: Dict[str, np.ndarray]) -> Answer:
    bad = sorted(name for name, value in outputs.items() if not np.all(np.isfinite(value)))
    if bad:
        names = ', '.join(bad)
        return Answer(path, error=f'--images={path}: the model answered NaN or infinity ({names}).')
    return Answer(path, outputs)


def show(answers: List[Answer]) -> None:
    """Prints the scores, a line for each file that has some."""
    print('{:>13} = {:>14} + {:>4}  nats'.format('negative ELBO', 'reconstruction', 'KL'))
    for path, outputs, _ in answers:
        if outputs:
            total, loss, divergence = [float(outputs[name]) for name in _SCORES]
            print('{:13.2f} = {:14.2f} + {:4.2f}  {}'.format(total, loss, divergence, path))


def name_the_bad(answers: List[Answer]) -> None:
    errors = [answer.error for answer in answers if answer.error]
    if len(errors) == 1:
        raise UserError(errors[0])
    for error in errors:
        say(error)
    if errors:
        counts = f'{len(errors):,} of {len(answers):,}'
        raise UserError(f'--images: {counts} files have no scores, for the reasons above.')


def save(folder: str, answers: List[Answer]) -> str:
    """Writes the reconstructions as PNG files, all else to `results.json`; returns its path.

    There, what a file without scores lacks is null, and `error` says why.
    """
    targets = _reconstruction_files(folder, [answer.path for answer in answers])
    good = [(target, one.outputs) for target, one in zip(targets, answers) if one.outputs]
    if good:
        images = np.stack([outputs['reconstruction'] for _, outputs in good])
        images = images.reshape(images.shape[:3] + (-1,))
        encoded = image_files.encode_png(np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8))
        for (target, _), content in zip(good, encoded):
            files.write_output(target, content)
    results = []
    for target, (path, outputs, error) in zip(targets, answers):
        written = target if outputs else None
        result = {'file': path, 'reconstruction_file': written, 'error': error}
        for key in _SCORES + ('mean', 'scale'):
            result[key] = outputs[key].tolist() if outputs else None
        results.append(result)
    return files.write_output(os.path.join(folder, 'results.json'), files.json_bytes(results))


def _reconstruction_files(folder: str, paths: List[str]) -> List[str]:
    """A file for each image, named after it; a number tells those of one name apart."""
    names: List[str] = []
    taken = set()
    for path in paths:
        stem = name = os.path.splitext(os.path.basename(path))[0]
        number = 1
        while name.lower() in taken:  # Some file systems take capitals for small letters.
            number += 1
            name = f'{stem}-{number}'
        taken.add(name.lower())
        names.append(name)
    return [os.path.join(folder, f'{name}-reconstruction.png') for name in names]
