"""What was found, at the size of the pictures, in forms that other programs read.

Every form has ``predictions.csv``: image, finding, probability, and how many pixels the mask has.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker.pixels.geometry import Fit, source_mask, unfit_map
from dollmaker.predict.models import Found
from dollmaker.release.browse import draw
from dollmaker.runtime.errors import ModelError
from dollmaker.store import rle
from dollmaker.store.depth import Stored, to_show
from dollmaker.store.files import safe_name

#: White in 16 bits.
_WHITE = 65535


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """A picture and what was found in it.

    Attributes:
        name: Its identifier, as the workflow makes it of a path.
        pixels: The picture, uint8 or uint16 (C, height, width), turned upright.
        fit: How it was brought into the square.
        wanted: The findings that were asked for.
        found: Those that were found.
    """

    name: str
    pixels: Stored
    fit: Fit
    wanted: Sequence[str]
    found: Sequence[Found]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[2], self.pixels.shape[1]

    def masks(self) -> Iterator[tuple[Found, npt.NDArray[np.bool_]]]:
        """What was found, and its mask (height, width)."""
        for one in self.found:
            yield one, source_mask(one.levels, *self.size, self.fit)

    def map(self, one: Found) -> npt.NDArray[np.float32]:
        """A map (height, width) in [0, 1]; what speaks against the finding is 0."""
        return unfit_map(one.map, *self.size, self.fit).clip(0, 1)


Images = Iterator[Predicted]
Mask = npt.NDArray[np.bool_]


def _table(output: Path, images: Images, keep: Callable[[Predicted, Found, Mask], None]) -> None:
    """Write predictions.csv, and of every mask what the form keeps."""
    with (output / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("image_id", "width", "height", "finding", "probability", "area"))
        for image in images:
            for one, mask in image.masks():
                chance, area = f"{one.probability:.4f}", int(mask.sum())
                rows.writerow((image.name, *image.size, one.finding, chance, area))
                keep(image, one, mask)


def _file(output: Path, kind: str, image: Predicted, one: Found, suffix: str) -> Path:
    path = output / kind / safe_name(one.finding) / f"{safe_name(image.name)}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _png(output: Path, images: Images, maps: bool) -> None:
    """``masks/{finding}/{image}.png``, 255 where it is; ``maps/`` alike, 65535 steps."""

    def keep(image: Predicted, one: Found, mask: Mask) -> None:
        pixels = mask.astype(np.uint8) * 255
        Image.fromarray(pixels).save(_file(output, "masks", image, one, ".png"))
        if maps:
            steps = np.rint(image.map(one) * _WHITE).astype(np.uint16)
            Image.fromarray(steps).save(_file(output, "maps", image, one, ".png"))

    _table(output, images, keep)


def _nifti(output: Path, images: Images, maps: bool) -> None:
    """``masks/{finding}/{image}.nii.gz`` uint8, ``maps/`` float32: (width, height, 1), 1 mm."""
    try:
        import nibabel
    except ModuleNotFoundError:
        raise ModelError("NIfTI needs nibabel; pip install nibabel, or take png.") from None
    # The first axis goes to the patient's left, the second to the feet: pictures are seen upright.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])

    def save(pixels: npt.NDArray[Any], path: Path) -> None:
        nibabel.save(nibabel.Nifti1Image(pixels.T[..., None], affine), path)

    def keep(image: Predicted, one: Found, mask: Mask) -> None:
        save(mask.astype(np.uint8), _file(output, "masks", image, one, ".nii.gz"))
        if maps:
            save(image.map(one), _file(output, "maps", image, one, ".nii.gz"))

    _table(output, images, keep)


def _chexlocalize(output: Path, images: Images, maps: bool) -> None:
    """``predictions.json``: image -> finding -> size and counts; what was not found is empty."""
    codes: dict[str, dict[str, Any]] = {}

    def keep(image: Predicted, one: Found, mask: Mask) -> None:
        codes[image.name][one.finding]["counts"] = rle.encode(mask)

    def begun() -> Images:
        for image in images:
            width, height = image.size
            empty = rle.write_runs([np.array([height * width])])[0]
            entry = {name: {"size": [height, width], "counts": empty} for name in image.wanted}
            codes[image.name] = entry
            yield image

    _table(output, begun(), keep)
    text = json.dumps(codes, ensure_ascii=False, separators=(",", ":"))
    (output / "predictions.json").write_text(text + "\n", encoding="utf-8")


def _overlay(output: Path, images: Images, maps: bool) -> None:
    """``{image}.png``: the picture with the outline of every mask that is not empty."""

    def drawn() -> Images:
        for image in images:
            seen = [(one, mask) for one, mask in image.masks() if mask.any()]
            shown = to_show(image.pixels)
            colours = np.broadcast_to(shown, (3, *shown.shape[1:]))
            picture = np.ascontiguousarray(np.moveaxis(colours, 0, -1))
            lines = [f"{one.finding}  {one.probability:.2f}" for one, _ in seen]
            path = output / f"{safe_name(image.name)}.png"
            path.write_bytes(draw(picture, [mask for _, mask in seen], lines))
            yield image

    _table(output, drawn(), lambda *_: None)


FORMS: dict[str, Callable[[Path, Images, bool], None]] = {
    "png": _png,
    "nifti": _nifti,
    "chexlocalize": _chexlocalize,
    "overlay": _overlay,
}
