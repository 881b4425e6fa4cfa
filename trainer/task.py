"""Trains, evaluates, exports and draws: `python -m trainer.task`."""

import os
from typing import List

from absl import flags

from trainer import cloud, cluster, hparams, logs, prepare_data, train


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
    params = cloud.placed(params, bool(values.model_dir), os.environ)
    train.check(params, facts)
    report = cloud.metric_reporter(params, os.environ)
    record = train.run(params, task, report)
    if task.leads:
        # Again, for a trial that the service restarted after its last evaluation.
        report(dict(record['validation'], global_step=record['global_step']))
        cloud.publish_model(params, os.environ)


if __name__ == '__main__':
    define_flags()
    logs.run(main, must_print=False)  # The table is in results.json.
