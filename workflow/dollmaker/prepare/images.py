"""Decoding of one untrusted image file."""

import hashlib
import io
import re
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, ImageStat, UnidentifiedImageError

from dollmaker.errors import DataError
from dollmaker.geometry import Fit, fit_image
from dollmaker.prepare.dicom import is_dicom, read_dicom

#: Formats that are decoded. Pillow knows more; of some (EPS) the decoder is another program.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

#: Bytes that a pixel may take in a file, and what a file may hold besides.
_PIXEL_BYTES, _OTHER_BYTES = 16, 1 << 20

_DEEP = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A decoded image.

    Attributes:
        pixels: uint8 of shape (C, size, size).
        width: Width of the source in pixels.
        height: Height of the source in pixels.
        sha256: Checksum of the file.
        mean: Mean of each channel of the source, letterbox bars apart, 0..255.
    """

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    sha256: str
    mean: list[float]


def decode(path: Path, *, size: int, channels: int, fit: Fit, max_pixels: int) -> Decoded:
    """Decode a file and fit it into the square.

    Raises:
        DataError: With the reason why the image cannot be used.
    """
    plain, data = read_picture(path, mode="L" if channels == 1 else "RGB", max_pixels=max_pixels)
    pixels = np.asarray(fit_image(plain, size, fit), dtype=np.uint8)
    pixels = pixels[None] if channels == 1 else np.moveaxis(pixels, -1, 0)
    return Decoded(
        pixels=np.ascontiguousarray(pixels),
        width=plain.width,
        height=plain.height,
        sha256=hashlib.sha256(data).hexdigest(),
        mean=ImageStat.Stat(plain).mean,
    )


def read_picture(path: Path, *, mode: str | None, max_pixels: int) -> tuple[Image.Image, bytes]:
    """Decode a file at its own size.

    Rotation by EXIF is applied, transparency is laid on black, palettes and CMYK become RGB;
    images deeper than 8 bits are scaled from their own range to 0..255. DICOM needs pydicom.

    Args:
        path: The file.
        mode: ``L`` (grey) or ``RGB``; ``None`` keeps grey images grey, all others become RGB.
        max_pixels: Larger images are refused before they are decoded.

    Returns:
        The picture and the bytes of the file.

    Raises:
        DataError: With the reason why the image cannot be used.
    """
    data = read_bytes(path, max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if is_dicom(data):
                return _to_own_mode(read_dicom(data, max_pixels), mode), data
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise DataError(f"{image.width}x{image.height} is over {max_pixels} pixels")
                if getattr(image, "n_frames", 1) > 1:
                    raise DataError("holds several frames")
                image.load()
                return _to_own_mode(ImageOps.exif_transpose(image), mode), data
    except DataError:
        raise
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise DataError(f"not a readable image (none of {known}, DICOM)") from None
    except Image.DecompressionBombError:
        raise DataError(f"is over {max_pixels} pixels, or over what Pillow allows") from None
    except Exception as error:  # decoders raise anything on hostile bytes
        # Without addresses in memory: the same file has the same reason.
        text = re.sub(r"<([\w.]+)[^<>]* at 0x[0-9a-f]+>", r"\1", f"{type(error).__name__}: {error}")
        raise DataError(f"not a readable image ({' '.join(text.split())})") from None


def read_bytes(path: Path, max_pixels: int) -> bytes:
    """The bytes of an untrusted file: never of a pipe or a device, and never without end.

    Raises:
        DataError: With the reason why it cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError("is not a file")
        if status.st_size > _PIXEL_BYTES * max_pixels + _OTHER_BYTES:
            raise DataError(f"{status.st_size} bytes are more than {max_pixels} pixels take")
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError("file is missing") from None
    except OSError as error:
        raise DataError(f"file is not readable ({error.strerror})") from None
    if not data:
        raise DataError("file is empty")
    return data


def _to_own_mode(image: Image.Image, mode: str | None) -> Image.Image:
    grey = image.mode in {"1", "L", "LA", *_DEEP}
    return _to_mode(image, mode or ("L" if grey else "RGB"))


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in _DEEP:
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise DataError("holds values that are not finite")
        low, high = values.min(), values.max()
        scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
        return Image.fromarray(scaled.round().astype(np.uint8)).convert(mode)
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return image.convert(mode)
