"""An array file of NumPy, .npy or .npz, as a source of images."""

import contextlib
import os
from typing import IO, Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from trainer.base import errors, image_files, image_pixels
from trainer.base.console import ImageProgress
from trainer.base.errors import UserError
from trainer.data import own_source
from trainer.data.array_format import Header, file_of, headers, reading, rows_of
from trainer.data.dataset import SPLITS, Written
from trainer.data.own_source import ImagePreparation, OwnSource

ENDINGS = ('.npy', '.npz')
_NAMES = {'train': ('x_train',), 'validation': ('x_validation', 'x_val'), 'test': ('x_test',)}


class _Rows(NamedTuple):
    """Rows of an array of the file; `name` is that of a .npz, '' of a .npy."""

    name: str
    numbers: np.ndarray


class ArrayFile(OwnSource):
    """Images in arrays `[n, rows, columns]` or `[n, rows, columns, 1 or 3]`.

    They are uint8, or floats in [0, 1], whose precision is kept. A .npz holds `x_train` and
    `x_test`, as Keras has them, or one array of images. Of one array, and for a split without one,
    images are taken by hash of their number. Nothing is unpickled. `y_train` and the like, if
    there, are labels for the projector alone.
    """

    preparation: ImagePreparation

    def __init__(self, path: str, preparation: ImagePreparation):
        super().__init__(path, preparation)
        self._status = _status(path)
        with self._reading():
            self._headers = dict(headers(path))
        self._splits = self._split()
        self._names = list(dict.fromkeys(rows.name for rows in self._splits.values()))
        self._check_headers()

    def seen(self) -> Any:
        return self._status

    def counts(self) -> Dict[str, int]:
        return {split: len(self._splits[split].numbers) for split in SPLITS}

    def image_shape(self) -> Tuple[int, int, int]:
        rows, columns, *channels = self._headers[self._names[0]].shape[1:]
        rows, columns = self.preparation.size or (rows, columns)
        return rows, columns, self.preparation.channels or (channels or [1])[0]

    def labels(self) -> Optional[List[Any]]:
        name, numbers = self._splits['validation']
        header = self._label_header()
        if header is None:
            return None
        with self._reading(), file_of(self.path, labels_of(name), header) as f:
            return label_texts(rows_of(f, header, numbers).ravel())

    def _label_header(self) -> Optional[Header]:
        """What the array of the validation images' labels says, where it holds one for each."""
        return label_header(self._headers, self._splits['validation'].name)

    def write_splits(self, folder: str) -> Written:
        """Writes the images; raises UserError where values are none of a grey level."""
        dtype, highest, done = self._dtype(), 0, 0
        with contextlib.ExitStack() as stack:
            with self._reading():
                opened = {
                    name: stack.enter_context(file_of(self.path, name, self._headers[name], folder))
                    for name in self._names
                }
            prepared, progress = self._preparer(), ImageProgress(sum(self.counts().values()), 0)
            stack.callback(progress.close)
            for split, rows in self._splits.items():
                with open(os.path.join(folder, f'{split}.{dtype}'), 'wb') as f:
                    for numbers, block in self._blocks(opened[rows.name], rows):
                        self._check_values(rows.name, numbers, block)
                        highest = max(highest, block.max())
                        f.write(prepared(block.astype(dtype)).tobytes())
                        done += len(block)
                        progress.show(done, 'copying ' + self.name, 1, 'images')
        if _status(self.path) != self._status:
            raise self.changed()
        if dtype == 'uint8' and highest <= 1:
            raise self._wrong(
                f'holds no number above {highest}: are these black and white? Then save 255 times '
                'the array. Or grey levels in [0, 1]? Then save floats'
            )
        return Written(self.image_shape(), self.counts(), dtype)

    def _blocks(self, f: IO[bytes], rows: _Rows) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
        """Yields some rows' numbers and the rows, until all are through."""
        header = self._headers[rows.name]
        for start in range(0, len(rows.numbers), header.rows_at_once):
            some = rows.numbers[start : start + header.rows_at_once]
            with self._reading():
                block = rows_of(f, header, some)
            yield some, block

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Refuses a file that is none of arrays."""
        try:
            with reading():
                yield
        except (OSError, ValueError) as error:
            if _status(self.path) != self._status:
                raise self.changed() from error
            if isinstance(error, OSError):
                raise
            raise self._wrong(str(error)) from error

    def _wrong(self, reason: str, name: str = '') -> UserError:
        array = f' (array {name})' if name else ''
        return UserError(f'{self.flag}{array} {reason}. Nothing was prepared.')

    def _split(self) -> Dict[str, _Rows]:
        named = {
            split: next(name for name in names if name in self._headers)
            for split, names in _NAMES.items()
            if set(names) & set(self._headers)
        }
        if not {'train', 'test'} <= set(named):
            images = [name for name in self._headers if not name.startswith('y')]
            if len(images) != 1:
                raise self._wrong(
                    f'holds the arrays {errors.some(sorted(self._headers), 9) or "none"}: give '
                    'x_train and x_test, or one array of images'
                )
            named = {'train': images[0]}
        train = named.pop('train')
        missing = tuple(split for split in SPLITS if split not in named)
        hashes = own_source.hashes_of_numbers(self._count(train))
        taken = own_source.splits_by_hash(hashes, missing)
        rows = {split: _Rows(name, np.arange(self._count(name))) for split, name in named.items()}
        rows.update({split: _Rows(train, numbers) for split, numbers in taken.items()})
        return {split: rows[split] for split in SPLITS}

    def _count(self, name: str) -> int:
        shape = self._headers[name].shape
        return shape[0] if shape and 0 not in shape else 0

    def _check_headers(self) -> None:
        """Refuses arrays that hold no images of one size and kind."""
        for name in self._names:
            wrong = wrong_with(self._headers[name])
            if wrong:
                raise self._wrong(wrong, name)
        headers = [self._headers[name] for name in self._names]
        if len({(header.shape[1:], header.dtype) for header in headers}) > 1:
            raise self._wrong(
                f'holds images of several sizes or types in {" and ".join(self._names)}: make them '
                'the same'
            )
        self._check_labels()

    def _check_labels(self) -> None:
        name, header = self._splits['validation'].name, self._label_header()
        if header is not None and header.shape[0] != self._count(name):
            raise self._wrong(
                f'holds {header.shape[0]:,} labels, and {name} {self._count(name):,} images: give '
                'one label an image, or leave the labels out',
                labels_of(name),
            )

    def _dtype(self) -> str:
        return 'uint8' if self._headers[self._names[0]].dtype == np.uint8 else 'float32'

    def _check_values(self, name: str, numbers: np.ndarray, block: np.ndarray) -> None:
        bad = first_bad(block)
        if bad is not None:
            raise self._wrong(value_problem(numbers[bad[0]], block[bad]), name)

    def _preparer(self) -> Callable[[np.ndarray], np.ndarray]:
        """Returns what makes the prepared images of a block of pixels."""
        rows, columns, *channels = self._headers[self._names[0]].shape[1:]
        shape = (rows, columns, (channels or [1])[0])
        return image_pixels.preparer(
            self._dtype(), shape, self.image_shape(), self.preparation.size, self.preparation.fit
        )


def wrong_with(header: Header) -> str:
    """Why an array holds no images; '' where it may."""
    shape, dtype = header[:2]
    if len(shape) not in (3, 4) or (shape[3:] or (1,))[0] not in (1, 3) or 0 in shape:
        return (
            f'has the shape {shape}: give [n, rows, columns], or a last axis of 1 or 3 channels '
            'more'
        )
    if max(shape[1:3]) > image_files.LONGEST_SIDE:
        return f'has the shape {shape}: a side is longer than {image_files.LONGEST_SIDE:,} pixels'
    if dtype.kind == 'b':
        return (
            'is of true and false: are these black and white images? Then save '
            "255 * array.astype('uint8')"
        )
    if dtype != np.uint8 and dtype.kind != 'f':
        return f'is of {dtype}: give uint8, from 0 to 255, or floats in [0, 1]'
    return ''


def first_bad(block: np.ndarray) -> Optional[Tuple[int, ...]]:
    """The index of the first value that is no grey level; None where all are."""
    if block.dtype == np.uint8:
        return None
    with np.errstate(invalid='ignore'):
        good = np.logical_and(block >= 0, block <= 1)  # False for NaN too.
    return None if good.all() else tuple(np.argwhere(~good)[0])


def value_problem(number: int, value: float) -> str:
    """Says that an image holds a value that is no grey level."""
    return (
        f'has {value:g} in image {number:,}, which is no grey level in [0, 1]: save floats in '
        '[0, 1], or uint8 from 0 to 255'
    )


def label_header(headers: Dict[str, Header], name: str) -> Optional[Header]:
    """What the array of the labels of the images in `name` says; None without one of labels."""
    header = headers.get(labels_of(name))
    is_list = header and (len(header.shape) == 1 or header.shape[1:] == (1,))
    return header if header and is_list and header.dtype.kind in 'biufSU' else None


def label_texts(labels: np.ndarray) -> List[str]:
    """Returns labels of any type as texts."""
    if labels.dtype.kind == 'S':
        return np.char.decode(labels, 'utf-8', 'backslashreplace').tolist()
    return labels.astype(str).tolist()


def labels_of(name: str) -> str:
    """The array that holds the labels of another, `x_train`; '' for one that has none."""
    return 'y' + name[1:] if name.startswith('x') else ''


def _status(path: str) -> Optional[Tuple[int, int]]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns
