"""A folder of image files, in any depth, as a source of images."""

import contextlib
import os
from multiprocessing.pool import ThreadPool
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
import tensorflow as tf

from trainer.base import cores, errors, image_files, image_pixels
from trainer.base.console import ImageProgress
from trainer.base.errors import UserError, first_line
from trainer.data import files_below, own_source
from trainer.data.dataset import SPLITS, Written
from trainer.data.own_source import ImagePreparation, OwnSource

_SHOWN = 5
# Images that are decoded before they are written: a few a core, as one may be large.
_AT_ONCE = 16
# Of a file: that many pixels of the longest sides, of four channels of 16 bits, take as much.
_MOST_BYTES = 1 << 29


class _Colour(Exception):
    """An image is not grey, though all before it were."""


class ImageFolder(OwnSource):
    """PNG, JPEG, BMP and GIF files (the first image of each) below a folder.

    The folders `train`, `validation` and `test` are splits, where there is the first of them; what
    a missing one should hold comes from `train`, by hash of the path. Other folders are classes.
    """

    preparation: ImagePreparation

    def __init__(self, path: str, preparation: ImagePreparation):
        super().__init__(path, preparation)
        self._files, self._left_out = files_below.listing(path, image_files.ENDINGS)
        self._splits = self._split()

    def seen(self) -> Any:
        return self._files

    def counts(self) -> Dict[str, int]:
        return {split: len(paths) for split, paths in self._splits.items()}

    def image_shape(self) -> Optional[Tuple[int, int, int]]:
        return None

    def labels(self) -> Optional[List[Any]]:
        depth = 1 if self._has_splits() else 0
        parts = [path.split('/') for path in self._splits['validation']]
        named = [part[depth] if len(part) > depth + 1 else '' for part in parts]
        return named if any(named) else None

    def _has_splits(self) -> bool:
        return any(file.path.startswith('train/') for file in self._files)

    def _split(self) -> Dict[str, List[str]]:
        """The paths of each split, in the order of their hashes."""
        by_folder: Dict[str, List[str]] = {split: [] for split in SPLITS}
        has_splits = self._has_splits()
        for file in self._files:
            top = file.path.split('/')[0]
            if has_splits and top not in by_folder:
                self._left_out.append(file.path)
            else:
                by_folder[top if has_splits else 'train'].append(file.path)
        missing = tuple(split for split in SPLITS[1:] if not by_folder[split])
        train = by_folder['train']
        taken = own_source.splits_by_hash(own_source.hashes_of_paths(train), missing)
        for split in missing:
            by_folder[split] = [train[number] for number in taken[split]]
        by_folder['train'] = [train[number] for number in taken['train']]
        for split in set(SPLITS[1:]) - set(missing):
            order = np.argsort(own_source.hashes_of_paths(by_folder[split]), kind='stable')
            by_folder[split] = [by_folder[split][number] for number in order]
        return by_folder

    def write_splits(self, folder: str) -> Written:
        """Decodes the files; raises UserError where some are broken, or of several sizes."""
        files_below.tell_left_out(self.path, self._left_out)
        channels = self.preparation.channels or 1
        try:
            shape = self._write(folder, channels)
        except _Colour:
            channels = 3
            shape = self._write(folder, channels)
        return Written((*shape, channels), self.counts(), 'uint8')

    def _write(self, folder: str, channels: int) -> Tuple[int, int]:
        """Writes the files of the splits; returns rows and columns of the images."""
        may_be_grey = self.preparation.channels is None and channels == 1
        broken: List[str] = []
        sizes: Dict[Tuple[int, int], str] = {}  # Of one image for each.
        paths = [(split, path) for split in SPLITS for path in self._splits[split]]
        progress = ImageProgress(len(paths), 0)
        with contextlib.ExitStack() as stack:
            stack.callback(progress.close)
            names = {split: os.path.join(folder, split + '.uint8') for split in SPLITS}
            files = {split: stack.enter_context(open(names[split], 'wb')) for split in SPLITS}
            decoder = _Decoder(self.path, self.preparation, channels, may_be_grey)
            for number, ((split, path), (pixels, wrong)) in enumerate(decoder.decoded(paths)):
                if wrong:
                    broken.append(f'{errors.printable(path)} ({wrong})')
                elif len(sizes) < 2:
                    sizes.setdefault(pixels.shape[:2], errors.printable(path))
                    files[split].write(pixels.tobytes())
                progress.show(number + 1, 'decoding ' + self.name, 1, 'images')
        if files_below.listing(self.path, image_files.ENDINGS)[0] != self._files:
            raise self.changed()
        self._check(broken, sizes)
        (shape,) = sizes
        return shape

    def _check(self, broken: List[str], sizes: Dict[Tuple[int, int], str]) -> None:
        if broken:
            raise UserError(
                f'{self.flag}: {len(broken):,} of {len(self._files):,} files cannot be read as '
                f'images: {errors.some(broken, _SHOWN)}. Mend them or take them away, then start '
                'again. Nothing was prepared.'
            )
        if len(sizes) > 1:
            seen = ', '.join(f'{path} {rows}x{columns}' for (rows, columns), path in sizes.items())
            raise UserError(
                f'{self.flag} holds images of several sizes ({seen}): give one for all by '
                '--image_size=ROWSxCOLUMNS. Nothing was prepared.'
            )


class _Decoder:
    """Files to pixels, several at a time, by one session."""

    def __init__(
        self, folder: str, preparation: ImagePreparation, channels: int, may_be_grey: bool
    ):
        self._folder, self._may_be_grey = folder, may_be_grey
        # GPUs are left alone: a session that saw one would take all of its memory.
        config = tf.ConfigProto(device_count={'GPU': 0}, intra_op_parallelism_threads=1)
        with tf.Graph().as_default():
            self._content = tf.placeholder(tf.string, [])
            coloured = image_pixels.of_file(self._content, 3)
            self._is_grey = image_pixels.is_grey(coloured)
            pixels = image_pixels.with_channels(coloured, channels)
            if preparation.size is not None:
                batch = pixels[tf.newaxis]
                pixels = image_pixels.fitted(batch, preparation.size, preparation.fit)[0]
            self._pixels = pixels
            self._session = tf.Session(config=config)

    def decoded(self, paths: List[Tuple[str, str]]) -> Iterator[Tuple[Tuple[str, str], Any]]:
        """Yields each of `paths`, (split, path), with its (pixels, what is wrong with it)."""
        with self._session, ThreadPool(cores.available()) as pool:
            for start in range(0, len(paths), _AT_ONCE):
                chunk = paths[start : start + _AT_ONCE]
                yield from zip(chunk, pool.map(self._decode, [path for _, path in chunk]))

    def _decode(self, path: str) -> Tuple[Optional[np.ndarray], str]:
        try:
            with open(os.path.join(self._folder, path), 'rb') as f:
                content = f.read(_MOST_BYTES + 1)
            wrong = _wrong_with(content)
            if wrong:
                return None, wrong
            content = image_pixels.as_png(content)
        except (OSError, ValueError) as error:
            return None, errors.reason(error)
        try:
            pixels, is_grey = self._session.run(
                [self._pixels, self._is_grey], {self._content: content}
            )
        except tf.errors.OpError as error:
            return None, first_line(error.message)
        if self._may_be_grey and not is_grey:
            raise _Colour()
        return pixels, ''


def _wrong_with(content: bytes) -> str:
    """Why a file is not even decoded; '' where it is."""
    if not content:
        return 'it is empty'
    if len(content) > _MOST_BYTES:
        return f'it has more than {_MOST_BYTES:,} bytes'
    if max(image_files.claimed_size(content)) > image_files.LONGEST_SIDE:
        return f'a side is longer than {image_files.LONGEST_SIDE:,} pixels'
    return ''
