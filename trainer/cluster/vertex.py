"""What a cloud job says in environment variables, as settings and files.

Vertex AI's custom jobs set (see `baseOutputDirectory` in the API's discovery document):

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
from trainer.checkpoints import best_model
from trainer.settings.table import HParams

_METRIC_FILE = '/tmp/hypertune/output.metrics'
_METRICS_KEPT = 100


def placed(params: HParams, is_model_dir_given: bool, environ: Mapping[str, str]) -> HParams:
    """Returns `params` with the `model_dir` that the service wants.

    A `--model_dir` of the user stands, but the trials of one get a folder each below it.
    """
    given = environ.get('AIP_TENSORBOARD_LOG_DIR') or environ.get('AIP_CHECKPOINT_DIR')
    trial = environ.get('CLOUD_ML_TRIAL_ID')
    if given and not is_model_dir_given:
        return dataclasses.replace(params, model_dir=given.rstrip('/'))
    if trial:
        return dataclasses.replace(params, model_dir=os.path.join(params.model_dir, trial))
    return params


def tuning_metric(params: HParams) -> str:
    """Names what trials compete by, in nats per example; no training metric has that name."""
    return 'validation_' + best_model.selection_metric(params)


def metric_reporter(
    params: HParams, environ: Mapping[str, str]
) -> Callable[[Dict[str, Any]], None]:
    """Returns a function of an evaluation's metrics that tells a tuning service `tuning_metric`.

    The format is cloudml-hypertune's (0.1.0.dev6): one JSON object a line, every value a string
    but the time, and the file written anew with the last 100 at each report. The function raises
    nothing: training goes on where the metric cannot be told, after one warning.
    """
    trial = environ.get('CLOUD_ML_TRIAL_ID')
    path = environ.get('CLOUD_ML_HP_METRIC_FILE') or (_METRIC_FILE if trial else '')
    lines: List[str] = []
    warned: List[str] = []

    def report(metrics: Dict[str, Any]) -> None:
        try:
            values = {
                'timestamp': time.time(),
                'trial': trial or '0',
                tuning_metric(params): str(float(metrics[best_model.selection_metric(params)])),
                'global_step': str(int(metrics['global_step'])),
                'checkpoint_path': '',
            }
            lines.append(json.dumps(values, sort_keys=True, allow_nan=False))
            content = '\n'.join(lines[-_METRICS_KEPT:]) + '\n'
            # The folder is the service's, and often not this process's user's.
            files.write_output(path, content.encode('utf-8'))
        except Exception as error:
            if not warned:
                warned.append(str(error))
                then = 'The tuning does not learn what this trial measures; training goes on.'
                say(f'CLOUD_ML_HP_METRIC_FILE: {error} {then}')

    return report if path else lambda metrics: None


def publish_model(params: HParams, environ: Mapping[str, str]) -> None:
    """Copies the newest final export to AIP_MODEL_DIR, where that is set, for a model upload.

    saved_model.pb lies there at the top. Raises UserError where it cannot be written.
    """
    target = environ.get('AIP_MODEL_DIR')
    if not target:
        return
    exports = os.path.join(params.model_dir, 'export', 'final')
    source = os.path.join(exports, max(filter(str.isdigit, files.names_in(exports)), key=int))
    try:
        files.copy_tree(source, target, last='saved_model.pb')
    except tf.errors.OpError as error:
        raise UserError(
            f'AIP_MODEL_DIR={target} cannot be written ({first_line(error.message)}): get the '
            f'right to it. The training is whole, and the model is in {source}.'
        ) from error
