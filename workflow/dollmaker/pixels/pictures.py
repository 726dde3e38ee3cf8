"""Pictures: grey, red, green and blue, or any channels, in 8 or 16 bits."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dollmaker.pixels.formats import Frame, decode_frame, read_bytes, read_frame
from dollmaker.pixels.geometry import Fit, box, fit_image, inside, shown
from dollmaker.pixels.image_hash import perceptual_hash
from dollmaker.pixels.stacks import read_stack
from dollmaker.runtime.errors import DataError
from dollmaker.store.depth import Bits, Stored, by_percentiles, deepened, white_of

#: What red, green and blue are worth in grey, in thousandths (ITU-R 601-2, as Pillow has it).
_GREY = np.array([299, 587, 114], np.int64)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known of the file of a picture."""

    sha256: str  #: Checksum of the file.
    orientation: int  #: The EXIF tag that the picture was turned by, 1..8; 1 is upright.
    #: Whether it has at most 8 bits a channel and no transparency: every program shows it alike,
    #: its orientation apart.
    plain: bool


class Picture(NamedTuple):
    """A decoded picture of mode ``L`` or ``RGB``, and where it comes from."""

    image: Image.Image
    origin: Origin


def read_picture(path: Path, *, mode: str | None, max_pixels: int) -> Picture:
    """Decode a file at its own size.

    The picture is turned by its EXIF tag, transparency is laid on black, palettes and CMYK become
    RGB, white-is-zero is turned round. Deeper pictures than 8 bits are scaled by their percentiles
    0.5 and 99.5 (:mod:`dollmaker.store.depth`), DICOM by its window. DICOM needs pydicom.

    The mode is ``L`` (grey) or ``RGB``; ``None`` keeps grey images grey, all others become RGB.
    Pictures over ``max_pixels`` are refused before they are decoded.
    """
    frame = read_frame(path, max_pixels)
    return Picture(_eight_bits(frame, mode), _origin(frame))


class Channels(NamedTuple):
    """A decoded picture as uint8 or uint16 (C, H, W), and where it comes from."""

    pixels: Stored
    origin: Origin


def read_channels(path: Path, *, channels: int | None, bits: Bits, max_pixels: int) -> Channels:
    """Decode a file at its own size to so many channels.

    One channel is grey, three are red, green and blue; a grey picture has three that are alike.
    Any other number must be what the file holds: pages or bands of a TIFF, an array
    (:func:`dollmaker.pixels.stacks.read_stack`), and so may one and three be. All else as
    :func:`read_picture`. 8 bits become 16 without a loss, deep values by the same window. Of
    ``None`` channels grey pictures have one, others three.
    """
    data = read_bytes(path, max_pixels)
    if channels and (stack := read_stack(data, channels, bits, max_pixels)):
        pixels, orientation = stack
        origin = Origin(sha256=sha256(data).hexdigest(), orientation=orientation, plain=False)
        return Channels(pixels, origin)
    frame = decode_frame(data, max_pixels, bits)
    pixels = _of_colours(frame, channels, bits)
    return Channels(np.ascontiguousarray(pixels), _origin(frame))


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A decoded image."""

    pixels: Stored  #: uint8 or uint16 of shape (C, size, size).
    width: int  #: Width of the source in pixels.
    height: int  #: Height of the source in pixels.
    sha256: str  #: Checksum of the file.
    orientation: int  #: The EXIF tag that it was turned by, 1..8; 1 is upright.
    #: Mean of each channel of what the square shows of the source, 0..255: without the bars of a
    #: letterbox, and without what a crop cuts off.
    mean: list[float]
    hash: str  #: What it looks like in the square (:mod:`dollmaker.pixels.image_hash`).


def decode(
    path: Path, *, size: int, channels: int, fit: Fit, max_pixels: int, bits: Bits = 8
) -> Decoded:
    """Decode a file to so many channels and bits, and fit it into the square."""
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


def _of_colours(frame: Frame, channels: int | None, bits: Bits) -> Stored:
    """Grey, or red, green and blue, (C, H, W)."""
    if frame.deep is not None:
        grey = frame.deep.ndim == 2
    else:
        grey = frame.image is not None and frame.image.mode in ("1", "L", "LA")
    channels = channels or (1 if grey else 3)
    if channels not in (1, 3):
        held = "one channel, grey" if grey else "three channels, red, green and blue"
        raise DataError(f"holds {held}, and prepare.channels asks for {channels}")
    if bits == 8 or frame.deep is None:
        shown = np.asarray(_eight_bits(frame, "L" if channels == 1 else "RGB"))
        pixels = deepened(shown, bits)
    else:
        pixels = _from_deep(frame, bits)
        if channels == 1 and pixels.ndim == 3:
            pixels = ((pixels.astype(np.int64) @ _GREY + 500) // 1000).astype(pixels.dtype)
    if pixels.ndim == 3:
        return np.moveaxis(pixels, -1, 0)
    return np.broadcast_to(pixels, (channels, *pixels.shape))


def _origin(frame: Frame) -> Origin:
    plain = frame.image is not None and not _is_transparent(frame.image)
    return Origin(sha256=frame.sha256, orientation=frame.orientation, plain=plain)


def _eight_bits(frame: Frame, mode: str | None) -> Image.Image:
    """The picture of a frame in a mode, ``None`` being its own: grey, or RGB."""
    if frame.image is None:
        image = Image.fromarray(_from_deep(frame, 8))
    else:
        image = _over_black(frame.image)
    return image.convert(mode or ("L" if image.mode in ("1", "L") else "RGB"))


def _from_deep(frame: Frame, bits: Bits) -> Stored:
    """Deep values in so many bits, (H, W) or (H, W, 3)."""
    assert frame.deep is not None
    if frame.scaled:
        return deepened(frame.deep, bits)
    valid = None if frame.alpha is None else frame.alpha > 0
    scaled = by_percentiles(frame.deep, valid=valid, bits=bits)
    if frame.white_is_zero:
        scaled = scaled.dtype.type(white_of(scaled)) - scaled
    if frame.alpha is not None:
        opacity = frame.alpha if scaled.ndim == 2 else frame.alpha[..., None]
        scaled = (scaled * opacity).round().astype(scaled.dtype)
    return scaled


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
