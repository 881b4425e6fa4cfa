"""The benchmark's parts of a step and of a start: where ops are counted, and what is printed."""

import dataclasses
import types

import pytest

from scripts.benchmark import op_times, parts
from scripts.benchmark.architecture import Architecture
from trainer.data import prepare
from trainer.settings.table import HParams


def test_an_op_is_of_the_part_that_its_scopes_and_its_kind_tell():
    gradient = 'tower_1/gradients/tower_1/decoder/transpose_convolution_1/grad/MatMul'
    for name, kind, part in (
        ('tower_0/encoder/lstm/MatMul_7', 'MatMul', 'encoder, matrix products'),
        ('tower_0/encoder/lstm/Tanh_7', 'Tanh', 'encoder, other ops'),
        ('tower_0/decoder/dense_1/MatMul', 'MatMul', 'decoder, matrix products'),
        (gradient, 'MatMul', 'decoder, transpose convolutions'),
        (gradient.replace('MatMul', 'Elu'), 'EluGrad', 'decoder, other ops'),
        ('optimizer/Adam', 'NoOp', 'all else'),
    ):
        assert op_times.part_of(name, kind) == part, name


@pytest.mark.slow
def test_parts_of_a_step_and_of_a_start_are_measured(
    small_mnist_data_dir, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(parts, 'BATCH_SIZES', (8,))
    params = HParams(
        lstm_units=4, latent_size=2, decoder_units=5, decoder_channels=3, batch_size=8,
        data_dir=small_mnist_data_dir, model_dir=str(tmp_path / 'model'),
    )  # fmt: skip
    data = prepare.prepare('mnist', small_mnist_data_dir)
    flags = types.SimpleNamespace(quick=True)
    bench = types.SimpleNamespace(params=params, data=data, folder=str(tmp_path), flags=flags)
    by_part = {row['part']: row for row in parts.step(bench)}
    of_products = Architecture(dataclasses.asdict(params)).training_flops_by_part()
    assert set(of_products) < set(by_part)
    assert all(row['milliseconds'] > 0 for row in by_part.values())
    for part, flops in of_products.items():
        rate = 8 * flops / (by_part[part]['milliseconds'] / 1e3) / 1e9
        assert by_part[part]['gflops'] == pytest.approx(rate)

    *rows, in_all = parts.start(bench)
    assert in_all['part'] == 'in all'
    for model in ('vae', 'one_weight'):
        # Medians of parts need not add up to the median of the whole.
        assert sum(row[model] for row in rows) == pytest.approx(in_all[model], rel=0.3)
        assert all(row[model] > 0 for row in rows)
    graph = next(row for row in rows if row['part'] == 'graph of the model')
    assert graph['vae'] > graph['one_weight']
    assert 'seconds by parts' in capsys.readouterr().out
