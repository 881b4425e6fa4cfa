"""The scaling of a series' columns: to what a model sees, and back to the units of the readings."""

from typing import Any, List, Sequence, Tuple

import numpy as np

# Name, mean and deviation of each column; none of images.
Columns = Sequence[Tuple[str, float, float]]


def standardised(readings: Any, columns: Columns) -> Any:
    """Returns readings less the mean of their column, over its deviation; images as they are.

    Args:
      readings: float32 `[..., columns]`, an array or a tensor.
    """
    if not columns:
        return readings
    mean, deviation = _arrays(columns)
    return (readings - mean) / deviation


def in_units(values: Any, columns: Columns) -> Any:
    """Returns the readings that `standardised` makes `values` of, float32 `[..., columns]`."""
    if not columns:
        return values
    mean, deviation = _arrays(columns)
    return values * deviation + mean


def _arrays(columns: Columns) -> List[np.ndarray]:
    return [np.array(part, np.float32) for part in list(zip(*columns))[1:]]
