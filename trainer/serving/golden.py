"""Inputs of each signature with the right outputs, which `verify_export.py` compares with."""

import io
from typing import Any, Dict, List, NamedTuple

import numpy as np
import tensorflow as tf

from trainer.base import image_files, scaling
from trainer.base.image_files import FIRST_LEVEL_OF_ONE
from trainer.serving.checked_inputs import Signature
from trainer.settings import wording
from trainer.settings.table import HParams


class Golden(NamedTuple):
    """Inputs of a signature and its outputs for them, by name."""

    inputs: Dict[str, np.ndarray]
    outputs: Dict[str, np.ndarray]


def answers(
    session: tf.Session, signatures: Dict[str, Signature], params: HParams
) -> Dict[str, Golden]:
    """Answers to what the model itself drew, and to a black and a white image or the like."""
    inputs: Dict[str, Any] = {'count': np.int32(4), 'seed': np.int32(7)}

    def run(names: List[str]) -> Dict[str, Golden]:
        chosen = {name: signatures[name] for name in names}
        feeds = {
            tensor: inputs[key] for one in chosen.values() for key, tensor in one.inputs.items()
        }
        outputs = session.run({name: one.outputs for name, one in chosen.items()}, feeds)
        return {
            name: Golden({key: np.asarray(inputs[key]) for key in one.inputs}, outputs[name])
            for name, one in chosen.items()
        }

    drawn = run(['generate'])
    inputs.update(_examples(drawn['generate'].outputs[wording.examples(params)], params))
    noise = np.random.RandomState(0).standard_normal([6, params.latent_size])
    inputs.update(
        latents=noise.astype(np.float32),
        steps=np.int32(3),
        temperature=np.float32(0.5),
    )
    return dict(drawn, **run([name for name in signatures if name != 'generate']))


def _examples(drawn: np.ndarray, params: HParams) -> Dict[str, Any]:
    """What signatures take: what was drawn, of the served shape, and two extremes."""
    shape = [1, *params.served_shape]
    if params.is_series:
        extremes = [np.zeros(shape), np.full(shape, 10.0)]  # Deviations from the mean.
        return {
            'windows': np.concatenate(
                [drawn, *(scaling.in_units(one, params.scaling) for one in extremes)]
            ).astype(np.float32)
        }
    levels = np.rint(255 * drawn)
    if params.is_binarised:
        levels = 255 * (levels >= FIRST_LEVEL_OF_ONE)
    levels = np.concatenate([levels, np.zeros(shape), np.full(shape, 255)]).astype(np.uint8)
    return {
        'images': (levels / 255).astype(np.float32),
        'image_bytes': image_files.encode_png(levels.reshape((-1,) + params.image_shape)),
    }


def npz(golden: Dict[str, Golden]) -> bytes:
    """Returns the `.npz` file of arrays `<signature>/<inputs|outputs>/<name>`."""
    # Bytes strings, not objects: NumPy loads those only as pickles.
    arrays = {
        f'{signature}/{kind}/{name}': value.astype('S') if value.dtype == object else value
        for signature, example in golden.items()
        for kind, values in example._asdict().items()
        for name, value in values.items()
    }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()
