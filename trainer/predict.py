"""Scores new images with a model: negative ELBOs, quantiles, which images are unusual, and where.

    ./scripts/predict --source=folder --export_dir=runs/mnist-z32/export/final/<timestamp> \\
        --output=predicted --explain
    ./scripts/predict --images=a.png,b.png --url=http://localhost:8501/v1/models/vae

`--output` gets scores.csv. Of --images it gets reconstructions and results.json too, and a line an
image is printed; of a --source a summary is. Files go to the model as they are, BMP and GIF as
PNG: a model of binary images takes levels of 128 and more as 1; transparent pixels are refused, or
put on white where the model is of a source of your own; EXIF orientation is not read. An image
without scores is named at the end, the code is then 1, and the others are kept.
"""

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
from absl import flags

from trainer.base import cores, files, image_files, path_flags, program
from trainer.base.console import ImageProgress, say
from trainer.base.errors import UserError
from trainer.checkpoints import chosen
from trainer.data import new_images, prepare
from trainer.data.new_images import Array, NewImages
from trainer.evaluation import new_bounds
from trainer.evaluation.new_bounds import Bounds
from trainer.serving import (
    client,
    explanation,
    model_input,
    saved_model,
    score_files,
    score_report,
    thresholds,
)
from trainer.serving.client import Answer, Ask, Export, Outputs
from trainer.serving.score_files import Judge, Latents
from trainer.serving.score_report import Seen
from trainer.serving.thresholds import Threshold
from trainer.settings import command_line
from trainer.settings.table import HParams


def define_flags() -> None:
    """Defines the flags."""
    path_flags.define(
        'images',
        None,
        f'Image files ({", ".join(image_files.ENDINGS)}), with commas between them, or a folder. A '
        'model of binary images takes levels of 128 and more as 1.',
        several=True,
    )
    path_flags.define(
        'source',
        None,
        'In place of --images, many: a folder of image files in any depth, or a .npy or .npz file '
        'of uint8, or of floats in [0, 1]; of a .npz x_test, or its one array.',
    )
    path_flags.define('export_dir', None, 'Folder of an export.')
    flags.DEFINE_string('url', None, 'Model on a server, as http://localhost:8501/v1/models/vae.')
    path_flags.define('model_dir', None, 'Folder of a run of trainer.task, for --samples.')
    path_flags.define('checkpoint', None, 'For --model_dir: last, best or a prefix. Default: last.')
    command_line.define_flags(['data_dir'])
    flags.adopt_module_key_flags(command_line)
    flags.DEFINE_integer(
        'samples',
        None,
        'Score by the importance-weighted bound with so many samples, and the validation images '
        'too; takes --model_dir.',
        lower_bound=1,
        upper_bound=10**9,
    )
    flags.DEFINE_string(
        'threshold',
        None,
        'What is unusual: a quantile of the validation scores from 0.5 to 0.999, or a score in '
        f'nats, as 120 or 0.7nats. Default: {thresholds.DEFAULT}.',
    )
    path_flags.define(
        'output',
        None,
        'Folder for scores.csv; of --images for results.json and <name>-reconstruction.png too; a '
        'number tells images of one name apart, and results.json says whose each is.',
    )
    flags.DEFINE_bool(
        'explain',
        False,
        'Also writes <name>-explanation.png: image, reconstruction and where it is strange; of '
        f'a --source for the {score_report.EXPLAINED} strangest.',
    )
    path_flags.define('latents', None, '.npz or .csv file for the posteriors of the images.')


_EXPLANATION = '-explanation.png'


class _Model(NamedTuple):
    """What answers, and what is known of its validation images."""

    answers: Iterable[Answer]  # One for each image, in order.
    judge: Judge
    among: str  # What scores are quantiles among.
    explain: Optional[Ask] = None


def main(argv: List[str]) -> None:
    """Reads the flags, scores, prints; saves where `--output` and `--latents` say."""
    del argv
    values = flags.FLAGS
    _check(values)
    images = (
        new_images.listed(values.images) if values.images else new_images.of_source(values.source)
    )
    labels = images.labels() if values.latents else None
    model = _sampled(values, images) if values.samples else _served(values, images)
    seen, latents = Seen(model.judge), Latents() if values.latents else None
    kept: Optional[List[Answer]] = [] if values.images else None
    pictures: Dict[str, str] = {}
    written = [os.path.join(values.output, score_files.SCORES)] if values.output else []
    failure = _collect(values.output, images, model, seen, latents, kept)
    if model.explain and not failure:
        numbers = range(len(images)) if values.images else [n for n, _ in seen.strangest()]
        try:
            pictures = _write_explanations(values, images, numbers, model.explain)
        except UserError as error:
            failure = error
    # All files before what is printed, whose reader may be gone.
    if kept is not None and values.output and not values.samples:
        written.append(score_files.save_results(values.output, kept, model.judge, pictures))
    if latents:
        written.append(latents.write(values.latents, labels))
    if pictures:
        written.append(os.path.join(values.output, f'*{_EXPLANATION} of {len(pictures):,} images'))
    if kept is None:
        seen.show()
    else:
        score_report.show(kept, model.judge)
    print(*written, sep='\n')
    if failure:
        raise failure
    seen.name_the_bad('--images' if values.images else f'--source={values.source}')


def _check(values: Any) -> None:
    """Refuses flags that do not go together, or name what cannot be written."""
    if bool(values.images) == bool(values.source):
        raise UserError('either --images or --source says which images; give one of them.')
    if [bool(values.export_dir), bool(values.url), bool(values.model_dir)].count(True) != 1:
        raise UserError(
            '--export_dir, --url or, for --samples, --model_dir says where the model is; give one '
            'of them.'
        )
    if bool(values.samples) != bool(values.model_dir):
        raise UserError(
            '--samples and --model_dir go together, as an export gives no samples: give both, or '
            '--export_dir or --url alone.'
        )
    if (values.checkpoint or values.data_dir) and not values.model_dir:
        raise UserError('--checkpoint and --data_dir are of a --model_dir: leave them away.')
    if values.samples and (values.explain or values.latents):
        raise UserError('--explain and --latents do not go with --samples: leave that away.')
    if values.explain and not values.output:
        raise UserError('--explain needs --output=FOLDER for its pictures.')
    if values.latents and not values.latents.endswith(('.npz', '.csv')):
        raise UserError(f'--latents={values.latents} must end in .npz or .csv.')
    if values.threshold is not None:
        thresholds.parsed(values.threshold)
    if values.output:
        files.check_folder('--output', values.output)
    if values.latents:
        files.check_output('--latents', values.latents)


def _threshold(text: Optional[str], num_validation: Optional[int]) -> Optional[Threshold]:
    """What `--threshold` says; by default None, and a word, where too few scores tell."""
    if text is not None:
        return thresholds.parsed(text, num_validation)
    try:
        return thresholds.parsed(str(thresholds.DEFAULT), num_validation)
    except UserError as error:
        say(f'{error} Until then nothing is said to be unusual.')
        return None


def _served(values: Any, images: NewImages) -> _Model:
    """An export or a server, asked for what the flags want."""
    among, num_validation = "the model's validation images", None
    settings: Dict[str, Any] = {}
    if values.export_dir:
        predict: Callable[..., Outputs] = Export(values.export_dir).predict
        settings = client.settings(values.export_dir)
        table = thresholds.of_export(values.export_dir)
        if table:
            num_validation = table['images']
            among = f'{num_validation:,} validation images of {settings.get("data")}'
    else:
        predict = functools.partial(client.predict_by_rest, url=values.url)
    judge = Judge(thresholds.SCORE, _threshold(values.threshold, num_validation))
    suffix = '_png'
    if isinstance(images, Array):
        make, suffix = _preparation(images, settings)
    signatures, optional = ['score' + suffix], []
    if values.images:
        signatures, optional = ['reconstruct_png', 'score_png'], ['score_png']
    elif values.latents:
        signatures.append('reconstruct_png' if suffix else 'encode')
    ask = client.asking(predict, signatures, optional)
    explain = client.asking(predict, ['explain' + suffix])
    if isinstance(images, Array):
        ask, explain = [client.prepared(one, make, images.flag) for one in (ask, explain)]
    return _Model(client.answers(images, ask), judge, among, explain if values.explain else None)


def _preparation(images: Array, settings: Dict[str, Any]) -> Tuple[model_input.Prepare, str]:
    """What prepares an array for a model, and how the signatures end that take what it makes."""
    facts = images.flag, images.pixels.shape[1:], images.dtype, images.is_binary
    if settings:
        return model_input.of_array(*facts, settings), ''
    is_encoded = images.dtype == 'uint8'
    return model_input.of_array_for_server(*facts), '_png' if is_encoded else ''


def _sampled(values: Any, images: NewImages) -> _Model:
    """The model of a run, whose scores are importance-weighted bounds."""
    params = chosen.trained_model(values.model_dir, values.data_dir)
    checkpoint_path = chosen.find_checkpoint(values.model_dir, values.checkpoint or 'last')
    decode: Optional[Ask] = None
    if isinstance(images, Array):
        make, _ = _preparation(images, saved_model.settings(params))
        decode = client.prepared(lambda fed: {}, make, images.flag)
    # In a process of its own: the first session of a process fixes the size of its thread pools.
    data = prepare.of_run(params, separate_process=True)
    count = min(data.num_examples['validation'], thresholds.MOST_IMAGES)
    judge = Judge(new_bounds.SCORE, _threshold(values.threshold, count))
    bounds = Bounds(checkpoint_path, values.samples, cores.available(), params)
    of_validation = np.sort(bounds.of_validation(data, count))
    decode = decode or model_input.of_files(params)
    among = f'{count:,} validation images of {params.data_name}, with {values.samples:,} samples'
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
        outputs['quantile'] = thresholds.quantiles(outputs[new_bounds.SCORE], of_validation)
        answer = pending.popleft()
        if np.isfinite(outputs[new_bounds.SCORE]):
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
    values: Any, images: NewImages, numbers: Sequence[int], explain: Ask
) -> Dict[str, str]:
    """Draws some images' explanations; returns the paths of the pictures by the images' ids."""
    answers = list(client.answers(images, explain, numbers))
    stem = score_files.stem_of_file if values.images else score_files.stem_of_id
    names = score_files.told_apart(stem(answer.id) for answer in answers)
    paths = [os.path.join(values.output, name + _EXPLANATION) for name in names]
    good = [(path, answer) for path, answer in zip(paths, answers) if answer.outputs]
    explanation.write([path for path, _ in good], [answer.outputs or {} for _, answer in good])
    return {answer.id: path for path, answer in good}


if __name__ == '__main__':
    define_flags()
    program.run(main)
