"""What a run says of its numbers at its end."""

import math

import pytest

from trainer.settings.table import HParams
from trainer.training import results


@pytest.mark.parametrize(
    'loss, settings, warned',
    [
        (784 * math.log(2) + 1, {}, True),
        (784 * math.log(2) - 1, {}, False),
        (1.5e8, {'binarization': 'dynamic'}, True),
        # Densities have no such worst model.
        (1.5e8, {'likelihood': 'normal'}, False),
    ],
)
def test_a_bernoulli_worse_than_coin_flips_is_said_to_have_diverged(loss, settings, warned):
    text = results.warning({'test': {'negative_elbo': loss}}, HParams(**settings))
    assert bool(text) == warned
    assert not warned or '543 nats' in text
