"""What a run says of its numbers at its end."""

import math

import pytest

from trainer.settings.table import HParams
from trainer.training import results


@pytest.mark.parametrize('evaluated', [60_000, 61_000])
def test_the_closing_table_says_how_many_train_images_were_evaluated(evaluated, capsys):
    terms = {'negative_elbo': 3.0, 'reconstruction_loss': 2.0, 'kl_divergence': 1.0}
    record = dict(
        dict.fromkeys(('train', 'validation', 'test'), terms),
        convention='', log_likelihood='', training_seconds=None,
        images_evaluated={'train': evaluated}, images_in_split={'train': 61_000},
    )  # fmt: skip
    results.show(record, {})
    shown = capsys.readouterr().out
    assert ('60,000 of 61,000 images' in shown) == (evaluated == 60_000)


@pytest.mark.parametrize(
    'loss, settings, warned',
    [
        (784 * 1.1 * math.log(2) + 1, {}, True),
        (784 * 1.1 * math.log(2) - 1, {}, False),
        (1.5e8, {'binarization': 'dynamic'}, True),
        # Densities have no such worst model.
        (1.5e8, {'likelihood': 'normal'}, False),
    ],
)
def test_a_bernoulli_far_worse_than_coin_flips_is_said_to_have_diverged(loss, settings, warned):
    text = results.warning({'test': {'negative_elbo': loss}}, HParams(**settings))
    assert bool(text) == warned
    assert not warned or '543 nats' in text
