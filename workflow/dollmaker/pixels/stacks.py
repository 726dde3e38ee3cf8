"""Files whose channels are no colours: pages or bands of a TIFF, and arrays of NumPy.

A channel is a measurement of its own (a sequence, a stain, a wavelength): deep values have a range
for each channel, where colours share one (:mod:`dollmaker.pixels.pictures`).
"""

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.pixels.formats import (
    ORIENTATION,
    OWN,
    SOFTWARE,
    check_size,
    decoded,
    goes_on,
    is_tiff,
    known_orientation,
    turn_upright,
    whole_pages,
)
from dollmaker.runtime.errors import DataError
from dollmaker.store.depth import Bits, Stored, by_percentiles, deepened, scale

_ARRAY = b"\x93NUMPY"

#: TIFF's kinds of pictures whose samples can be channels: grey (white or black is zero), RGB.
_KINDS = (0, 1, 2)

#: What TIFF's ExtraSamples call opacity.
_OPACITY = (1, 2)

#: Letters of axes along which pages are no channels: depth and time, as ImageJ and OME have them.
_OTHER_AXES = {"Z": "depth", "T": "time"}


def read_stack(
    data: bytes, channels: int, bits: Bits, max_pixels: int
) -> tuple[Stored, int] | None:
    """Decode the bytes of a file of untrusted origin, if its channels are no colours.

    Read are a TIFF of so many grey pages of one size, a TIFF with so many bands that are neither
    one nor three, and an array ``.npy`` of numbers, (H, W), (C, H, W) or (H, W, C), of which one
    channel may be repeated to three. 8 bits stay as they are; of deeper values the percentiles 0.5
    and 99.5 of each channel become black and white. Of what :func:`write_stack` has written, values
    are pixels already.

    Returns:
        Pixels, uint8 or uint16 (C, H, W), and the tag that they were turned by, 1..8; ``None`` if
        the file is a picture of colours, or none at all.

    Raises:
        DataError: If it holds another number of channels, or the reason why it cannot be used.
    """
    if data.startswith(_ARRAY):
        return decoded(data, max_pixels, partial(_array, data, channels, bits, max_pixels))
    if is_tiff(data) and channels > 1:
        return decoded(data, max_pixels, partial(_tiff, data, channels, bits, max_pixels))
    return None


def write_stack(path: Path, pixels: Stored) -> None:
    """Write pixels, uint8 or uint16 (C, H, W), as a TIFF of a page for each channel."""
    import tifffile

    tifffile.imwrite(
        path, pixels, photometric="minisblack", compression="zlib", software=OWN, metadata=None
    )


def _tiff(data: bytes, channels: int, bits: Bits, max_pixels: int) -> tuple[Stored, int] | None:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = list(whole_pages(file).values())
        first = pages[0]
        _check_values(int(first.imagewidth), int(first.imagelength), channels, max_pixels)
        if len(pages) > 1 or goes_on(file):
            values = _pages(file, pages, channels)
        elif _has_bands(first, channels):
            stored = np.asarray(first.asarray())
            values = stored if first.planarconfig == 2 else np.moveaxis(stored, -1, 0)
        else:
            return None
        orientation = known_orientation(first.tags.valueof(ORIENTATION))
        own = first.tags.valueof(SOFTWARE) == OWN
        depth = int(np.max(np.ravel(first.bitspersample)))
        pixels = _scaled(values, depth, bits, own)
        if int(first.photometric) == 0:
            pixels = pixels.dtype.type(np.iinfo(pixels.dtype).max) - pixels
    return np.moveaxis(turn_upright(np.moveaxis(pixels, 0, -1), orientation), -1, 0), orientation


def _pages(file: Any, pages: list[Any], channels: int) -> npt.NDArray[Any]:
    kinds = {(page.shape, str(page.dtype), int(page.photometric)) for page in pages}
    shape, _, kind = next(iter(kinds))
    if len(kinds) > 1 or len(shape) != 2 or kind not in _KINDS[:2]:
        raise DataError("holds several frames that are no grey pages of one size and type")
    series = file.series[0]
    count = int(np.prod(series.shape)) // int(np.prod(shape))
    sizes = dict(zip(series.axes, series.shape, strict=True))
    for axis, name in _OTHER_AXES.items():
        if sizes.get(axis, 1) > 1:
            raise DataError(f"holds {sizes[axis]} pages along {name}, which are no channels")
    if len(file.series) > 1 or count != channels:
        count = max(count, len(pages))
        raise DataError(f"holds {count} pages, and prepare.channels asks for {channels}")
    return np.asarray(series.asarray()).reshape(channels, *shape)


def _has_bands(page: Any, channels: int) -> bool:
    """Whether the samples of a page are channels: other than grey, and other than colours."""
    count = int(page.samplesperpixel)
    opaque = not set(page.extrasamples or ()) & set(_OPACITY)
    if count in (1, 3) or int(page.photometric) not in _KINDS or not opaque:
        return False
    if count == channels:
        return True
    if channels in (1, 3) and count <= 4:
        return False  # as programs show it: without the sample that they do not know
    raise DataError(f"holds {count} bands, and prepare.channels asks for {channels}")


def _array(data: bytes, channels: int, bits: Bits, max_pixels: int) -> tuple[Stored, int]:
    """An array, checked by its header before its values are read."""
    stream, form = io.BytesIO(data), np.lib.format
    older = form.read_magic(stream) == (1, 0)
    shape, _, kind = (form.read_array_header_1_0 if older else form.read_array_header_2_0)(stream)
    if kind.kind not in "iuf":
        raise DataError(f"holds an array of the type {kind}, not numbers")
    place = _place(shape, channels)
    height, width = (length for axis, length in enumerate(shape) if axis != place)
    _check_values(width, height, channels, max_pixels)
    values = np.load(io.BytesIO(data), allow_pickle=False)
    values = values[None] if place is None else np.moveaxis(values, place, 0)
    pixels = _scaled(values, 8 * kind.itemsize if kind.kind == "u" else 64, bits, own=False)
    return np.broadcast_to(pixels, (channels, *pixels.shape[1:])), 1


def _place(shape: tuple[int, ...], channels: int) -> int | None:
    """The axis of the channels, ``None`` if there is none."""
    if len(shape) == 2 and channels in (1, 3) and all(shape):
        return None
    ends = (0, 2) if len(shape) == 3 and all(shape) else ()
    places = [axis for axis in ends if shape[axis] == channels]
    if channels == 3 and not places:
        places = [axis for axis in ends if shape[axis] == 1]
    if len(places) != 1:
        why = ", which its first and its last axis have" if places else ""
        raise DataError(
            f"holds an array of the shape {shape}, and prepare.channels asks for {channels}{why}"
        )
    return places[0]


def _check_values(width: int, height: int, channels: int, max_pixels: int) -> None:
    """Refuse what is larger, or has more values than four channels of the largest."""
    check_size(width, height, max_pixels)
    if width * height * channels > 4 * max_pixels:
        raise DataError(
            f"{width}x{height} of {channels} channels is over {4 * max_pixels} values (four times "
            "prepare.max_pixels)"
        )


def _scaled(values: npt.NDArray[Any], depth: int, bits: Bits, own: bool) -> Stored:
    """Values (C, H, W) of so many bits as pixels."""
    if values.dtype.kind not in "iufb":
        raise DataError(f"holds values of the type {values.dtype}, not numbers")
    if own and values.dtype in (np.uint8, np.uint16):
        return deepened(values, bits)
    if depth <= 8 and values.dtype.kind in "ub":
        return scale(values, 0, 2**depth - 1, bits)
    return np.stack([by_percentiles(channel, bits=bits) for channel in values])
