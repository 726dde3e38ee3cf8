"""The depth of pixels: from values of any depth to 8 or 16 bits, and what 16 bits mean later.

Pictures and shards hold uint8 or uint16, of which the largest value is white (``prepare.bits``).
Everything after the shards counts in levels, 0 (black) to 255 (white), whatever the depth: images
are uint8, or float32 with parts of a level (:func:`to_levels`). What people look at has 8 bits
(:func:`to_eight_bits`).
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dollmaker.runtime.errors import DataError

Bits = Literal[8, 16]
Pixels = npt.NDArray[np.uint8]
#: Pixels as they are stored: uint8 or uint16.
Stored = npt.NDArray[Any]

#: What becomes black and white of a picture deeper than 8 bits that brings no window of its own.
PERCENTILES = (0.5, 99.5)

#: Steps of 16 bits in a level: 65535 / 255.
_STEPS = 257


def type_of(bits: Bits) -> Any:
    """The type of stored pixels: uint8 or uint16."""
    return {8: np.uint8, 16: np.uint16}[bits]


def by_percentiles(
    values: npt.NDArray[Any], *, valid: npt.NDArray[np.bool_] | None = None, bits: Bits = 8
) -> Stored:
    """Scale deep values by their own robust range: one hot pixel does not darken a radiograph.

    Values are (H, W) or (H, W, 3); colours share one range, so that hues stay. Pixels that are not
    ``valid``, bool (H, W), do not count for it and become 0. Where the percentiles are equal the
    range is that of all values, and a picture of one value is black.

    Raises:
        DataError: If a value is not finite.
    """
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DataError("holds values that are not finite")
    counted = numbers if valid is None else numbers[valid]
    if not counted.size:
        return np.zeros(values.shape, type_of(bits))
    low, high = np.percentile(counted, PERCENTILES)
    if low == high:
        low, high = counted.min(), counted.max()
    scaled = scale(numbers, low, high, bits)
    if valid is not None:
        scaled[~valid] = 0
    return scaled


def scale(values: npt.NDArray[Any], low: float, high: float, bits: Bits = 8) -> Stored:
    """From ``low`` .. ``high`` to 0 .. white, clipped; all black where they are equal."""
    kind = type_of(bits)
    if high <= low:
        return np.zeros(values.shape, kind)
    share = (values.astype(np.float64) - low) / (high - low)
    return np.asarray((np.clip(share, 0, 1) * np.iinfo(kind).max).round().astype(kind))


def white_of(pixels: Stored) -> int:
    """The value of white in stored pixels: 255 or 65535."""
    return int(np.iinfo(pixels.dtype).max)


def deepened(pixels: Stored, bits: Bits) -> Stored:
    """Stored pixels in so many bits: of 8 bits nothing is lost in 16."""
    if bits == 16 and pixels.dtype == np.uint8:
        return pixels.astype(np.uint16) * np.uint16(_STEPS)
    return to_eight_bits(pixels) if bits == 8 else pixels


def to_levels(pixels: Stored) -> npt.NDArray[Any]:
    """Stored pixels in levels, 0..255: uint8 as they are, uint16 as float32."""
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32) / _STEPS


def to_eight_bits(pixels: npt.NDArray[Any]) -> Pixels:
    """Stored pixels, or levels, in 8 bits: uint8 as they are, others to the nearest level."""
    if pixels.dtype == np.uint8:
        return pixels
    levels = pixels if pixels.dtype.kind == "f" else to_levels(pixels)
    return np.asarray(np.rint(levels), np.uint8)


def to_show(image: npt.NDArray[Any]) -> Pixels:
    """An image (C, h, w) as people see it, uint8 (1 or 3, h, w): three channels are colours.

    Of any other number the first is shown in grey; put the one first that shall be seen.
    """
    eight = to_eight_bits(image)
    return eight if len(eight) in (1, 3) else eight[:1]
