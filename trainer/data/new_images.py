"""Images that a trained model has to score: a user's files, or the rows of an array."""

import abc
import collections.abc
import functools
import os
from typing import Any, Callable, List, Optional, Sequence

import numpy as np

from trainer.base import errors, image_files, image_pixels
from trainer.base.errors import UserError
from trainer.base.image_files import NewImage
from trainer.data import array_file, array_format, files_below, own_images
from trainer.data.dataset import SPLITS


class NewImages(collections.abc.Sequence):
    """Images in the order of their source, each read when it is wanted."""

    @abc.abstractmethod
    def labels(self) -> Optional[List[str]]:
        """The class of each image; None where the source tells none."""


class Files(NewImages):
    """Image files.

    Args:
      flag: the one that led to them, as '--images'.
      paths: where they are.
      ids: texts that tell each from the others.
    """

    def __init__(self, flag: str, paths: Sequence[str], ids: Sequence[str]):
        self._flag, self._paths, self._ids = flag, paths, ids

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: Any) -> Any:
        path = self._paths[number]
        named = f'{self._flag}={errors.printable(path)}'
        return NewImage(self._ids[number], named, functools.partial(_file, path, named))

    def labels(self) -> Optional[List[str]]:
        parts = [name.split('/') for name in self._ids]
        has_splits = any(len(part) > 1 and part[0] == SPLITS[0] for part in parts)
        depth = 1 if has_splits else 0  # As the folders of a training are read.
        found = [part[depth] if len(part) > depth + 1 else '' for part in parts]
        return found if any(found) else None


def _file(path: str, named: str) -> bytes:
    return image_pixels.as_png(image_files.read(path, named))


class Array(NewImages):
    """The images of a .npy or .npz file; of the latter `x_test`, or its one array.

    Attributes:
      shape: (rows, columns, channels) of each.
      dtype: 'uint8', or 'float32', to which floats are read.
      is_binary: whether they are bytes of 0 and 1.

    Raises:
      UserError: the file holds no images, or values that are no grey levels.
    """

    def __init__(self, path: str, flag: str = '--source'):
        self.flag, self._path = f'{flag}={path}', path
        try:
            with array_format.reading():
                self._headers = dict(array_format.headers(path))
        except ValueError as error:
            raise UserError(f'{self.flag} {error}.') from error
        self._name = self._chosen()
        wrong = array_file.wrong_with(self._headers[self._name])
        if wrong:
            raise self._wrong(wrong)
        self._header = self._headers[self._name]
        _, rows, columns, *channels = self._header.shape
        self.shape = (rows, columns, *(channels or [1]))
        self.dtype = 'uint8' if self._header.dtype == np.uint8 else 'float32'
        self._read = self._reader(self._name)
        self.is_binary = self._checked()

    def __len__(self) -> int:
        return self._header.shape[0]

    def rows(self, numbers: Sequence[int]) -> np.ndarray:
        """Reads the images of some numbers, `[n, rows, columns, channels]` of `dtype`."""
        return self._read(np.asarray(numbers)).reshape(-1, *self.shape).astype(self.dtype)

    def __getitem__(self, number: Any) -> Any:
        named = f'{self.flag}: image {number:,}'
        return NewImage(str(number), named, lambda: self.rows([number])[0])

    def labels(self) -> Optional[List[str]]:
        header = array_file.label_header(self._headers, self._name)
        if header is None:
            return None
        name = array_file.labels_of(self._name)
        if header.shape[0] != len(self):
            raise UserError(
                f'{self.flag} (array {name}) holds {header.shape[0]:,} labels, and {self._name} '
                f'{len(self):,} images: give one label an image, or leave the labels out.'
            )
        return array_file.label_texts(self._reader(name)(np.arange(len(self))).ravel())

    def _chosen(self) -> str:
        names = [name for name in self._headers if not name.startswith('y')]
        if 'x_test' in names:
            return 'x_test'
        if len(names) != 1:
            found = errors.some(sorted(self._headers), 9) or 'none'
            raise UserError(
                f'{self.flag} holds the arrays {found}: give x_test, or one array of images.'
            )
        return names[0]

    def _reader(self, name: str) -> Callable[[np.ndarray], np.ndarray]:
        """Returns what reads rows of an array by their numbers; see `array_format.rows_of`."""
        header = self._headers[name]

        def read(numbers: np.ndarray) -> np.ndarray:
            try:
                return array_format.rows_of(file, header, numbers)
            except (ValueError, IndexError) as error:
                raise UserError(
                    f'{self.flag} changed while it was read: start again when nothing is written '
                    'there.'
                ) from error

        try:
            with array_format.reading():
                file = array_format.file_of(self._path, name, header)
        except ValueError as error:
            raise self._wrong(str(error)) from error
        if not header.is_fortran:
            return read
        whole = read(np.arange(header.shape[0]))  # A single row lies all over the file.
        return lambda numbers: whole[numbers]

    def _checked(self) -> bool:
        """Looks at all values; returns whether they are bytes of 0 and 1, and some are 1."""
        highest = 0
        at_once = self._header.rows_at_once
        for start in range(0, len(self), at_once):
            block = self._read(np.arange(start, min(start + at_once, len(self))))
            bad = array_file.first_bad(block)
            if bad is not None:
                raise self._wrong(array_file.value_problem(start + bad[0], block[bad]))
            highest = max(highest, block.max())
            if block.dtype == np.uint8 and highest > 1:
                break
        return self.dtype == 'uint8' and highest == 1

    def _wrong(self, reason: str) -> UserError:
        array = f' (array {self._name})' if self._name else ''
        return UserError(f'{self.flag}{array} {reason}.')


def listed(images: str) -> Files:
    """Opens what `--images` names; raises UserError where that is none."""
    paths = image_files.paths(images)
    return Files('--images', paths, [errors.as_text(path) for path in paths])


def of_source(path: str, flag: str = '--source') -> NewImages:
    """Opens a folder of image files in any depth, or an array file, all of its images.

    Args:
      flag: the one that names it.

    Raises UserError where it holds none.
    """
    if '://' in path:
        raise UserError(
            f'{flag}={path}: images are read from local disks alone: give a local folder or file.'
        )
    own_images.check_path(path, array_file.ENDINGS, flag)
    try:
        if not os.path.isdir(path):
            return Array(path, flag)
        found, left_out = files_below.listing(path, image_files.ENDINGS, flag)
    except OSError as error:
        raise UserError(f'{flag}={path} cannot be read ({errors.reason(error)}).') from error
    if not found:
        raise UserError(f'{flag}={path} holds no file that ends in {image_files.ENDINGS_TEXT}.')
    files_below.tell_left_out(path, left_out)
    paths = [os.path.join(path, file.path) for file in found]
    return Files(flag, paths, [errors.as_text(file.path) for file in found])
