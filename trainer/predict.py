"""Scores new images or readings with a model: negative ELBOs, quantiles, what is unusual and where.

    ./scripts/predict --source=folder --export_dir=runs/mnist-z32/export/final/<timestamp> \\
        --output=predicted --explain
    ./scripts/predict --images=a.png,b.png --url=http://localhost:8501/v1/models/vae
    ./scripts/predict --source=readings.csv --output=predicted \\
        --export_dir=runs/readings-z32/export/final/<timestamp>

Of images `--output` gets scores.csv. Of --images it gets reconstructions and results.json too, and
a line an image is printed; of a --source a summary is. Files go to the model as they are, BMP and
GIF as PNG: a model of binary images takes levels of 128 and more as 1; transparent pixels are
refused, or put on white where the model is of a source of your own; EXIF orientation is not read.
An image without scores is named at the end, the code is then 1, and the others are kept.

Of CSV files of readings `--output` gets windows.csv, rows.csv where windows start one row apart,
and a picture, series.png. The columns are taken by the names that the model knows. A file that
cannot be scored is named at the end, the code is then 1, and the other files are kept.
"""

from typing import List

from absl import flags

from trainer.base import image_files, path_flags, program
from trainer.scoring import request as request_of
from trainer.scoring import score_report, scores, series_scores
from trainer.scoring.request import Request
from trainer.serving import thresholds
from trainer.settings import command_line


def define_flags() -> None:
    """Defines the flags."""
    path_flags.define(
        'images',
        None,
        f'Image files ({", ".join(image_files.ENDINGS)}), with commas between them, or a folder. A '
        'model of binary images takes levels of 128 and more as 1.',
        several=True,
    )
    path_flags.define(
        'source',
        None,
        'In place of --images, many: a folder of image files in any depth, or a .npy or .npz file '
        'of uint8, or of floats in [0, 1]; of a .npz x_test, or its one array. Of a model of '
        'readings a .csv file, or a folder of them.',
    )
    path_flags.define('export_dir', None, 'Folder of an export.')
    flags.DEFINE_string('url', None, 'Model on a server, as http://localhost:8501/v1/models/vae.')
    path_flags.define('model_dir', None, 'Folder of a run of trainer.task, for --samples.')
    path_flags.define('checkpoint', None, 'For --model_dir: last, best or a prefix. Default: last.')
    command_line.define_flags(['data_dir'])
    flags.adopt_module_key_flags(command_line)
    flags.DEFINE_integer(
        'samples',
        None,
        'Score by the importance-weighted bound with so many samples, and the validation images '
        'too; takes --model_dir.',
        lower_bound=1,
        upper_bound=10**9,
    )
    flags.DEFINE_string(
        'threshold',
        None,
        'What is unusual: a quantile of the validation scores from 0.5 to 0.999, or a score in '
        'nats, as 120 or 0.7nats; of readings one of a row, where rows have scores. Default: '
        f'{thresholds.DEFAULT}.',
    )
    path_flags.define(
        'output',
        None,
        'Folder for scores.csv; of --images for results.json and <name>-reconstruction.png too; a '
        'number tells images of one name apart, and results.json says whose each is. Of readings '
        'for windows.csv, rows.csv and series.png.',
    )
    flags.DEFINE_bool(
        'explain',
        False,
        'Also writes <name>-explanation.png: image, reconstruction and where it is strange; of '
        f'a --source for the {score_report.EXPLAINED} strangest.',
    )
    path_flags.define('latents', None, '.npz or .csv file for the posteriors of the images.')


def main(argv: List[str]) -> None:
    """Reads the flags, scores, prints; saves where `--output` and `--latents` say."""
    del argv
    values = flags.FLAGS
    given = {name: getattr(values, name) for name in Request._fields}
    request = Request(**{name: value for name, value in given.items() if value})
    request_of.check(request)
    (series_scores if series_scores.is_wanted(request) else scores).run(request)


if __name__ == '__main__':
    define_flags()
    program.run(main)
