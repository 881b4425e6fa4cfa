"""Where an image is strange: it, its reconstruction and a map of its excess nats, as a picture."""

from typing import Any, Iterable, Sequence

import numpy as np

from trainer.base import figures, files
from trainer.serving.client import Outputs

# Of the image, in pixels of the picture.
_SHORTEST_SIDE = 224
_MARGIN, _TITLE, _BAR, _NUMBERS = 12, 24, 16, 56
_DOTS_PER_INCH = 100.0


def excess(outputs: Outputs) -> np.ndarray:
    """Returns how many nats each pixel costs beyond its least, all channels, `[rows, columns]`."""
    by_pixel = outputs['excess_by_pixel']
    return by_pixel if by_pixel.ndim == 2 else by_pixel.sum(axis=-1)


def highest_excess(explained: Iterable[Outputs]) -> float:
    """Returns the end of a colour scale that is the same for several images, in nats a pixel."""
    return max([1e-6, *(float(excess(outputs).max()) for outputs in explained)])


def picture(outputs: Outputs, highest: float) -> bytes:
    """Draws image, reconstruction and excess nats side by side; returns a PNG file.

    Pixels are enlarged by a whole number, to 224 and more a side.

    Args:
      outputs: of the signature `explain_png`, without the axis of examples.
      highest: nats a pixel at the end of the colour scale, which starts at 0 and is of square
        roots.

    Raises:
      UserError: matplotlib is not installed.
    """
    rows, columns = outputs['images'].shape[:2]
    enlarged = max(1, -(-_SHORTEST_SIDE // min(rows, columns)))
    height, width = enlarged * rows, enlarged * columns
    whole = (3 * (width + _MARGIN) + _MARGIN + _BAR + _NUMBERS, height + _TITLE + _MARGIN)

    def draw(figure: Any) -> None:
        def place(left: int, wide: int) -> Any:
            box = (left, _MARGIN, wide, height)
            return figure.add_axes([part / whole[n % 2] for n, part in enumerate(box)])

        from matplotlib.colors import PowerNorm

        linear = {'cmap': 'gray', 'vmin': 0.0, 'vmax': 1.0}
        # By the square root: beside an image that is strange all over, a stroke too many shows.
        rooted = {'cmap': 'inferno', 'norm': PowerNorm(0.5, vmin=0.0, vmax=highest)}
        panels = [
            ('image', outputs['images'], linear),
            ('reconstruction', np.clip(outputs['reconstruction'], 0.0, 1.0), linear),
            ('excess nats a pixel', excess(outputs), rooted),
        ]
        for number, (title, values, scale) in enumerate(panels):
            axes = place(_MARGIN + number * (width + _MARGIN), width)
            shown = axes.imshow(values, interpolation='nearest', **scale)
            axes.set_title(title, fontsize=9, pad=4)
            axes.set_axis_off()
        figure.colorbar(shown, cax=place(_MARGIN + 3 * (width + _MARGIN), _BAR))

    return figures.png((whole[0] / _DOTS_PER_INCH, whole[1] / _DOTS_PER_INCH), draw)


def write(paths: Sequence[str], explained: Sequence[Outputs]) -> None:
    """Writes the picture of each image to its path, all with one colour scale."""
    highest = highest_excess(explained)
    for path, outputs in zip(paths, explained):
        files.write_output(path, picture(outputs, highest))
