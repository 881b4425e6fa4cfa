"""What every signature should answer, computed without any export."""

from typing import Dict, Iterable

import numpy as np
import tensorflow as tf

from trainer.base import image_files
from trainer.data import inputs
from trainer.data.dataset import PreparedDataset
from trainer.monitoring import picture_files
from trainer.serving import thresholds
from trainer.serving.golden import Golden
from trainer.serving.signatures import DEFAULT
from trainer.serving.thresholds import ValidationImages
from trainer.settings import memory
from trainer.settings.table import HParams
from trainer.training import run


def images_of(data: PreparedDataset, params: HParams, count: int = 20) -> np.ndarray:
    """Returns the first test images, uint8 `[n, rows, columns, channels]`."""
    images = inputs.first_images(data, 'test', count, params.binarization)
    return np.rint(255 * images).astype(np.uint8).reshape((-1,) + params.image_shape)


def predicted(
    batches: Iterable[np.ndarray], checkpoint_path: str, params: HParams
) -> Dict[str, np.ndarray]:
    """Returns what PREDICT yields for images float32 `[n, rows, features]`, by name."""
    features = {'images': np.concatenate(list(batches))}
    rows = run.make_estimator(params).predict(
        lambda: tf.data.Dataset.from_tensor_slices(features).batch(memory.evaluation_batch(params)),
        checkpoint_path=checkpoint_path,
    )
    rows = list(rows)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def answers(
    images: np.ndarray, validation: ValidationImages, checkpoint_path: str, params: HParams
) -> Dict[str, Golden]:
    """Returns inputs and outputs of every signature, by PREDICT and the decoder.

    Args:
      images: uint8 `[n, rows, columns, channels]`.
      validation: what scores are quantiles among.
    """
    scaled = (images / 255).astype(np.float32)
    by_row = scaled.reshape([-1, params.rows, params.row_features])
    outputs = predicted([by_row], checkpoint_path, params)
    of_validation = predicted(validation.batches(), checkpoint_path, params)['negative_elbo']
    quantile = thresholds.quantiles(outputs['negative_elbo'], of_validation)

    def decoded(latents: np.ndarray) -> Dict[str, np.ndarray]:
        images = picture_files.decode(latents, checkpoint_path, params)
        return {'images': images.reshape([-1] + params.served_shape)}

    with tf.Graph().as_default(), tf.Session() as session:
        noise = session.run(tf.random.stateless_normal([5, params.latent_size], [11, 0]))
    drawn = {'count': np.int32(5), 'seed': np.int32(11)}
    latents = np.random.RandomState(1).standard_normal(outputs['mean'].shape).astype(np.float32)
    steps = 3
    mean = outputs['mean'][:, np.newaxis]
    share = np.linspace(0, 1, steps).reshape([steps, 1]).astype(np.float32)
    between = (1 - share) * mean[:-1] + share * mean[1:]
    path = decoded(between.reshape([-1, params.latent_size]))['images']
    shown = {'images': scaled.reshape([-1] + params.served_shape)}
    files = {'image_bytes': np.array(image_files.encode_png(images), object)}

    def some(*names: str, **more: np.ndarray) -> Dict[str, np.ndarray]:
        return {**{name: outputs[name] for name in names}, **more}

    losses = ('negative_elbo', 'reconstruction_loss', 'kl_divergence')
    reconstructed = some(*losses, 'mean', 'scale', 'reconstruction')
    explained = some('nats_by_pixel', 'excess_by_pixel', 'reconstruction_loss', 'reconstruction')
    scored = some(*losses, quantile=quantile.astype(np.float32))
    interpolations = path.reshape([-1, steps] + params.served_shape)
    return {
        DEFAULT: Golden(shown, reconstructed),
        'reconstruct': Golden(shown, reconstructed),
        'encode': Golden(shown, some('mean', 'scale')),
        'decode': Golden({'latents': latents}, decoded(latents)),
        'generate': Golden(drawn, decoded(noise)),
        'generate_at_temperature': Golden(
            dict(drawn, temperature=np.float32(0.5)), decoded(0.5 * noise)
        ),
        'reconstruct_png': Golden(files, reconstructed),
        'interpolate': Golden(
            dict(shown, steps=np.int32(steps)), {'interpolations': interpolations}
        ),
        'score': Golden(shown, scored),
        'score_png': Golden(files, scored),
        'explain': Golden(shown, explained),
        'explain_png': Golden(files, dict(explained, images=shown['images'])),
    }
