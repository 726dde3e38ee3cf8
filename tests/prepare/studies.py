"""Trees of DICOM studies, made here."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian


def write_study_file(path: Path, pixels: npt.NDArray[np.uint16] | None, **elements: Any) -> None:
    """Write one object.

    Args:
        path: The file; its folders are made.
        pixels: 12-bit values uint16 (h, w), or (frames, h, w); ``None`` writes no image.
        elements: Elements of the header that differ; ``None`` leaves one out.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = elements.pop(
        "SOPClassUID", DigitalXRayImageStorageForPresentation
    )
    meta.MediaStorageSOPInstanceUID = UID(elements.get("SOPInstanceUID") or "1.2.3")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    known = {"Modality": "DX", "ViewPosition": "PA", "PatientName": "Doe^Jane"}
    for keyword, value in {**known, **elements}.items():
        if value is not None:
            setattr(content, keyword, value)
    if pixels is not None:
        if pixels.ndim == 3:
            content.NumberOfFrames = len(pixels)
        content.Rows, content.Columns = pixels.shape[-2:]
        content.BitsAllocated, content.BitsStored, content.HighBit = 16, 12, 11
        content.PixelRepresentation, content.SamplesPerPixel = 0, 1
        content.PhotometricInterpretation = elements.get("PhotometricInterpretation", "MONOCHROME2")
        content.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    content.save_as(path, enforce_file_format=True)


def radiograph(seed: int, disc: bool = False, side: int = 40) -> npt.NDArray[np.uint16]:
    """Noise, with a bright disc if it is positive; 12-bit uint16 (side, side + 8)."""
    rng = np.random.default_rng(seed)
    values = rng.normal(1200, 150, (side, side + 8))
    if disc:
        y, x = np.mgrid[:side, : side + 8]
        cy, cx = rng.uniform(0.25 * side, 0.75 * side, 2)
        values[(y - cy) ** 2 + (x - cx) ** 2 < (side / 6) ** 2] += 1500
    return values.clip(0, 4095).astype(np.uint16)
