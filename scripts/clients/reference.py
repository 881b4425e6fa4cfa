"""What every signature should answer, computed without any export."""

from typing import Dict, Iterable

import numpy as np
import tensorflow as tf

from trainer.base import image_files, scaling
from trainer.checkpoints import weights
from trainer.data import inputs
from trainer.data.dataset import PreparedDataset
from trainer.model import vae
from trainer.monitoring import picture_files
from trainer.serving import thresholds
from trainer.serving.golden import Golden
from trainer.serving.signatures import DEFAULT
from trainer.serving.thresholds import ValidationImages
from trainer.settings import memory, wording
from trainer.settings.table import HParams
from trainer.training import run


def images_of(data: PreparedDataset, params: HParams, count: int = 20) -> np.ndarray:
    """Returns the first test images, uint8 `[n, rows, columns, channels]`, or windows in units."""
    images = inputs.first_images(data, 'test', count, params.binarization)
    if params.is_series:
        return scaling.in_units(images, params.scaling)
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


def drawn(
    count: int, seed: int, temperature: float, checkpoint_path: str, params: HParams
) -> np.ndarray:
    """Returns what the decoder makes of draws of the prior, `[n, rows, columns, channels]`.

    The draws are N(0, I) times the temperature, taken as the prior of the checkpoint takes noise.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        noise = tf.random.stateless_normal([count, params.latent_size], [seed, 0])
        choice = tf.random.stateless_uniform([count], [seed, 1])
        latents = vae.prior(params).sample(temperature * noise, choice)
        images = vae.expected_images(latents, params)
        weights.restore(session, checkpoint_path)
        return session.run(images)


def answers(
    images: np.ndarray, validation: ValidationImages, checkpoint_path: str, params: HParams
) -> Dict[str, Golden]:
    """Returns inputs and outputs of every signature, by PREDICT and the decoder.

    Args:
      images: uint8 `[n, rows, columns, channels]`; of a series windows in their units.
      validation: what scores are quantiles among.
    """
    scaled = images if params.is_series else (images / 255).astype(np.float32)
    by_row = scaled.reshape([-1, params.rows, params.row_features])
    by_row = scaling.standardised(by_row, params.scaling)
    outputs = predicted([by_row], checkpoint_path, params)
    outputs['reconstruction'] = scaling.in_units(outputs['reconstruction'], params.scaling)
    for name in ('nats', 'excess'):
        outputs[name + '_by_reading'] = outputs[name + '_by_pixel']
    of_validation = predicted(validation.batches(), checkpoint_path, params)['negative_elbo']
    quantile = thresholds.quantiles(outputs['negative_elbo'], of_validation)

    examples = wording.examples(params)

    def served(images: np.ndarray) -> Dict[str, np.ndarray]:
        images = images.reshape([-1] + params.served_shape)
        return {examples: scaling.in_units(images, params.scaling)}

    def decoded(latents: np.ndarray) -> Dict[str, np.ndarray]:
        return served(picture_files.decode(latents, checkpoint_path, params))

    def generated(temperature: float) -> Dict[str, np.ndarray]:
        return served(drawn(5, 11, temperature, checkpoint_path, params))

    wanted = {'count': np.int32(5), 'seed': np.int32(11)}
    latents = np.random.RandomState(1).standard_normal(outputs['mean'].shape).astype(np.float32)
    steps = 3
    mean = outputs['mean'][:, np.newaxis]
    share = np.linspace(0, 1, steps).reshape([steps, 1]).astype(np.float32)
    between = (1 - share) * mean[:-1] + share * mean[1:]
    path = decoded(between.reshape([-1, params.latent_size]))[examples]
    shown = {examples: scaled.reshape([-1] + params.served_shape)}

    def some(*names: str, **more: np.ndarray) -> Dict[str, np.ndarray]:
        return {**{name: outputs[name] for name in names}, **more}

    losses = ('negative_elbo', 'reconstruction_loss', 'kl_divergence')
    reconstructed = some(*losses, 'mean', 'scale', 'reconstruction')
    by = 'reading' if params.is_series else 'pixel'
    explained = some(f'nats_by_{by}', f'excess_by_{by}', 'reconstruction_loss', 'reconstruction')
    scored = some(*losses, quantile=quantile.astype(np.float32))
    interpolations = path.reshape([-1, steps] + params.served_shape)
    golden = {
        DEFAULT: Golden(shown, reconstructed),
        'reconstruct': Golden(shown, reconstructed),
        'encode': Golden(shown, some('mean', 'scale')),
        'decode': Golden({'latents': latents}, decoded(latents)),
        'generate': Golden(wanted, generated(1.0)),
        'generate_at_temperature': Golden(
            dict(wanted, temperature=np.float32(0.5)), generated(0.5)
        ),
        'interpolate': Golden(
            dict(shown, steps=np.int32(steps)), {'interpolations': interpolations}
        ),
        'score': Golden(shown, scored),
        'explain': Golden(shown, explained),
    }
    if not params.is_series:
        files = {'image_bytes': np.array(image_files.encode_png(images), object)}
        golden['reconstruct_png'] = Golden(files, reconstructed)
        golden['score_png'] = Golden(files, scored)
        golden['explain_png'] = Golden(files, dict(explained, images=shown['images']))
    return golden
