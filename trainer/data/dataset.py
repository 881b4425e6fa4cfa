"""What is known of a dataset, before and after its preparation, and what prepares it."""

import abc
import dataclasses
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from trainer.settings import table
from trainer.settings.table import Scaling

SPLITS = ('train', 'validation', 'test')
# Of the validation images, beside the files of a user's own.
LABELS = 'labels.json'
# Of the stored pixels: grey levels 0 .. 255 (or 0 and 1), and little-endian numbers in [0, 1]; of a
# series, its readings.
DTYPES = ('uint8', 'float32')


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset before it is prepared."""

    name: str  # TFDS name, with `/config` where the dataset has configurations; or a source's.
    version: str  # The TFDS version, such as '3.0.0'; '' of a source.
    # (rows, columns, channels) of every image, and images by SPLITS; None where only the
    # preparation will tell.
    image_shape: Optional[Tuple[int, int, int]]
    num_examples: Optional[Dict[str, int]]
    scaling: Scaling = ()  # Of a series; means and deviations are right once it is prepared.
    dtype: str = 'uint8'  # One of DTYPES; right once it is prepared.


class Windows(NamedTuple):
    """Where the windows of a series lie in the files of its rows."""

    stride: int  # Rows from the start of one to that of the next.
    stretches: Dict[str, List[int]]  # Rows of each that no window leaves, in order, by SPLITS.

    def starts(self, split: str, window: int) -> np.ndarray:
        """Returns the row at which each window of so many rows starts, int64 `[windows]`."""
        lengths = self.stretches[split]
        firsts = np.cumsum([0, *lengths[:-1]])
        found = [
            np.arange(first, first + length - window + 1, self.stride)
            for first, length in zip(firsts, lengths)
        ]
        return np.concatenate([np.zeros(0, np.int64), *found])


@dataclasses.dataclass(frozen=True)
class Written:
    """What a source has written."""

    image_shape: Tuple[int, int, int]
    num_examples: Dict[str, int]  # By SPLITS.
    dtype: str = 'uint8'  # One of DTYPES.
    scaling: Scaling = ()
    windows: Optional[Windows] = None


class ImageSource(abc.ABC):
    """Where images come from: TFDS's records, a user's folder or array file."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What people call it."""

    @property
    def preparing(self) -> str:
        """What `write_splits` does, in words."""
        return 'decoding its images'

    @abc.abstractmethod
    def facts(self) -> DatasetFacts:
        """What is known before the preparation; raises UserError where it is of no use."""

    @abc.abstractmethod
    def write_splits(self, folder: str) -> Written:
        """Writes `<split>.<dtype>` of each of SPLITS, as `PreparedDataset` has them, to a folder.

        Raises UserError where images are broken or missing.
        """


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """Images ready for training, in headerless files of pixels, one image after the other.

    An image is rows x columns x channels pixels of `dtype`: uint8 grey levels, or 0 and 1; or
    float32 grey levels in [0, 1]. Of a series the files hold its rows, in their own units, and an
    image is a window of them.
    """

    name: str
    version: str
    image_shape: Tuple[int, int, int]
    files: Dict[str, str]  # Paths, by SPLITS.
    num_examples: Dict[str, int]  # Images, by SPLITS.
    dtype: str = 'uint8'  # One of DTYPES.
    digest: str = ''  # Tells prepared images of a user's own from others; '' of TFDS's.
    folder: str = ''  # Where they are prepared; of one on gs://, `files` are local copies.
    scaling: Scaling = ()
    windows: Optional[Windows] = None  # Of a series.

    @property
    def facts(self) -> DatasetFacts:
        return DatasetFacts(
            self.name, self.version, self.image_shape, self.num_examples, self.scaling, self.dtype
        )

    @property
    def noun(self) -> str:
        """What people call the images."""
        return 'windows' if self.windows else 'images'

    @property
    def is_binary(self) -> bool:
        """Whether the pixels are 0 and 1."""
        return not self.digest and table.is_binary(self.name)

    @property
    def image_pixels(self) -> int:
        """Pixels of one image, of each channel."""
        rows, columns, channels = self.image_shape
        return rows * columns * channels

    @property
    def image_bytes(self) -> int:
        """Bytes of one stored image."""
        return self.image_pixels * np.dtype(self.dtype).itemsize

    def file_bytes(self, split: str) -> int:
        """Bytes of the file of a split."""
        if self.windows:
            return sum(self.windows.stretches[split]) * self.image_bytes // self.image_shape[0]
        return self.num_examples[split] * self.image_bytes

    def offsets(self, split: str) -> np.ndarray:
        """Returns the byte at which each image of a split starts in its file, int64 `[n]`."""
        if self.windows:
            rows = self.windows.starts(split, self.image_shape[0])
            return rows * (self.image_bytes // self.image_shape[0])
        return np.arange(self.num_examples[split], dtype=np.int64) * self.image_bytes


class ImageSet(NamedTuple):
    """Images as a model sees them, which may be read several times.

    Attributes:
      name: what people call them.
      source: what they are, in words.
      num_images: how many are read.
      num_in_source: how many there are; those that are read lie evenly over them.
      blocks: of `most`, yields float32 `[k, rows, columns * channels]` in [0, 1], k at most `most`.
    """

    name: str
    source: str
    num_images: int
    num_in_source: int
    blocks: Callable[[int], Iterator[np.ndarray]]
