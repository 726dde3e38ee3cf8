"""What the headers of DICOM files say, without their pixels. Needs the package pydicom."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

from dollmaker.pixels.dicom import DEFLATED, is_dicom
from dollmaker.runtime.errors import DataError

#: Elements that are read, of which pydicom skips all others.
_ELEMENTS = (
    *("Modality", "ViewPosition", "PatientID", "StudyInstanceUID", "SOPInstanceUID"),
    *("NumberOfFrames", "Rows", "BurnedInAnnotation"),
)

#: Bytes with the mark of DICOM and the name of the encoding.
_HEAD = 4096


class Header(NamedTuple):
    """The header of an image; what it does not say is empty.

    Attributes:
        modality: As CR, DX.
        view: ViewPosition, as PA, AP, LL.
        patient: PatientID.
        study: StudyInstanceUID.
        image: SOPInstanceUID.
        frames: Number of frames, at least 1.
        burned_in: Whether it says that names or dates may be written into its pixels.
    """

    modality: str
    view: str
    patient: str
    study: str
    image: str
    frames: int
    burned_in: bool


def starts_as_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do (PS3.10).

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as handle:
        return is_dicom(handle.read(_HEAD))


def read_header(path: Path) -> Header | None:
    """Read the header of a DICOM file.

    Args:
        path: A file that begins as DICOM.

    Returns:
        The header; ``None`` if the object is no image (reports, DICOMDIR, presentation states).

    Raises:
        DataError: If pydicom is missing, or the header cannot be read.
    """
    try:
        import pydicom
    except ImportError:
        raise DataError("is DICOM, which needs pydicom; pip install 'dollmaker[dicom]'") from None
    try:
        with path.open("rb") as handle, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if DEFLATED in handle.read(_HEAD):
                raise DataError("is deflated DICOM; decompress it first")
            handle.seek(0)
            content: Any = pydicom.dcmread(
                handle, stop_before_pixels=True, specific_tags=list(_ELEMENTS)
            )
            if not content.get("Rows"):
                return None
            texts = {name: _text(content.get(name)) for name in _ELEMENTS}
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
    """The text of an element; several values as the file has them."""
    if value is None:
        return ""
    many = value if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]
    return "\\".join(map(str, many)).strip(" \0\t\r\n")
