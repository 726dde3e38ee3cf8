"""Decoding of one image of the data set: read, and fitted into the square."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ImageStat

from dollmaker.alike import perceptual_hash
from dollmaker.geometry import Fit, box, fit_image, inside, shown
from dollmaker.pixels.pictures import read_picture


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A decoded image.

    Attributes:
        pixels: uint8 of shape (C, size, size).
        width: Width of the source in pixels.
        height: Height of the source in pixels.
        sha256: Checksum of the file.
        orientation: The EXIF tag that it was turned by, 1..8; 1 is upright.
        mean: Mean of each channel of what the square shows of the source, 0..255: without the bars
            of a letterbox, and without what a crop cuts off.
        hash: What it looks like in the square (:mod:`dollmaker.alike`).
    """

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    sha256: str
    orientation: int
    mean: list[float]
    hash: str


def decode(path: Path, *, size: int, channels: int, fit: Fit, max_pixels: int) -> Decoded:
    """Decode a file and fit it into the square.

    Raises:
        DataError: With the reason why the image cannot be used.
    """
    plain, origin = read_picture(path, mode="L" if channels == 1 else "RGB", max_pixels=max_pixels)
    pixels = np.asarray(fit_image(plain, size, fit), dtype=np.uint8)
    pixels = pixels[None] if channels == 1 else np.moveaxis(pixels, -1, 0)
    where = box(plain.width, plain.height, size, fit)
    return Decoded(
        pixels=np.ascontiguousarray(pixels),
        width=plain.width,
        height=plain.height,
        sha256=origin.sha256,
        orientation=origin.orientation,
        mean=ImageStat.Stat(shown(plain, fit)).mean,
        hash=perceptual_hash(inside(pixels, where)),
    )
