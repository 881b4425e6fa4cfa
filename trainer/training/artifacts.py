"""What a finished run shows of itself: pictures, curves, and the end of its TensorBoard session."""

import functools
import os
from typing import Any, Dict

from trainer.base import optional
from trainer.base.console import say
from trainer.data import labels
from trainer.data.dataset import PreparedDataset
from trainer.monitoring import curves, picture_files, projector_files, run_card
from trainer.settings import wording
from trainer.settings.table import HParams


def draw(
    data: PreparedDataset, checkpoint_path: str, record: Dict[str, Any], params: HParams
) -> Dict[str, str]:
    """Draws all that can be drawn; says what cannot, and why.

    Args:
      record: what `results.json` holds.

    Returns:
      The paths of what was written, by name.
    """

    def path(name: str) -> str:
        return os.path.join(params.model_dir, name)

    noun = wording.examples(params)
    say(f'Drawing {params.num_images} new {noun}.')
    drawn: Dict[str, str] = {}
    new_images = path(picture_files.NEW_IMAGES)
    with optional.part(new_images):
        drawn[f'new {noun}'] = picture_files.write_new_images(
            new_images, params.num_images, params.seed, checkpoint_path, params
        )
    names = ['reconstructions', 'interpolations', 'traversals']
    names += ['latent_manifold'] * (params.latent_size == 2)
    of_images = {name: path(name + '.png') for name in names}
    with optional.part(*of_images.values()):
        images = picture_files.validation_images(data, params)
        picture_files.write_pictures(of_images, images, checkpoint_path, params)
        drawn.update(of_images)
    curves_path = path('training_curves.png')
    with optional.part(curves_path):
        convention = wording.data_convention(params)
        drawn['training curves'] = curves.write_training_curves(
            curves_path, params.model_dir, convention
        )
    if params.save_summary_steps:
        with optional.part('the results in the event files of ' + params.model_dir):
            run_card.describe_results(params.model_dir, record)
        with optional.part(path(projector_files.FOLDER)):
            of_data = functools.partial(labels.labels, data, params)
            drawn['projector'] = projector_files.write(checkpoint_path, data, of_data, params)
    return drawn
