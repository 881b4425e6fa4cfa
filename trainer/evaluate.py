"""Estimates the log-likelihood of a trained model: `python -m trainer.evaluate`.

    python -m trainer.evaluate --model_dir=runs/mnist-z32 --split=test --importance_samples=5000

An interrupted evaluation goes on where it stopped when the same command is given again: what is
known of the images so far lies in `<output>.partial`.
"""

import os
from typing import List

from absl import flags

from trainer.base import cores, files, path_flags, program
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.checkpoints import chosen
from trainer.data import prepare
from trainer.data.dataset import SPLITS
from trainer.evaluation import estimate, report
from trainer.settings import command_line, storage


def define_flags() -> None:
    """Defines the flags."""
    command_line.define_flags_of_run(['data_dir', 'idx_dir'])
    flags.adopt_module_key_flags(command_line)
    flags.DEFINE_enum('split', 'test', list(SPLITS), 'Images to evaluate on.')
    flags.DEFINE_integer(
        'importance_samples',
        5000,
        'Samples of the posterior of each image, of which the estimate of log p(x) is made.',
        lower_bound=1,
        upper_bound=10**9,
    )
    path_flags.define(
        'checkpoint',
        'last',
        'last, best (on the validation images), or a prefix as MODEL_DIR/model.ckpt-5500.',
    )
    flags.DEFINE_integer(
        'num_images', 0, 'Evaluate only so many images, the first ones. 0: all.', lower_bound=0
    )
    flags.DEFINE_integer(
        'seed',
        estimate.SEED,
        'Seed of the posterior samples.',
        lower_bound=0,
        upper_bound=2**31 - 1,
    )
    path_flags.define(
        'output',
        '',
        'JSON file of the results. Default: evaluation_SPLIT_SAMPLES.json in model_dir, with the '
        'seed, the checkpoint and the number of images in its name where they are not the default.',
    )
    flags.DEFINE_integer(
        'num_threads',
        0,
        'Images computed at a time, a core for each. 0: one for each core that this process may '
        'use.',
        lower_bound=0,
        upper_bound=1024,
    )


def main(argv: List[str]) -> None:
    """Reads the flags, evaluates, prints a table, says where the results are."""
    del argv
    values = flags.FLAGS
    if values.output:
        files.check_output('--output', values.output)
    params = storage.trained(values.model_dir)
    checkpoint_path = chosen.find_checkpoint(values.model_dir, values.checkpoint)
    # In a process of its own: the first session of a process fixes the size of its thread pools.
    data = prepare.of_run(params, values.data_dir, values.idx_dir, separate_process=True)
    in_split = data.num_examples[values.split]
    num_images = values.num_images or in_split
    if num_images > in_split:
        raise UserError(
            f'--num_images={num_images} must be at most {in_split:,}, the {values.split} images '
            f'of {params.data_name}; 0 means all.'
        )
    facts = estimate.describe(
        data,
        values.split,
        num_images,
        values.importance_samples,
        values.seed,
        checkpoint_path,
        params,
    )
    default = os.path.join(values.model_dir, estimate.default_name(facts, values.checkpoint))
    output = values.output or default
    say('Evaluating {}.'.format(report.title(facts)))
    threads = values.num_threads or cores.available()
    record = estimate.evaluate(
        checkpoint_path, data, facts, output, threads, params, bool(values.output)
    )
    shown = '{}\n\n{}'.format(report.table(record), output)
    if files.is_stream(output):  # Nothing else goes where the results went.
        say(shown)
    else:
        print(shown)


if __name__ == '__main__':
    define_flags()
    program.run(main)
