"""The importance-weighted bound as a score: of new images, and of the validation images."""

import contextlib
from typing import Callable, Dict, Generator, Iterator, Tuple

import numpy as np
import tensorflow as tf

from trainer.base.console import ImageProgress
from trainer.base.errors import UserError
from trainer.data import inputs
from trainer.data.dataset import PreparedDataset
from trainer.evaluation import importance_sampling
from trainer.evaluation.importance_sampling import ImportanceSampler
from trainer.evaluation.scores import BOUND, model_of
from trainer.settings import memory
from trainer.settings.table import HParams

_BATCH = 100


class Bounds:
    """Scores images by the bound with `samples` samples of their posteriors, of one seed.

    `threads` images are computed at a time.
    """

    def __init__(self, checkpoint_path: str, samples: int, threads: int, params: HParams):
        self._checkpoint_path, self._params = checkpoint_path, params
        self._samples, self._threads = samples, threads

    def of_batches(
        self, batches: Callable[[], Iterator[np.ndarray]]
    ) -> Generator[Dict[str, np.ndarray], None, None]:
        """Yields BOUND, `reconstruction_loss` and `kl_divergence` of each image, in nats.

        The latter two are means over the samples.

        Args:
          batches: yields images as the model sees them, float32 `[n, rows, features]`, in a thread
            of its own.
        """

        def input_fn() -> tf.data.Dataset:
            shape = [None, self._params.rows, self._params.row_features]
            images = tf.data.Dataset.from_generator(batches, tf.float32, shape)
            return images.map(lambda batch: {'images': batch})

        with contextlib.closing(self._rows(input_fn)) as rows:
            for bound, reconstruction_loss, kl_divergence, *_ in rows:
                yield {
                    BOUND: -np.float64(bound),
                    'reconstruction_loss': np.float64(reconstruction_loss),
                    'kl_divergence': np.float64(kl_divergence),
                }

    def of_validation(self, data: PreparedDataset, count: int) -> np.ndarray:
        """Returns BOUND of `count` validation images, float64 `[count]`.

        Where there are more they lie evenly over the split; `count` is then a multiple of 1,000.

        Raises:
          UserError: an image has no finite bound.
        """

        def input_fn() -> tf.data.Dataset:
            batch, is_part = memory.images_at_once(self._params, _BATCH), count < in_split
            binarization = self._params.binarization
            return inputs.eval_input_fn(data, 'validation', batch, binarization, count, is_part)

        in_split = data.num_examples['validation']
        scores = np.empty(count)
        progress = ImageProgress(count, 0)
        with contextlib.closing(self._rows(input_fn)) as rows, contextlib.closing(progress):
            for number, (bound, *_) in enumerate(rows):
                if not np.isfinite(bound):
                    raise UserError(
                        f'--checkpoint={self._checkpoint_path}: image {number:,} of the validation '
                        f'split has no finite likelihood ({bound}): give another.'
                    )
                scores[number] = -bound
                text = 'scoring validation images'
                progress.show(number + 1, text, self._samples, 'decoder passes')
        return scores

    def _rows(self, input_fn: Callable[[], tf.data.Dataset]) -> Generator[Tuple, None, None]:
        chunk = memory.images_at_once(self._params, importance_sampling.CHUNK, share=5)
        model = model_of(self._checkpoint_path, self._params)
        return ImportanceSampler(
            model, input_fn, self._samples, importance_sampling.SEED, self._threads, chunk
        ).rows()
