"""scripts/cloud/tuning.py: trials that run and compare, and those that do not."""

import pytest

from tests.support.cloud_checks import JOB, config_of
from trainer.base.errors import UserError
from trainer.data import prepare
from trainer.data.dataset import DatasetFacts


@pytest.mark.parametrize(
    'tunes, after, trial',
    [
        (['objective=iwae,elbo'], [], '--objective=iwae'),
        (['beta_cycles=1:10000'], [], '--beta_cycles=10000'),
        (['beta_cycles=1:1000'], ['--max_steps=999'], '--beta_cycles=1000'),
        (['max_steps=500:5500', 'beta_cycles=4,600'], [], '--max_steps=500 --beta_cycles=600'),
        (['free_bits_groups=0,3', 'free_bits=0.1:1.0'], [], '--free_bits_groups=3 --free_bits=0.1'),
        # Both ends of the range would do.
        (['latent_size=8:32'], ['--free_bits=1', '--free_bits_groups=4'], '--latent_size=9'),
        (['beta=0.5:1.0'], ['--objective=dreg', '--training_samples=5'], '--beta=0.5'),
        (['prior=vamp,mixture', 'free_bits=0.0:1.0'], [], '--prior=vamp --free_bits=1.0'),
        (['batch_size=100:60000'], [], '--batch_size=60000'),
        (['prior_components=10,8000'], ['--prior=vamp', '--dataset=tiny'], '--prior_comp.*=8000'),
    ],
)
def test_a_tuning_with_a_trial_that_must_fail_is_refused(tunes, after, trial, monkeypatch):
    facts = prepare.dataset_facts
    tiny = DatasetFacts('tiny', '1.0.0', (8, 8, 1), {'train': 5000})
    monkeypatch.setattr(
        prepare, 'dataset_facts', lambda name, _: tiny if name == 'tiny' else facts(name)
    )
    with pytest.raises(UserError, match=f'^--tune: a trial with {trial} would fail: --'):
        config_of(*JOB, *['--tune=' + tune for tune in tunes], '--', *after)


@pytest.mark.parametrize(
    'tunes, after',
    [
        (['likelihood=bernoulli,normal'], []),
        (['likelihood=continuous_bernoulli,bernoulli', 'latent_size=2:4'], []),
        (['binarization=none,dynamic'], []),
        (['binarization=static,dynamic'], []),
        (['objective=elbo,dreg'], ['--training_samples=5']),
        (['training_samples=2:5'], ['--objective=iwae']),
    ],
)
def test_a_tuning_whose_trials_do_not_compare_is_refused(tunes, after):
    with pytest.raises(UserError, match='^--tune: trials do not compare: with --.* Tune them'):
        config_of(*JOB, *['--tune=' + tune for tune in tunes], '--', *after)


@pytest.mark.parametrize(
    'tunes, after',
    [
        (['beta_cycles=1:10000'], ['--max_steps=10000']),
        (['training_samples=1,5'], []),
        (['objective=iwae,dreg'], ['--training_samples=5']),
        # Both are densities of the same grey levels.
        (['likelihood=continuous_bernoulli,normal'], []),
        (['prior=standard_normal,mixture,vamp', 'latent_size=2:64:log'], ['--dataset=cifar10']),
    ],
)
def test_a_tuning_whose_trials_run_and_compare_is_taken(tunes, after):
    tuned = ['--tune=' + tune for tune in tunes]
    assert len(config_of(*JOB, *tuned, '--', *after)['studySpec']['parameters']) == len(tunes)


def test_more_combinations_than_can_be_checked_are_refused():
    tuned = ['--tune=seed=' + ','.join(map(str, range(400)))]
    tuned += ['--tune=latent_size=' + ','.join(map(str, range(1, 401)))]
    with pytest.raises(UserError, match='--tune: 160,000 combinations'):
        config_of(*JOB, *tuned)
