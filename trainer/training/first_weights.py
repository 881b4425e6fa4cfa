"""First weights that depend on the training data: hooks that set them before the first step.

They go by the checkpoints, not by the session's global step: a worker of a cluster may have made a
step since the session was begun. Methods of TF's interfaces take what TF documents.
"""

from typing import List, Tuple

import numpy as np
import tensorflow as tf

from trainer.checkpoints import listing
from trainer.data import inputs
from trainer.data.dataset import PreparedDataset
from trainer.model import priors, vae
from trainer.settings.table import PRIORS, HParams

# Images whose principal components are taken: their deviations are known to 2%.
_IMAGES = 2000
# Of the largest deviation: less is rounding of float32.
_LEAST_DEVIATION = 1e-5


def hooks(data: PreparedDataset, params: HParams) -> List[tf.train.SessionRunHook]:
    """Returns the hooks of a training; none where the weights are those of another run."""
    found: List[tf.train.SessionRunHook] = []
    if params.init_checkpoint:
        return found
    if PRIORS[params.prior].starts_from_images:
        found.append(PseudoInputsHook(data, params))
    if params.initial_means == 'pca':
        found.append(PrincipalMeansHook(data, params))
    return found


class PseudoInputsHook(tf.train.SessionRunHook):
    """Starts the pseudo-inputs of a VampPrior from training images.

    Noise, as an initializer could give, makes pseudo-inputs that are all alike to the encoder.
    """

    def __init__(self, data: PreparedDataset, params: HParams):
        self._data, self._params = data, params

    def begin(self) -> None:
        variables = tf.trainable_variables()
        (self._logits,) = [v for v in variables if v.op.name == priors.PSEUDO_INPUTS]
        # A placeholder, as the images would be a large constant of the graph.
        self._images = tf.placeholder(tf.float32, self._logits.shape)
        start = self._images
        if not self._params.is_series:
            # Grey levels of 0 and 1 have no finite logit.
            inside = 0.02 + 0.96 * self._images
            start = tf.math.log(inside) - tf.math.log1p(-inside)
        self._start = self._logits.assign(start).op

    def after_create_session(self, session, coord) -> None:
        if listing.start_step(self._params.model_dir) > 0:
            return
        shape = self._logits.shape.as_list()
        images = inputs.first_images(self._data, 'train', shape[0], self._params.binarization)
        session.run(self._start, {self._images: images.reshape(shape)})


class PrincipalMeansHook(tf.train.SessionRunHook):
    """Starts the posterior's means as principal components of the encoder's states.

    Of random weights the means of a few latents lie close together, in an arrangement that the seed
    alone decides, and that training of two latents does not leave again: classes cannot pass
    through one another. The same start is what makes maps by t-SNE and UMAP repeat from seed to
    seed (Kobak & Linderman 2021, doi:10.1038/s41587-020-00809-z).
    """

    def __init__(self, data: PreparedDataset, params: HParams):
        self._data, self._params = data, params

    def begin(self) -> None:
        names = {variable.op.name: variable for variable in tf.trainable_variables()}
        self._kernel, self._bias = (names[f'{vae.MEAN}/{name}'] for name in ('kernel', 'bias'))
        self._images = tf.placeholder(
            tf.float32, [None, self._params.rows, self._params.row_features]
        )
        self._states = vae.states(self._images, self._params, fused_lstm=True)
        self._values = [tf.placeholder(tf.float32, v.shape) for v in (self._kernel, self._bias)]
        assigned = [v.assign(to) for v, to in zip((self._kernel, self._bias), self._values)]
        self._start = tf.group(*assigned)

    def after_create_session(self, session, coord) -> None:
        if listing.start_step(self._params.model_dir) > 0:
            return
        states = session.run(self._states, {self._images: self._first_images()})
        weights = session.run([self._kernel, self._bias])
        session.run(self._start, dict(zip(self._values, principal_means(states, *weights))))

    def _first_images(self) -> np.ndarray:
        """The images that training sees first, in its random order: stored ones may be sorted."""
        params, count = self._params, min(_IMAGES, self._data.num_examples['train'])
        with tf.Graph().as_default(), tf.Session() as session:
            batches = inputs.train_input_fn(self._data, count, params.seed, 0, params.sampling)
            return session.run(batches.make_one_shot_iterator().get_next()['images'])


def principal_means(
    states: np.ndarray, kernel: np.ndarray, bias: np.ndarray
) -> Tuple[np.ndarray, np.ndarray]:
    """Returns weights of a Dense layer with which its outputs are principal components.

    Latent d becomes the projection of the states on their d-th principal axis, less its mean, over
    its standard deviation: over the images mean 0 and deviation 1, as N(0, I) has, uncorrelated
    (Hotelling 1933, doi:10.1037/h0071325). The largest weight of each is positive.

    Args:
      states: `[images, units]`.
      kernel, bias: `[units, latent_size]` and `[latent_size]`; what they have for latents without a
        component, as there are fewer or as the states do not differ along it, is returned again.
    """
    average = states.mean(axis=0, dtype=np.float64)
    _, singular, axes = np.linalg.svd(states - average, full_matrices=False)
    deviations = singular / np.sqrt(len(states))
    kept = np.flatnonzero(deviations > _LEAST_DEVIATION * max(deviations[0], _LEAST_DEVIATION))
    kept = kept[: kernel.shape[1]]
    largest = np.abs(axes[kept]).argmax(axis=1)
    signs = np.sign(axes[kept, largest])
    kernel, bias = kernel.copy(), bias.copy()
    kernel[:, kept] = (axes[kept] * (signs / deviations[kept])[:, np.newaxis]).T
    bias[kept] = -average @ kernel[:, kept]
    return kernel, bias
