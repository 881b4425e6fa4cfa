"""Runs every signature of a trained model's export through every client; prints the table.

    ./scripts/run python scripts/clients --model_dir=runs/mnist-z32 [--low_latency] [--json=FILE]

Each answer is compared, to 1e-4, with what PREDICT and the decoder give for the same test images
and the same weights, not with the export itself. Where a signature cannot work in a client, the
cell has a reason, and the client has failed with just that error: any other failure ends the
program with code 1.

TensorFlow 2, KServe, tf2onnx, ONNX Runtime and OpenVINO, the newest on the registry, need a Python
3.11 or later. Their environment is made in a temporary folder, or kept in the one that
--clients_env names; Triton's has `-triton` at the end of its name. The exports are made in a
temporary folder too.
"""

import dataclasses
import os
import tempfile
from typing import Dict, List

from absl import flags

from scripts.clients import environment, in_triton, reference, table
from trainer.base import files, path_flags, program
from trainer.checkpoints import chosen
from trainer.data import prepare
from trainer.serving import saved_model, signatures
from trainer.serving.saved_model import Options
from trainer.serving.signatures import DEFAULT
from trainer.serving.thresholds import ValidationImages
from trainer.settings import command_line, storage
from trainer.settings.table import HParams
from trainer.training import run


def exports_of(
    checkpoint_path: str, params: HParams, validation: ValidationImages, low_latency: bool
) -> Dict[str, str]:
    """Returns for each signature the export in `model_dir` that has it as its default."""

    def export(kind: str, options: Options) -> str:
        return saved_model.export_saved_model(
            kind, checkpoint_path, params, options, validation=validation
        )

    whole = export('final', Options(low_latency=low_latency))
    alone = {
        name: export(name, Options(name, low_latency))
        for name in signatures.NAMES
        if name != 'reconstruct' and not (params.is_series and name in signatures.OF_FILES)
    }
    return dict(alone, reconstruct=whole, **{DEFAULT: whole})


def versions_of(env: str, packages: List[str]) -> List[str]:
    """Returns `name==version` of those packages in an environment."""
    command = [os.path.join(env, 'bin', 'python'), '-m', 'pip', 'freeze']
    frozen = environment.run(command, 'pip freeze').replace('_', '-').split()
    return [text for text in frozen if text.split('==')[0] in packages]


def define_flags() -> None:
    command_line.define_flags_of_run(['data_dir'])
    flags.DEFINE_boolean(
        'low_latency', False, 'Exports as `trainer.export --low_latency` makes them.'
    )
    path_flags.define('clients_env', None, "Folder to keep the other runtimes' environment in.")
    path_flags.define('json', None, 'File to write all results to.')


def main(argv: List[str]) -> int:
    """Exports the last checkpoint, runs the clients, prints the table; 1 if a cell failed."""
    del argv
    values = flags.FLAGS
    if values.json:
        files.check_output('--json', values.json)
    if values.clients_env:
        files.check_folder('--clients_env', values.clients_env)
    params = storage.trained(values.model_dir)
    checkpoint_path = chosen.trained_checkpoint(values.model_dir, None)
    data = prepare.of_run(params, values.data_dir, separate_process=True)
    validation = run.validation_images(data, params)
    images = reference.images_of(data, params)
    golden = reference.answers(images, validation, checkpoint_path, params)
    with tempfile.TemporaryDirectory() as folder:
        env = values.clients_env or os.path.join(folder, 'env')
        python = environment.make('--clients_env', env, environment.RUNTIMES)
        of_exports = dataclasses.replace(params, model_dir=folder)
        exports = exports_of(checkpoint_path, of_exports, validation, values.low_latency)
        results = table.by_tensorflow_1(exports[DEFAULT], golden)
        results.update(table.by_other_runtimes(python, exports, golden))
        # An environment of its own, as Triton's package wants an old NumPy.
        results.update(table.by_triton(env + '-triton', exports, golden))
        versions = versions_of(env, environment.RUNTIMES)
        versions += versions_of(env + '-triton', in_triton.PACKAGES)
    if values.json:
        files.write_output(values.json, files.json_bytes(results))
    text = table.markdown(results, table.impossible(values.low_latency))
    print(text)
    done = [result for by_name in results.values() for result in by_name.values()]
    largest = max(result.get('difference', 0.0) for result in done)
    line = '\nLargest difference {:.1e}; tensorflow==1.14.0, {}.'
    print(line.format(largest, ', '.join(versions)))
    return int('FAILED' in text)


if __name__ == '__main__':
    define_flags()
    program.run(main)
