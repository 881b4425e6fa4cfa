"""Exports a trained model again, or otherwise: `python -m trainer.export --model_dir=...`."""

from typing import List, Optional

from absl import flags

from trainer.base import path_flags, program
from trainer.base.console import say
from trainer.base.errors import UserError
from trainer.checkpoints import chosen
from trainer.data import prepare
from trainer.serving import exports, saved_model, signatures
from trainer.serving.saved_model import Options
from trainer.serving.thresholds import ValidationImages
from trainer.settings import command_line, storage, wording
from trainer.settings.table import HParams
from trainer.training import run


def define_flags() -> None:
    """Defines the flags."""
    command_line.define_flags_of_run(['data_dir'])
    flags.adopt_module_key_flags(command_line)
    path_flags.define(
        'checkpoint', None, 'Checkpoint to export, as MODEL_DIR/model.ckpt-5500. Default: the last.'
    )
    flags.DEFINE_enum(
        'signature',
        None,
        list(signatures.NAMES),
        'Export this signature alone, as serving_default too, to export/<signature>/<timestamp>: '
        'for clients that know one signature.',
    )
    flags.DEFINE_boolean(
        'low_latency',
        False,
        'Export to export/low_latency/<timestamp>, for clients that send one example at a time: '
        'all steps of the LSTM are one op, BlockLSTM, weights are constants. TensorFlow 2, its '
        'servers and OpenVINO read it, tf2onnx does not; in TensorFlow 1 import '
        'tensorflow.contrib.rnn first.',
    )
    flags.DEFINE_boolean(
        'warmup',
        False,
        'Add the requests that TensorFlow Serving warms up with (tensorflow-serving-api).',
    )
    path_flags.define('flat_dir', None, 'Also copy the export to this new folder, for uploads.')


def main(argv: List[str]) -> None:
    """Reads the flags, exports, says where to."""
    del argv
    values = flags.FLAGS
    params = storage.trained(values.model_dir)
    checkpoint_path = chosen.trained_checkpoint(values.model_dir, values.checkpoint)
    if params.is_series and values.signature in signatures.OF_FILES:
        raise UserError(
            f'--signature={values.signature} is of image files, and --model_dir={values.model_dir} '
            'is a model of readings: give another, or none.'
        )
    if values.flat_dir:
        exports.check_flat_dir(values.flat_dir)
    options = Options(values.signature, values.low_latency, values.warmup)
    validation = _validation_images(params)
    kind = 'low_latency' if values.low_latency else values.signature or 'final'
    exported = saved_model.export_saved_model(
        kind, checkpoint_path, params, options, validation=validation
    )
    flat = exports.copy_flat(exported, values.flat_dir) if values.flat_dir else ''
    print('\n'.join(filter(None, [exported, flat])))


def _validation_images(params: HParams) -> Optional[ValidationImages]:
    """What thresholds are made of, if any; None, and a word, where the data cannot be had."""
    values = flags.FLAGS
    if values.signature not in (None, *signatures.WITH_SCORES):
        return None
    try:
        data = prepare.of_run(params, values.data_dir, separate_process=True)
        return run.validation_images(data, params)
    except UserError as error:
        if values.signature in signatures.WITH_SCORES:
            raise
        noun = wording.examples(params)
        say(f'{error} The export goes without thresholds, which need the validation {noun}.')
        return None


if __name__ == '__main__':
    define_flags()
    program.run(main)
