"""The formats of pictures: from untrusted bytes to one upright frame. Nothing else opens a picture.

Pillow reads what has at most 8 bits a channel; deeper TIFF, PNG and JPEG 2000 are read by tifffile
and imagecodecs, of which Pillow keeps the high byte, and DICOM by pydicom.
"""

import io
import re
import stat
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from dollmaker.pixels.dicom import is_dicom, read_dicom
from dollmaker.runtime.errors import DataError
from dollmaker.store.depth import Bits
from dollmaker.store.files import POINTERS, WEB_PAGE

#: Formats that Pillow decodes. It knows more; of some (EPS) the decoder is another program.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

#: The largest picture where no configuration says another number.
MAX_PIXELS = 100_000_000

#: Bytes that a pixel may take in a file, and what a file may hold besides.
_PIXEL_BYTES, _OTHER_BYTES = 16, 1 << 20

#: How files begin that stand for a picture, and what to do.
_FOREIGN = {**POINTERS, b"<!DOCTYPE html": WEB_PAGE, b"<html": WEB_PAGE}

#: Tags of EXIF and TIFF.
ORIENTATION, SOFTWARE = 0x0112, 0x0131
#: Software that TIFF files name which this program wrote: their deep values are pixels already.
OWN = "dollmaker"
#: How the data of JPEG 2000 begin, in a file of its own or in another.
_CODESTREAM = b"\xff\x4f\xff\x51"
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_CMYK = 5
#: TIFF's kinds of deep pictures that are read: grey (white or black is zero), RGB, inks.
_DEEP_TIFF = (0, 1, 2, _CMYK)
#: TIFF's compressions that change values: JPEG (old, new, of DNG), JPEG 2000, WebP, JPEG XL.
_LOSSY_TIFF = {6, 7, 34892, 33003, 33004, 33005, 34712, 34927, 50001, 50002, 52546}


Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One decoded picture, turned upright by its EXIF tag."""

    #: The picture where it has at most 8 bits a channel, ``None`` where it is deeper.
    image: Image.Image | None = None
    deep: npt.NDArray[Any] | None = None  #: The stored values of a deeper one, (H, W) or (H, W, 3).
    #: Whether these are pixels already, of which the type's largest value is white.
    scaled: bool = False
    #: What to multiply a deep one by to lay it on black, 0..1 (H, W), or ``None``.
    alpha: npt.NDArray[np.float64] | None = None
    #: Whether small stored values are bright; ``image`` is turned round already.
    white_is_zero: bool = False
    #: The stored value of white where ``image`` was stretched from a smaller one, or 255.
    top: int = 255
    lossy: bool = False  #: Whether the compression changes values.
    two_bands: bool = False  #: Whether a second band beside grey, no opacity, was left out.
    orientation: int = 1  #: The EXIF tag that it was turned by, 1..8; 1 is upright.
    sha256: str = ""  #: Checksum of the file.

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        if self.image is not None:
            return self.image.size
        assert self.deep is not None
        return self.deep.shape[1], self.deep.shape[0]


def read_frame(path: Path, max_pixels: int) -> Frame:
    """Decode a file of untrusted origin, see :func:`decode_frame`."""
    return decode_frame(read_bytes(path, max_pixels), max_pixels)


def decode_frame(data: bytes, max_pixels: int, bits: Bits = 8) -> Frame:
    """Decode the bytes of a file of untrusted origin; larger pictures are refused before that.

    ``bits`` is what the window of a DICOM image is scaled to.
    """
    frame = decoded(data, max_pixels, lambda: _decode(data, max_pixels, bits))
    return replace(frame, sha256=sha256(data).hexdigest())


def _decode(data: bytes, max_pixels: int, bits: Bits) -> Frame:
    if is_dicom(data):
        shown = read_dicom(data, max_pixels, bits)
        return Frame(image=Image.fromarray(shown)) if bits == 8 else Frame(deep=shown, scaled=True)
    if is_tiff(data):
        return _decode_tiff(data, max_pixels)
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:25] == b"\x10":
        return _decode_deep_png(data, max_pixels)
    if data[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" or data[:4] == _CODESTREAM:
        return _decode_jpeg_2000(data, max_pixels)
    return _decode_pillow(data, max_pixels)


def decoded(data: bytes, max_pixels: int, decode: Callable[[], Result]) -> Result:
    """What a decoder makes of the bytes of a file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return decode()
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"not a readable image ({_foreign(data)})") from None
    except Image.DecompressionBombError:
        raise DataError(f"is over {max_pixels} pixels, or over what Pillow allows") from None
    except Exception as error:  # decoders raise anything on hostile bytes
        # Without addresses in memory: the same file has the same reason.
        text = re.sub(r"<([\w.]+)[^<>]* at 0x[0-9a-f]+>", r"\1", f"{type(error).__name__}: {error}")
        raise DataError(f"not a readable image ({' '.join(text.split())})") from None


def read_bytes(path: Path, max_pixels: int) -> bytes:
    """The bytes of an untrusted file: never of a pipe or a device, and never without end."""
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


def _foreign(data: bytes) -> str:
    """What a file is that is no picture, as far as its beginning tells."""
    for start, kind in _FOREIGN.items():
        if data[:200].lstrip().startswith(start):
            return kind
    if data[344:347] in (b"n+1", b"ni1") or data[4:7] == b"n+2":
        return "a volume, NIfTI; volumes are read by source.kind msd"
    if is_tiff(data):
        return "a TIFF whose layout or compression Pillow does not know; save it as grey or RGB"
    return f"none of {', '.join(FORMATS)}, DICOM, NumPy's .npy"


def is_tiff(data: bytes) -> bool:
    """Whether bytes are a TIFF file, BigTIFF included."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _decode_tiff(data: bytes, max_pixels: int) -> Frame:
    """By Pillow up to 8 bits, deeper by tifffile; pages that are thumbnails do not count."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = whole_pages(file)
        if len(pages) > 1 or goes_on(file):
            raise DataError("holds several frames")
        place, first = next(iter(pages.items()))
        check_size(int(first.imagewidth), int(first.imagelength), max_pixels)
        most = 3 if int(first.photometric) in (0, 1) else 4  # of grey, four are no colours
        if int(first.samplesperpixel) > most or first.size > 4 * max_pixels:
            raise DataError(f"holds {first.samplesperpixel} channels; save it as grey or RGB")
        white_is_zero = int(first.photometric) == 0
        facts: dict[str, Any] = {
            "lossy": int(first.compression) in _LOSSY_TIFF,
            "two_bands": first.samplesperpixel == 2 and not {1, 2} & {*first.extrasamples},
        }
        written = str(first.tags.valueof(SOFTWARE) or "")
        if max(np.ravel(first.bitspersample)) > 8 or set(np.ravel(first.sampleformat)) != {1}:
            values, extra = _deep_page(first)
            found = _deep(values, known_orientation(first.tags.valueof(ORIENTATION)), extra)
            return replace(found, white_is_zero=white_is_zero, scaled=written == OWN, **facts)
        turned = white_is_zero and first.bitspersample == 1 and "tifffile" in written
    found = replace(_decode_pillow(data, max_pixels, page=place), **facts)
    if turned and found.image:  # tifffile writes arrays of bools without turning them round
        return replace(found, image=ImageOps.invert(found.image.convert("L")).convert("1"))
    return replace(found, white_is_zero=white_is_zero)


def whole_pages(file: Any) -> dict[int, Any]:
    """Place -> page of those that are no thumbnails of another; the first if all are."""
    pages = dict(enumerate(file.pages))
    whole = {n: page for n, page in pages.items() if not getattr(page, "is_reduced", False)}
    return whole or {0: pages[0]}


def goes_on(file: Any) -> bool:
    """Whether more frames follow the first page unlisted, as ImageJ and tifffile write stacks."""
    images = int((file.imagej_metadata or {}).get("images", 1))
    return images > 1 or any(entry.get("truncated") for entry in file.shaped_metadata or ())


def _deep_page(page: Any) -> tuple[npt.NDArray[Any], int]:
    """The stored values of a page (H, W) or (H, W, C), and what its channel beyond colours is.

    That is 0 for anything but opacity, 1 for the opacity of colours that lie on black already, 2
    for the opacity of others, as TIFF's ExtraSamples has it.
    """
    kind = int(page.photometric)
    values = np.asarray(page.asarray())
    if kind not in _DEEP_TIFF or values.dtype.kind not in "iuf":
        raise DataError(
            f"holds deep values of the kind {getattr(page.photometric, 'name', kind)}, "
            f"{values.dtype}; save it as grey or RGB"
        )
    if page.planarconfig == 2 and values.ndim == 3:
        values = np.moveaxis(values, 0, -1)
    if kind == _CMYK:
        return _from_cmyk(values), 0
    return values, int((page.extrasamples or (0,))[-1])


def _from_cmyk(inks: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if inks.shape[2:] != (4,) or inks.dtype.kind != "u":
        raise DataError(f"holds inks of the shape {inks.shape}, {inks.dtype}; save it as RGB")
    light = 1 - inks / np.iinfo(inks.dtype).max
    return np.round(light[..., :3] * light[..., 3:] * 65535).astype(np.uint16)


def _deep(values: npt.NDArray[Any], orientation: int, extra: int = 2) -> Frame:
    """Upright values and opacity of a stored array (H, W) or (H, W, C).

    Of two or four channels the last one is ``extra``, see :func:`_deep_page`. Opacity is relative
    to the most opaque pixel: in a picture of 12 bits it has 12 bits, too.
    """
    values = turn_upright(values, orientation)
    count = 1 if values.ndim == 2 else values.shape[-1]
    if values.ndim > 3 or count > 4:
        raise DataError(f"holds channels of the shape {values.shape}; save it as grey or RGB")
    deep, alpha = values, None
    if values.ndim == 3:
        deep = values[..., 0] if count < 3 else values[..., :3]
    if count in (2, 4) and extra:
        opacity = values[..., -1].astype(np.float64)
        if extra == 1:
            opacity = (opacity > 0).astype(np.float64)
        alpha = np.clip(opacity / max(opacity.max(), 1e-9), 0, 1)
    return Frame(deep=deep, alpha=alpha, orientation=orientation)


def _codecs() -> Any:
    try:
        import imagecodecs
    except ModuleNotFoundError:
        raise DataError(
            "is deeper than 8 bits, which needs imagecodecs; pip install 'dollmaker[deep]'"
        ) from None
    return imagecodecs


def _decode_deep_png(data: bytes, max_pixels: int) -> Frame:
    """PNG of 16 bits: of colours Pillow keeps the high byte, and no grey that is transparent."""
    width, height = struct.unpack(">II", data[16:24])
    check_size(width, height, max_pixels)
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        _require_one_frame(image)
        orientation = known_orientation(image.getexif().get(ORIENTATION))
    return _deep(_codecs().png_decode(data), orientation)


def _decode_jpeg_2000(data: bytes, max_pixels: int) -> Frame:
    """Its wavelet says whether values change; deeper than 8 bits is read by imagecodecs."""
    start = data.find(_CODESTREAM)
    style = data.find(b"\xff\x52", start)
    lossy = data[style + 13 : style + 14] == b"\0"
    if (data[start + 42] & 0x7F) + 1 <= 8:
        return replace(_decode_pillow(data, max_pixels), lossy=lossy)
    with Image.open(io.BytesIO(data), formats=("JPEG2000",)) as image:
        check_size(*image.size, max_pixels)
    return replace(_deep(_codecs().jpeg2k_decode(data), 1), lossy=lossy)


def _decode_pillow(data: bytes, max_pixels: int, page: int | None = None) -> Frame:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if page is None:
            _require_one_frame(image)
        elif page:
            image.seek(page)
        check_size(*image.size, max_pixels)
        orientation = known_orientation(image.getexif().get(ORIENTATION))
        form, top = image.format, _top(image)
        if top > 255 and image.mode == "RGB":
            return Frame(deep=_deep_pnm(image, data))
        image.load()
        upright = ImageOps.exif_transpose(image)
    lossy = form in ("JPEG", "MPO") or (form == "WEBP" and b"VP8 " in _chunks(data))
    if upright.mode not in _DEEP:
        return Frame(image=upright, orientation=orientation, lossy=lossy, top=min(top, 255))
    values = np.asarray(upright)
    if form == "PPM" and top > 255:  # Pillow stretched them to 16 bits
        values = np.round(values * (top / 65535)).astype(np.int64)
    return Frame(deep=values, orientation=orientation, lossy=lossy)


def _top(image: Any) -> int:
    """The value of white in a PNM file, which Pillow stretches to 255 or 65535; 255 of others."""
    tile = image.tile[0] if image.format == "PPM" and image.tile else None
    if tile is None or tile.codec_name not in ("ppm", "ppm_plain"):
        return 255
    return int(tile.args[-1]) if isinstance(tile.args, tuple) else 255


def _deep_pnm(image: Any, data: bytes) -> npt.NDArray[Any]:
    """The colours (H, W, 3) of a PNM file of more than 8 bits, written as bytes or as text."""
    count, start = image.width * image.height * 3, image.tile[0].offset
    if image.tile[0].codec_name == "ppm":
        values = np.frombuffer(data, ">u2", count, start)
    else:
        numbers = re.sub(rb"#[^\r\n]*", b" ", data[start:]).split()[:count]
        values = np.array(numbers).astype(np.uint16)
    return np.asarray(values.reshape(image.height, image.width, 3))


def _chunks(data: bytes) -> set[bytes]:
    """Names of the parts of a WebP file; ``VP8 `` is the lossy picture, ``VP8L`` the lossless."""
    names, place = set(), 12
    while place + 8 <= len(data):
        names.add(data[place : place + 4])
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8 + length + length % 2
    return names


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse what is larger, by a :class:`DataError`."""
    if width * height > max_pixels:
        raise DataError(f"{width}x{height} is over {max_pixels} pixels")


def _require_one_frame(image: Image.Image) -> None:
    """One frame; of a phone's JPEG (MPO) the first is the picture, the others belong to it."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise DataError("holds several frames")


def known_orientation(tag: Any) -> int:
    """An EXIF orientation; 1 where there is none that is known."""
    return int(tag) if isinstance(tag, int) and 1 <= tag <= 8 else 1


def turn_upright(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn an array (H, W, ...) as its EXIF orientation asks, 1..8."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values
