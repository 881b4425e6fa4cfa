"""A user's own images: what they all have in common, folders of files and array files alike."""

import abc
import dataclasses
import hashlib
import json
import os
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from trainer.base.errors import UserError
from trainer.data.dataset import SPLITS, DatasetFacts, ImageSource, PreparedDataset
from trainer.settings import rules, table
from trainer.settings.table import HParams, Scaling

# Of 12 parts of the images, by hash: those before are for training.
_PARTS, _VALIDATION, _TEST = 12, 10, 11
_FEWEST = 100


@dataclasses.dataclass(frozen=True)
class Preparation(abc.ABC):
    """How a source is prepared, by its flags."""

    @abc.abstractmethod
    def flags(self) -> List[str]:
        """The flags that say so, those of a default left out."""

    @abc.abstractmethod
    def fits(self, copy: PreparedDataset) -> bool:
        """Whether a prepared copy is as they say."""


@dataclasses.dataclass(frozen=True)
class ImagePreparation(Preparation):
    """How own images are prepared: what `--image_size`, `--fit` and `--channels` say."""

    size: Optional[Tuple[int, int]]  # (rows, columns) that all are resized to; None: as they are.
    fit: str  # 'stretch' or 'pad'.
    channels: Optional[int]  # None: 1 where all are grey, else 3.

    @classmethod
    def of(cls, params: HParams) -> 'ImagePreparation':
        channels = None if params.channels == 'auto' else int(params.channels)
        return cls(rules.parsed_size(params.image_size), params.fit, channels)

    def flags(self) -> List[str]:
        size, channels = self.size, self.channels
        return [
            *([f'--image_size={size[0]}x{size[1]}'] if size else []),
            *([f'--fit={self.fit}'] if self.fit != 'stretch' else []),
            *([f'--channels={channels}'] if channels else []),
        ]

    def fits(self, copy: PreparedDataset) -> bool:
        rows, columns, channels = copy.image_shape
        return self.size in (None, (rows, columns)) and self.channels in (None, channels)


class OwnSource(ImageSource):
    """Images at a path of the user's, and how they are to be prepared."""

    def __init__(self, path: str, preparation: Preparation):
        self.path, self.preparation = path, preparation

    @property
    def name(self) -> str:
        """What people call it."""
        return table.name_of_source(self.path)

    @property
    def flag(self) -> str:
        return f'--source={self.path}'

    @abc.abstractmethod
    def seen(self) -> Any:
        """What tells without reading any image whether images have changed, as JSON has it."""

    @abc.abstractmethod
    def counts(self) -> Optional[Dict[str, int]]:
        """Images in each split; None where only the preparation tells."""

    @abc.abstractmethod
    def image_shape(self) -> Optional[Tuple[int, int, int]]:
        """(rows, columns, channels), where it is known before the preparation."""

    def scaling(self) -> Scaling:
        """Of a series the names of its columns, with any mean and deviation."""
        return ()

    @abc.abstractmethod
    def labels(self) -> Optional[List[Any]]:
        """What the projector shows beside each validation image, if there is something."""

    def fingerprint(self) -> str:
        """Tells this state of the source from others, with the same preparation, by no content."""
        return digest([self.seen(), dataclasses.astuple(self.preparation)])

    def facts(self) -> DatasetFacts:
        counts = self.counts()
        if counts is not None:
            self.check_counts(counts)
        return DatasetFacts(self.name, '', self.image_shape(), counts, self.scaling())

    def check_counts(self, counts: Dict[str, int], noun: str = 'images') -> None:
        """Refuses a source with too few images in all, or in a split."""
        if min(counts.values()) < 1 or sum(counts.values()) < _FEWEST:
            raise UserError(
                f'{self.flag} holds {sum(counts.values()):,} {noun} (as {_listed(counts)}), which '
                f'are too few: give {_FEWEST} or more, some for each split.'
            )

    def changed(self) -> UserError:
        """The error that the source changed while it was read."""
        return UserError(
            f'{self.flag} changed while it was read: start again when nothing is written there. '
            'Nothing was prepared.'
        )


def _listed(counts: Dict[str, int]) -> str:
    return ', '.join(f'{split} {counts[split]:,}' for split in SPLITS)


def digest(value: Any) -> str:
    """A name of 16 hexadecimal digits for a value, as JSON has it."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:16]


def hashes_of_paths(paths: List[str]) -> np.ndarray:
    """uint64 [n]: a hash of each path, the same on every machine."""
    hashed = (hashlib.sha256(os.fsencode(path)).digest()[:8] for path in paths)
    return np.frombuffer(b''.join(hashed), '>u8').astype(np.uint64)


def hashes_of_numbers(count: int) -> np.ndarray:
    """uint64 [count]: a hash of each of 0 .. count - 1, the outputs of SplitMix64 (Steele 2014)."""
    state = (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def splits_by_hash(hashes: np.ndarray, wanted: Tuple[str, ...] = SPLITS) -> Dict[str, np.ndarray]:
    """Indices of the images of each split, 10/12, 1/12 and 1/12 of them, in the order of the hash.

    The split of an image does not depend on the others: adding some moves none. So images that lie
    sorted, by class perhaps, are mixed. Splits that are not `wanted` leave theirs to 'train'.
    """
    order = np.argsort(hashes, kind='stable')
    # Not by the leading bits, which decide the order: the first images would all be of one split.
    part = hashes[order] % np.uint64(_PARTS)
    of_others = {'validation': part == _VALIDATION, 'test': part == _TEST}
    of_others = {split: of_others[split] for split in wanted if split in of_others}
    rest = ~np.any(list(of_others.values()) or [np.zeros(len(order), bool)], axis=0)
    return {split: order[chosen] for split, chosen in [('train', rest), *of_others.items()]}
