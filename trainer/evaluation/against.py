"""How well each score of a model tells other images from its usual ones."""

import os
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

import numpy as np
import tensorflow as tf

from trainer.base import files
from trainer.base.console import ImageProgress
from trainer.base.errors import UserError
from trainer.checkpoints import listing
from trainer.data.dataset import ImageSet
from trainer.evaluation import detection, importance_sampling
from trainer.evaluation.detection import Detection
from trainer.evaluation.importance_sampling import ImportanceSampler
from trainer.evaluation.scores import BOUND, NAMES, Checkpoint, Scorer, model_of
from trainer.model import vae
from trainer.settings import memory, storage
from trainer.settings.table import HParams

MOST_IMAGES = 10_000
UNITS = 'nats per image, higher is stranger'
_FLAG = 'background_model_dir'
# What tells one model's nats from another's.
_OF_IMAGES = ('image_shape', 'is_binarised', 'likelihood')


def background_of(model_dir: str, params: HParams) -> Checkpoint:
    """Returns the last checkpoint of the background model in `model_dir`.

    Raises UserError where there is none, or its nats are not of the same kind of images.
    """
    found = storage.load(model_dir, _FLAG)
    path = None if found is None else listing.latest(model_dir)
    if found is None or path is None:
        raise storage.nothing_trained(model_dir, flag=_FLAG)
    for name in _OF_IMAGES:
        ours, theirs = getattr(params, name), getattr(found, name)
        if ours != theirs:
            raise UserError(
                f'--{_FLAG}={model_dir} has {name} {theirs}, and the model in '
                f'--model_dir={params.model_dir} {ours}: give a run whose settings differ in the '
                'images alone.'
            )
    return Checkpoint(path, found)


def described(background: Optional[Checkpoint]) -> Optional[Dict[str, str]]:
    """Says which background model the likelihood ratio is of, as JSON has it."""
    if background is None:
        return None
    return {
        'checkpoint': background.path,
        'checkpoint_index_sha256': files.sha256(background.path + '.index'),
        'images': background.params.data_name,
    }


class Scores:
    """All scores of sets of images, by name; each set is read once, and once more for the bound.

    Args:
      samples: of the posterior of each image, of which the importance-weighted bound is made; 0 for
        no such bound.
      seed: of these samples.
      threads: images estimated at a time.
    """

    def __init__(
        self,
        model: Checkpoint,
        background: Optional[Checkpoint] = None,
        samples: int = 0,
        seed: int = importance_sampling.SEED,
        threads: int = 1,
    ):
        self._model, self._scorer = model, Scorer(model, background)
        self._samples, self._seed, self._threads = samples, seed, threads

    def __call__(self, images: ImageSet) -> Dict[str, np.ndarray]:
        """Returns the scores, float64 `[images.num_images]` each, in the images' order.

        Raises UserError where one is no finite number.
        """
        parts = list(_shown(self._scorer.scored(images), images, 'scoring'))
        scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if self._samples:
            rows = _shown(self._bounds(images), images, f'{self._samples:,} samples each')
            scores[BOUND] = np.concatenate([row[BOUND] for row in rows])
        for name, values in scores.items():
            if not np.isfinite(values).all():
                raise UserError(
                    f'--checkpoint={self._model.path}: {name} of image '
                    f'{np.argmin(np.isfinite(values)):,} of the {images.source} is no finite '
                    'number: give another.'
                )
        return scores

    def _bounds(self, images: ImageSet) -> Iterator[Dict[str, np.ndarray]]:
        params = self._model.params

        def input_fn() -> tf.data.Dataset:
            def blocks() -> Iterator[Dict[str, np.ndarray]]:
                return (
                    {'images': block} for block in images.blocks(memory.evaluation_batch(params))
                )

            shape = {'images': tf.TensorShape([None, params.rows, params.row_features])}
            found = tf.data.Dataset.from_generator(blocks, {'images': tf.float32}, shape)
            return found.map(lambda some: {'images': vae.without_noise(some['images'], params)})

        sampler = ImportanceSampler(
            model_of(self._model.path, params),
            input_fn,
            self._samples,
            self._seed,
            self._threads,
            memory.images_at_once(params, importance_sampling.CHUNK, share=5),
        )
        for row in sampler.rows():
            yield {BOUND: np.array([-row[0]])}


def _shown(
    parts: Iterator[Dict[str, np.ndarray]], images: ImageSet, text: str
) -> Iterator[Dict[str, np.ndarray]]:
    """Passes scores of some images at a time on, and shows how many are done."""
    progress, done = ImageProgress(images.num_images, 0), 0
    try:
        for part in parts:
            yield part
            done += len(next(iter(part.values())))
            progress.show(done, f'{images.name}: {text}', 1, 'images')
    finally:
        progress.close()


def compare(
    usual: ImageSet,
    others: List[ImageSet],
    scores_of: Callable[[ImageSet], Dict[str, np.ndarray]],
    seed: int = importance_sampling.SEED,
) -> Dict[str, Any]:
    """Measures how well each score tells each of the other sets from the usual images.

    Args:
      scores_of: returns the scores of a set by name, float64 `[images.num_images]` each.
      seed: of the bootstrap.

    Returns:
      `against`: of each set its `name`, `source`, `num_images`, `num_in_source`,
      `share_of_unusual`, which average precision is by chance, and `scores`: by the score's name
      the numbers of `Detection` and `mean`, the mean of the set in nats. `usual`: the means of the
      usual images. `bootstrap_resamples`; `wall_seconds`.
    """
    start = time.perf_counter()
    of_others = [scores_of(images) for images in others]  # First, as these may be broken.
    of_usual = scores_of(usual)
    rows = []
    for images, found in zip(others, of_others):
        by_name = {
            name: dict(
                detection.detection(of_usual[name], found[name], seed=seed)._asdict(),
                mean=float(found[name].mean()),
            )
            for name in of_usual
        }
        rows.append(
            {
                'name': images.name,
                'source': images.source,
                'num_images': images.num_images,
                'num_in_source': images.num_in_source,
                'share_of_unusual': images.num_images / (images.num_images + usual.num_images),
                'scores': by_name,
            }
        )
    return {
        'units': UNITS,
        'usual': {name: {'mean': float(values.mean())} for name, values in of_usual.items()},
        'against': rows,
        'bootstrap_resamples': detection.RESAMPLES,
        'wall_seconds': time.perf_counter() - start,
    }


def default_name(facts: Dict[str, Any], checkpoint: str, most: int) -> str:
    """Returns the name of the results' file, such as `detection_test.json`.

    Args:
      checkpoint: as it was asked for.
      most: images of each set.
    """
    name = 'detection_{split}'.format(**facts)
    if facts['importance_samples']:
        name += '_{importance_samples}'.format(**facts)
    if facts['seed'] != importance_sampling.SEED:
        name += '_seed_{seed}'.format(**facts)
    if checkpoint != 'last':
        name += '_' + os.path.basename(checkpoint)
    if most != MOST_IMAGES:
        name += f'_{most}_images'
    return name + '.json'


_LINE = '{:<36}{:>8}{:>8}{:>12}{:>8}{:>10}{:>10}'
_HEADS = ('AUROC', 'error', 'avg. prec.', 'error', 'usual', 'others')


def table(record: Dict[str, Any]) -> str:
    """Writes the results of a comparison."""
    lines = [
        '{checkpoint} (step {global_step:,}): {num_images:,} of {images_in_split:,} {split} images '
        'of {dataset}, {convention}, are the usual ones.'.format(**record),
        'AUROC 0.5 is chance, below it the others look more usual. Errors are bootstrap standard '
        f'errors of {record["bootstrap_resamples"]:,} resamples.',
    ]
    for row in record['against']:
        lines += [
            '',
            'against {num_images:,} of {num_in_source:,} {source}; average precision by chance '
            '{share_of_unusual:.4f}'.format(**row),
            _LINE.format(record['units'], *_HEADS),
        ]
        for name in [name for name in NAMES if name in row['scores']]:
            found = row['scores'][name]
            areas = ['{:.4f}'.format(found[field]) for field in Detection._fields]
            means = ['{:.2f}'.format(part['mean']) for part in (record['usual'][name], found)]
            lines.append(_LINE.format(name, *areas, *means))
    return '\n'.join(lines)
