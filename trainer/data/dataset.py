"""What is known of a dataset, before and after its preparation."""

import dataclasses
from typing import Dict, Optional, Tuple

import numpy as np

from trainer.settings import table

SPLITS = ('train', 'validation', 'test')
# Of the stored pixels: grey levels 0 .. 255 (or 0 and 1), and little-endian numbers in [0, 1].
DTYPES = ('uint8', 'float32')


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset before it is prepared."""

    name: str  # TFDS name, with `/config` where the dataset has configurations.
    version: str  # The TFDS version, such as '3.0.0'.
    image_shape: Tuple[int, int, int]  # (rows, columns, channels) of every image.
    num_examples: Optional[Dict[str, int]]  # By SPLITS; None where only the preparation will tell.


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

    @property
    def is_binary(self) -> bool:
        """Whether the pixels are 0 and 1."""
        return table.is_binary(self.name)

    @property
    def image_pixels(self) -> int:
        """Pixels of one image, of each channel."""
        rows, columns, channels = self.image_shape
        return rows * columns * channels

    @property
    def image_bytes(self) -> int:
        """Bytes of one stored image."""
        return self.image_pixels * np.dtype(self.dtype).itemsize
