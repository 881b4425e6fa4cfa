"""What adding a prior takes: a class and a row of a table, for training, evaluation and serving."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.support import tiny
from trainer.evaluation import estimate, report
from trainer.model.priors import Prior
from trainer.settings import storage, table
from trainer.training import run


class Sphere(Prior, kind='sphere'):
    """N(0, I) on a sphere of a learned radius; no marginals, no KL divergence in closed form.

    log p(z) = -1/2 (|z| - r)^2 + c is a density up to its constant, which is all a test needs.
    """

    def __init__(self, radius):
        self.radius = radius

    @classmethod
    def create(cls, params, encode):
        del params, encode
        with tf.variable_scope('prior'):
            return cls(tf.get_variable('radius', initializer=tf.constant(1.5)))

    @property
    def parameters(self):
        return [self.radius]

    def with_parameters(self, parameters):
        return Sphere(*parameters)

    def log_prob(self, latents):
        return -0.5 * tf.square(tf.norm(latents, axis=-1) - self.radius)

    def sample(self, noise, choice):
        return self.radius * tf.nn.l2_normalize(noise, axis=-1)


pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sphere')
    patch = pytest.MonkeyPatch()
    patch.setitem(table.PRIORS, 'sphere', table.PriorFacts(False, False))
    data = tiny.write_data(folder)
    params = tiny.params_in(folder / 'run', prior='sphere', latent_size=3, save_checkpoints_steps=6)
    patch.setattr(run.prepare, 'prepare', lambda *_, **__: data)
    yield params, data, run.run(params)
    patch.undo()


def test_it_trains_and_evaluates(trained):
    params, data, record = trained
    assert record['global_step'] == 6
    for split in ('train', 'validation', 'test'):
        losses = record[split]
        assert math.isfinite(losses['negative_elbo'])
        total = losses['reconstruction_loss'] + losses['kl_divergence']
        assert losses['negative_elbo'] == pytest.approx(total, rel=1e-5)
    assert storage.load(params.model_dir).prior == 'sphere'
    path = tf.train.latest_checkpoint(params.model_dir)
    assert tf.train.load_variable(path, 'prior/radius') != 1.5


def test_its_likelihood_is_estimated_without_what_it_lacks(trained, tmp_path):
    params, data, _ = trained
    path = tf.train.latest_checkpoint(params.model_dir)
    facts = estimate.describe(data, 'test', 4, 50, 1, path, params)
    record = estimate.evaluate(path, data, facts, str(tmp_path / 'out.json'), 1, params)
    assert 'kl_by_dimension' not in record
    assert record['kl_is'].startswith('estimated')
    assert 'units are active' in report.table(record)
    assert 'effective samples: median' in report.table(record)


def test_it_is_drawn_from_and_exported(trained):
    params, _, _ = trained
    folder = tf.io.gfile.glob(params.model_dir + '/export/final/*')[0]
    for name in ('new_images.png', 'reconstructions.png', 'training_curves.png'):
        assert tf.io.gfile.exists(params.model_dir + '/' + name)
    with tf.Graph().as_default(), tf.Session() as session:
        graph = tf.saved_model.load(session, ['serve'], folder)
        signature = graph.signature_def['serving_default']
        feed = {signature.inputs['images'].name: np.zeros([2, 4, 8, 3], np.float32)}
        fetches = {name: info.name for name, info in signature.outputs.items()}
        answer = session.run(fetches, feed)
    np.testing.assert_allclose(
        answer['negative_elbo'], answer['reconstruction_loss'] + answer['kl_divergence'], rtol=1e-5
    )
