"""What a finished run shows of itself: pictures, curves, and the end of its TensorBoard session."""

import os
from typing import Any, Dict

from trainer import drawing, generate, hparams, optional, projector, run_card
from trainer.decoded_copy import PreparedDataset
from trainer.hparams import HParams
from trainer.progress import say


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

    say('Drawing {} new images.'.format(params.num_images))
    drawn: Dict[str, str] = {}
    with optional.part(path(generate.NEW_IMAGES)):
        drawn['new images'] = generate.write_new_images(
            path(generate.NEW_IMAGES), params.num_images, params.seed, checkpoint_path, params
        )
    names = ['reconstructions', 'interpolations', 'traversals']
    if params.latent_size == 2:
        names.append('latent_manifold')
    of_images = {name: path(name + '.png') for name in names}
    with optional.part(*of_images.values()):
        images = generate.validation_images(data, params)
        generate.write_pictures(of_images, images, checkpoint_path, params)
        drawn.update(of_images)
    curves = path('training_curves.png')
    with optional.part(curves):
        drawn['training curves'] = drawing.write_training_curves(
            curves, params.model_dir, hparams.convention(params)
        )
    if params.save_summary_steps:
        with optional.part('the results in the event files of ' + params.model_dir):
            run_card.describe_results(params.model_dir, record)
        with optional.part(path(projector.FOLDER)):
            drawn['projector'] = projector.write(checkpoint_path, data, params)
    return drawn
