"""What is known of a dataset, before and after its preparation."""

import dataclasses
from typing import Dict, Optional, Tuple

from trainer.settings import table

SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset before it is prepared."""

    name: str  # TFDS name, with `/config` where the dataset has configurations.
    version: str  # The TFDS version, such as '3.0.0'.
    image_shape: Tuple[int, int, int]  # (rows, columns, channels) of every image.
    num_examples: Optional[Dict[str, int]]  # By SPLITS; None where only the preparation will tell.


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """Images ready for training, in headerless files of uint8 pixels: grey levels, or 0 and 1.

    rows x columns x channels bytes an image, one image after the other.
    """

    name: str
    version: str
    image_shape: Tuple[int, int, int]
    files: Dict[str, str]  # Paths, by SPLITS.
    num_examples: Dict[str, int]  # Images, by SPLITS.

    @property
    def is_binary(self) -> bool:
        """Whether the bytes are 0 and 1."""
        return table.is_binary(self.name)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        rows, columns, channels = self.image_shape
        return rows * columns * channels
