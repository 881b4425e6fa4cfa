"""Trains, evaluates, exports and draws: `python -m trainer.task`."""

import os
from typing import List

from absl import flags

from trainer.base import program
from trainer.cluster import tf_config, vertex
from trainer.data import prepare
from trainer.settings import command_line, rules
from trainer.training import checks, run


def define_flags() -> None:
    """Defines the flags of a run; `--job-dir`, as cloud services spell it, is `--model_dir`."""
    command_line.define_flags()
    flags.adopt_module_key_flags(command_line)  # Else --help leaves them out.
    flags.DEFINE_alias('job-dir', 'model_dir')
    flags.DEFINE_alias('job_dir', 'model_dir')


def main(argv: List[str]) -> None:
    """Turns the flags into one table, checks it, and runs."""
    del argv
    values = flags.FLAGS
    task = tf_config.join()
    params = vertex.placed(command_line.from_flags(values), bool(values.model_dir), os.environ)
    params = checks.with_recorded(params, command_line.given(values))
    params = checks.with_recorded_source(params)
    facts = prepare.facts(params)
    known = facts.image_shape, facts.scaling, params.source_digest, facts.dtype
    params = rules.with_data(params, *known)
    checks.check(params, facts.num_examples)
    report = vertex.metric_reporter(params, os.environ)
    record = run.run(params, task, report)
    if task.is_leader:
        # Again, for a trial that the service restarted after its last evaluation.
        report(dict(record['validation'], global_step=record['global_step']))
        vertex.publish_model(params, os.environ)


if __name__ == '__main__':
    define_flags()
    program.run(main, must_print=False)  # The table is in results.json.
