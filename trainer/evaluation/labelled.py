"""How well scores tell the rows of a series that a label calls unusual from the others.

Nothing here is used to train or to set a threshold: that is of the validation rows.
"""

import os
import time
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import tensorflow as tf

from trainer.base import errors, row_means, scaling
from trainer.base.console import ImageProgress
from trainer.base.errors import UserError
from trainer.checkpoints import weights
from trainer.data import inputs, new_series, series
from trainer.data.csv_table import CsvTable
from trainer.data.dataset import PreparedDataset
from trainer.data.windows import Cutter, Means
from trainer.evaluation import detection, importance_sampling, row_detection
from trainer.evaluation.row_detection import NAMES, Labelled
from trainer.evaluation.scores import Checkpoint
from trainer.model import vae
from trainer.settings import memory, table

UNITS = 'nats of standardised readings, higher is stranger'
# Of more validation windows as many are scored.
_MOST_VALIDATION_WINDOWS, _MOST_WINDOWS_AT_ONCE = 10_000, 1000


class Scorer:
    """Scores of rows, by the weights of a checkpoint of a run on series."""

    def __init__(self, model: Checkpoint):
        self._params = params = model.params
        with tf.Graph().as_default():
            self._windows = tf.placeholder(tf.float32, [None, params.rows, params.row_features])
            found = vae.predictions(self._windows, vae.prior(params), params)
            by_row = tf.reshape(found['nats_by_pixel'], [-1, params.rows, params.row_features])
            nats = tf.reduce_sum(by_row, axis=-1)
            of_window = [tf.zeros_like(nats) + found[name][:, tf.newaxis] for name in NAMES[1:]]
            self._values, self._session = tf.stack([nats, *of_window], axis=-1), tf.Session()
            weights.restore(self._session, model.path)

    def of_validation(self, data: PreparedDataset) -> np.ndarray:
        """Returns the scores of the validation rows, float64 `[n, NAMES]`."""
        params, in_split = self._params, data.num_examples['validation']
        count, batch = min(in_split, _MOST_VALIDATION_WINDOWS), memory.evaluation_batch(params)
        assert data.windows is not None
        starts = data.windows.starts('validation', params.rows)
        starts = starts[inputs.numbers_read(in_split, count)]
        batches = inputs.batches_of(data, 'validation', count, batch, params.binarization)
        return row_means.of_windows(np.concatenate([self._of(some) for some in batches]), starts)

    def of_file(self, file: CsvTable, flag: str, show: Any) -> Tuple[np.ndarray, np.ndarray]:
        """Returns the scores of all rows, float64 `[rows, NAMES]`, and whether each is unusual.

        Scores of rows that no window covers are NaN.
        """
        params, labels = self._params, []
        found: List[Tuple[int, np.ndarray]] = []
        cutter, means = Cutter(params.rows), Means()
        at_once = memory.images_at_once(params, _MOST_WINDOWS_AT_ONCE)
        for block in file.blocks(allow_missing=True):
            labels.append(block.labels)
            starts = cutter.add(block.readings)
            for at in range(0, len(starts), at_once):
                some = starts[at : at + at_once]
                seen = scaling.standardised(cutter.windows(some), params.scaling)
                values = self._of(seen)
                if not np.isfinite(values).all():
                    raise UserError(
                        f'{flag}: a window from row {some[0]:,} on has no finite score: look for '
                        'readings that are far too large.'
                    )
                found += means.add(some, values)
            show(len(block.readings))
            cutter.forget()
        found += means.ended(cutter.end + 1)
        scores = np.full([cutter.end, len(NAMES)], np.nan)
        for first, values in found:
            scores[first : first + len(values)] = values
        return scores, np.concatenate(labels)

    def _of(self, windows: np.ndarray) -> np.ndarray:
        return self._session.run(self._values, {self._windows: windows})


def label_column_of(model: Checkpoint, given: str) -> str:
    """Returns the name of the column of labels: the flag's, or the run's; '' where neither has."""
    return given or model.params.label_column


def opened(path: str, model: Checkpoint, label_column: str) -> List[Tuple[str, CsvTable]]:
    """Opens a labelled file, or those of a folder; returns what led to each, and it.

    Raises UserError where it is none that the model can score and that says what is unusual.
    """
    params, flag = model.params, '--against'
    if '://' not in path and os.path.exists(path) and not series.is_series(path):
        raise UserError(
            f'{flag}={path} holds no readings, and the model takes such: give a .csv file, or a '
            'folder of them.'
        )
    found = []
    names = [name for name, _, _ in params.scaling]
    if label_column in names:
        raise UserError(
            f'--label_column={label_column} is one of the readings that the model takes: name the '
            'column that says what is unusual.'
        )
    for name, file in new_series.files_of(path, flag):
        led = new_series.flag_of(path, name, flag)
        table_of_file = new_series.table_of(file, led, names, params.missing, label_column)
        if not label_column:
            left = errors.some([errors.printable(one) for one in table_of_file.left_out if one], 20)
            raise UserError(
                f'{led}: which column says what is unusual? Name it by --label_column'
                + (f': beside the readings there are {left}.' if left else '.')
            )
        found.append((led, table_of_file))
    return found


def read(files: List[Tuple[str, CsvTable]], path: str, scorer: Scorer, window: int) -> Labelled:
    """Scores the rows of files; raises UserError where labels are all alike, or no row has a score.

    Args:
      path: what was given.
    """
    progress = ImageProgress(max(1, sum(file.estimated_rows for _, file in files)), 0, 'row')
    done = 0

    def show(count: int) -> None:
        nonlocal done
        done += count
        progress.total = max(progress.total, done + 1)
        progress.show(done, f'{table.name_of_source(path)}: scoring', 1, 'rows')

    parts: List[Tuple[np.ndarray, ...]] = []
    stretches = units = 0
    try:
        for flag, file in files:
            scores, labels = scorer.of_file(file, flag, show)
            stretch, unit = (
                row_detection.stretches_of(labels),
                row_detection.units_of(labels, window),
            )
            parts.append((scores, labels, np.where(labels, stretch + stretches, -1), unit + units))
            stretches, units = stretches + stretch.max() + 1, units + unit.max() + 1
    finally:
        progress.close()
    scores, labels, stretch, unit = (np.concatenate(part) for part in zip(*parts))
    known = ~np.isnan(scores[:, 0])
    if not known.any():
        raise UserError(
            f'--against={path} has no {window} rows that follow each other without a missing value '
            'in any file, and a window is so many: give longer ones.'
        )
    if labels[known].all() or not labels[known].any():
        kind = 'unusual' if labels[known].all() else 'usual'
        raise UserError(
            f'--against={path}: by the column {errors.printable(files[0][1].label_name)} all '
            f'{known.sum():,} rows that have a score are {kind}: give a file with both.'
        )
    by_name = dict(zip(NAMES, scores[known].T))
    return Labelled(by_name, labels[known], stretch[known], unit[known], int(np.sum(~known)))


def compare(model: Checkpoint, data: PreparedDataset, sets: Dict[str, Any], seed: int) -> Dict:
    """Measures how well scores tell the unusual rows of each of some sets of files.

    Args:
      sets: by what was given, what `opened` returns.

    Returns:
      `against`: of each its `name`, `source`, `num_rows` (with a score), `rows_without_score`,
      `num_unusual`, `unusual_stretches`, `share_of_unusual`, which average precision is by chance,
      and `scores`, as `row_detection.measured` returns them. `validation_rows`, `quantile`: what
      thresholds are of. `window`; `bootstrap_resamples`; `wall_seconds`.
    """
    start, scorer = time.perf_counter(), Scorer(model)
    labelled = {path: read(files, path, scorer, model.params.rows) for path, files in sets.items()}
    of_validation = scorer.of_validation(data)
    found = []
    for path, rows in labelled.items():
        found.append(
            {
                'name': table.name_of_source(path),
                'source': path,
                'num_rows': len(rows.is_unusual),
                'rows_without_score': rows.without,
                'num_unusual': int(rows.is_unusual.sum()),
                'unusual_stretches': len(np.unique(rows.stretch[rows.is_unusual])),
                'share_of_unusual': float(rows.is_unusual.mean()),
                'scores': row_detection.measured(rows, of_validation, seed),
            }
        )
    return {
        'units': UNITS,
        'against': found,
        'validation_rows': len(of_validation),
        'quantile': row_detection.QUANTILE,
        'window': model.params.rows,
        'bootstrap_resamples': detection.RESAMPLES,
        'wall_seconds': time.perf_counter() - start,
    }


def default_name(seed: int, checkpoint: str) -> str:
    """Returns the name of the results' file, such as `detection_rows.json`."""
    name = 'detection_rows' + (f'_seed_{seed}' if seed != importance_sampling.SEED else '')
    return name + ('' if checkpoint == 'last' else '_' + os.path.basename(checkpoint)) + '.json'


_LINE = '{:<16}' + 4 * '{:>8}' + 4 * '{:>11}'
_HEADS = ('AUROC', 'error', 'av.prec', 'error', 'precision', 'recall', 'F1', 'adj. F1')
_FIELDS = (
    'auroc', 'auroc_standard_error', 'average_precision', 'average_precision_standard_error',
    'precision', 'recall', 'f1', 'point_adjusted_f1',
)  # fmt: skip


def text_table(record: Dict[str, Any]) -> str:
    """Writes the results of a comparison."""
    return '\n'.join(_lines(record))


def _lines(record: Dict[str, Any]) -> Iterator[str]:
    yield (
        '{checkpoint} (step {global_step:,}): row by row, the rows that {label_column} calls '
        'unusual against the others.'.format(**record)
    )
    yield (
        f'Errors are bootstrap standard errors of {record["bootstrap_resamples"]:,} resamples of '
        f'whole stretches, usual ones of {record["window"]} rows: neighbours depend on each other.'
    )
    yield (
        'Precision, recall and F1 are at the {quantile} quantile of {validation_rows:,} validation '
        'rows.'.format(**record)
    )
    if record['validation_rows'] < row_detection.FEWEST_VALIDATION_ROWS:
        yield f'There is none of fewer than {row_detection.FEWEST_VALIDATION_ROWS}.'
    yield 'adj. F1 counts a stretch as found whole where one row is: random scores do well by it.'
    for row in record['against']:
        yield ''
        yield (
            'against {source}: {num_unusual:,} of {num_rows:,} rows are unusual, in '
            '{unusual_stretches:,} stretches; average precision by chance {share_of_unusual:.4f}'
        ).format(**row)
        if row['unusual_stretches'] < 2:
            yield 'Errors know nothing of other unusual stretches, as there is one.'
        if row['rows_without_score']:
            yield '{rows_without_score:,} rows have no score: no window covers them.'.format(**row)
        yield _LINE.format('score', *_HEADS)
        for name in NAMES:
            values = [row['scores'][name][field] for field in _FIELDS]
            shown = ['' if value is None else f'{value:.4f}' for value in values]
            yield _LINE.format(name, *shown)
