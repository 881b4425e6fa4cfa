"""Estimates the log-likelihood of a trained model, or how well it tells what is not like its own.

    python -m trainer.evaluate --model_dir=runs/mnist-z32 --split=test --importance_samples=5000
    python -m trainer.evaluate --model_dir=runs/mnist-z32 --against=fashion_mnist,photos,noise.npy
    python -m trainer.evaluate --model_dir=runs/readings-z32 --against=test.csv --label_column=fault

An interrupted estimate of the log-likelihood goes on where it stopped when the same command is
given again: what is known of the images so far lies in `<output>.partial`.
"""

import os
from typing import List, Tuple

from absl import flags

from trainer.base import cores, files, path_flags, program
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.checkpoints import chosen
from trainer.data import image_sets, prepare
from trainer.data.dataset import SPLITS, ImageSet, PreparedDataset
from trainer.evaluation import against, estimate, importance_sampling, labelled, report
from trainer.evaluation.scores import Checkpoint
from trainer.settings import command_line, storage
from trainer.settings.table import HParams


def define_flags() -> None:
    """Defines the flags."""
    command_line.define_flags_of_run(['data_dir', 'idx_dir', 'label_column'])
    flags.adopt_module_key_flags(command_line)
    flags.DEFINE_enum('split', 'test', list(SPLITS), 'Images to evaluate on.')
    flags.DEFINE_integer(
        'importance_samples',
        5000,
        'Samples of the posterior of each image, of which the estimate of log p(x) is made. With '
        '--against it is a score only where this flag is given.',
        lower_bound=1,
        upper_bound=10**9,
    )
    path_flags.define(
        'checkpoint',
        'last',
        'last, best (on the validation images), or a prefix as MODEL_DIR/model.ckpt-5500.',
    )
    flags.DEFINE_integer(
        'num_images',
        0,
        'Evaluate only so many images, the first ones. 0: all. With --against at most so many of '
        f'each set, spread over it. 0: {against.MOST_IMAGES}.',
        lower_bound=0,
    )
    path_flags.define(
        'against',
        '',
        'Other images, several with commas between them: names of TensorFlow Datasets (their test '
        'splits), folders of images, .npy or .npz files. Evaluates how well scores tell them from '
        'those of --split, in place of log p(x). Of a run on readings labelled .csv files, or '
        'folders of them: how well scores tell the rows that --label_column calls unusual.',
        several=True,
    )
    path_flags.define(
        'background_model_dir',
        '',
        'With --against: run of the same settings on images whose pixels were replaced at random, '
        'for the score likelihood_ratio.',
    )
    flags.DEFINE_integer(
        'seed',
        importance_sampling.SEED,
        'Seed of the posterior samples, and of the bootstrap.',
        lower_bound=0,
        upper_bound=2**31 - 1,
    )
    path_flags.define(
        'output',
        '',
        'JSON file of the results. Default: evaluation_SPLIT_SAMPLES.json or, with --against, '
        'detection_SPLIT.json in model_dir, of readings detection_rows.json, with the seed, the '
        'checkpoint and the number of images in its name where they are not the default.',
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
    if values.background_model_dir and not values.against:
        raise UserError(
            f'--background_model_dir={values.background_model_dir} needs --against: name the '
            'images that are to be told from those of the run.'
        )
    params = storage.trained(values.model_dir)
    model = Checkpoint(chosen.find_checkpoint(values.model_dir, values.checkpoint), params)
    measure = _labelled if params.is_series else _detection
    if values.label_column and not (values.against and params.is_series):
        raise UserError(
            f'--label_column={values.label_column} goes with --against=FILE.csv of a run on '
            'readings: leave it away.'
        )
    table, output = (measure if values.against else _log_likelihood)(model)
    shown = '{}\n\n{}'.format(table, output)
    if files.is_stream(output):  # Nothing else goes where the results went.
        say(shown)
    else:
        print(shown)


def _log_likelihood(model: Checkpoint) -> Tuple[str, str]:
    """Estimates log p(x); returns the table, and where the results are."""
    values, params = flags.FLAGS, model.params
    data = _data(params)
    in_split = data.num_examples[values.split]
    num_images = values.num_images or in_split
    if num_images > in_split:
        raise UserError(
            f'--num_images={num_images} must be at most {in_split:,}, the {values.split} images '
            f'of {params.data_name}; 0 means all.'
        )
    samples = values.importance_samples
    facts = estimate.describe(
        data, values.split, num_images, samples, values.seed, model.path, params
    )
    output = _output(estimate.default_name(facts, values.checkpoint))
    say('Evaluating {}.'.format(report.title(facts)))
    record = estimate.evaluate(
        model.path, data, facts, output, _threads(), params, bool(values.output)
    )
    return report.table(record), output


def _detection(model: Checkpoint) -> Tuple[str, str]:
    """Measures how well scores tell images apart; returns the table, and where the results are."""
    values, params = flags.FLAGS, model.params
    background = None
    if values.background_model_dir:
        background = against.background_of(values.background_model_dir, params)
    most = values.num_images or against.MOST_IMAGES
    others = [_set(name, params, most) for name in values.against.split(',')]
    data = _data(params)
    usual = image_sets.of_split(data, values.split, params, most)
    samples = values.importance_samples if flags.FLAGS['importance_samples'].present else 0
    facts = estimate.describe(
        data, values.split, usual.num_images, samples, values.seed, model.path, params
    )
    facts['importance_samples'] = samples or None
    output = _output(against.default_name(facts, values.checkpoint, most))
    scores_of = against.Scores(model, background, samples, values.seed, _threads())
    record = dict(
        against.compare(usual, others, scores_of, values.seed),
        **facts,
        background=against.described(background),
        versions=storage.versions(),
    )
    write = files.write_output if values.output else files.write_bytes
    write(output, files.json_bytes(record))
    return against.table(record), output


def _labelled(model: Checkpoint) -> Tuple[str, str]:
    """Measures how well scores tell rows that labels call unusual, as `_detection` does."""
    values, params = flags.FLAGS, model.params
    of_images = ('split', 'importance_samples', 'num_images', 'background_model_dir')
    given = [f'--{name}' for name in of_images if flags.FLAGS[name].present]
    if given:
        raise UserError(
            f'{" and ".join(given)}: of images, and --model_dir={values.model_dir} is a run on '
            'readings: with --against leave that away.'
        )
    if params.stride != 1:
        raise UserError(
            f'--model_dir={values.model_dir} has --stride={params.stride}, by which rows have no '
            'scores: train with --stride=1.'
        )
    label_column = labelled.label_column_of(model, values.label_column)
    sets = {path: labelled.opened(path, model, label_column) for path in values.against.split(',')}
    data = _data(params)
    count = data.num_examples['validation']
    facts = estimate.describe(data, 'validation', count, 0, values.seed, model.path, params)
    facts['importance_samples'] = None
    record = dict(
        labelled.compare(model, data, sets, values.seed),
        **facts,
        label_column=label_column,
        versions=storage.versions(),
    )
    output = _output(labelled.default_name(values.seed, values.checkpoint))
    write = files.write_output if values.output else files.write_bytes
    write(output, files.json_bytes(record))
    return labelled.text_table(record), output


def _set(name: str, params: HParams, most: int) -> ImageSet:
    """The images that one part of `--against` names, those of a dataset prepared first."""
    values, flag = flags.FLAGS, f'--against={name}'
    if image_sets.is_path(name):
        return image_sets.of_path(name, params, most)
    data_dir = values.data_dir or params.data_dir
    try:
        shape = prepare.dataset_facts(name, data_dir).image_shape
    except UserError as error:
        raise UserError(
            f'{flag} is neither a file or folder here nor a dataset that can be used ({error})'
        ) from error
    if shape is not None:
        image_sets.check_shape(shape, params, flag)
    data = prepare.prepare(name, data_dir, separate_process=True)
    return image_sets.of_split(data, 'test', params, most)


def _data(params: HParams) -> PreparedDataset:
    # In a process of its own: the first session of a process fixes the size of its thread pools.
    values = flags.FLAGS
    return prepare.of_run(params, values.data_dir, values.idx_dir, separate_process=True)


def _output(default: str) -> str:
    return flags.FLAGS.output or os.path.join(flags.FLAGS.model_dir, default)


def _threads() -> int:
    return flags.FLAGS.num_threads or cores.available()


if __name__ == '__main__':
    define_flags()
    program.run(main)
