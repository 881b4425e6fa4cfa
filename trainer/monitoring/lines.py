"""Windows of a series as lines, one a column, on tiles of one scale: their pictures' images.

A tile shows standardised values from -3.5 to 3.5, the same in every picture of a run: what lies
beyond runs along its edge. A faint line marks 0, the mean of each column in training.
"""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf

# Columns beyond these are not drawn: more lines would hide one another.
MOST_COLUMNS = 8
# Level of what lies between the tiles, and in place of those that a picture lacks.
BETWEEN = 255
# Sides of the tiles of a sprite, in pixels.
THUMBNAIL = (32, 32)
_LIMIT = 3.5  # Deviations; all but 0.05% of N(0, 1).
_HEIGHT, _NARROWEST, _WIDEST = 64, 64, 256
_GAP = 3  # Pixels of each side: an even side leaves a middle row, that of 0.
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


class _Layer(NamedTuple):
    """A window and how it is drawn."""

    window: tf.Tensor  # float32 `[rows, columns]`, of one tile.
    colours: np.ndarray  # Of each column, float32 `[columns, 3]`.
    thickness: float  # In pixels.


def size(rows: int) -> Tuple[int, int]:
    """Returns height and width of the tile of a window of so many rows, in pixels."""
    return _HEIGHT, min(max(2 * rows, _NARROWEST), _WIDEST)


def drawn(windows: tf.Tensor, tile_size: Optional[Tuple[int, int]] = None) -> tf.Tensor:
    """Draws windows, one a tile; a value that is not finite leaves a gap in its line.

    Args:
      windows: standardised values, float32 `[n, rows, 1, columns]` or `[n, rows, columns]`, all but
        n static; the first columns are drawn.
      tile_size: height and width in pixels; by default those of `size`.

    Returns:
      uint8 `[n, height, width, 3]`, with the gap to the next tile at the bottom and at the right.
    """
    return _tiles([windows], tile_size or size(windows.shape[1].value))


def drawn_over(originals: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
    """As `drawn` of windows, on larger tiles; their originals lie behind, as broad pale lines."""
    height, width = size(windows.shape[1].value)
    return _tiles([originals, windows], (2 * height, min(2 * width, _WIDEST)))


def _tiles(windows: Sequence[tf.Tensor], tile_size: Tuple[int, int]) -> tf.Tensor:
    """Draws windows above those of the same number before them."""
    height, width = tile_size
    paper = np.full([height - _GAP, width - _GAP, 3], _PAPER, np.float32)
    paper[(height - _GAP) // 2] = _ZERO
    rows, columns = windows[0].shape[1].value, windows[0].shape[-1].value
    shown = [tf.reshape(each, [-1, rows, columns])[:, :, :MOST_COLUMNS] for each in windows]

    def tile(one: Sequence[tf.Tensor]) -> tf.Tensor:
        levels = tf.constant(paper)
        for layer in _layers(one):
            levels = _over(levels, layer)
        levels = tf.pad(levels, [[0, _GAP], [0, _GAP], [0, 0]], constant_values=BETWEEN)
        return tf.cast(tf.round(levels), tf.uint8)

    # One after the other: hundreds at once would need much memory, and save no time.
    tiles = tf.map_fn(tile, shown, tf.uint8, parallel_iterations=1, back_prop=False)
    return tf.ensure_shape(tiles, [None, height, width, 3])


def _layers(windows: Sequence[tf.Tensor]) -> List[_Layer]:
    """What is drawn on a tile, the last above the others: the window, behind it its original."""
    *behind, window = windows
    colours = _COLOURS[: window.shape[1].value]
    pale = _PAPER + _SHARE_BEHIND * (colours - _PAPER)
    layers = [_Layer(each, pale, _THICKNESS_BEHIND) for each in behind]
    return layers + [_Layer(window, colours, _THICKNESS)]


def _over(levels: tf.Tensor, layer: _Layer) -> tf.Tensor:
    """Draws a layer of one window `[rows, columns]` on float32 levels `[height, width, 3]`.

    Where lines meet, their colours mix: none hides another.
    """
    height, width = levels.shape.as_list()[:2]
    covered = _covered(layer, height, width)
    mixed = tf.tensordot(covered, tf.constant(layer.colours), 1)
    mixed /= tf.maximum(tf.reduce_sum(covered, axis=2, keepdims=True), 1e-6)
    alpha = 1.0 - tf.reduce_prod(1.0 - covered, axis=2, keepdims=True)
    return levels + alpha * (mixed - levels)


def _covered(layer: _Layer, height: int, width: int) -> tf.Tensor:
    """How much of each pixel each line covers, float32 `[height, width, columns]`.

    In a column of pixels a line reaches from its lowest value there to its highest, so that it is
    connected where it jumps, and shows the extremes of a window of more rows than pixels.
    """
    values = _values_by_pixel(layer.window, width)  # [width, places, columns]
    is_seen = tf.reduce_all(tf.is_finite(values), axis=1)
    values = tf.clip_by_value(values, -_LIMIT, _LIMIT)
    # At the limits a line still lies within the tile as a whole.
    per_unit = (height - layer.thickness) / (2.0 * _LIMIT)
    top = height / 2.0 - per_unit * tf.reduce_max(values, axis=1) - layer.thickness / 2.0
    bottom = height / 2.0 - per_unit * tf.reduce_min(values, axis=1) + layer.thickness / 2.0
    above = np.arange(height, dtype=np.float32)[:, np.newaxis, np.newaxis]
    covered = tf.minimum(bottom, above + 1.0) - tf.maximum(top, above)
    covered = tf.clip_by_value(covered, 0.0, 1.0)
    is_seen = tf.broadcast_to(is_seen, tf.shape(covered))
    return tf.where(is_seen, covered, tf.zeros_like(covered))


def _values_by_pixel(window: tf.Tensor, width: int) -> tf.Tensor:
    """The values of lines `[rows, columns]` at both ends of each pixel and at the rows within it.

    Returns float32 `[width, places, columns]`; between rows the lines are straight.
    """
    last = window.shape[0].value - 1
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
    share = (places - before).astype(np.float32)[:, :, np.newaxis]
    return tf.gather(window, before) * (1.0 - share) + tf.gather(window, after) * share
