"""The labels of a dataset's images, which the projector shows and nothing else uses."""

from typing import List, Optional

import tensorflow as tf
from google.protobuf import message

from trainer.base.console import say
from trainer.base.errors import UserError, first_line
from trainer.data import dataset_folder
from trainer.data.dataset import PreparedDataset
from trainer.settings.table import HParams


def labels(data: PreparedDataset, params: HParams, count: int) -> Optional[List[int]]:
    """Reads the labels of the first validation images from TFDS's records.

    Returns:
      The labels, or None where the dataset has none or its records are not there, or not whole, any
      more; then it says so.
    """
    try:
        return _read_labels(data, params, count)
    except (UserError, tf.errors.OpError, message.DecodeError) as error:
        reason = first_line(error).rstrip('.')
        say("PROJECTOR: no labels, as TFDS's records cannot be read ({}).".format(reason))
        return None


def _read_labels(data: PreparedDataset, params: HParams, count: int) -> Optional[List[int]]:
    source = dataset_folder.find(params.dataset, params.data_dir or None)
    first = 0
    paths = source.record_files('validation')
    if not paths:  # It is the end of TFDS's train split.
        first = data.num_examples['train']
        paths = source.record_files('train')
    found: List[int] = []
    index = 0
    for path in paths:
        for record in tf.python_io.tf_record_iterator(path):
            if first <= index < first + count:
                label = tf.train.Example.FromString(record).features.feature['label']
                if not label.int64_list.value:
                    return None
                found.append(label.int64_list.value[0])
            index += 1
    if len(found) != count:
        raise UserError('{} does not hold all of them'.format(source.records))
    return found
