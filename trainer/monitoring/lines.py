"""Windows of a series as lines: the images of its pictures.

A window is a tile. Each of its columns has a strip of that, or all share one. Every strip, in every
picture of a run, shows standardised values from -3.5 to 3.5: what lies beyond runs along its edge.
A faint line marks 0, the mean of the column in training.
"""

from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

# Columns beyond these are not drawn.
MOST_COLUMNS = 8
# Level of what lies between tiles and strips, and in place of tiles that a picture lacks.
BETWEEN = 255
_LIMIT = 3.5  # Deviations; all but 0.05% of N(0, 1).
_NARROWEST, _WIDEST = 64, 256
# Rows of pixels of a strip: of a tile's only one, and of several. Odd, as the middle one marks 0.
_STRIP, _STRIPS = 61, 31
_LARGE_STRIP, _LARGE_STRIPS = 125, 47
_GAP = 3  # Pixels to the next tile; to the next strip it is one.
_PAPER, _ZERO = 236.0, 215.0
_THICKNESS, _THICKNESS_BEHIND = 1.4, 3.5
_SHARE_BEHIND = 0.4  # Of a colour in a line behind another, the rest is paper.
_COLOURS = np.array(
    [
        (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189),
        (140, 86, 75), (227, 119, 194), (23, 190, 207),
    ],
    np.float32,
)  # fmt: skip


class Tile(NamedTuple):
    """How a tile is laid out, in pixels."""

    strip: int  # Rows of a strip.
    width: int
    strips: int  # 1 where all columns share one.

    @property
    def shape(self) -> Tuple[int, int, int]:
        """Height, width and channels, with the gap to the next tile at the bottom and the right."""
        return self.strips * (self.strip + 1) - 1 + _GAP, self.width + _GAP, 3


# For sprites: 32 x 32.
THUMBNAIL = Tile(strip=29, width=29, strips=1)


def tile(rows: int, columns: int) -> Tile:
    """Returns the tile of a window of so many rows and columns."""
    width = min(max(2 * rows, _NARROWEST), _WIDEST) - _GAP
    strips = min(columns, MOST_COLUMNS)
    return Tile(_STRIP if strips == 1 else _STRIPS, width, strips)


def drawn(windows: tf.Tensor, on: Optional[Tile] = None) -> tf.Tensor:
    """Draws windows, one a tile; a value that is not finite leaves a gap in its line.

    Args:
      windows: standardised values, float32 `[n, rows, 1, columns]` or `[n, rows, columns]`, all but
        n static; the first columns are drawn.
      on: by default what `tile` returns.

    Returns:
      uint8 `[n, height, width, 3]`, the shape of a tile.
    """
    return _tiles([windows], on or tile(windows.shape[1].value, windows.shape[-1].value))


def drawn_over(originals: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
    """As `drawn` of windows, on larger tiles; their originals lie behind, as broad pale lines."""
    _, width, strips = tile(windows.shape[1].value, windows.shape[-1].value)
    width = min(2 * (width + _GAP), _WIDEST) - _GAP
    strip = _LARGE_STRIP if strips == 1 else _LARGE_STRIPS
    return _tiles([originals, windows], Tile(strip, width, strips))


def _tiles(windows: Sequence[tf.Tensor], on: Tile) -> tf.Tensor:
    """Draws windows above those of the same number before them."""
    rows, columns = windows[0].shape[1].value, windows[0].shape[-1].value
    shown = [tf.reshape(each, [-1, rows, columns])[:, :, :MOST_COLUMNS] for each in windows]
    paper = np.full([on.strips, on.strip, on.width, 3], _PAPER, np.float32)
    paper[:, on.strip // 2] = _ZERO

    def drawn_tile(one: Sequence[tf.Tensor]) -> tf.Tensor:
        levels = tf.constant(paper)
        *behind, window = one
        for original in behind:
            levels = _over(levels, original, _THICKNESS_BEHIND, _SHARE_BEHIND)
        levels = _over(levels, window, _THICKNESS)
        levels = tf.pad(levels, [[0, 0], [0, 1], [0, _GAP], [0, 0]], constant_values=BETWEEN)
        levels = tf.reshape(levels, [-1, on.width + _GAP, 3])
        levels = tf.pad(levels, [[0, _GAP - 1], [0, 0], [0, 0]], constant_values=BETWEEN)
        return tf.cast(tf.round(levels), tf.uint8)

    # One after the other: hundreds at once would need much memory, and save no time.
    tiles = tf.map_fn(drawn_tile, shown, tf.uint8, parallel_iterations=1, back_prop=False)
    return tf.ensure_shape(tiles, [None, *on.shape])


def _over(levels: tf.Tensor, window: tf.Tensor, thickness: float, share: float = 1.0) -> tf.Tensor:
    """Draws a window `[rows, columns]` on float32 levels `[strips, strip, width, 3]` of a tile.

    Where lines meet, their colours mix: none hides another.
    """
    strips, strip, width, _ = levels.shape.as_list()
    columns = window.shape[1].value
    colours = _PAPER + share * (_COLOURS[:columns] - _PAPER)
    colours = colours.reshape([strips, -1, 1, 1, 3])
    covered = _covered(window, strip, width, thickness)
    covered = tf.reshape(covered, [strips, columns // strips, strip, width, 1])
    mixed = tf.reduce_sum(covered * colours, axis=1)
    mixed /= tf.maximum(tf.reduce_sum(covered, axis=1), 1e-6)
    alpha = 1.0 - tf.reduce_prod(1.0 - covered, axis=1)
    return levels + alpha * (mixed - levels)


def _covered(window: tf.Tensor, height: int, width: int, thickness: float) -> tf.Tensor:
    """How much of each pixel each line covers, float32 `[columns, height, width]`.

    In a column of pixels a line reaches from its lowest value there to its highest, so that it is
    connected where it jumps, and shows the extremes of a window of more rows than pixels.
    """
    values = _values_by_pixel(tf.transpose(window), width)  # [columns, width, places]
    is_seen = tf.reduce_all(tf.is_finite(values), axis=2)[:, tf.newaxis]
    values = tf.clip_by_value(values, -_LIMIT, _LIMIT)
    # At the limits a line still lies within the strip as a whole.
    per_unit = (height - thickness) / (2.0 * _LIMIT)
    highest, lowest = tf.reduce_max(values, axis=2), tf.reduce_min(values, axis=2)
    top = (height - thickness) / 2.0 - per_unit * highest[:, tf.newaxis]
    bottom = (height + thickness) / 2.0 - per_unit * lowest[:, tf.newaxis]
    above = np.arange(height, dtype=np.float32)[:, np.newaxis]
    covered = tf.minimum(bottom, above + 1.0) - tf.maximum(top, above)
    covered = tf.clip_by_value(covered, 0.0, 1.0)
    is_seen = tf.broadcast_to(is_seen, tf.shape(covered))
    return tf.where(is_seen, covered, tf.zeros_like(covered))


def _values_by_pixel(lines: tf.Tensor, width: int) -> tf.Tensor:
    """The values of lines `[columns, rows]` at both ends of each pixel and at the rows within it.

    Returns float32 `[columns, width, places]`; between rows the lines are straight.
    """
    last = lines.shape[1].value - 1
    edges = np.arange(width + 1) * last / width
    within = [np.arange(np.ceil(low), np.floor(high) + 1) for low, high in zip(edges, edges[1:])]
    most = max(map(len, within))
    # A pixel with fewer rows than others has its left end several times.
    places = np.array(
        [
            [low, *rows, *[low] * (most - len(rows)), high]
            for low, high, rows in zip(edges, edges[1:], within)
        ]
    )
    before, after = np.floor(places).astype(int), np.ceil(places).astype(int)
    share = (places - before).astype(np.float32)
    at_rows = [tf.gather(lines, rows, axis=1) for rows in (before, after)]
    return at_rows[0] * (1.0 - share) + at_rows[1] * share
