"""CSV files of readings that a trained model has to score."""

import os
from typing import List, Sequence, Tuple

from trainer.base import errors
from trainer.base.errors import UserError
from trainer.data import csv_format, csv_table, files_below, own_images, series
from trainer.data.csv_table import CsvTable


def files_of(source: str, flag: str = '--source') -> List[Tuple[str, str]]:
    """Returns name and path of the CSV files of a source, which is one or a folder of such.

    The name is that below the folder; '' of a file that is named itself. Raises UserError where
    there are none.
    """
    own_images.check_path(source, (series.ENDING,), flag)
    if not os.path.isdir(source):
        return [('', source)]
    found, left_out = files_below.listing(source, (series.ENDING,), flag)
    if not found:
        raise UserError(
            f'{flag}={source} holds no file that ends in {series.ENDING}, and the model takes '
            'readings: give such.'
        )
    files_below.tell_left_out(source, left_out, 'CSV file')
    return [(file.path, os.path.join(source, file.path)) for file in found]


def flag_of(source: str, name: str, flag: str = '--source') -> str:
    """Returns what leads to a file of a source, by its name there."""
    return f'{flag}={source}' + (f'/{errors.printable(name)}' if name else '').replace('//', '/')


def table_of(
    path: str,
    flag: str,
    columns: Sequence[str],
    missing: str,
    label_column: str = '',
    time_column: str = '',
) -> CsvTable:
    """Opens a file of which the columns of a model are read, and the time where it has one.

    Args:
      columns: as settings hold them; none for all of numbers.
      missing: of the model's settings.
      time_column: the same; a file without it has the time that is found in it, if any.

    Raises:
      UserError: it has not these columns.
    """
    # Settings hold names as they can be printed.
    known = {errors.printable(name): name for name in csv_format.head(path, flag).names}
    lacking = [name for name in columns if name not in known]
    if lacking:
        raise UserError(
            f'{flag} has no column {errors.some(lacking)}, which the model takes: its columns are '
            f'{errors.some([name for name in known if name], 20)}.'
        )
    wanted = tuple(known[name] for name in columns)
    time = time_column if time_column in known.values() else ''
    return CsvTable(path, flag, csv_table.Options(wanted, label_column, time, missing))
