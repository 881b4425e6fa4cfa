"""Scores of new images: asked of a model, judged, written and told."""

import collections
import contextlib
import functools
import itertools
import os
from typing import (
    Any,
    Callable,
    Deque,
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

from trainer.base import cores
from trainer.base.console import ImageProgress
from trainer.base.errors import UserError
from trainer.checkpoints import chosen
from trainer.data import new_images, prepare
from trainer.data.new_images import Array, NewImages
from trainer.evaluation.scores import BOUND
from trainer.scoring import explanation, file_names, model_input, score_files, score_report
from trainer.scoring.bounds import Bounds
from trainer.scoring.request import Request
from trainer.scoring.score_files import Latents
from trainer.scoring.score_report import Seen
from trainer.serving import client, saved_model, thresholds
from trainer.serving.client import Answer, Ask, Export, Outputs
from trainer.serving.thresholds import Judge
from trainer.settings.table import HParams

_EXPLANATION = '-explanation.png'


class _Model(NamedTuple):
    """What answers, and what is known of its validation images."""

    answers: Iterable[Answer]  # One for each image, in order.
    judge: Judge
    among: str  # What scores are quantiles among.
    explain: Optional[Ask] = None


def run(request: Request) -> None:
    """Scores images and prints; saves where `output` and `latents` say.

    Raises:
      UserError: the model does not answer, or images have no scores; those of the others are
        written first.
    """
    images = (
        new_images.listed(request.images)
        if request.images
        else new_images.of_source(request.source)
    )
    labels = images.labels() if request.latents else None
    model = _sampled(request, images) if request.samples else _served(request, images)
    seen, latents = Seen(model.judge), Latents() if request.latents else None
    kept: Optional[List[Answer]] = [] if request.images else None
    pictures: Dict[str, str] = {}
    written = [os.path.join(request.output, score_files.SCORES)] if request.output else []
    failure = _collect(request.output, images, model, seen, latents, kept)
    if model.explain and not failure:
        numbers = range(len(images)) if request.images else [n for n, _ in seen.strangest()]
        try:
            pictures = _write_explanations(request, images, numbers, model.explain)
        except UserError as error:
            failure = error
    # All files before what is printed, whose reader may be gone.
    if kept is not None and request.output and not request.samples:
        written.append(score_files.save_results(request.output, kept, model.judge, pictures))
    if latents:
        written.append(latents.write(request.latents, labels))
    if pictures:
        written.append(os.path.join(request.output, f'*{_EXPLANATION} of {len(pictures):,} images'))
    if kept is None:
        seen.show()
    else:
        score_report.show(kept, model.judge)
    print(*written, sep='\n')
    if failure:
        raise failure
    seen.name_the_bad('--images' if request.images else f'--source={request.source}')


def _served(request: Request, images: NewImages) -> _Model:
    """An export or a server, asked for what the flags want."""
    among, num_validation = "the model's validation images", None
    settings: Dict[str, Any] = {}
    if request.export_dir:
        predict: Callable[..., Outputs] = Export(request.export_dir).predict
        settings = client.settings(request.export_dir)
        table = thresholds.of_export(request.export_dir)
        if table:
            num_validation = table['images']
            among = f'{num_validation:,} validation images of {settings.get("data")}'
    else:
        predict = functools.partial(client.predict_by_rest, url=request.url)
    judge = Judge(thresholds.SCORE, thresholds.of_flag(request.threshold, num_validation))
    suffix = '_png'
    if isinstance(images, Array):
        make, suffix = _preparation(images, settings)
    signatures, optional = ['score' + suffix], []
    if request.images:
        signatures, optional = ['reconstruct_png', 'score_png'], ['score_png']
    elif request.latents:
        signatures.append('reconstruct_png' if suffix else 'encode')
    ask = client.asking(predict, signatures, optional)
    explain = client.asking(predict, ['explain' + suffix])
    if isinstance(images, Array):
        ask, explain = [client.prepared(one, make, images.flag) for one in (ask, explain)]
    return _Model(client.answers(images, ask), judge, among, explain if request.explain else None)


def _preparation(images: Array, settings: Dict[str, Any]) -> Tuple[model_input.Prepare, str]:
    """What prepares an array for a model, and how the signatures end that take what it makes."""
    facts = images.flag, images.shape, images.dtype, images.is_binary
    if settings:
        return model_input.of_array(*facts, settings), ''
    is_encoded = images.dtype == 'uint8'
    return model_input.of_array_for_server(*facts), '_png' if is_encoded else ''


def _sampled(request: Request, images: NewImages) -> _Model:
    """The model of a run, whose scores are importance-weighted bounds."""
    params = chosen.trained_model(request.model_dir, request.data_dir)
    if params.is_series:
        raise UserError('--samples are of images, and the model takes readings: leave it away.')
    checkpoint_path = chosen.find_checkpoint(request.model_dir, request.checkpoint or 'last')
    decode: Optional[Ask] = None
    if isinstance(images, Array):
        make, _ = _preparation(images, saved_model.settings(params))
        decode = client.prepared(lambda fed: {}, make, images.flag)
    # In a process of its own: the first session of a process fixes the size of its thread pools.
    data = prepare.of_run(params, separate_process=True)
    count = min(data.num_examples['validation'], thresholds.MOST_IMAGES)
    judge = Judge(BOUND, thresholds.of_flag(request.threshold, count))
    bounds = Bounds(checkpoint_path, request.samples, cores.available(), params)
    of_validation = np.sort(bounds.of_validation(data, count))
    decode = decode or model_input.of_files(params)
    among = f'{count:,} validation images of {params.data_name}, with {request.samples:,} samples'
    answers = _bounds(images, decode, bounds, of_validation, params)
    return _Model(answers, judge, among)


def _bounds(
    images: NewImages, decode: Ask, bounds: Bounds, of_validation: np.ndarray, params: HParams
) -> Iterator[Answer]:
    """Yields the bound of each image, and its quantile."""
    pending: Deque[Answer] = collections.deque()  # Decoded, in order.

    def batches() -> Iterator[np.ndarray]:
        for some in client.batches(images):
            decoded = client.answers_to(some, decode)
            found = [answer.outputs['images'] for answer in decoded if answer.outputs]
            pending.extend(answer._replace(outputs=None) for answer in decoded)
            if found:
                yield np.stack(found).reshape(-1, params.rows, params.row_features)

    for outputs in bounds.of_batches(batches):
        while pending[0].error:
            yield pending.popleft()
        outputs['quantile'] = thresholds.quantiles(outputs[BOUND], of_validation)
        answer = pending.popleft()
        if np.isfinite(outputs[BOUND]):
            yield answer._replace(outputs=outputs)
        else:
            yield answer._replace(error=f'image {answer.id}: the model gives NaN or infinity.')
    yield from pending


def _collect(
    folder: Optional[str],
    images: NewImages,
    model: _Model,
    seen: Seen,
    latents: Optional[Latents],
    kept: Optional[List[Answer]],
) -> Optional[UserError]:
    """Takes in all answers; returns why they ended early, as where a server has gone."""
    answers = iter(model.answers)
    first = next(answers)  # Before any file is touched.
    threshold = model.judge.threshold or 'not known'
    comment = f'nats, higher is stranger; quantile among {model.among}; is_unusual: {threshold}'
    with contextlib.ExitStack() as stack:
        progress = None if kept is not None else ImageProgress(len(images), 0)
        if progress:
            stack.callback(progress.close)
        table = None
        if folder:
            table = stack.enter_context(score_files.scores_file(folder, comment, model.judge))
        try:
            for number, answer in enumerate(itertools.chain([first], answers)):
                seen.add(number, answer)
                if table:
                    table.add(answer)
                if latents:
                    latents.add(number, answer)
                if kept is not None:
                    kept.append(answer)
                if progress:
                    progress.show(number + 1, f'{seen.unusual:,} unusual', 1, 'images')
        except UserError as error:
            return error
    return None


def _write_explanations(
    request: Request, images: NewImages, numbers: Sequence[int], explain: Ask
) -> Dict[str, str]:
    """Draws some images' explanations; returns the paths of the pictures by the images' ids."""
    answers = list(client.answers(images, explain, numbers))
    stem = file_names.stem_of_file if request.images else file_names.stem_of_id
    names = file_names.told_apart(stem(answer.id) for answer in answers)
    paths = [os.path.join(request.output, name + _EXPLANATION) for name in names]
    good = [(path, answer) for path, answer in zip(paths, answers) if answer.outputs]
    explanation.write([path for path, _ in good], [answer.outputs or {} for _, answer in good])
    return {answer.id: path for path, answer in good}
