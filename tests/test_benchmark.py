"""The benchmark's arithmetic, and its contestants taking turns."""

import sys

import pytest

from scripts import benchmark
from trainer.hparams import HParams


class Answers:
    """A contestant that has answered with these milliseconds, turn by turn."""

    def __init__(self, name, *turns):
        self.name = name
        self.turns = [
            {'milliseconds': turn, 'cpu_seconds': 0.03, 'peak_megabytes': 7.0} for turn in turns
        ]

    medians = benchmark.Contestant.medians
    all_milliseconds = benchmark.Contestant.all_milliseconds


def test_flops_are_those_counted_by_hand():
    params = HParams(
        image_shape=(4, 8, 1), lstm_units=3, latent_size=2, decoder_units=5, decoder_channels=6,
        batch_size=10,
    )  # fmt: skip
    # Multiplications of an example: LSTM input 4 x 8 x 12 forward and for the weights, state
    # 3 x 3 x 12; posterior 2 x 12 x 2; Dense 2 x 5, 5 x 5, 5 x 12; transpose convolutions
    # 2 pixels x 9 x 6 x 6 and 8 pixels x 16 x 6 x 1; all but the first three times.
    expected = 2 * (4 * 8 * 12) + 3 * (3 * 3 * 12 + 2 * 12 * 2 + 10 + 25 + 60)
    expected += 3 * (2 * 9 * 36 + 8 * 16 * 6)
    assert benchmark.training_flops(params) == 10 * 2 * expected


def test_ratios_are_medians_of_pairs_and_the_better_torch_counts():
    params = HParams(batch_size=128)
    row = benchmark.row_of(
        params,
        {
            'ours': Answers('ours', [10.0], [20.0], [40.0]),
            'plain': Answers('plain', [20.0], [20.0], [20.0]),
            'torch_eager': Answers('torch_eager', [90.0], [90.0], [90.0]),
            'torch_compiled': Answers('torch_compiled', [15.0], [24.0], [80.0]),
            'gemm': Answers('gemm', [100.0], [100.0], [100.0]),
        },
    )
    assert row['torch_best'] == 'torch_compiled'
    assert row['ratio_vs_torch'] == pytest.approx(1.5)  # of 1.5, 1.2 and 2
    assert row['ratio_vs_plain'] == pytest.approx(1.0)  # of 2, 1 and 0.5
    assert row['ours_median_ms'] == 20.0
    assert row['ours_cpu_ms'] == pytest.approx(30.0)
    peak = 2 * 2048**3 / 0.1
    assert row['gemm_share'] == pytest.approx(benchmark.training_flops(params) / 0.02 / peak)


@pytest.mark.slow
def test_contestants_of_tensorflow_run_the_steps_they_are_told(mnist_data_dir, monkeypatch):
    monkeypatch.setattr(benchmark, '_WARM_UP_STEPS', 2)
    params = HParams(batch_size=8, lstm_units=4, data_dir=mnist_data_dir)
    for name in ('ours', 'plain', 'gemm'):
        contestant = benchmark.start(name, params, data_file='', torch_python=sys.executable)
        answer = contestant.take_turn(3)
        contestant.close()
        assert len(answer['milliseconds']) == 3
        assert min(answer['milliseconds']) > 0
        assert answer['peak_megabytes'] > 50
