"""The labels of a dataset's images, which the projector shows and nothing else uses."""

import itertools
import os
from typing import Any, List, Optional

import tensorflow as tf
from google.protobuf import message

from trainer.base import files
from trainer.base.console import say
from trainer.base.errors import UserError, first_line
from trainer.data import dataset_folder
from trainer.data.dataset import LABELS, PreparedDataset
from trainer.settings.table import HParams


def labels(data: PreparedDataset, params: HParams, count: int) -> Optional[List[Any]]:
    """Reads the labels of the first `count` validation images, from TFDS's records or beside them.

    Returns None where there are none, or says that they cannot be read.
    """
    if data.digest:
        return _own_labels(os.path.join(data.folder, LABELS), count)
    try:
        source = dataset_folder.find(params.dataset, params.data_dir or None)
        first, paths = 0, source.record_files('validation')
        if not paths:  # It is the end of TFDS's train split.
            first, paths = data.num_examples['train'], source.record_files('train')
        records = itertools.chain.from_iterable(map(tf.python_io.tf_record_iterator, paths))
        found: List[int] = []
        for record in itertools.islice(records, first, first + count):
            label = tf.train.Example.FromString(record).features.feature['label'].int64_list.value
            if not label:
                return None
            found.append(label[0])
        if len(found) != count:
            raise UserError(f'{source.records} does not hold all of them')
        return found
    except (UserError, tf.errors.OpError, message.DecodeError) as error:
        reason = first_line(error).rstrip('.')
        say(f"PROJECTOR: no labels, as TFDS's records cannot be read ({reason}).")
        return None


def _own_labels(path: str, count: int) -> Optional[List[Any]]:
    try:
        found = files.read_json(path)
        # The name of a folder may hold line ends, and bytes that are not UTF-8.
        texts = (str(label).encode('utf-8', 'backslashreplace') for label in (found or [])[:count])
        return [' '.join(text.decode('utf-8').split()) for text in texts] or None
    except (UserError, tf.errors.OpError) as error:
        say(f'PROJECTOR: no labels, as {first_line(error).rstrip(".")}.')
        return None
