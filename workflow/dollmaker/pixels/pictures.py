"""Pictures: what people look at, as 8 bits of grey or of red, green and blue."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dollmaker.pixels.depth import to_eight_bits
from dollmaker.pixels.formats import Frame, read_frame


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known of the file of a picture.

    Attributes:
        sha256: Checksum of the file.
        orientation: The EXIF tag that the picture was turned by, 1..8; 1 is upright.
        plain: Whether it has at most 8 bits a channel and no transparency: every program shows it
            alike, its orientation apart.
    """

    sha256: str
    orientation: int
    plain: bool


class Picture(NamedTuple):
    """A decoded picture of mode ``L`` or ``RGB``, and where it comes from."""

    image: Image.Image
    origin: Origin


def read_picture(path: Path, *, mode: str | None, max_pixels: int) -> Picture:
    """Decode a file at its own size.

    The picture is turned by its EXIF tag, transparency is laid on black, palettes and CMYK become
    RGB, white-is-zero is turned round. Deeper pictures than 8 bits are scaled by their percentiles
    0.5 and 99.5 (:mod:`dollmaker.pixels.depth`), DICOM by its window. DICOM needs pydicom.

    Args:
        path: The file.
        mode: ``L`` (grey) or ``RGB``; ``None`` keeps grey images grey, all others become RGB.
        max_pixels: Larger pictures are refused before they are decoded.

    Raises:
        DataError: With the reason why the picture cannot be used.
    """
    frame = read_frame(path, max_pixels)
    image = _from_deep(frame) if frame.image is None else _over_black(frame.image)
    grey = image.mode in ("1", "L")
    plain = frame.image is not None and not _is_transparent(frame.image)
    origin = Origin(sha256=frame.sha256, orientation=frame.orientation, plain=plain)
    return Picture(image.convert(mode or ("L" if grey else "RGB")), origin)


def _from_deep(frame: Frame) -> Image.Image:
    assert frame.deep is not None
    valid = None if frame.alpha is None else frame.alpha > 0
    eight = to_eight_bits(frame.deep, valid=valid)
    if frame.white_is_zero:
        eight = np.uint8(255) - eight
    if frame.alpha is not None:
        opacity = frame.alpha if eight.ndim == 2 else frame.alpha[..., None]
        eight = (eight * opacity).round().astype(np.uint8)
    return Image.fromarray(eight)


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _over_black(image: Image.Image) -> Image.Image:
    """A picture without transparency, grey if it was; of LAB Pillow makes nothing but RGB."""
    if image.mode == "LAB":
        return image.convert("RGB")
    if _is_transparent(image):
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        flat = Image.alpha_composite(black, rgba)
        return flat.convert("L" if image.mode in ("L", "LA", "1") else "RGB")
    return image
