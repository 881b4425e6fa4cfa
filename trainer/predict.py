"""Scores and reconstructs image files with a served model or an export.

    ./scripts/predict --images=digits --export_dir=runs/mnist-z32/export/final/<timestamp>
    ./scripts/predict --images=a.png,b.png --url=http://localhost:8501/v1/models/vae

The files go to the signature `reconstruct_png` as they are, BMP and GIF as PNG: a model of binary
images takes levels of 128 and more as 1; transparent pixels are refused, or put on white where the
model is of a source of your own; EXIF orientation is not read. A file without
scores is named at the end, the code is then 1, and the others are kept.
"""

import functools
from typing import List, Optional

from absl import flags

from trainer.base import files, image_files, path_flags, program
from trainer.base.errors import UserError
from trainer.serving import client
from trainer.serving.client import Answer, Export, Predict


def define_flags() -> None:
    """Defines the flags."""
    path_flags.define(
        'images',
        None,
        'PNG, JPEG, BMP or GIF files, with commas between them, or a folder. A model of binary '
        'images takes levels of 128 and more as 1.',
        several=True,
        required=True,
    )
    flags.DEFINE_string('url', None, 'Model on a server, as http://localhost:8501/v1/models/vae.')
    path_flags.define('export_dir', None, 'Folder of an export, in place of a server.')
    path_flags.define(
        'output',
        None,
        'Folder for results.json and <name>-reconstruction.png of each image; a number '
        'tells images of one name apart, and results.json says whose each is.',
    )


def main(argv: List[str]) -> None:
    """Reads the flags, predicts, prints one line an image; saves where `--output` says."""
    del argv
    values = flags.FLAGS
    if bool(values.url) == bool(values.export_dir):
        raise UserError('either --url or --export_dir says where the model is; give one of them.')
    if values.output:
        files.check_folder('--output', values.output)
    paths = image_files.paths(values.images)
    if values.export_dir:
        predict: Predict = Export(values.export_dir).predict
    else:
        predict = functools.partial(client.predict_by_rest, url=values.url)
    answers: List[Answer] = []
    failure: Optional[UserError] = None
    try:
        for at in range(0, len(paths), client.BATCH):
            answers += client.answers_to(paths[at : at + client.BATCH], predict)
    except UserError as error:  # A server is gone: what it has answered is kept.
        failure = error
    if answers:
        # Before the table, whose reader may be gone.
        saved = client.save(values.output, answers) if values.output else ''
        client.show(answers)
        if saved:
            print(saved)
    if failure:
        raise failure
    client.name_the_bad(answers)


if __name__ == '__main__':
    define_flags()
    program.run(main)
