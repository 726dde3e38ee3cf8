"""From values of any depth to 8 bits."""

from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.errors import DataError

Pixels = npt.NDArray[np.uint8]

#: What becomes black and white of a picture deeper than 8 bits that brings no window of its own.
PERCENTILES = (0.5, 99.5)


def to_eight_bits(
    values: npt.NDArray[Any], *, valid: npt.NDArray[np.bool_] | None = None
) -> Pixels:
    """Scale deep values by their own robust range: one hot pixel does not darken a radiograph.

    Args:
        values: Real numbers, (H, W) or (H, W, 3); colours share one range, so that hues stay.
        valid: bool (H, W), the pixels that count for the range; the others become 0. ``None``
            means all.

    Returns:
        uint8 of the same shape; where the percentiles are equal, their range is that of all
        values, and a picture of one value is black.

    Raises:
        DataError: If a value is not finite.
    """
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DataError("holds values that are not finite")
    counted = numbers if valid is None else numbers[valid]
    if not counted.size:
        return np.zeros(values.shape, np.uint8)
    low, high = np.percentile(counted, PERCENTILES)
    if low == high:
        low, high = counted.min(), counted.max()
    scaled = scale(numbers, low, high)
    if valid is not None:
        scaled[~valid] = 0
    return scaled


def scale(values: npt.NDArray[Any], low: float, high: float) -> Pixels:
    """From ``low`` .. ``high`` to 0..255, clipped; all black where they are equal."""
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    share = (values.astype(np.float64) - low) / (high - low)
    return (np.clip(share, 0, 1) * 255).round().astype(np.uint8)
