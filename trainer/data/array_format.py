"""The files of NumPy's arrays, .npy and .npz: what they hold, and rows read from the disk."""

import contextlib
import functools
import operator
import os
import tempfile
import zipfile
from typing import IO, Any, Iterator, NamedTuple, Sequence, Tuple

import numpy as np

from trainer.base.console import ImageProgress
from trainer.base.errors import first_line

_BYTES_AT_ONCE = 1 << 24


class Header(NamedTuple):
    """What an array says of itself, and the byte at which its numbers start."""

    shape: Tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool
    start: int

    @property
    def row_bytes(self) -> int:
        return _product(self.shape[1:]) * self.dtype.itemsize

    @property
    def rows_at_once(self) -> int:
        return max(1, _BYTES_AT_ONCE // max(1, self.row_bytes))


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Raises ValueError for a file that is none of arrays: NumPy and unpackers raise anything."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        reason = first_line(error) or type(error).__name__
        raise ValueError(f'cannot be read as arrays ({reason})') from error


def headers(path: str) -> Iterator[Tuple[str, Header]]:
    """Yields the arrays of a file, by name."""
    if path.endswith('.npy'):
        with open(path, 'rb') as f:
            yield '', _header(f, os.fstat(f.fileno()).st_size)
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith('.npy'):
                with archive.open(member) as f:
                    yield member.filename[:-4], _header(f, member.file_size)


def _header(f: Any, size: int) -> Header:
    """Reads the header of an array; raises ValueError where its numbers take not all of `size`."""
    version = np.lib.format.read_magic(f)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f'an array of format {version}')
    read = np.lib.format.read_array_header_1_0
    if version == (2, 0):
        read = np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(f)
    start = f.tell()
    if not dtype.hasobject and start + _product(shape) * dtype.itemsize != size:
        raise ValueError(f'its {size:,} bytes are not those of {shape} numbers of {dtype}')
    return Header(shape, dtype, is_fortran, start)


def file_of(path: str, name: str, header: Header, work: str = '') -> IO[bytes]:
    """Opens the file of an array; one of a .npz is unpacked into the folder `work` first."""
    if path.endswith('.npy'):
        return open(path, 'rb')
    unpacked = tempfile.TemporaryFile(dir=work or None)  # noqa: SIM115
    with zipfile.ZipFile(path) as archive, archive.open(name + '.npy') as f:
        _unpack(f, header, unpacked, f'unpacking {name} of {os.path.basename(path)}')
    return unpacked


def _unpack(f: Any, header: Header, target: IO[bytes], what: str) -> None:
    """Copies the file of an array; shows how far that is where it takes more than a moment."""
    count, at_once = header.shape[0], header.rows_at_once
    target.write(f.read(header.start))
    with contextlib.ExitStack() as stack:
        progress = ImageProgress(count, 0) if count > at_once else None
        if progress:
            stack.callback(progress.close)
        for start in range(0, count, at_once):
            target.write(f.read(at_once * header.row_bytes))
            if progress:
                progress.show(min(count, start + at_once), what, 1, 'images')
    target.flush()


def rows_of(f: IO[bytes], header: Header, numbers: np.ndarray) -> np.ndarray:
    """Reads some rows of an array; raises ValueError or IndexError where the file ends before them.

    It is not memory-mapped: a file that another process cuts off would kill this one.
    """
    (count, *of_row), dtype, is_fortran, start = header
    number_of_file = f.fileno()
    if is_fortran:  # One pixel of all rows after the other.
        size = count * dtype.itemsize
        places = range(start, start + _product(of_row) * size, size)
        parts = (os.pread(number_of_file, size, place) for place in places)
        pixels = [np.frombuffer(part, dtype)[numbers] for part in parts]
        return np.stack(pixels, axis=1).reshape(len(numbers), *of_row, order='F')
    size = header.row_bytes
    places = (start + size * numbers).tolist()
    content = b''.join([os.pread(number_of_file, size, place) for place in places])
    return np.frombuffer(content, dtype).reshape(len(numbers), *of_row)


def _product(numbers: Sequence[int]) -> int:
    return functools.reduce(operator.mul, numbers, 1)
