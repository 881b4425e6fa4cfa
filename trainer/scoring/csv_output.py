"""CSV files of scores that are written line by line: RFC 4180 below one line of comment."""

import contextlib
import csv
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from trainer.base import files


class Utf8:
    """What `csv` writes to."""

    def __init__(self, write: Callable[[bytes], Any]):
        self._write = write

    def write(self, text: str) -> None:
        self._write(text.encode('utf-8'))


def writer(write: Callable[[bytes], Any], comment: str, heads: Sequence[str]) -> Any:
    """Returns a `csv.writer` that has written comment and heads."""
    text = Utf8(write)
    text.write(f'# {comment}\r\n')
    rows = csv.writer(text)
    rows.writerow(heads)
    return rows


@contextlib.contextmanager
def table(path: str, comment: str, heads: Sequence[str]) -> Iterator[Any]:
    """As `writer`, of a file that appears whole at the end, as `files.replacing` does."""
    with files.replacing(path) as write:
        yield writer(write, comment, heads)


def shortest(value: Any) -> str:
    """Returns the shortest decimals that give a number's float32 again."""
    return str(np.float32(value))
