"""A picture over training as a GIF, from the event files."""

import io
import os
from typing import Any

from trainer.base import files
from trainer.base.errors import UserError
from trainer.monitoring import curves
from trainer.monitoring.picture_files import NAMES, Write

# Milliseconds that a frame, and that the last one is shown.
_FRAME, _LAST_FRAME = 300, 2000


def animate(path: str, model_dir: str, mode: str, write: Write = files.write_bytes) -> str:
    """Writes a GIF of a picture over training, from the event files; returns its path.

    Raises:
      UserError: no evaluation has left such a picture, or Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UserError("--animate needs Pillow: pip install 'pillow<9.6'.") from error
    folder = os.path.join(model_dir, 'eval_validation')
    frames = curves.read_images(folder, 'pictures/{}/image'.format(NAMES[mode]))
    if not frames:
        raise UserError(
            f'--model_dir={model_dir} holds no {NAMES[mode]} in the event files of {folder}: '
            'train with --save_summary_steps above 0.'
        )
    try:
        # Pillow 9.5 has known flaws in its readers of other formats.
        pngs = [Image.open(io.BytesIO(frames[step]), formats=['PNG']) for step in sorted(frames)]
        decoded = [_with_palette(png) for png in pngs]
    except Exception as error:  # Pillow has no one class for all that may be wrong with a file.
        raise UserError(
            f'--model_dir={model_dir}: a picture in the event files of {folder} is broken '
            f'({error}).'
        ) from error
    content = io.BytesIO()
    first, *others = decoded
    durations = [_FRAME] * len(others) + [_LAST_FRAME]
    first.save(content, 'GIF', save_all=True, append_images=others, duration=durations, loop=0)
    return write(path, content.getvalue())


def _with_palette(png: Any) -> Any:
    """Returns an image of Pillow's in 256 colours: of a colour image those that it has most."""
    from PIL import Image

    if png.mode == 'L':
        return png.convert('P')
    return png.convert('RGB').convert('P', palette=Image.ADAPTIVE, dither=Image.NONE)
