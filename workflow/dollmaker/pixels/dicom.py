"""DICOM radiographs: their headers, and one frame, grey or in colour, as a viewer shows it.

Needs the package pydicom.

pydicom decodes, converts YBR to RGB, rescales and applies windows; tables (modality, VOI, palette)
are looked up here, because pydicom counts their entries in the depth of their values.
"""

import io
import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from dollmaker.runtime.errors import DataError
from dollmaker.store.depth import Bits, Stored, by_percentiles, scale, white_of

#: Its content is inflated as a whole before anything can be checked.
_DEFLATED = b"1.2.840.10008.1.2.1.99"

#: Elements that are read, of which pydicom skips all others.
_HEADER = (
    *("Modality", "ViewPosition", "PatientID", "StudyInstanceUID", "SOPInstanceUID"),
    *("NumberOfFrames", "Rows", "BurnedInAnnotation"),
)

#: Bytes with the mark of DICOM and the name of the encoding.
_HEAD = 4096

#: Elements that count as absent where they are empty.
_OPTIONAL = (
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "PresentationLUTShape"),
)

#: Where enhanced objects keep what others have at the top: groups of a frame, and of all frames.
_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
_IN_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")

#: Values that lie outside of every window.
_FAR = np.array([-1e300, 1e300])

Values = npt.NDArray[Any]


def is_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file (PS3.10: 128 bytes of anything, then ``DICM``)."""
    return data[128:132] == b"DICM"


def starts_as_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    with path.open("rb") as handle:
        return is_dicom(handle.read(_HEAD))


def read_dicom(data: bytes, max_pixels: int, bits: Bits = 8) -> Stored:
    """Decode a DICOM file to what a viewer shows.

    The modality transform and the first VOI table or window are applied, and the whole range of
    the window becomes black to white, whatever the image holds of it. Without a window, values of
    at most 8 bits stay, deeper and rescaled ones are scaled by their percentiles
    (:mod:`dollmaker.store.depth`). MONOCHROME1, where high values are dark, is inverted, so that
    bones are bright; padding takes no part in any range and is 0. Images over ``max_pixels`` are
    refused before they are decoded.

    Returns:
        uint8 or uint16 (H, W), or (H, W, 3) with colours.

    Raises:
        DataError: If pydicom is missing, or the file holds anything but one image of a known kind.
        Exception: Whatever pydicom raises on a damaged file.
    """
    pydicom = _pydicom()
    if _DEFLATED in data:
        raise DataError("is deflated DICOM; decompress it first")
    content: Any = pydicom.dcmread(io.BytesIO(data))
    _require_one_image(content, max_pixels)
    _lift_groups(content)
    for keyword in _OPTIONAL:
        if keyword in content and content[keyword].is_empty:
            del content[keyword]
    return _decode(content, bits)


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError:
        raise DataError("is DICOM, which needs pydicom; pip install 'dollmaker[dicom]'") from None
    return pydicom


def _require_one_image(content: Any, max_pixels: int) -> None:
    if "PixelData" not in content:
        raise DataError("is DICOM without an image")
    width, height = int(content.Columns), int(content.Rows)
    if width * height > max_pixels:
        raise DataError(f"{width}x{height} is over {max_pixels} pixels")
    if int(content.get("NumberOfFrames") or 1) > 1:
        raise DataError("holds several frames")
    shift = int(content.get("HighBit") or 0) + 1 - int(content.get("BitsStored") or 64)
    if shift > 0 and not content.file_meta.TransferSyntaxUID.is_compressed:
        raise DataError(f"has values that begin at bit {shift}; save it with those from bit 0")


def _lift_groups(content: Any) -> None:
    """Bring the rescaling and the window of an enhanced object's one frame to where others are."""
    frames = [content[name][0] for name in _GROUPS if content.get(name)]
    items = [frame[name][0] for frame in frames for name in _IN_GROUPS if frame.get(name)]
    for element in chain.from_iterable(items):
        if element.tag not in content or content[element.tag].is_empty:
            content.add(element)


def _decode(content: Any, bits: Bits) -> Stored:
    from pydicom.pixels import get_decoder

    syntax = content.file_meta.TransferSyntaxUID
    converted = _converts_itself(content)
    stored, found = get_decoder(syntax).as_array(
        content,
        # Of compressed frames that the header does not count only the first is decoded.
        index=0 if syntax.is_compressed else None,
        decoding_plugin="pillow" if converted else "",
        as_rgb=not converted,
    )
    if stored.shape[:2] != (content.Rows, content.Columns):
        raise DataError("holds several frames")
    kind = "RGB" if converted else str(found["photometric_interpretation"]).replace("_", " ")
    depth = int(found["bits_stored"])
    if stored.ndim == 3 and kind == "RGB":
        return _by_depth(stored, depth, bits)
    if stored.ndim == 2 and kind == "PALETTE COLOR":
        return _by_palette(stored, content, bits)
    if stored.ndim == 2 and kind in ("MONOCHROME1", "MONOCHROME2"):
        return _grey(stored, depth, content, bits)
    raise DataError(
        f"is DICOM of kind {kind} with {content.SamplesPerPixel} channels; save it as MONOCHROME2 "
        "or RGB"
    )


def _converts_itself(content: Any) -> bool:
    """Whether the image is a JPEG with Adobe's marker, of which Pillow makes RGB, not pydicom."""
    from pydicom.encaps import get_frame
    from pydicom.uid import JPEGTransferSyntaxes

    syntax = content.file_meta.TransferSyntaxUID
    if syntax not in JPEGTransferSyntaxes or content.SamplesPerPixel != 3:
        return False
    frame = io.BytesIO(get_frame(content.PixelData, 0, number_of_frames=1))
    try:
        with Image.open(frame, formats=("JPEG",)) as image:
            return "adobe_transform" in image.info
    except UnidentifiedImageError:
        return False


def _grey(stored: Values, depth: int, content: Any, bits: Bits) -> Stored:
    """Modality transform, window, inversion and padding of stored values (H, W)."""
    valid = ~_is_padding(stored, depth, content)
    values = _modality(stored, content)
    if not np.isfinite(values).all():
        raise DataError("holds values that are not finite")
    shown = _windowed(values, content, bits)
    if shown is None and np.array_equal(values, stored):
        shown = _by_depth(stored, depth, bits, valid)
    elif shown is None:
        shown = by_percentiles(values, valid=valid, bits=bits)
    if valid.any() and np.ptp(stored[valid]) and not np.ptp(shown[valid]):
        raise DataError("has a window, table or rescaling that makes one grey of all its values")
    inverse = content.get("PresentationLUTShape") == "INVERSE"
    if inverse or content.PhotometricInterpretation == "MONOCHROME1":
        shown = shown.dtype.type(white_of(shown)) - shown
    shown[~valid] = 0
    return shown


def _by_depth(
    stored: Values, depth: int, bits: Bits, valid: npt.NDArray[np.bool_] | None = None
) -> Stored:
    """Values of at most 8 bits by what their bits can hold, others by their own range."""
    top = 2**depth - 1
    if depth <= 8 and stored.min() >= 0 and stored.max() <= top:
        return scale(stored, 0, top, bits)
    return by_percentiles(stored, valid=valid, bits=bits)


def _is_padding(stored: Values, depth: int, content: Any) -> npt.NDArray[np.bool_]:
    if "PixelPaddingValue" not in content:
        return np.zeros(stored.shape, np.bool_)
    signed = bool(content.PixelRepresentation)
    lowest, highest = (-(2 ** (depth - 1)), 2 ** (depth - 1) - 1) if signed else (0, 2**depth - 1)

    def as_stored(value: int) -> int:
        """Signed numbers are found written as unsigned ones and the other way round."""
        turns = (2**depth, 2 ** int(content.BitsAllocated))
        written = (value, *(value + turn for turn in turns), *(value - turn for turn in turns))
        return next((number for number in written if lowest <= number <= highest), value)

    first = as_stored(int(content.PixelPaddingValue))
    last = as_stored(int(content.get("PixelPaddingRangeLimit", content.PixelPaddingValue)))
    return (stored >= min(first, last)) & (stored <= max(first, last))


def _modality(stored: Values, content: Any) -> Values:
    """Stored values (H, W) in the unit of the device, by its table or its line."""
    from pydicom.pixels import apply_rescale

    if content.get("ModalityLUTSequence"):
        item = content.ModalityLUTSequence[0]
        table = _table(item.LUTDescriptor, item.LUTData, content)
        return _look_up(stored, item.LUTDescriptor, table)
    return np.asarray(apply_rescale(stored, content))


def _windowed(values: Values, content: Any, bits: Bits) -> Stored | None:
    """Values (H, W) by the first VOI table or window, ``None`` if there is neither."""
    from pydicom.pixels import apply_windowing

    tables = content.get("VOILUTSequence")
    if tables and "LUTDescriptor" in tables[0] and "LUTData" in tables[0]:
        table = _table(tables[0].LUTDescriptor, tables[0].LUTData, content)
        found = _look_up(values, tables[0].LUTDescriptor, table)
        return scale(found, table.min(), table.max(), bits)
    if "WindowCenter" not in content or "WindowWidth" not in content:
        return None
    try:
        with np.errstate(over="ignore"):
            low, high = apply_windowing(_FAR, content)
            shown = apply_windowing(values, content)
    except ValueError as error:
        raise DataError(f"has a window that cannot be applied ({error})") from None
    sign = 1 if high >= low else -1  # pydicom turns the range round where the slope is negative
    return scale(sign * shown, sign * low, sign * high, bits)


def _by_palette(stored: Values, content: Any, bits: Bits) -> Stored:
    """The colours (H, W, 3) of a picture of indices (H, W)."""
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    if any(f"{name}Data" not in content for name in names):
        raise DataError("has a palette in segments or none; save it as RGB")
    channels, highest = [], 255
    for name in names:
        descriptor = content[f"{name}Descriptor"].value
        table = _table(descriptor, content[f"{name}Data"].value, content)
        highest = 65535 if table.max() > 255 else highest
        channels.append(_look_up(stored, descriptor, table))
    return scale(np.stack(channels, axis=-1), 0, highest, bits)


def _table(descriptor: Sequence[int], data: Any, content: Any) -> Values:
    """The entries of a lookup table: bytes or words packed into bytes, or a list of numbers."""
    entries = int(descriptor[0]) or 2**16
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, dtype=np.int64))[:entries]
    order = "<" if content.file_meta.TransferSyntaxUID.is_little_endian else ">"
    return np.frombuffer(data, f"{order}u2" if len(data) >= 2 * entries else "u1", entries)


def _look_up(values: Values, descriptor: Sequence[int], table: Values) -> Values:
    """The entries of values; those beyond an end of the table have the entry of that end."""
    places = np.rint(values.astype(np.float64) - int(descriptor[1]))
    return np.asarray(table[np.clip(places, 0, len(table) - 1).astype(np.intp)])


class Header(NamedTuple):
    """The header of an image; what it does not say is empty."""

    modality: str  #: As CR, DX.
    view: str  #: ViewPosition, as PA, AP, LL.
    patient: str  #: PatientID.
    study: str  #: StudyInstanceUID.
    image: str  #: SOPInstanceUID.
    frames: int  #: Number of frames, at least 1.
    burned_in: bool  #: Whether it says that names or dates may be written into its pixels.


def read_header(path: Path) -> Header | None:
    """The header of a DICOM file; ``None`` if it is no image (reports, DICOMDIR, presentations).

    Raises:
        DataError: If pydicom is missing, or the header cannot be read.
    """
    pydicom = _pydicom()
    try:
        with path.open("rb") as handle, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if _DEFLATED in handle.read(_HEAD):
                raise DataError("is deflated DICOM; decompress it first")
            handle.seek(0)
            content: Any = pydicom.dcmread(
                handle, stop_before_pixels=True, specific_tags=list(_HEADER)
            )
            if not content.get("Rows"):
                return None
            texts = {name: _text(content.get(name)) for name in _HEADER}
            frames = int(texts["NumberOfFrames"] or 1)
    except DataError:
        raise
    except Exception as error:  # pydicom raises many types on damaged files
        detail = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(f"has a header that cannot be read ({detail})") from None
    return Header(
        modality=texts["Modality"].upper(),
        view=texts["ViewPosition"].upper(),
        patient=texts["PatientID"],
        study=texts["StudyInstanceUID"],
        image=texts["SOPInstanceUID"],
        frames=max(1, frames),
        burned_in=texts["BurnedInAnnotation"].upper() == "YES",
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    many = value if hasattr(value, "append") or isinstance(value, tuple) else [value]
    return "\\".join(map(str, many)).strip(" \0\t\r\n")
