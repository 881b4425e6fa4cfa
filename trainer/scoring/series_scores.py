"""Scores of series: asked of a model in windows, judged, written and told by window and by row."""

import contextlib
import functools
import os
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from trainer.base import errors
from trainer.base.console import ImageProgress, say
from trainer.base.errors import UserError
from trainer.data import new_series, series
from trainer.data.csv_table import CsvTable
from trainer.scoring import series_rows
from trainer.scoring.request import Request
from trainer.scoring.series_files import Tables
from trainer.scoring.series_plot import Plots
from trainer.scoring.series_report import OfFile, Seen
from trainer.scoring.series_rows import Judge, Model, OfWindows, Readings
from trainer.serving import client, thresholds
from trainer.serving.client import Export, Outputs, Refused

_MOST_AT_ONCE = 1000


class _NoAnswer(UserError):
    """The model does not answer, whatever the file."""


class _File(NamedTuple):
    """A file of readings.

    Attributes:
      name: in a folder, '' of a file that is named itself.
      flag: what led to it.
      table: None where it is none that the model takes; `error` says why.
    """

    name: str
    flag: str
    table: Optional[CsvTable]
    error: str


def is_wanted(request: Request) -> bool:
    """Whether series are to be scored; raises UserError where the model takes none."""
    settings = client.settings(request.export_dir) if request.export_dir else {}
    if settings.get('columns'):
        if request.images:
            raise UserError(
                f'--images={request.images}: the model takes readings: give a .csv file, or a '
                'folder of them, as --source.'
            )
        return True
    if not request.source or not series.is_series(request.source):
        return False
    if request.samples:
        raise UserError(
            f'--source={request.source} holds readings, and --samples are of images: leave that '
            'away.'
        )
    if request.export_dir:
        if not settings:  # Of an old export, or of none.
            Export(request.export_dir)
        raise UserError(
            f'--source={request.source} holds readings, and the model in '
            f'--export_dir={request.export_dir} takes images: give such.'
        )
    return True


def run(request: Request) -> None:
    """Scores windows and rows, and prints; saves where `output` says.

    Raises:
      UserError: what is wanted is not there of series, the model does not answer, or files have no
        scores; those of the others are written first.
    """
    _check(request)
    files = new_series.files_of(request.source)
    model = _exported(request) if request.export_dir else _served(request, files)
    tables = list(_opened(files, model.columns, request))
    seen, written = Seen(model), []  # type: Seen, List[str]
    plots = Plots(model, request.output)
    failure = None
    has_times = any(file.table and file.table.has_times for file in tables)
    with contextlib.ExitStack() as stack:
        output = Tables(model, has_times)
        if request.output and any(file.table for file in tables):
            is_folder = os.path.isdir(request.source)
            written += stack.enter_context(output.opened(request.output, is_folder))
        try:
            _score(tables, model, output, seen, plots)
        except _NoAnswer as error:
            if len(tables) == 1:
                raise
            failure = error
        if len(tables) == 1 and seen.errors:
            raise UserError(seen.errors[0])
    written += plots.write()
    # All files before what is printed, whose reader may be gone.
    seen.show()
    if written:
        print(*written, sep='\n')
    if failure:
        raise failure
    seen.name_the_bad(f'--source={request.source}', len(files))


def _check(request: Request) -> None:
    of_images = {
        '--explain': (request.explain, 'rows.csv says which column is strange'),
        '--latents': (request.latents, 'the signature encode gives those of windows'),
    }
    for flag, (is_given, instead) in of_images.items():
        if is_given:
            raise UserError(f'{flag} is of images, and of series {instead}: leave it away.')


def _opened(
    files: List[Tuple[str, str]], columns: Tuple[str, ...], request: Request
) -> Iterator[_File]:
    settings = client.settings(request.export_dir) if request.export_dir else {}
    missing, time = settings.get('missing', 'refuse'), settings.get('time_column', '')
    for name, path in files:
        flag, table, error = new_series.flag_of(request.source, name), None, ''
        try:
            table = new_series.table_of(path, flag, columns, missing, time_column=time)
        except UserError as problem:
            error = str(problem)
        yield _File(errors.as_text(name), flag, table, error)


def _judges(request: Request, table: Dict[str, Any], data: str, stride: int) -> Tuple[Judge, Judge]:
    """What judges windows, and rows: a threshold in nats is of rows where these have scores."""
    of_rows = client.row_scores(request.export_dir) if request.export_dir else None
    count = table.get('images')
    windows = thresholds.of_flag(request.threshold, count, 'window')
    rows = thresholds.of_flag(request.threshold, None if of_rows is None else len(of_rows), 'row')
    if windows and not windows.is_quantile and stride == 1:
        windows = None
    among = "the model's validation windows"
    if count:
        among = f'{count:,} validation windows of {data}'
    among_rows = '' if of_rows is None else f'{len(of_rows):,} validation rows of {data}'
    return Judge(windows, among), Judge(rows, among_rows, of_rows)


def _exported(request: Request) -> Model:
    settings = client.settings(request.export_dir)
    export = Export(request.export_dir)
    window, columns = settings['image_shape'][0], tuple(settings['columns'])
    stride = settings['stride']
    table = thresholds.of_export(request.export_dir) or {}
    judges = _judges(request, table, settings.get('data', ''), stride)
    at_once = series_rows.at_once(window, len(columns), _MOST_AT_ONCE)

    def ask(windows: np.ndarray) -> Outputs:
        return export.predict(windows, 'score', 'explain')

    return Model(_checked(ask), window, stride, columns, at_once, *judges)


def _served(request: Request, files: List[Tuple[str, str]]) -> Model:
    """A model on a server, which tells of its windows neither the columns' names nor the stride."""
    shape = client.shape_by_rest(request.url)
    flag = f'--source={request.source}'
    columns = new_series.table_of(files[0][1], flag, (), 'refuse').column_names
    if len(shape) != 2 or shape[1] != len(columns):
        takes = f'windows of {shape[1]} columns' if len(shape) == 2 else 'none of readings'
        raise UserError(
            f'{flag} has the columns {errors.some(list(columns), 20)}, and the '
            f'model at --url={request.url} takes {takes}: give a file with those of its training '
            'alone, in their order.'
        )
    judges = _judges(request, {}, '', 1)
    at_once = series_rows.at_once(shape[0], shape[1], client.BATCH)
    predict = functools.partial(client.predict_by_rest, url=request.url)
    ask = client.asking(predict, ['score', 'explain'])
    return Model(_checked(ask), shape[0], 1, columns, at_once, *judges)


def _checked(ask: Callable[[np.ndarray], Outputs]) -> Callable[[np.ndarray], Outputs]:
    """Tells what the model refuses from that it does not answer."""

    def ask_checked(windows: np.ndarray) -> Outputs:
        try:
            outputs = ask(windows)
        except Refused:
            raise
        except UserError as error:
            raise _NoAnswer(str(error)) from error
        if 'nats_by_reading' not in outputs:
            raise _NoAnswer('the model takes images, and --source holds readings: give such.')
        bad = sorted(name for name, value in outputs.items() if not np.all(np.isfinite(value)))
        if bad:
            raise Refused(f'the model answered NaN or infinity ({", ".join(bad)}).')
        return outputs

    return ask_checked


def _score(files: List[_File], model: Model, tables: Tables, seen: Seen, plots: Plots) -> None:
    """Scores all files; raises _NoAnswer where the model does not answer."""
    progress = ImageProgress(
        sum(file.table.estimated_rows for file in files if file.table), 0, 'row'
    )
    with contextlib.closing(progress):
        for file in files:
            try:
                if file.table is None:
                    raise UserError(file.error)
                with tables.file(file.name or None):
                    show = functools.partial(_show, progress, seen)
                    found = _score_file(file, model, tables, plots, show)
                seen.add_file(found)
            except _NoAnswer:
                raise
            except Refused as error:
                seen.errors.append(f'{file.flag}: {error}')
            except UserError as error:
                seen.errors.append(str(error))


def _show(progress: ImageProgress, seen: Seen, rows: int, unusual: int) -> None:
    done, unusual = seen.rows.count + rows, seen.unusual + unusual
    progress.total = max(progress.total, done + 1)
    progress.show(done, f'{unusual:,} unusual', 1, 'rows')


def _score_file(
    file: _File, model: Model, tables: Tables, plots: Plots, show: Callable[[int, int], None]
) -> OfFile:
    assert file.table is not None
    found, plot, count, incomplete = OfFile(model, file.name), plots.of_file(file.name), 0, 0
    for part in series_rows.scored(file.table.blocks(allow_missing=True), model):
        tables.add(part)
        plot.add(part)
        if isinstance(part, Readings):
            count += len(part.readings)
            incomplete += int(np.isnan(part.readings).any(axis=1).sum())
        for stretch in found.add(part):
            plot.mark(stretch)
        if isinstance(part, OfWindows):
            show(int(part.starts[-1]) + 1, found.unusual)
    for stretch in found.end(count):
        plot.mark(stretch)
    if count < model.window:
        say(
            f'{file.flag} has fewer rows ({count:,}) than a window ({model.window:,}): none has a '
            'score.'
        )
    if incomplete:
        say(
            f'{file.flag}: {incomplete:,} of {count:,} rows lack a value: no window covers them '
            '(a model of --missing=interpolate would fill them in).'
        )
    plots.keep(plot, found.highest)
    return found
