"""What scripts/submit --tune=SETTING=VALUES asks for, and whether its trials run and compare."""

import dataclasses
import itertools
import os
from typing import Any, Dict, List, Sequence, Tuple

from absl import flags

from trainer.base.errors import UserError
from trainer.cluster import vertex
from trainer.data import prepare
from trainer.settings import command_line, rules, table, wording
from trainer.settings.table import HParams

_NOT_TUNED = ('dataset', *rules.OF_IMAGE_FILES, *rules.OF_SERIES, *table.paths())
# A tenth of a millisecond each.
_MOST_COMBINATIONS = 100000
# Nothing is there: what a job will find is not on this machine.
_NO_DATA_DIR = os.path.join(os.devnull, 'tensorflow_datasets')


def parameter_spec(tune: str, trainer: flags.FlagValues) -> Dict[str, Any]:
    """Returns the ParameterSpec of a `--tune` value.

    A whole number is an integer or a category, never a DiscreteValueSpec: its values are doubles,
    and 16.0 is none that --latent_size takes.

    Raises:
      UserError: no such setting, or values that it may not have.
    """
    name, _, text = tune.partition('=')
    names = [row.name for row in table.settings() if row.name not in _NOT_TUNED]
    if name not in names:
        raise UserError(f'--tune={tune}: it tunes none of {", ".join(names)}.')
    if trainer[name].present:
        raise UserError(f'--tune={tune}: --{name} also stands after --; leave one away.')
    low, colon, high = text.partition(':')
    high, _, scale = high.partition(':')
    given = [low, high] if colon else text.split(',')
    values = [_parsed(tune, name, value) for value in given]
    if not colon:
        twice = [value for value, parsed in zip(given, values) if values.count(parsed) > 1]
        if twice:
            raise UserError(f'--tune={tune}: {" and ".join(twice)} are one value; give it once.')
        # The text as given, which is what the trainer's flag then reads.
        return {'parameterId': name, 'categoricalValueSpec': {'values': given}}
    if scale not in ('', 'log') or values[0] >= values[1] or (scale and values[0] <= 0):
        raise UserError(f'--tune={tune}: write LOW:HIGH, LOW below HIGH; with :log LOW above 0.')
    whole = isinstance(values[0], int)
    return {
        'parameterId': name,
        # In JSON a 64-bit integer is a string.
        'integerValueSpec' if whole else 'doubleValueSpec': {
            'minValue': str(values[0]) if whole else values[0],
            'maxValue': str(values[1]) if whole else values[1],
        },
        'scaleType': 'UNIT_LOG_SCALE' if scale else 'UNIT_LINEAR_SCALE',
    }


def _parsed(tune: str, name: str, value: Any) -> Any:
    scratch = flags.FlagValues()
    command_line.define_flags([name], scratch)
    try:
        scratch(['', f'--{name}={value}'])
    except flags.Error as error:
        raise UserError(f'--tune={tune}: {error}') from error
    return scratch[name].value


def check_trials(parameters: Sequence[Dict[str, Any]], trainer: flags.FlagValues) -> str:
    """Returns the metric that the trials report; refuses trials that fail or do not compare.

    Each trial passes the trainer's own checks. Ranges are looked at where they begin and end; one
    of whole numbers also right after its beginning, as a divisor, say, may fit both ends and
    nothing between.

    Args:
      parameters: the ParameterSpecs; none of a job that is no tuning.

    Raises:
      UserError: names the settings, and why.
    """
    metric = ''
    num_examples = None
    try:
        job = command_line.from_flags(trainer)
        if job.dataset:
            facts = prepare.dataset_facts(job.dataset, _NO_DATA_DIR)
            job = dataclasses.replace(job, image_shape=facts.image_shape)
            num_examples = facts.num_examples
    except UserError as error:
        raise UserError(f'after --: {error}') from error
    first: List[Tuple[str, str]] = []
    for values in _combinations(parameters):
        params = dataclasses.replace(job, **values)
        trial = ' '.join(f'--{name}={value}' for name, value in values.items())
        try:
            rules.check_settings(params, num_examples)
        except UserError as error:
            where = f'--tune: a trial with {trial} would fail: ' if parameters else 'after --: '
            raise UserError(f'{where}{error}') from error
        metric = vertex.tuning_metric(params)
        first = first or [(trial, _measure(params))]
        if _measure(params) != first[0][1]:
            raise UserError(
                '--tune: trials do not compare: with {} the metric is {}, with {} it is {}. Tune '
                'them apart.'.format(*first[0], trial, _measure(params))
            )
    return metric


def _combinations(parameters: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    names = [parameter['parameterId'] for parameter in parameters]
    values = [_values(parameter) for parameter in parameters]
    count = 1
    for some in values:
        count *= len(some)
    if count > _MOST_COMBINATIONS:
        raise UserError(
            f'--tune: {count:,} combinations of values are more than can be checked: tune fewer '
            'settings at once.'
        )
    return [dict(zip(names, combination)) for combination in itertools.product(*values)]


def _values(parameter: Dict[str, Any]) -> List[Any]:
    """Returns values that the setting will have in trials: all, or some of a range."""
    name = parameter['parameterId']
    if 'categoricalValueSpec' in parameter:
        texts = parameter['categoricalValueSpec']['values']
        return [_parsed(name, name, text) for text in texts]
    if 'integerValueSpec' in parameter:
        ends = [int(value) for value in parameter['integerValueSpec'].values()]
        return sorted({*ends, ends[0] + 1})
    return list(parameter['doubleValueSpec'].values())


def _measure(params: HParams) -> str:
    """Says what a trial's metric is of: two that say the same can be compared."""
    measure = vertex.tuning_metric(params)
    if params.objective != 'elbo':
        measure += ' of {} samples'.format(params.training_samples)
    return '{} ({}): {}'.format(
        measure, wording.data_convention(params), wording.log_likelihood(params)
    )
