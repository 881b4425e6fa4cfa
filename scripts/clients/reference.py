"""What every signature should answer, computed without any export."""

from typing import Dict, Optional

import numpy as np
import tensorflow as tf

from trainer.base import image_files
from trainer.data import inputs, prepare
from trainer.monitoring import picture_files
from trainer.serving.saved_model import Golden
from trainer.serving.signatures import DEFAULT
from trainer.settings.table import HParams
from trainer.training import run


def images_of(params: HParams, data_dir: Optional[str], count: int = 20) -> np.ndarray:
    """Returns the first test images, uint8 `[n, rows, columns, channels]`."""
    data = prepare.prepare(params.dataset, data_dir, separate_process=True)
    images = inputs.first_images(data, 'test', count, params.binarization)
    return np.rint(255 * images).astype(np.uint8).reshape((-1,) + params.image_shape)


def answers(images: np.ndarray, checkpoint_path: str, params: HParams) -> Dict[str, Golden]:
    """Returns inputs and outputs of every signature, by PREDICT and the decoder.

    Args:
      images: uint8 `[n, rows, columns, channels]`.
    """
    scaled = (images / 255).astype(np.float32)
    features = {'images': scaled.reshape([-1, params.rows, params.row_features])}
    predicted = list(
        run.make_estimator(params).predict(
            lambda: tf.data.Dataset.from_tensors(features), checkpoint_path=checkpoint_path
        )
    )
    outputs = {name: np.stack([row[name] for row in predicted]) for name in predicted[0]}

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
    posterior = {name: outputs[name] for name in ('mean', 'scale')}
    interpolations = path.reshape([-1, steps] + params.served_shape)
    return {
        DEFAULT: Golden(shown, outputs),
        'reconstruct': Golden(shown, outputs),
        'encode': Golden(shown, posterior),
        'decode': Golden({'latents': latents}, decoded(latents)),
        'generate': Golden(drawn, decoded(noise)),
        'generate_at_temperature': Golden(
            dict(drawn, temperature=np.float32(0.5)), decoded(0.5 * noise)
        ),
        'reconstruct_png': Golden(files, outputs),
        'interpolate': Golden(
            dict(shown, steps=np.int32(steps)), {'interpolations': interpolations}
        ),
    }
