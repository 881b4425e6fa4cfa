"""Training from the weights of another run, `--init_from`."""

import dataclasses
import functools
import hashlib
import os
import shutil
from unittest import mock

import numpy as np
import pytest

from tests.support import tiny
from tests.support.paths import OLD_RUN, OLD_VAMP_RUN
from trainer.base.errors import UserError
from trainer.checkpoints import initial, weights
from trainer.cluster.tf_config import Task
from trainer.data import inputs, prepare
from trainer.model import priors
from trainer.settings import storage
from trainer.training import announcements, checks, run


def params_from(folder, model_dir, **changes):
    """The settings of the run in `folder` for a new one that starts from its weights."""
    new = {'model_dir': str(model_dir), 'init_from': str(folder), **changes}
    return dataclasses.replace(storage.trained(folder), **new)


def refusal(params):
    with pytest.raises(UserError) as error:
        checks.check(params, None)
    text = str(error.value)
    assert '\n' not in text and text.startswith(f'--init_from={params.init_from}')
    return text


def test_a_run_of_the_same_shapes_may_differ_in_all_else(tmp_path):
    new = tmp_path / 'new'
    checks.check(params_from(OLD_RUN, new, likelihood='normal', normal_scale=0.1, beta=2.0), None)
    # Unused where the prior has no components.
    checks.check(params_from(OLD_RUN, new, prior_components=3), None)
    # Its images are known once they are prepared.
    source = {'dataset': '', 'source': 'x', 'image_shape': (5, 5, 3)}
    checks.check(params_from(OLD_RUN, new, **source), None)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    'folder, changes, parts',
    [
        (OLD_RUN, {'latent_size': 3, 'lstm_units': 5},
         ['--latent_size=3 (there 2), --lstm_units=5 (there 4);', 'give the values of that run']),
        (OLD_RUN, {'decoder_units': 9}, ['--decoder_units=9 (there 8)']),
        (OLD_RUN, {'decoder_channels': 9}, ['--decoder_channels=9 (there 2)']),
        (OLD_RUN, {'decoder_activation': 'gated'}, ['--decoder_activation=gated (there elu)']),
        (OLD_RUN, {'prior': 'vamp'}, [': --prior=vamp (there standard_normal);']),
        (OLD_VAMP_RUN, {'prior_components': 7}, ['--prior_components=7 (there ']),
        (OLD_RUN, {'likelihood': 'normal'}, ['--likelihood=normal (there bernoulli)']),
        (OLD_RUN, {'image_shape': (32, 32, 3)},
         ['images of --dataset=mnist are 32 x 32 x 3 (there 28 x 28 x 1)']),
        (OLD_RUN, {'dataset': '', 'source': 'x', 'source_digest': '0', 'image_shape': (9, 9, 1)},
         ['images of --source=x are 9 x 9 x 1 (there 28 x 28 x 1)']),
    ],
)  # fmt: skip
def test_a_run_of_other_shapes_is_refused_with_both_values(tmp_path, folder, changes, parts):
    text = refusal(params_from(folder, tmp_path / 'new', **changes))
    assert all(part in text for part in parts), text
    assert os.listdir(tmp_path) == []


def test_a_scale_that_is_learned_is_no_fixed_one(tmp_path):
    old = shutil.copytree(OLD_RUN, str(tmp_path / 'old'))
    storage.save(params_from(OLD_RUN, old, init_from='', likelihood='normal'))
    params = params_from(old, tmp_path / 'new', normal_scale=0.1)
    assert '--normal_scale=0.1 (there 0.0)' in refusal(params)


def test_what_is_no_run_or_has_no_checkpoint_is_refused(tmp_path):
    params = dataclasses.replace(params_from(OLD_RUN, tmp_path / 'new'), init_from=str(tmp_path))
    assert 'holds no run: give the folder of a run' in refusal(params)
    assert 'holds no run' in refusal(dataclasses.replace(params, init_from='not/there'))
    storage.save(dataclasses.replace(params, model_dir=str(tmp_path), init_from=''))
    assert 'holds no checkpoint yet' in refusal(params)


def test_the_last_checkpoint_that_is_whole_and_finite_is_taken_and_noted(tmp_path, capsys):
    old = shutil.copytree(OLD_RUN, str(tmp_path / 'old'))
    for part in ('.index', '.data-00000-of-00001'):
        shutil.copy(f'{old}/model.ckpt-4{part}', f'{old}/model.ckpt-9{part}')
    tiny.poison(f'{old}/model.ckpt-9')
    params = initial.settle(params_from(old, tmp_path / 'new'), None)
    with open(f'{old}/model.ckpt-4.index', 'rb') as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    assert (params.init_checkpoint, params.init_digest) == ('model.ckpt-4', digest)
    announcements.start(params)
    assert f'from the weights of {old} (model.ckpt-4)' in capsys.readouterr().err
    tiny.poison(f'{old}/model.ckpt-4')
    with pytest.raises(UserError, match=f'--init_from={old}: each of its checkpoints is damaged'):
        initial.settle(params_from(old, tmp_path / 'new'), None)


def test_a_run_with_a_checkpoint_of_its_own_keeps_what_it_started_from(tmp_path, capsys):
    old = shutil.copytree(OLD_RUN, str(tmp_path / 'old'))
    begun = params_from(OLD_RUN, old, init_from='', init_checkpoint='', init_digest='')
    params = dataclasses.replace(begun, init_from='not/there')
    checks.check(params, None)
    assert initial.settle(params, begun) == begun
    assert '--init_from=not/there is ignored' in capsys.readouterr().err
    noted = dataclasses.replace(begun, init_from='a', init_checkpoint='c', init_digest='d')
    assert initial.settle(begun, noted) == initial.settle(noted, noted) == noted
    assert capsys.readouterr().err == ''
    assert initial.warm_start(noted) is None


def test_only_who_makes_the_weights_of_a_cluster_starts_from_them(tmp_path):
    old = shutil.copytree(OLD_RUN, str(tmp_path / 'old'))
    params = initial.settle(params_from(old, tmp_path / 'new'), None)
    for task, starts in ((Task('chief'), True), (Task('worker'), False), (Task('ps'), False)):
        with mock.patch.object(run, 'Estimator') as made:
            run.make_estimator(params, task)
        assert (made.call_args[1]['warm_start_from'] is not None) == starts


@pytest.mark.slow
def test_a_run_starts_with_the_weights_of_another_and_a_fresh_optimizer(tmp_path, monkeypatch):
    data = tiny.write_data(tmp_path)
    monkeypatch.setattr(prepare, 'of_run', lambda *args, **kwargs: data)
    old, new = tmp_path / 'old', tmp_path / 'new'

    def train(folder, **changes):
        vamp = {'prior': 'vamp', 'prior_components': 3}
        params, _ = run.settle(tiny.params_in(folder, **vamp, **changes))
        checks.record(params)
        tiny.trained(data, params)
        return params

    train(old, max_steps=20, learning_rate=0.05, save_checkpoints_steps=20)
    given = tiny.variables(f'{old}/model.ckpt-20')
    params = train(new, max_steps=1, save_checkpoints_steps=1, seed=7, init_from=str(old))
    start = tiny.variables(f'{new}/model.ckpt-0')
    trained = {name for name in given if name[:9] not in ('global_st', 'optimizer')}
    assert priors.PSEUDO_INPUTS in trained
    for name, value in start.items():
        if name in trained:
            np.testing.assert_array_equal(value, given[name], err_msg=name)
        elif name.endswith('_power'):
            assert value == pytest.approx({'1': 0.9, '2': 0.999}[name[-7]])
        else:  # The moments of Adam, and global_step.
            assert not value.any(), name
    assert weights.count_parameters(f'{new}/model.ckpt-0') == sum(
        given[name].size for name in trained
    )
    evaluate = functools.partial(
        run.make_estimator(params).evaluate,
        lambda: inputs.eval_input_fn(data, 'train', 50, 'none'),
    )
    old_loss, loss = (evaluate(checkpoint_path=f'{x}/model.ckpt-0')['loss'] for x in (old, new))
    assert loss < old_loss - 0.1

    shutil.rmtree(str(old))  # What goes on asks for it no more.
    resumed = train(new, max_steps=2, save_checkpoints_steps=1, seed=7, init_from=str(old))
    end = tiny.variables(f'{new}/model.ckpt-2')
    assert end['global_step'] == 2
    assert any((end[name] != given[name]).any() for name in trained)
    recorded = storage.load(str(new))
    assert recorded == resumed
    assert (recorded.init_checkpoint, recorded.init_digest) == ('model.ckpt-20', params.init_digest)


@pytest.mark.slow
def test_weights_that_are_not_those_of_the_settings_beside_them_are_refused(tmp_path):
    data = tiny.write_data(tmp_path)
    old = shutil.copytree(OLD_RUN, str(tmp_path / 'old'))
    params = tiny.params_in(tmp_path / 'new', init_from=old, lstm_units=5)
    storage.save(dataclasses.replace(params, model_dir=old, init_from=''))
    params = initial.settle(params, None)
    with pytest.raises(UserError, match='model.ckpt-4 does not fit .* restore its own hyper_par'):
        tiny.trained(data, params)
