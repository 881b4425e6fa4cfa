"""Images of a split that are not held in memory as they are stored."""

import errno
import os
from typing import List

import numpy as np


class ImageFile:
    """A local headerless file of images, of which each is read when it is wanted.

    It stays open, so that training goes on from the same bytes where the file is replaced.

    Args:
      offsets: the byte at which each starts, int64 `[images]`; they may overlap.
    """

    def __init__(self, path: str, image_pixels: int, dtype: str, offsets: np.ndarray):
        self._path, self._dtype = path, np.dtype(dtype).newbyteorder('<')
        self._bytes, self._offsets = image_pixels * self._dtype.itemsize, offsets
        self._file = open(path, 'rb', buffering=0)  # noqa: SIM115

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Returns images by their numbers, `[n, image_pixels]`.

        Raises OSError where the file cannot be read, or has been cut off.
        """
        offsets = self._offsets[numbers].tolist()
        try:
            content = self._read(offsets)
        except OSError as error:  # It does not know the name of a file that is open.
            raise OSError(error.errno, error.strerror, self._path) from error
        return np.frombuffer(content, self._dtype).reshape(len(offsets), -1)

    def _read(self, offsets: List[int]) -> bytes:
        descriptor, size = self._file.fileno(), self._bytes
        # The disk learns of all before the first is waited for, and reads many at a time.
        for offset in sorted(offsets):
            os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)
        content = b''.join(os.pread(descriptor, size, offset) for offset in offsets)
        if len(content) != len(offsets) * size:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return content


class BinaryImages:
    """Images of zeros and ones, held in memory as a bit a pixel."""

    def __init__(self, count: int, image_pixels: int):
        self._pixels = image_pixels
        self._bits = np.empty([count, -(-image_pixels // 8)], np.uint8)

    def put(self, first: int, images: np.ndarray) -> None:
        """Keeps `images`, uint8 `[n, image_pixels]`, by the numbers `first` and following."""
        self._bits[first : first + len(images)] = np.packbits(images, axis=1)

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Returns images by their numbers, uint8 `[n, image_pixels]`."""
        return np.unpackbits(self._bits[numbers], axis=1)[:, : self._pixels]
