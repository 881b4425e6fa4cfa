"""Names of an evaluation's metrics."""

import pytest

from trainer.monitoring import summaries


def test_metrics_have_their_names_without_groups():
    metrics = {'elbo/negative_elbo': 1.0, 'global_step': 2, 'kl_by_dimension/00': 3.0}
    assert summaries.without_groups(metrics) == {'negative_elbo': 1.0, 'global_step': 2}


def test_metrics_of_one_name_in_two_groups_are_no_metrics():
    with pytest.raises(AssertionError, match='two metrics have one name'):
        summaries.without_groups({'elbo/scale': 1.0, 'latents/scale': 2.0})
