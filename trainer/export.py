"""Exports a trained model again, or otherwise: `python -m trainer.export --model_dir=...`."""

from typing import List

from absl import flags

from trainer.base import path_flags, program
from trainer.checkpoints import chosen
from trainer.serving import exports, saved_model, signatures
from trainer.serving.saved_model import Options
from trainer.settings import command_line, storage


def define_flags() -> None:
    """Defines the flags."""
    command_line.define_flags_of_run()
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
        'optimize_export', False, 'Make constants of the weights and fold what follows from them.'
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
    if values.flat_dir:
        exports.check_flat_dir(values.flat_dir)
    options = Options(values.signature, values.optimize_export, values.warmup)
    exported = saved_model.export_saved_model(
        values.signature or 'final', checkpoint_path, params, options
    )
    flat = exports.copy_flat(exported, values.flat_dir) if values.flat_dir else ''
    print('\n'.join(filter(None, [exported, flat])))


if __name__ == '__main__':
    define_flags()
    program.run(main)
