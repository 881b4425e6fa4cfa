"""What a model says of images, by a server or by an export in this process."""

import base64
import io
import os
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import numpy as np
import requests
import tensorflow as tf

from trainer.base import errors, files
from trainer.base.console import say
from trainer.base.errors import UserError, first_line
from trainer.base.image_files import NewImage
from trainer.serving import verify_export
from trainer.serving.thresholds import ROW_SCORES_NAME, Outputs
from trainer.settings.wording import LOSSES

BATCH = 100
_TIMEOUT_SECONDS = 60
_SCORES = dict.fromkeys((*LOSSES, 'quantile'), 1)
_RECONSTRUCTIONS = {**dict.fromkeys(LOSSES, 1), 'mean': 2, 'scale': 2, 'reconstruction': 3}
_EXPLANATIONS = {'excess_by_pixel': 3, 'reconstruction': 3}
# The outputs of each signature that is asked, and the axes that each has, at least.
_OUTPUTS: Dict[str, Dict[str, int]] = {
    'reconstruct_png': _RECONSTRUCTIONS,
    'score': _SCORES,
    'score_png': _SCORES,
    'explain': _EXPLANATIONS,
    'explain_png': {**_EXPLANATIONS, 'images': 3},
    'encode': {'mean': 2, 'scale': 2},
}
# Of a series.
_OF_READINGS = {'nats_by_reading': 3, 'excess_by_reading': 3}
# Those that came with thresholds.
_NEWER = ('score', 'score_png', 'explain', 'explain_png')

# What reading another server's answer ends in.
_NO_ANSWER = (KeyError, IndexError, TypeError, ValueError, OverflowError, AttributeError)

# Images as a signature takes them, encoded files or arrays.
Contents = Sequence[Any]


class Refused(UserError):
    """The model takes no such images."""


class NoSignature(UserError):
    """The model was exported without a signature."""


class Answer(NamedTuple):
    """What a model said of an image."""

    id: str
    outputs: Optional[Outputs] = None  # By name, without the axis of examples.
    error: Optional[str] = None  # Why there are no outputs, a sentence.


def _outputs(signature: str, known: Iterable[str]) -> Dict[str, int]:
    """What is wanted of a signature that has outputs of these names."""
    is_of_series = signature == 'explain' and _OF_READINGS.keys() <= set(known)
    return _OF_READINGS if is_of_series else _OUTPUTS[signature]


def _missing(place: str, signature: str) -> NoSignature:
    why = ''
    if signature in _NEWER:
        why = ', as it was exported without thresholds or by a version that knew none'
    return NoSignature(
        f'{place} has no signature {signature}{why}: export the model again, by '
        'python -m trainer.export --model_dir=FOLDER, without --signature.'
    )


def predict_by_rest(contents: Contents, signature: str, url: str) -> Outputs:
    """Asks a server of TensorFlow Serving's REST API for the outputs of a signature.

    Args:
      contents: encoded files, or arrays.

    Raises:
      UserError: it does not answer, or answers with an error; Refused where that is of the images.
    """
    instances = [
        {'b64': base64.b64encode(content).decode('ascii')}
        if isinstance(content, bytes)
        else content.tolist()
        for content in contents
    ]
    answer = _posted({'instances': instances}, signature, url)
    try:
        rows = answer['predictions']
        wanted = _outputs(signature, rows[0])
        outputs = {name: np.array([row[name] for row in rows], np.float32) for name in wanted}
        ranks = [outputs[name].ndim - minimum for name, minimum in wanted.items()]
        if len(rows) != len(contents) or min(ranks) < 0:
            raise ValueError('other shapes')
    except _NO_ANSWER as error:
        raise _other_answer(url, error) from error
    return outputs


def shape_by_rest(url: str) -> Tuple[int, ...]:
    """Returns the shape of what a model on a server takes, by one that it generates.

    Raises UserError as `predict_by_rest`.
    """
    answer = _posted({'inputs': {'count': 1, 'seed': 1}}, 'generate', url)
    try:
        found = answer['outputs']
        if isinstance(found, dict):
            (found,) = found.values()
        return np.array(found, np.float32).shape[1:]
    except _NO_ANSWER as error:
        raise _other_answer(url, error) from error


def _posted(body: Dict[str, Any], signature: str, url: str) -> Any:
    """What a server answers to a request of one signature, if that is no error."""
    body = dict(body, signature_name=signature)
    try:
        response = requests.post(url.rstrip('/') + ':predict', json=body, timeout=_TIMEOUT_SECONDS)
        answer = response.json()
    except (requests.RequestException, ValueError, RecursionError) as error:
        raise UserError(
            f'--url={url} does not answer as TensorFlow Serving does ({error}): give the URL of a '
            'model, as http://localhost:8501/v1/models/vae.'
        ) from error
    if isinstance(answer, dict) and 'error' in answer:
        reason = first_line(answer['error'])
        if 'signature' in reason.lower() and signature in reason:
            raise _missing(f'the model at --url={url}', signature)
        raise Refused(f'--url={url} answered: {reason}')
    return answer


def _other_answer(url: str, error: Exception) -> UserError:
    return UserError(
        f'--url={url} does not answer as an export of this trainer does '
        f'({type(error).__name__}: {first_line(error)}).'
    )


class Export:
    """An export in this process.

    Raises:
      UserError: it cannot be loaded.
    """

    def __init__(self, export_dir: str):
        self._session = tf.Session(graph=tf.Graph())
        self._flag = f'--export_dir={export_dir}'
        try:
            verify_export.import_ops(export_dir)
            with self._session.graph.as_default():
                model = tf.saved_model.load(self._session, [tf.saved_model.SERVING], export_dir)
            # A plain dict: a protobuf map would make up what is missing.
            self._signatures = dict(model.signature_def)
        except (OSError, RuntimeError, ValueError, KeyError, tf.errors.OpError) as error:
            raise UserError(
                f'{self._flag} cannot be loaded ({first_line(error)}): give the folder of an '
                'export, as runs/mnist-z32/export/final/<timestamp>.'
            ) from error

    def predict(self, contents: Contents, *signatures: str) -> Outputs:
        """Returns the outputs of signatures for encoded images, or arrays: computed together.

        Raises UserError where there is no such signature; Refused where it takes no such images.
        """
        as_fed = contents if isinstance(contents, np.ndarray) else list(contents)
        wanted, fed = {}, {}
        for name in signatures:
            if name not in self._signatures:
                raise _missing(self._flag, name)
            ends = self._signatures[name]
            fed.update({info.name: as_fed for info in ends.inputs.values()})
            for output in _outputs(name, ends.outputs):
                if output not in ends.outputs:
                    raise UserError(
                        f'{self._flag} is none of this trainer: its signature {name} has no '
                        f'output {output!r}.'
                    )
                wanted[output] = ends.outputs[output].name
        try:
            return self._session.run(wanted, fed)
        except tf.errors.InvalidArgumentError as error:
            raise Refused(first_line(error.message)) from error


Ask = Callable[[Contents], Outputs]


def asking(
    predict: Callable[..., Outputs], signatures: Sequence[str], optional: Sequence[str] = ()
) -> Ask:
    """Returns what asks for the outputs of several signatures.

    Of those that are `optional` it says once that the model has them not.
    """
    wanted = list(signatures)

    def ask(contents: Contents) -> Outputs:
        outputs: Outputs = {}
        for signature in tuple(wanted):
            try:
                outputs.update(predict(contents, signature))
            except NoSignature as error:
                if signature not in optional:
                    raise
                say(f'{error} Without it there are no quantiles.')
                wanted.remove(signature)
        return outputs

    return ask


def prepared(ask: Ask, make: Callable[[np.ndarray], Contents], flag: str) -> Ask:
    """Returns what asks about rows of an array, pixels `[n, ...]`, that `make` prepares first.

    It gives what the model saw as `images`, where that is an array. As all rows are alike, the
    refusal of some is one of the array that `flag` names.
    """

    def ask_prepared(contents: Contents) -> Outputs:
        fed = make(np.stack(contents))
        seen = {'images': fed} if isinstance(fed, np.ndarray) else {}
        try:
            return {**seen, **ask(fed)}
        except Refused as error:
            raise UserError(f'{flag}: {error}') from error

    return ask_prepared


def batches(
    images: Sequence[NewImage], numbers: Optional[Sequence[int]] = None
) -> Iterator[List[NewImage]]:
    """Yields the images of some numbers, None for all, in lists of BATCH."""
    wanted = range(len(images)) if numbers is None else numbers
    for at in range(0, len(wanted), BATCH):
        yield [images[number] for number in wanted[at : at + BATCH]]


def answers(
    images: Sequence[NewImage], ask: Ask, numbers: Optional[Sequence[int]] = None
) -> Iterator[Answer]:
    """Yields the answers to all images, or to those of some numbers; see `answers_to`."""
    for some in batches(images, numbers):
        yield from answers_to(some, ask)


def answers_to(images: Sequence[NewImage], ask: Ask) -> List[Answer]:
    """Reads images and asks about them; one that cannot be used does not keep the others back.

    Raises:
      UserError: the model does not answer, whatever the images.
    """
    found: List[Any] = [None] * len(images)
    readable, contents = [], []
    for number, image in enumerate(images):
        try:
            contents.append(image.read())
            readable.append(number)
        except UserError as error:
            found[number] = Answer(image.id, error=str(error))
        except (OSError, ValueError) as error:
            found[number] = Answer(image.id, error=f'{image.named}: {first_line(error)}')
    answered = _answered([images[number] for number in readable], contents, ask)
    for number, answer in zip(readable, answered):
        found[number] = answer
    return found


def _answered(images: List[NewImage], contents: List[Any], ask: Ask) -> List[Answer]:
    """Asks about all; where some are refused, about halves, until it is known which."""
    if not images:
        return []
    try:
        outputs = ask(contents)
    except Refused as error:
        if len(images) == 1:
            return [Answer(images[0].id, error=f'{images[0].named}: {error}')]
        half = len(images) // 2
        first = _answered(images[:half], contents[:half], ask)
        return first + _answered(images[half:], contents[half:], ask)
    rows = ({name: value[row] for name, value in outputs.items()} for row in range(len(images)))
    return [_answer(image, values) for image, values in zip(images, rows)]


def _answer(image: NewImage, outputs: Outputs) -> Answer:
    bad = sorted(name for name, value in outputs.items() if not np.all(np.isfinite(value)))
    if bad:
        error = f'{image.named}: the model answered NaN or infinity ({", ".join(bad)}).'
        return Answer(image.id, error=error)
    return Answer(image.id, outputs)


def settings(export_dir: str) -> Dict[str, Any]:
    """Returns what an export says of the images that it takes; {} of one that says nothing."""
    path = os.path.join(export_dir, 'assets.extra', 'settings.json')
    try:
        return files.read_json(path) or {}
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f'--export_dir={export_dir} cannot be read ({errors.reason(error)}): give the folder '
            'of an export, as runs/mnist-z32/export/final/<timestamp>.'
        ) from error


def row_scores(export_dir: str) -> Optional[np.ndarray]:
    """Returns the scores of the validation rows, float32 `[rows]`, sorted; None without them."""
    path = os.path.join(export_dir, 'assets.extra', ROW_SCORES_NAME)
    if not tf.gfile.Exists(path):
        return None
    try:
        with tf.gfile.GFile(path, 'rb') as f:
            scores = np.load(io.BytesIO(f.read()), allow_pickle=False)
        return np.sort(scores.reshape(-1).astype(np.float32))
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(
            f'{path} cannot be read ({first_line(error)}): export the model again, by '
            'python -m trainer.export --model_dir=FOLDER.'
        ) from error
