"""CSV files of sensor readings, opened and read."""

import numpy as np
import pytest

from trainer.base.errors import UserError
from trainer.data.csv_table import CsvTable, Options

FLAG = '--source=readings.csv'


def opened(folder, content, **options):
    """Writes `readings.csv` into a folder and opens it."""
    path = folder / 'readings.csv'
    path.write_bytes(content if isinstance(content, bytes) else content.encode('utf-8'))
    return CsvTable(str(path), FLAG, Options(**options))


def readings(table, **arguments):
    return np.concatenate([block.readings for block in table.blocks(**arguments)]).tolist()


def refusal(folder, content, **options):
    """The sentence with which a content is refused, when it is opened or read."""
    with pytest.raises(UserError) as error:
        list(opened(folder, content, **options).blocks())
    message = str(error.value)
    assert '\n' not in message and message.endswith('.')
    return message
