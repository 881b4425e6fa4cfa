"""Every setting of a run in one frozen table: the only thing that flags become.

The table is the single source of each setting's name, default, range and help text:
`command_line.py` makes flags of it, `model_fn` receives it as `params`, `model_dir` keeps a copy.
"""

import dataclasses
import functools
import math
import os
import re
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Tuple

from trainer.settings.ranges import COUNT, GRADIENT_NORM, SIZE, STEP_SIZE, STEPS, Range

# Larochelle's binary MNIST, as TFDS calls it.
BINARIZED_MNIST = 'binarized_mnist'


class LikelihoodFacts(NamedTuple):
    """What the rest of the program has to know of a likelihood."""

    of_binary_images: bool  # Whether it gives images of 0 and 1 a probability.
    of_grey_levels: bool  # Whether it is a density of grey levels.
    of_readings: bool  # Whether it is a density of standardised readings, on the whole line.
    mean_is_bounded: bool  # Whether its mean lies in [0, 1].
    values: str  # What its mean is called.


# The values of --likelihood; the classes of `model/likelihoods.py` have these names as `kind`.
LIKELIHOODS: Dict[str, LikelihoodFacts] = {
    'bernoulli': LikelihoodFacts(True, False, False, True, 'probabilities'),
    'continuous_bernoulli': LikelihoodFacts(False, True, False, True, 'expected grey levels'),
    'normal': LikelihoodFacts(False, True, False, True, 'expected grey levels'),
    'normal_by_column': LikelihoodFacts(False, False, True, False, 'expected readings'),
}


class PriorFacts(NamedTuple):
    """What the rest of the program has to know of a prior."""

    # Whether the KL divergence of the posterior is a sum over dimensions in closed form, which free
    # bits need.
    has_closed_kl: bool
    has_components: bool  # Whether it is a mixture, all of it held in memory for each sample.
    starts_from_images: bool = False  # Whether its weights start from training images.


# The values of --prior; the classes of `model/priors.py` have these names as `kind`.
PRIORS: Dict[str, PriorFacts] = {
    'standard_normal': PriorFacts(has_closed_kl=True, has_components=False),
    'mixture': PriorFacts(has_closed_kl=False, has_components=True),
    'flow': PriorFacts(has_closed_kl=False, has_components=False),
    'vamp': PriorFacts(has_closed_kl=False, has_components=True, starts_from_images=True),
}


def _setting(
    default: Any,
    text: str,
    allowed: Optional[Range] = None,
    choices: Optional[Collection[str]] = None,
    fixed: bool = True,
    is_path: bool = False,
) -> Any:
    """A row of the table; a `fixed` setting may not differ when a run is resumed."""
    facts = {'help': text, 'range': allowed, 'choices': choices, 'fixed': fixed}
    return dataclasses.field(default=default, metadata={**facts, 'is_path': is_path})


_free = functools.partial(_setting, fixed=False)
# Files and folders of this machine, in no way a property of the model.
_path = functools.partial(_free, is_path=True)
# No flags: what is found out, and what is noted of a run's start.
_found: Any = functools.partial(dataclasses.field, metadata={'fixed': True})
_noted: Any = functools.partial(dataclasses.field, metadata={'fixed': False})

Scaling = Tuple[Tuple[str, float, float], ...]  # Name, mean and deviation of each column.


@dataclasses.dataclass(frozen=True)
class HParams:
    """The settings of one run. Losses are in nats per example throughout."""

    # What is modelled.
    dataset: str = _setting('mnist', 'TFDS image dataset of one size.')
    image_size: str = _setting('', 'ROWSxCOLUMNS, as 28x28: size that images of --source get.')
    fit: str = _setting(
        'stretch',
        'How --image_size resizes: by stretching the sides, or by keeping their ratio and padding '
        'with white.',
        choices=('stretch', 'pad'),
    )
    channels: str = _setting(
        'auto',
        'Channels of the images of --source: 1 for grey, 3 for colour. auto: 1 if all are grey.',
        choices=('auto', '1', '3'),
    )
    window: int = _setting(0, 'Rows of a window of CSV files. 0: 28.', Range(0, 8192))
    stride: int = _setting(1, 'Rows from the start of a window to that of the next.', COUNT)
    columns: str = _setting('', 'Columns of CSV files to model, as a,b. Default: all of numbers.')
    label_column: str = _setting(
        '', 'Column of CSV files that says which rows are unusual: kept from the model.'
    )
    time_column: str = _setting('', 'Column of CSV files with the time. Default: found, if any.')
    missing: str = _setting(
        'refuse',
        'What becomes of values that CSV files lack. interpolate: a line over the gap.',
        choices=('refuse', 'interpolate'),
    )
    binarization: str = _setting(
        'none',
        'What the model sees of a pixel. none: its grey level. static: 0 or 1, drawn once with the '
        "grey level as probability of 1; of --dataset=mnist Larochelle's images (TFDS's "
        'binarized_mnist), where they are prepared or can be downloaded. dynamic: drawn anew each '
        'time an image is seen in training, once for evaluation.',
        choices=('none', 'static', 'dynamic'),
    )
    dequantization: str = _setting(
        'uniform',
        'What is added to 8-bit grey levels where the likelihood is a density. uniform: noise of a '
        "level's width, drawn anew each time an image is seen in training, once for evaluation.",
        choices=('uniform', 'none'),
    )
    latent_size: int = _setting(32, 'Dimensions of the latent space.', SIZE)
    lstm_units: int = _setting(96, "Units of the encoder's recurrent layer.", SIZE)
    decoder_units: int = _setting(256, "Units of the decoder's first two Dense layers.", SIZE)
    decoder_channels: int = _setting(
        32, "Channels of the decoder's feature maps at 1/4 and at 1/2 of the image size.", SIZE
    )
    decoder_activation: str = _setting(
        'elu',
        "Activation of the decoder's first two Dense layers; gated: times the sigmoid of another.",
        choices=('elu', 'gated'),
    )
    likelihood: str = _setting(
        'bernoulli',
        'Distribution of a pixel given the latents. Readings have normal_by_column.',
        choices=LIKELIHOODS,
    )
    normal_scale: float = _setting(
        0.0,
        'Standard deviation of the pixels of --likelihood=normal, of grey levels in [0, 1]. '
        '0: learned, one for all pixels.',
        Range(0, 10),
    )
    prior: str = _setting(
        'standard_normal',
        'Prior of the latents: N(0, I), a learned mixture of Gaussians, N(0, I) moved by learned '
        'affine couplings, or the mixture of the posteriors of learned pseudo-inputs (VampPrior).',
        choices=PRIORS,
    )
    prior_components: int = _setting(200, 'Components of a mixture or vamp prior.', SIZE)
    prior_couplings: int = _setting(4, 'Affine couplings of a flow prior.', Range(1, 100))

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
    beta_warmup_steps: int = _setting(0, 'Steps over which beta rises linearly from 0.', STEPS)
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
    batch_size: int = _setting(128, 'Images in a training step.', COUNT)
    max_steps: int = _free(5500, 'Global step at which training ends.', COUNT)
    learning_rate: float = _free(
        4e-3,
        'Peak learning rate of Adam, reached after warmup_steps; over the last 30% of max_steps it '
        'falls linearly to 0.',
        STEP_SIZE,
    )
    warmup_steps: int = _setting(200, 'Steps over which the learning rate rises linearly.', STEPS)
    max_gradient_norm: float = _free(
        100.0,
        'Gradients whose global norm (nats per unit of weight) is larger are scaled down to it.',
        GRADIENT_NORM,
    )
    seed: int = _setting(
        1,
        'Seed of the initial weights, the order of the images and all noise.',
        Range(0, 2**31 - 1),
    )

    # Where and how it runs: free to differ when a run is resumed.
    model_dir: str = _path(
        '',
        'Folder of checkpoints, event files, exports and pictures; a run that finds its own '
        'checkpoint there goes on from it. Default: runs/<dataset>-z<latent_size>.',
    )
    source: str = _path(
        '',
        'Data of your own, in place of --dataset: a folder of PNG, JPEG, BMP and GIF files, a .npy '
        'or .npz file, a .csv file of readings or a folder of such, or the folder of what was '
        'prepared of one.',
    )
    init_from: str = _path(
        '',
        'model_dir of another run of the same shapes, whose last good weights training starts '
        'from; a run that has a checkpoint of its own goes on from that.',
    )
    data_dir: str = _path('', "Folder of prepared images. Default: TFDS's own.")
    idx_dir: str = _path(
        '',
        'Folder with the files of the dataset (the four IDX files of mnist and fashion_mnist), raw '
        'or .gz, or folders of them; from these it is prepared instead of from the network.',
    )
    save_checkpoints_steps: int = _free(
        0,
        'Steps between checkpoints, each evaluated on validation images. 0: a fifth of max_steps.',
        STEPS,
    )
    save_summary_steps: int = _free(
        100,
        'Steps between training summaries for TensorBoard. 0: no summaries, no pictures, only the '
        'metrics of evaluations.',
        STEPS,
    )
    profile_steps: int = _free(
        0,
        'Steps between profiles of a training step: a Chrome trace, timeline-<step>.json, and the '
        'compute times of the GRAPH tab. 0: none.',
        STEPS,
    )
    early_stopping_patience: int = _free(
        0,
        'Evaluations in a row without a lower negative ELBO on the validation images, or negative '
        'bound where the objective is iwae or dreg, after which training ends before max_steps. '
        'Those while beta rises do not count. 0: it does not.',
        STEPS,
    )
    evaluation_samples: int = _free(
        3,
        'Samples of the posterior of each image in an evaluation, of which the importance-weighted '
        'bound is made. The objectives iwae and dreg take training_samples.',
        Range(1, 10000),
    )
    exports_to_keep: int = _free(5, 'Exports of best models that are kept, the newest ones.', COUNT)
    num_images: int = _free(100, 'Images drawn from the prior, new_images.png.', Range(1, 10000))
    num_threads: int = _free(
        0,
        'Threads of a training step: the batch is cut into as many parts, or twice as many of more '
        'than 128 images. 0: one a core that this process may use, while each has 32 images.',
        Range(0, 1024),
    )

    # Taken from the data: (rows, columns, channels), of a series (window, 1, columns); its scaling;
    # which data of --source.
    image_shape: Tuple[int, int, int] = _found(default=(28, 28, 1))
    scaling: Scaling = _found(default=())
    source_digest: str = _found(default='')
    # How the data are stored: uint8 grey levels, or float32.
    dtype: str = _noted(default='uint8')
    # Which checkpoint of --init_from training started from; the SHA-256 of its .index file.
    init_checkpoint: str = _noted(default='')
    init_digest: str = _noted(default='')

    @property
    def data_name(self) -> str:
        """What people call the images."""
        return self.dataset or name_of_source(self.source)

    @property
    def data_flag(self) -> str:
        """The flag that names the images."""
        return f'--dataset={self.dataset}' if self.dataset else f'--source={self.source}'

    @property
    def rows(self) -> int:
        """Time steps of the LSTM."""
        return self.image_shape[0]

    @property
    def row_features(self) -> int:
        """Features of a time step: the pixels of a row times its channels."""
        return self.image_shape[1] * self.image_shape[2]

    @property
    def is_series(self) -> bool:  # Whether the images are windows of readings.
        return bool(self.scaling)

    @property
    def served_shape(self) -> List[int]:
        """Shape of an image as users know it: without a channel axis of 1; a window's is 2-D."""
        rows, columns, channels = self.image_shape
        if self.is_series:
            return [rows, channels]
        return [rows, columns, channels] if channels > 1 else [rows, columns]

    @property
    def is_binarised(self) -> bool:
        """Whether images are of 0 and 1: the model has no probability for what lies between."""
        return self.binarization != 'none'

    @property
    def sampling(self) -> str:
        """What is drawn of a stored pixel: its `binarization`, `uniform` noise, or nothing."""
        is_density = LIKELIHOODS[self.likelihood].of_grey_levels and self.dtype == 'uint8'
        if is_density and not self.is_binarised:
            return self.dequantization
        return self.binarization

    @property
    def samples_evaluated(self) -> int:
        """Samples of each posterior in an evaluation: those of the bound that is trained."""
        return self.evaluation_samples if self.objective == 'elbo' else self.training_samples

    @property
    def checkpoint_steps(self) -> int:
        """`save_checkpoints_steps` resolved."""
        return self.save_checkpoints_steps or int(math.ceil(self.max_steps / 5))


def settings() -> List[dataclasses.Field]:
    """The rows of the table that a user may set, in order."""
    return [row for row in dataclasses.fields(HParams) if 'help' in row.metadata]


def paths() -> List[str]:
    """The names of the settings that are files or folders."""
    return [row.name for row in settings() if row.metadata['is_path']]


def name_of_source(path: str) -> str:
    """What people call the images at a path: a word that can be part of a folder's name."""
    name = os.path.splitext(os.path.basename(path.rstrip('/')))[0]
    return re.sub(r'[^\w.-]+', '-', name).strip('-.') or 'images'


def is_binary(dataset: str) -> bool:
    """Whether TFDS stores the dataset's pixels as 0 and 1: there is nothing to draw then."""
    return dataset.partition(':')[0] == BINARIZED_MNIST
