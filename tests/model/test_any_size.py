"""The ELBO of images of any size, and its gradients, against a network written in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tests.support import graphs
from trainer.model.priors import StandardNormal
from trainer.model.vae import encode
from trainer.settings.table import HParams
from trainer.training.model_fn import elbo_terms

FAST = [(1, 8, 1), (3, 8, 1), (5, 7, 1)]
SLOW = [
    (2, 8, 1), (8, 8, 1), (30, 50, 1), (64, 78, 1), (218, 178, 3), (100, 1, 1), (1, 1, 3),
]  # fmt: skip
SIZES = FAST + [pytest.param(size, marks=pytest.mark.slow) for size in SLOW]
BATCH = 2


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(x, of, name):
    return x @ of[name + '/kernel'] + of[name + '/bias']


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def read_outs(images, of):
    """The LSTM's state after each quarter of the rows, of fewer than four after each row."""
    rows = images.shape[1]
    hidden = cell = np.zeros([len(images), of['encoder/lstm/bias'].size // 4])
    states = []
    for row in range(rows):
        both = np.concatenate([images[:, row], hidden], axis=1)
        i, f, o, j = np.split(dense(both, of, 'encoder/lstm'), 4, axis=1)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(j)
        hidden = sigmoid(o) * np.tanh(cell)
        states.append(hidden)
    ends = range(rows) if rows < 4 else [rows * quarter // 4 - 1 for quarter in (1, 2, 3, 4)]
    return np.concatenate([states[end] for end in ends], axis=1)


def enlarged(x, of, name):
    """out[stride * i + k - before] += in[i] w[k] along both axes; a kernel of 1 has stride 1."""
    name = 'decoder/' + name
    kernel, sides = of[name + '/kernel'], x.shape[1:3]
    strides = [1 if size == 1 else 2 for size in kernel.shape[:2]]
    # 'same' padding cuts one pixel before a kernel of 4, and none before one of 3.
    before = [max(0, size - 3) for size in kernel.shape[:2]]
    made = [stride * side for stride, side in zip(strides, sides)]
    out = np.zeros([len(x), made[0] + 4, made[1] + 4, kernel.shape[2]])
    for k, m in np.ndindex(*kernel.shape[:2]):
        rows = slice(k, k + made[0], strides[0])
        columns = slice(m, m + made[1], strides[1])
        out[:, rows, columns] += x @ kernel[k, m].T
    out = out[:, before[0] : before[0] + made[0], before[1] : before[1] + made[1]]
    return out + of[name + '/bias']


def negative_elbo(images, noise, image_shape, of):
    """The mean over the batch, in double precision."""
    rows, columns, _ = image_shape
    summary = read_outs(images, of)
    mean = dense(summary, of, 'encoder/posterior/mean')
    raw_scale = dense(summary, of, 'encoder/posterior/raw_scale')
    scale = np.log1p(np.exp(raw_scale + np.log(np.expm1(1.0)))) + 1e-4
    hidden = mean + scale * noise
    for number in (1, 2, 3):
        hidden = elu(dense(hidden, of, 'decoder/dense_{}'.format(number)))
    quarter = [-(-side // 4) for side in (rows, columns)]
    hidden = hidden.reshape(len(images), *quarter, -1)
    hidden = elu(enlarged(hidden, of, 'transpose_convolution_1'))
    logits = enlarged(hidden, of, 'transpose_convolution_2')[:, :rows, :columns]
    logits = logits.reshape(images.shape)
    losses = np.logaddexp(0, logits) - images * logits
    kl = 0.5 * (mean**2 + scale**2 - 1) - np.log(scale)
    return (losses.sum(axis=(1, 2)) + kl.sum(axis=1)).mean()


@pytest.mark.parametrize('image_shape', SIZES, ids=str)
def test_the_elbo_and_its_gradients_are_those_of_a_network_in_numpy(image_shape):
    """The gradient of each weight along one random direction: central differences of NumPy's."""
    params = HParams(
        image_shape=image_shape, latent_size=3, lstm_units=6, decoder_units=8, decoder_channels=3
    )
    random = np.random.RandomState(0)
    images = random.rand(BATCH, params.rows, params.row_features).astype(np.float32)
    noise = random.randn(BATCH, 1, 3).astype(np.float32)
    with tf.Graph().as_default():
        fed = tf.placeholder(tf.float32, [None, *images.shape[1:]])
        terms = elbo_terms(fed, encode(fed, params), noise, StandardNormal(), params)
        loss, variables = tf.reduce_mean(terms.negative_elbo), tf.trainable_variables()
        gradients = tf.gradients(loss, variables)
        names, shapes = zip(*[(v.op.name, v.shape.as_list()) for v in variables])
        weights = {name: 0.3 * random.randn(*shape) for name, shape in zip(names, shapes)}
        with graphs.session() as session:
            for variable in variables:
                variable.load(weights[variable.op.name], session)
            actual, *gradients = session.run([loss, *gradients], {fed: images})

    def at(**changed):
        return negative_elbo(images, noise[:, 0], image_shape, dict(weights, **changed))

    assert actual == pytest.approx(at(), rel=1e-5)
    for name, gradient in zip(names, gradients):
        direction = random.randn(*gradient.shape)
        direction /= np.linalg.norm(direction)
        ahead, behind = [at(**{name: weights[name] + h * direction}) for h in (1e-5, -1e-5)]
        slope = (ahead - behind) / 2e-5
        tolerance = 1e-4 * np.linalg.norm(gradient) + 1e-5
        assert (gradient * direction).sum() == pytest.approx(slope, abs=tolerance), name
        assert np.abs(gradient).max() > 0, name
