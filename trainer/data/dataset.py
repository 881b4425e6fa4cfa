"""What is known of a dataset, before and after its preparation."""

import dataclasses
from typing import Dict, Optional, Tuple

from trainer.settings import table

SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """Images ready for training.

    Attributes:
      name: TFDS name, with `/config` where the dataset has configurations.
      version: TFDS version of the records that the files were decoded from.
      image_shape: (rows, columns, channels) of every image.
      files: for each of SPLITS the path of a headerless file of uint8 pixels, one image of
        rows x columns x channels bytes after the other: grey levels up to 255, or 0 and 1.
      num_examples: images in each of SPLITS.
    """

    name: str
    version: str
    image_shape: Tuple[int, int, int]
    files: Dict[str, str]
    num_examples: Dict[str, int]

    @property
    def is_binary(self) -> bool:
        """Whether the bytes are 0 and 1."""
        return table.is_binary(self.name)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        rows, columns, channels = self.image_shape
        return rows * columns * channels


@dataclasses.dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset before it is prepared.

    Attributes:
      name: TFDS name, with `/config` where the dataset has configurations.
      version: the TFDS version that will be used, such as '3.0.0'.
      image_shape: (rows, columns, channels) of every image.
      num_examples: images in 'train', 'validation' and 'test'; None where only the preparation
        will tell.
    """

    name: str
    version: str
    image_shape: Tuple[int, int, int]
    num_examples: Optional[Dict[str, int]]
