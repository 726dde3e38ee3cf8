"""DICOM radiographs: one frame, grey or RGB, as a viewer shows them. Needs the package pydicom."""

import io
from typing import Any

import numpy as np
from PIL import Image

from dollmaker.errors import DataError

#: Its content is inflated as a whole before anything can be checked.
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def is_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file (PS3.10: 128 bytes of anything, then ``DICM``)."""
    return data[128:132] == b"DICM"


def read_dicom(data: bytes, max_pixels: int) -> Image.Image:
    """Decode a DICOM file.

    The modality and the first VOI transform (window) of the file are applied; MONOCHROME1, where
    high values are dark, is inverted, so that bones are bright.

    Args:
        data: The file.
        max_pixels: Larger images are refused before they are decoded.

    Returns:
        A picture of mode ``F`` (grey, in the range of the window) or ``RGB``.

    Raises:
        DataError: If pydicom is missing, or the file holds anything but one grey or RGB frame.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError:
        raise DataError("is DICOM, which needs pydicom; pip install 'dollmaker[dicom]'") from None
    if _DEFLATED in data[:4096]:
        raise DataError("is deflated DICOM; decompress it first")
    content: Any = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" not in content:
        raise DataError("is DICOM without an image")
    width, height = int(content.Columns), int(content.Rows)
    if width * height > max_pixels:
        raise DataError(f"{width}x{height} is over {max_pixels} pixels")
    if int(content.get("NumberOfFrames") or 1) > 1:
        raise DataError("holds several frames")
    kind = str(content.PhotometricInterpretation)
    if kind in ("MONOCHROME1", "MONOCHROME2"):
        values = apply_voi_lut(apply_modality_lut(content.pixel_array, content), content)
        values = np.asarray(values, dtype=np.float32)
        return Image.fromarray(-values if kind == "MONOCHROME1" else values)
    if kind == "RGB" or kind.startswith("YBR"):  # pydicom converts YBR to RGB
        return Image.fromarray(np.asarray(content.pixel_array, dtype=np.uint8))
    raise DataError(f"is DICOM of kind {kind}; save it as MONOCHROME2 or RGB")
