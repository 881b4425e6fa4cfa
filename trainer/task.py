"""Trains, evaluates, exports and draws: `python -m trainer.task`."""

from typing import List

from absl import flags

from trainer import cluster, hparams, logs, prepare_data, train


def define_flags() -> None:
    """Defines the flags of a run; `--job-dir`, as cloud services spell it, is `--model_dir`."""
    hparams.define_flags()
    flags.adopt_module_key_flags(hparams)  # Else --help leaves them out.
    flags.DEFINE_alias('job-dir', 'model_dir')
    flags.DEFINE_alias('job_dir', 'model_dir')


def main(argv: List[str]) -> None:
    """Turns the flags into one table, checks it, and runs."""
    del argv
    values = flags.FLAGS
    task = cluster.join()
    facts = prepare_data.dataset_facts(values.dataset, values.data_dir or None)
    params = hparams.from_flags(values, facts.image_shape)
    train.check(params, facts)
    train.run(params, task)


if __name__ == '__main__':
    define_flags()
    logs.run(main)
