"""What is known of a dataset, before and after its preparation, and what prepares it."""

import abc
import dataclasses
from typing import Callable, Dict, Iterator, NamedTuple, Optional, Tuple

import numpy as np

from trainer.settings import table

SPLITS = ('train', 'validation', 'test')
# Of the validation images, beside the files of a user's own.
LABELS = 'labels.json'
# Of the stored pixels: grey levels 0 .. 255 (or 0 and 1), and little-endian numbers in [0, 1].
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


@dataclasses.dataclass(frozen=True)
class Written:
    """What a source has written."""

    image_shape: Tuple[int, int, int]
    num_examples: Dict[str, int]  # By SPLITS.
    dtype: str = 'uint8'  # One of DTYPES.


class ImageSource(abc.ABC):
    """Where images come from: TFDS's records, a user's folder or array file."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What people call it."""

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
    float32 grey levels in [0, 1].
    """

    name: str
    version: str
    image_shape: Tuple[int, int, int]
    files: Dict[str, str]  # Paths, by SPLITS.
    num_examples: Dict[str, int]  # Images, by SPLITS.
    dtype: str = 'uint8'  # One of DTYPES.
    digest: str = ''  # Tells prepared images of a user's own from others; '' of TFDS's.
    folder: str = ''  # Where they are prepared; of one on gs://, `files` are local copies.

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
