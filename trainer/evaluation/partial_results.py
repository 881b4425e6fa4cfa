"""What is known so far of an evaluation under way: `<output>.partial`."""

import hashlib
import io
import json
import zipfile
from typing import Any, Dict, Optional, Tuple

import numpy as np
import tensorflow as tf

from trainer.base import files
from trainer.base.console import say


class PartialResults:
    """The file of what is known so far, if any; it belongs to exactly one evaluation.

    Its content is a SHA-256 and a NumPy archive of the facts, of a row for each of the first images
    and of the seconds that they took.
    """

    def __init__(self, path: Optional[str], facts: Dict[str, Any], row_type: np.dtype):
        self._path, self._facts, self._row_type = path, facts, row_type

    def load(self) -> Tuple[np.ndarray, float]:
        """Returns rows and seconds; empty rows and 0 s if the file is of another evaluation."""
        nothing = np.zeros(0, self._row_type), 0.0
        if self._path is None or not tf.gfile.Exists(self._path):
            return nothing
        with tf.gfile.GFile(self._path, 'rb') as f:
            digest, content = f.read(32), f.read()
        if hashlib.sha256(content).digest() != digest:
            say('{} is damaged: beginning anew.'.format(self._path))
            return nothing
        try:
            # A pickle is a program.
            archive = np.load(io.BytesIO(content), allow_pickle=False)
            facts = json.loads(str(archive['facts']))
            rows, seconds = archive['rows'], float(archive['seconds'])
        except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile):
            say('{} is not of this program: beginning anew.'.format(self._path))
            return nothing
        for name in sorted(set(facts) | set(self._facts)):
            ours, theirs = self._facts.get(name), facts.get(name)
            if ours != theirs:
                say(
                    f'{self._path} is of another evaluation ({name} was {theirs}, is {ours}): '
                    'beginning anew.'
                )
                return nothing
        return rows, seconds

    def save(self, rows: np.ndarray, seconds: float) -> None:
        """Writes the rows of the first images, and the seconds they took, whole or not at all."""
        if self._path is None:
            return
        archive = io.BytesIO()
        np.savez(archive, facts=np.array(json.dumps(self._facts)), rows=rows, seconds=seconds)
        content = archive.getvalue()
        files.write_bytes(self._path, hashlib.sha256(content).digest() + content)

    def remove(self) -> None:
        """Removes the file, and those that a process killed while it wrote has left."""
        if self._path is None:
            return
        for path in [self._path] + files.unfinished(self._path):
            tf.gfile.Remove(path)
