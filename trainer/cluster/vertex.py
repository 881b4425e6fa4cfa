"""What a cloud job says in environment variables, turned into settings and files at the door.

Vertex AI's custom jobs set (custom training, "environment variables for special Cloud Storage
directories"; the same texts stand at `baseOutputDirectory` in the API's discovery document):

    AIP_TENSORBOARD_LOG_DIR   where its managed TensorBoard looks for event files
    AIP_CHECKPOINT_DIR        for checkpoints
    AIP_MODEL_DIR             where a model upload looks for saved_model.pb
    CLOUD_ML_TRIAL_ID         number of this trial; only in hyper-parameter tuning
    CLOUD_ML_HP_METRIC_FILE   local file that the service reads trials' metrics from

The AIP_ folders of a trial already have its number in them. Estimator keeps checkpoints and event
files in one folder, so AIP_CHECKPOINT_DIR counts only where the first is not set.
"""

import dataclasses
import json
import os
import time
from typing import Any, Callable, Dict, List, Mapping

import tensorflow as tf

from trainer.base import files
from trainer.base.console import say
from trainer.base.errors import UserError, first_line
from trainer.settings import wording
from trainer.settings.table import HParams

_METRIC_FILE = '/tmp/hypertune/output.metrics'
_METRICS_KEPT = 100
_MAIN_FILE = 'saved_model.pb'
_UNREPORTED = (
    'CLOUD_ML_HP_METRIC_FILE: {} The tuning does not learn what this trial measures; training goes '
    'on.'
)


def placed(params: HParams, is_model_dir_given: bool, environ: Mapping[str, str]) -> HParams:
    """Returns `params` with the `model_dir` that the service wants.

    A `--model_dir` of the user stands, but trials, whose flags are all the same in this, get one
    folder each below it.
    """
    if not is_model_dir_given:
        for name in ('AIP_TENSORBOARD_LOG_DIR', 'AIP_CHECKPOINT_DIR'):
            if environ.get(name):
                return dataclasses.replace(params, model_dir=environ[name].rstrip('/'))
    if environ.get('CLOUD_ML_TRIAL_ID'):
        folder = os.path.join(params.model_dir, environ['CLOUD_ML_TRIAL_ID'])
        return dataclasses.replace(params, model_dir=folder)
    return params


def tuning_metric(params: HParams) -> str:
    """Names what trials compete by, in nats per example.

    It is not the name of a training metric, or tuning could not tell the two apart.
    """
    return 'validation_' + wording.selection_metric(params)


def metric_reporter(
    params: HParams, environ: Mapping[str, str]
) -> Callable[[Dict[str, Any]], None]:
    """Returns what tells the tuning service a trial's `tuning_metric`; else does nothing.

    The format is cloudml-hypertune's (0.1.0.dev6): one JSON object a line, every value a string
    but the time, and the file written anew with the last 100 at each report.

    The function returned takes an evaluation's metrics, `global_step` among them. It raises
    nothing: training goes on where the metric cannot be told, after one warning.
    """
    trial = environ.get('CLOUD_ML_TRIAL_ID')
    path = environ.get('CLOUD_ML_HP_METRIC_FILE') or (_METRIC_FILE if trial else '')
    lines: List[str] = []
    warned: List[str] = []

    def write(metrics: Dict[str, Any]) -> None:
        values = {
            'timestamp': time.time(),
            'trial': trial or '0',
            tuning_metric(params): str(float(metrics[wording.selection_metric(params)])),
            'global_step': str(int(metrics['global_step'])),
            'checkpoint_path': '',
        }
        lines.append(json.dumps(values, sort_keys=True, allow_nan=False))
        content = '\n'.join(lines[-_METRICS_KEPT:]) + '\n'
        # The folder is the service's, and often not this process's user's.
        files.write_output(path, content.encode('utf-8'))

    def report(metrics: Dict[str, Any]) -> None:
        try:
            if path:
                write(metrics)
        except Exception as error:
            if not warned:
                warned.append(_UNREPORTED.format(error))
                say(warned[0])

    return report


def publish_model(params: HParams, environ: Mapping[str, str]) -> None:
    """Copies the newest final export to AIP_MODEL_DIR, where that is set, for a model upload.

    There saved_model.pb lies at the top, without Estimator's folder named by the time. It is taken
    away first and copied last: while it is there, all it needs is.

    Raises:
      UserError: it cannot be written there.
    """
    target = environ.get('AIP_MODEL_DIR')
    if not target:
        return
    exports = os.path.join(params.model_dir, 'export', 'final')
    # On gs:// the names of folders come with a slash at the end (1.14).
    names = [name.rstrip('/') for name in tf.gfile.ListDirectory(exports)]
    source = os.path.join(exports, max((name for name in names if name.isdigit()), key=int))
    try:
        if tf.gfile.Exists(os.path.join(target, _MAIN_FILE)):
            tf.gfile.Remove(os.path.join(target, _MAIN_FILE))
        files.copy_tree(source, target, last=_MAIN_FILE)
    except tf.errors.OpError as error:
        raise UserError(
            'AIP_MODEL_DIR={} cannot be written ({}): get the right to it. The training is whole, '
            'and the model is in {}.'.format(target, first_line(error.message), source)
        ) from error
