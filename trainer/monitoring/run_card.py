"""What a run is, for TensorBoard's HPARAMS and TEXT tabs."""

import os
import shlex
import subprocess
import sys
from typing import Any, Dict, Optional, Sequence

import tensorflow as tf
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import summary as hparams_summary
from tensorboard.plugins.text import summary as text_summary

from trainer.checkpoints import best_model
from trainer.data.dataset import PreparedDataset
from trainer.model import vae
from trainer.monitoring import event_files
from trainer.settings import storage, table, wording
from trainer.settings.table import HParams

_RESUMED_AT = 'resumed_at_'
_SPLITS = ('train', 'validation', 'test')
_COLUMNS_SHOWN = 50


def describe_run(
    params: HParams, recorded: Optional[HParams], start_step: int, data: PreparedDataset
) -> None:
    """Writes the start of an hparams session, and the run's cards as texts.

    Of a folder's event files the HPARAMS tab reads the first session. So a start that goes on under
    other settings than the one before it writes to a folder of its own, `resumed_at_<step>`.

    Args:
      recorded: the settings before this start, None if there were none.
      start_step: the global step that it goes on from.
    """
    session, settings = _last_session(params.model_dir), _settings(params)
    if not start_step:
        session = params.model_dir
    elif recorded is not None and _settings(recorded) != settings:
        session = os.path.join(params.model_dir, _RESUMED_AT + str(start_step))
    writer = event_files.open_event_file(session)
    metrics = best_model.reported_metrics(params)
    # Each run holds the experiment, the same in all: TensorBoard takes one of those it finds.
    writer.add_summary(hparams_summary.experiment_pb(*_experiment(settings, metrics)))
    writer.add_summary(hparams_summary.session_start_pb(settings))
    for name, text in _texts(params, data).items():
        writer.add_summary(text_summary.pb(name, text))


def _last_session(model_dir: str) -> str:
    """The folder of the run's last hparams session; its path is the session's name."""
    names = [name.rstrip('/') for name in tf.gfile.ListDirectory(model_dir)]
    steps = [name[len(_RESUMED_AT) :] for name in names if name.startswith(_RESUMED_AT)]
    last = max((int(step) for step in steps if step.isdigit()), default=None)
    return model_dir if last is None else os.path.join(model_dir, _RESUMED_AT + str(last))


def describe_results(model_dir: str, record: Dict[str, Any]) -> None:
    """Writes the final metrics as scalars, which the HPARAMS tab shows, and the session's end.

    Args:
      record: what `results.json` holds.
    """
    writer = event_files.open_event_file(_last_session(model_dir))
    final = {
        _final_tag(split, name): record[split][name] for split in _SPLITS for name in record[split]
    }
    values = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in final.items()]
    event_files.describe(writer, dict.fromkeys(final, record['units']))
    writer.add_summary(tf.Summary(value=values), record['global_step'])
    writer.add_summary(hparams_summary.session_end_pb(api_pb2.STATUS_SUCCESS))
    writer.flush()


def _final_tag(split: str, name: str) -> str:
    return 'final/{}_{}'.format(split, name)


def _settings(params: HParams) -> Dict[str, Any]:
    """Every setting but the folders: those are the run's name already, or the machine's."""
    names = [row.name for row in table.settings() if row.name not in table.paths()]
    return {name: getattr(params, name) for name in names}


def _experiment(settings: Dict[str, Any], metric_names: Sequence[str]) -> Any:
    text, number = api_pb2.DATA_TYPE_STRING, api_pb2.DATA_TYPE_FLOAT64
    infos = [
        api_pb2.HParamInfo(name=name, type=text if isinstance(value, str) else number)
        for name, value in settings.items()
    ]
    metrics = [
        api_pb2.MetricInfo(
            name=api_pb2.MetricName(tag=_final_tag(split, name)),
            display_name='{} {} (nats)'.format(split, name.replace('_', ' ')),
        )
        for split in ('test', 'validation')
        for name in metric_names
    ]
    return infos, metrics


def _texts(params: HParams, data: PreparedDataset) -> Dict[str, str]:
    model = {
        **vae.description(params),
        'loss': f'nats per example, summed over {wording.values(params)} and latent dimensions',
        'log p(x)': wording.log_likelihood(params),
    }
    dataset = {
        'dataset': data.name,
        'version': data.version,
        **{split: f'{count:,} {data.noun}' for split, count in data.num_examples.items()},
        'convention': wording.data_convention(params),
        **_example(data),
    }
    versions = dict(storage.versions(), **{'git commit': _git_commit() or 'not a git checkout'})
    command = ' '.join(shlex.quote(argument) for argument in sys.argv[1:])
    return {
        'model': _table(model),
        'data': _table(dataset),
        'settings': _table(_settings(params)),
        'command_line': f'    python -m trainer.task {command}',
        'versions': _table(versions),
    }


def _example(data: PreparedDataset) -> Dict[str, str]:
    """What an image is; of a window also what its columns are."""
    rows, columns, channels = data.image_shape
    if data.windows is None:
        return {'image': f'{rows} x {columns} pixels, {channels} channel(s)'}
    stride = data.windows.stride
    every = 'every row' if stride == 1 else f'every {stride:,} rows'
    facts = {'window': f'{rows:,} rows of {channels:,} columns, one {every}'}
    for name, mean, deviation in data.scaling[:_COLUMNS_SHOWN]:
        facts[f'column {name}'] = f'mean {mean:.6g}, standard deviation {deviation:.6g}'
    left = channels - _COLUMNS_SHOWN
    return dict(facts, **{'further columns': f'{left:,}'} if left > 0 else {})


def _table(values: Dict[str, Any]) -> str:
    """A markdown table of two columns; a bar in a text, as in a column's name, ends no cell."""
    pairs = [[str(text).replace('|', r'\|') for text in pair] for pair in values.items()]
    lines = ['| {} | {} |'.format(*pair) for pair in pairs]
    return '\n'.join(['| | |', '|---|---|'] + lines)


def _git_commit() -> str:
    """The commit of the checkout that this code lies in; '' where there is none, or no git."""
    folder = os.path.dirname(os.path.abspath(__file__))
    command = ['git', '-C', folder, 'describe', '--always', '--dirty', '--abbrev=40']
    try:
        answer = subprocess.run(command, capture_output=True, timeout=5, text=True)
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return answer.stdout.strip() if answer.returncode == 0 else ''
