"""Every setting of a run in one frozen table: the only thing that flags become.

The table is the single source of each setting's name, default, range and help text: `task.py`
makes its flags from it, `model_fn` receives it as `params`, and `model_dir` keeps a copy of it.
"""

import dataclasses
import math
import os
from typing import Any, Iterable, List, Optional, Tuple

import tensorflow as tf
from absl import flags

from trainer import cores, files, logs, path_flags
from trainer.errors import UserError

FILE_NAME = 'hyper_parameters.json'
# Larochelle's binary MNIST, as TFDS calls it.
BINARIZED_MNIST = 'binarized_mnist'


@dataclasses.dataclass(frozen=True)
class Range:
    """The values a number may take: `low` to `high`, both included unless `open_low`."""

    low: float
    high: float
    open_low: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.open_low else self.low <= value) and (
            value <= self.high and not math.isinf(value)
        )

    def __str__(self) -> str:
        if math.isinf(self.high):
            return '{} {:g}'.format('above' if self.open_low else 'at least', self.low)
        start = 'above {:g} and at most' if self.open_low else 'from {:g} to'
        return '{} {:,}'.format(start.format(self.low), self.high)


def _setting(
    default: Any,
    text: str,
    allowed: Optional[Range] = None,
    fixed: bool = True,
    choices: Optional[Tuple[str, ...]] = None,
) -> Any:
    """A row of the table; a `fixed` setting may not differ when a run is resumed."""
    metadata = {'help': text, 'range': allowed, 'fixed': fixed, 'choices': choices}
    return dataclasses.field(default=default, metadata=metadata)


# Matrix products of fewer rows keep no core busy, and each part is a copy of the graph to build.
_IMAGES_PER_THREAD = 32
_COUNT = Range(1, 10**9)
_SIZE = Range(1, 8192)
# Within these, Adam's step of finite weights along finite gradients leaves finite weights and
# moments in single precision, which ends at 3e38: the second moment is at most the square of the
# norm, and a step at most some 10 learning rates.
_STEP_SIZE = Range(0, 10**9, open_low=True)
_GRADIENT_NORM = Range(0, 10**18, open_low=True)


@dataclasses.dataclass(frozen=True)
class HParams:
    """The settings of one run. Losses are in nats per example throughout."""

    # What is modelled.
    dataset: str = _setting('mnist', 'TFDS image dataset of one size, its sides divisible by 4.')
    binarization: str = _setting(
        'none',
        'What the model sees of a pixel. none: its grey level. static: 0 or 1, drawn once with the '
        "grey level as probability of 1; of --dataset=mnist Larochelle's images (TFDS's "
        'binarized_mnist), where they are prepared or can be downloaded. dynamic: drawn anew each '
        'time an image is seen in training, once for evaluation.',
        choices=('none', 'static', 'dynamic'),
    )
    latent_size: int = _setting(32, 'Dimensions of the latent space.', _SIZE)
    lstm_units: int = _setting(96, 'Units of the encoder LSTM.', _SIZE)
    decoder_units: int = _setting(256, "Units of the decoder's first two Dense layers.", _SIZE)
    decoder_channels: int = _setting(
        32, "Channels of the decoder's feature maps at 1/4 and at 1/2 of the image size.", _SIZE
    )

    likelihood: str = _setting(
        'bernoulli',
        'Distribution of a pixel given the latents.',
        choices=('bernoulli', 'continuous_bernoulli', 'normal'),
    )
    normal_scale: float = _setting(
        0.0,
        'Standard deviation of the pixels of --likelihood=normal, of grey levels in [0, 1]. '
        '0: learned, one for all pixels.',
        Range(0, 10),
    )
    prior: str = _setting(
        'standard_normal',
        'Prior of the latents: N(0, I), a learned mixture of Gaussians, or the mixture of the '
        'posteriors of learned pseudo-inputs (VampPrior).',
        choices=('standard_normal', 'mixture', 'vamp'),
    )
    prior_components: int = _setting(200, 'Components of a mixture or vamp prior.', _SIZE)

    # How it is trained.
    objective: str = _setting(
        'elbo',
        'What is maximised: the ELBO, the importance-weighted bound with training_samples samples '
        '(IWAE), or the latter with doubly reparameterised gradients.',
        choices=('elbo', 'iwae', 'dreg'),
    )
    training_samples: int = _setting(
        1, 'Samples of the posterior of each image in a training step.', Range(1, 1000)
    )
    beta: float = _setting(1.0, 'Weight of the KL divergence in the ELBO.', Range(0, 1000))
    beta_warmup_steps: int = _setting(
        0, 'Steps over which beta rises linearly from 0.', Range(0, 10**9)
    )
    beta_cycles: int = _setting(
        0,
        'Equal parts of training in the first half of each of which beta rises linearly from 0.',
        Range(0, 10**6),
    )
    free_bits: float = _setting(
        0.0,
        'Nats of KL divergence below which a group of latent dimensions is not pressed further, '
        'in the mean over a batch.',
        Range(0, 1000),
    )
    free_bits_groups: int = _setting(
        0, 'Groups of neighbouring dimensions for free_bits. 0: each is its own.', Range(0, 8192)
    )
    batch_size: int = _setting(128, 'Images in a training step.', _COUNT)
    max_steps: int = _setting(5500, 'Global step at which training ends.', _COUNT, fixed=False)
    learning_rate: float = _setting(
        4e-3,
        'Peak learning rate of Adam, reached after warmup_steps; over the last 30% of max_steps it '
        'falls linearly to 0.',
        _STEP_SIZE,
        fixed=False,
    )
    warmup_steps: int = _setting(
        200, 'Steps over which the learning rate rises linearly.', Range(0, 10**9)
    )
    max_gradient_norm: float = _setting(
        100.0,
        'Gradients whose global norm (nats per unit of weight) is larger are scaled down to it.',
        _GRADIENT_NORM,
        fixed=False,
    )
    seed: int = _setting(
        1,
        'Seed of the initial weights, the order of the images and all noise.',
        Range(0, 2**31 - 1),
    )

    # Where and how it runs: free to differ when a run is resumed.
    model_dir: str = _setting(
        '',
        'Folder of checkpoints, event files, exports and pictures; a run that finds its own '
        'checkpoint there goes on from it. Default: runs/<dataset>-z<latent_size>.',
        fixed=False,
    )
    data_dir: str = _setting(
        '', "Folder of prepared TFDS datasets. Default: TFDS's own.", fixed=False
    )
    idx_dir: str = _setting(
        '',
        'Folder with the files of the dataset (the four IDX files of mnist and fashion_mnist), raw '
        'or .gz, or folders of them; from these it is prepared instead of from the network.',
        fixed=False,
    )
    save_checkpoints_steps: int = _setting(
        0,
        'Steps between checkpoints; each is evaluated on the validation images. '
        '0: a fifth of max_steps.',
        Range(0, 10**9),
        fixed=False,
    )
    save_summary_steps: int = _setting(
        100,
        'Steps between training summaries for TensorBoard. 0: no summaries, no pictures, only the '
        'metrics of evaluations.',
        Range(0, 10**9),
        fixed=False,
    )
    profile_steps: int = _setting(
        0,
        'Steps between profiles of a training step: a Chrome trace, timeline-<step>.json, and the '
        'compute times of the GRAPH tab. 0: none.',
        Range(0, 10**9),
        fixed=False,
    )
    early_stopping_patience: int = _setting(
        0,
        'Evaluations in a row without a lower negative ELBO on the validation images, or negative '
        'bound where the objective is iwae or dreg, after which training ends before max_steps. '
        'Those while beta rises do not count. 0: it does not.',
        Range(0, 10**9),
        fixed=False,
    )
    evaluation_samples: int = _setting(
        3,
        'Samples of the posterior of each image in an evaluation, of which the importance-weighted '
        'bound is made. The objectives iwae and dreg take training_samples.',
        Range(1, 10000),
        fixed=False,
    )
    exports_to_keep: int = _setting(
        5, 'Exports of best models that are kept, the newest ones.', _COUNT, fixed=False
    )
    num_images: int = _setting(
        100, 'Images drawn from the prior into new_images.png.', Range(1, 10000), fixed=False
    )
    num_threads: int = _setting(
        0,
        'Threads of a training step: the batch is cut into that many parts, computed in '
        'parallel. 0: one for each core that this process may use, as long as each part has 32 '
        'images.',
        Range(0, 1024),
        fixed=False,
    )

    # Taken from the dataset, not a flag: (rows, columns, channels).
    image_shape: Tuple[int, int, int] = dataclasses.field(
        default=(28, 28, 1), metadata={'range': None, 'fixed': True}
    )

    @property
    def rows(self) -> int:
        """Time steps of the LSTM."""
        return self.image_shape[0]

    @property
    def row_features(self) -> int:
        """Features of a time step: the pixels of a row times its channels."""
        return self.image_shape[1] * self.image_shape[2]

    @property
    def served_shape(self) -> List[int]:
        """Shape of an image as users know it: without the channel axis when there is one."""
        return list(self.image_shape if self.image_shape[2] > 1 else self.image_shape[:2])

    @property
    def threads(self) -> int:
        """`num_threads` resolved: at least 1, and no more than there are images in a batch."""
        if self.num_threads:
            return min(self.num_threads, self.batch_size)
        return max(1, min(cores.available(), self.batch_size // _IMAGES_PER_THREAD))

    @property
    def samples_evaluated(self) -> int:
        """Samples of each posterior in an evaluation: those of the bound that is trained."""
        return self.evaluation_samples if self.objective == 'elbo' else self.training_samples

    @property
    def checkpoint_steps(self) -> int:
        """`save_checkpoints_steps` resolved."""
        return self.save_checkpoints_steps or int(math.ceil(self.max_steps / 5))


class _NumberParser(flags.ArgumentParser):
    """Refuses a number outside of its setting's range, in a sentence that states the range."""

    def __init__(self, kind: type, allowed: Range):
        self._kind, self._allowed = kind, allowed
        self.syntactic_help = 'a number {}'.format(allowed)

    def parse(self, argument: Any) -> Any:
        try:
            value = self._kind(argument)
        except (ValueError, OverflowError):
            value = math.nan
        if value not in self._allowed:
            kind = 'a whole number' if self._kind is int else 'a finite number'
            raise ValueError('it must be {} {}'.format(kind, self._allowed))
        return value

    def flag_type(self) -> str:
        return self._kind.__name__


def define_flags(
    names: Optional[Iterable[str]] = None, flag_values: flags.FlagValues = flags.FLAGS
) -> None:
    """Defines an absl flag in `flag_values` for each setting, or for those of `names`."""
    for row in settings():
        if names is not None and row.name not in names:
            continue
        if row.metadata['choices']:
            flags.DEFINE_enum(
                row.name,
                row.default,
                row.metadata['choices'],
                row.metadata['help'],
                flag_values=flag_values,
            )
        elif row.metadata['range'] is None:
            define = path_flags.define if row.name.endswith('_dir') else flags.DEFINE_string
            define(row.name, row.default, row.metadata['help'], flag_values=flag_values)
        else:
            parser = _NumberParser(type(row.default), row.metadata['range'])
            serializer = flags.ArgumentSerializer()
            flags.DEFINE(
                parser,
                row.name,
                row.default,
                row.metadata['help'],
                flag_values=flag_values,
                serializer=serializer,
            )


def settings() -> List[dataclasses.Field]:
    """The rows of the table that a user may set, in order."""
    return [row for row in dataclasses.fields(HParams) if 'help' in row.metadata]


def from_flags(flag_values: flags.FlagValues, image_shape: Tuple[int, int, int]) -> HParams:
    """Makes the table from parsed flags and the dataset's `image_shape`."""
    values = {row.name: getattr(flag_values, row.name) for row in settings()}
    hparams = HParams(image_shape=image_shape, **values)
    dataset = hparams.dataset.replace('*', 'x')  # TensorFlow would take it for a pattern.
    default = os.path.join('runs', '{}-z{}'.format(dataset, hparams.latent_size))
    return dataclasses.replace(hparams, model_dir=hparams.model_dir or default)


def save(hparams: HParams) -> str:
    """Writes the table to its `model_dir`; returns the file's path."""
    path = os.path.join(hparams.model_dir, FILE_NAME)
    return files.write_json(path, dataclasses.asdict(hparams))


def load(model_dir: str) -> Optional[HParams]:
    """Reads the table that a run left in `model_dir`; None where there is none.

    Raises:
      UserError: the file is there, but is not such a table.
    """
    path = os.path.join(model_dir, FILE_NAME)
    try:
        values = files.read_json(path)
    except tf.errors.OpError as error:
        raise UserError(
            '--model_dir={}: its {} cannot be read ({}).'.format(
                model_dir, FILE_NAME, error.message
            )
        ) from error
    except UserError as error:
        raise UserError(
            '{} The model card of each export, export/*/*/assets.extra/README.md in the folder, '
            'ends with what belongs there.'.format(error)
        ) from error
    return None if values is None else _from_json(values, path)


def _from_json(values: Any, path: str) -> HParams:
    try:
        values['image_shape'] = tuple(values['image_shape'])
        hparams = HParams(**values)
        _check_values(hparams)
        check_consistent(hparams)
    except (TypeError, KeyError, AttributeError, UserError) as error:
        raise UserError(
            '{} does not hold the settings of this trainer ({}): choose another '
            '--model_dir.'.format(path, error)
        ) from error
    return hparams


def _check_values(hparams: HParams) -> None:
    """Refuses what no flag could have set; of a file anything can be expected.

    Raises:
      UserError: names the setting.
    """
    for row in settings():
        value, allowed = getattr(hparams, row.name), row.metadata['range']
        choices = row.metadata['choices']
        if allowed is not None:
            kinds: Tuple[type, ...] = (int,) if type(row.default) is int else (int, float)
            good = type(value) in kinds and value in allowed
        else:
            good = type(value) is str and logs.is_text(value) and value in (choices or [value])
        if not good:
            raise UserError('{} cannot be {:.100}'.format(row.name, repr(value)))
    shape = hparams.image_shape
    if len(shape) != 3 or not all(type(side) is int and side in _SIZE for side in shape):
        raise UserError('image_shape cannot be {:.100}'.format(repr(shape)))


def trained(model_dir: str) -> HParams:
    """Returns the settings of the model in `model_dir`, wherever the folder was since moved to.

    Raises:
      UserError: no run has left its settings there.
    """
    params = load(model_dir)
    if params is None:
        raise UserError(
            '--model_dir={} holds no trained model: give the folder of a run of '
            'trainer.task.'.format(model_dir)
        )
    return dataclasses.replace(params, model_dir=model_dir)


def selection_metric(params: HParams) -> str:
    """Names the metric whose least validation value makes the best model: what training minimises.

    `negative_elbo`, or `negative_importance_weighted_bound` of `training_samples` samples.
    """
    if params.objective == 'elbo':
        return 'negative_elbo'
    return 'negative_importance_weighted_bound'


def reported_metrics(params: HParams) -> List[str]:
    """Names the metrics that results and tables show, in order."""
    names = ['negative_elbo', 'reconstruction_loss', 'kl_divergence']
    return names if selection_metric(params) in names else names + [selection_metric(params)]


def convention(params: HParams) -> str:
    """Names the data that every number of the run is of: those of others cannot be compared."""
    if params.binarization == 'none':
        return 'grey levels'
    if params.binarization == 'dynamic':
        return 'dynamic binarisation'
    if is_binary(params.dataset):
        return 'static binarisation by Larochelle'
    return 'static binarisation by fixed-seed sampling'


def is_binary(dataset: str) -> bool:
    """Whether TFDS stores the dataset's pixels as 0 and 1: there is nothing to draw then."""
    return dataset.partition(':')[0] == BINARIZED_MNIST


def log_likelihood(params: HParams) -> str:
    """Says what log p(x), of which ELBO and importance-weighted bound are bounds, is.

    Log-probabilities of binary images are minus infinity as log-densities of grey levels, and no
    two of the three kinds can be compared (Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845,
    section 3, on the first of them).
    """
    if params.binarization != 'none':
        return 'a log-probability of binary images'
    if not has_log_likelihood(params):
        return 'no log-likelihood, as a Bernoulli is no density of grey levels'
    return 'a log-density of grey levels'


def has_log_likelihood(params: HParams) -> bool:
    """Whether the model gives images a likelihood: a Bernoulli gives grey levels none."""
    return params.binarization != 'none' or params.likelihood != 'bernoulli'


def check_consistent(hparams: HParams) -> None:
    """Refuses settings that make no sense together.

    Raises:
      UserError: names the two settings, and why.
    """
    for wrong, text in _contradictions(hparams):
        if wrong:
            raise UserError(text)


def _contradictions(hparams: HParams) -> List[Tuple[bool, str]]:
    weighted = hparams.objective != 'elbo'
    objective = '--objective={}'.format(hparams.objective)
    groups = hparams.free_bits_groups
    return [
        (
            hparams.binarization != 'none' and hparams.likelihood != 'bernoulli',
            '--likelihood={} needs --binarization=none (now {}): it is a density of grey levels, '
            'and images of 0 and 1 have probabilities.'.format(
                hparams.likelihood, hparams.binarization
            ),
        ),
        (
            is_binary(hparams.dataset) and hparams.binarization != 'static',
            '--dataset={} needs --binarization=static (now {}): its pixels are 0 and 1 '
            'already.'.format(hparams.dataset, hparams.binarization),
        ),
        (
            weighted and hparams.training_samples < 2,
            '{} needs --training_samples of at least 2 (now {}): with one it is the ELBO.'.format(
                objective, hparams.training_samples
            ),
        ),
        (
            weighted and bool(hparams.free_bits),
            '--free_bits={:g} needs --objective=elbo (now {}): the importance-weighted bound has '
            'no KL divergence to leave free.'.format(hparams.free_bits, hparams.objective),
        ),
        (
            weighted
            and (hparams.beta != 1.0 or hparams.beta_warmup_steps + hparams.beta_cycles > 0),
            '--beta, --beta_warmup_steps and --beta_cycles need --objective=elbo (now {}): the '
            'importance-weighted bound has no KL divergence to weigh.'.format(hparams.objective),
        ),
        (
            hparams.beta_warmup_steps > 0 and hparams.beta_cycles > 0,
            '--beta_warmup_steps={} and --beta_cycles={} exclude each other: give one.'.format(
                hparams.beta_warmup_steps, hparams.beta_cycles
            ),
        ),
        (
            hparams.beta_cycles > hparams.max_steps,
            '--beta_cycles={} must be at most --max_steps={}.'.format(
                hparams.beta_cycles, hparams.max_steps
            ),
        ),
        (
            bool(hparams.free_bits) and hparams.prior != 'standard_normal',
            '--free_bits={:g} needs --prior=standard_normal (now {}): the KL divergence from a '
            'mixture is not a sum over dimensions.'.format(hparams.free_bits, hparams.prior),
        ),
        (
            groups > 0 and not hparams.free_bits,
            '--free_bits_groups={} needs --free_bits above 0.'.format(groups),
        ),
        (
            groups > 0 and hparams.latent_size % groups > 0,
            '--free_bits_groups={} must divide --latent_size={}.'.format(
                groups, hparams.latent_size
            ),
        ),
        (
            bool(hparams.normal_scale) and hparams.likelihood != 'normal',
            '--normal_scale={:g} needs --likelihood=normal (now {}).'.format(
                hparams.normal_scale, hparams.likelihood
            ),
        ),
    ]


def is_open(params: HParams) -> bool:
    """Whether it depends on what can be had which dataset is meant, MNIST's or Larochelle's."""
    return params.dataset == 'mnist' and params.binarization == 'static'


def settled(params: HParams, recorded: HParams) -> HParams:
    """Returns `params` with the dataset that the recorded run took where theirs is open."""
    if is_open(params) and recorded.binarization == 'static' and is_binary(recorded.dataset):
        return dataclasses.replace(params, dataset=recorded.dataset)
    return params


# What the end and the work after it go by, and no step.
_FINAL_WORK = (
    'early_stopping_patience',
    'evaluation_samples',
    'exports_to_keep',
    'num_images',
    'num_threads',
)


def of_finished(params: HParams, recorded: HParams) -> HParams:
    """Returns the settings that a run was trained with, for a start that trains it no further.

    Folders, and what only the final work goes by, are those of `params`.
    """
    names = [row.name for row in settings() if row.name.endswith('_dir')]
    return dataclasses.replace(
        recorded, **{name: getattr(params, name) for name in (*names, *_FINAL_WORK)}
    )


def check_resumable(hparams: HParams, recorded: HParams) -> None:
    """Refuses to go on with a run under settings other than its own.

    Raises:
      UserError: a fixed setting differs; the message holds each with both values.
    """
    hparams = settled(hparams, recorded)
    differences = [
        '--{}={} (was {})'.format(row.name, getattr(hparams, row.name), getattr(recorded, row.name))
        for row in dataclasses.fields(HParams)
        if row.metadata['fixed'] and getattr(hparams, row.name) != getattr(recorded, row.name)
    ]
    if differences:
        raise UserError(
            '--model_dir={} holds a run with other settings: {}; give the old values to go on with '
            'it, or another --model_dir.'.format(hparams.model_dir, ', '.join(differences))
        )
