"""Decoding of one image of the data set: read, and fitted into the square."""

from dataclasses import dataclass
from pathlib import Path

from dollmaker.pixels.geometry import Fit, box, fit_image, inside, shown
from dollmaker.pixels.image_hash import perceptual_hash
from dollmaker.pixels.pictures import read_channels
from dollmaker.store.depth import Bits, Stored, white_of


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A decoded image.

    Attributes:
        pixels: uint8 or uint16 of shape (C, size, size).
        width: Width of the source in pixels.
        height: Height of the source in pixels.
        sha256: Checksum of the file.
        orientation: The EXIF tag that it was turned by, 1..8; 1 is upright.
        mean: Mean of each channel of what the square shows of the source, 0..255: without the bars
            of a letterbox, and without what a crop cuts off.
        hash: What it looks like in the square (:mod:`dollmaker.pixels.image_hash`).
    """

    pixels: Stored
    width: int
    height: int
    sha256: str
    orientation: int
    mean: list[float]
    hash: str


def decode(
    path: Path, *, size: int, channels: int, fit: Fit, max_pixels: int, bits: Bits = 8
) -> Decoded:
    """Decode a file to so many channels and bits, and fit it into the square.

    Raises:
        DataError: With the reason why the image cannot be used.
    """
    whole, origin = read_channels(path, channels=channels, bits=bits, max_pixels=max_pixels)
    height, width = whole.shape[1:]
    pixels = fit_image(whole, size, fit)
    part = shown(whole, fit)
    sums = part.sum(axis=(1, 2), dtype="uint64") / (part[0].size * (white_of(whole) // 255))
    return Decoded(
        pixels=pixels,
        width=width,
        height=height,
        sha256=origin.sha256,
        orientation=origin.orientation,
        mean=sums.tolist(),
        hash=perceptual_hash(inside(pixels, box(width, height, size, fit))),
    )
