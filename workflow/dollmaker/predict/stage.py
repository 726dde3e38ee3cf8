"""From a picture or a folder of pictures to masks at the pictures' own size.

Masks come in forms that other programs read. Every form has ``predictions.csv``: image, finding,
probability, and how many pixels the mask has.
"""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker.pixels.geometry import Fit, box, fit_image, source_mask, unfit_map
from dollmaker.pixels.names import image_ids, list_pictures
from dollmaker.pixels.pictures import read_channels
from dollmaker.predict import Found, Predictor
from dollmaker.release.browse import draw
from dollmaker.release.models import COMMITTEE
from dollmaker.release.read import Origin, read_origin
from dollmaker.runtime.errors import ConfigError, DataError, ModelError, unknown
from dollmaker.runtime.progress import Progress
from dollmaker.store import rle
from dollmaker.store.depth import Stored, to_show
from dollmaker.store.files import atomic_path, require_new, safe_name

#: White in 16 bits.
_WHITE = 65535

Mask = npt.NDArray[np.bool_]


# nine: options of a command, each one that a user may give alone
def predict(
    release_folder: Path,
    images: Path,
    /,
    output: Path,
    *,
    model: str = "segmenter",
    to: Literal["png", "nifti", "chexlocalize", "overlay"] = "png",
    findings: Sequence[str] | None = None,
    maps: bool = False,
    min_probability: float = 0.5,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Find in new pictures what a release's models have learned.

    Nothing is written if anything fails. A picture that cannot be read is named on stderr and
    left out.

    Args:
        release_folder: Folder of the release.
        images: A picture or DICOM file, or a folder of them.
        output: Folder to make.
        model: ``segmenter``, ``committee``, or an adapter by its name.
        to: ``png``, ``nifti``, ``chexlocalize`` or ``overlay``.
        findings: Those that are wanted; ``None`` takes all.
        maps: Write the maps, too (``png`` and ``nifti``).
        min_probability: Findings that the committee thinks less probable are left out.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: For an unknown form or finding, or maps in a form that has none.
        DataError: If there is no picture, or none that can be read, or the output is there.
        ModelError: If the release does not carry the model, or it needs what is not installed.
    """
    if to not in FORMS:
        raise ConfigError(unknown("form", to, FORMS))
    if maps and to not in ("png", "nifti"):
        raise ConfigError(f"the form {to} has no maps; take png or nifti, or leave --maps out.")
    if not 0 <= min_probability <= 1:
        raise ConfigError(f"--min-probability is {min_probability}; give a number from 0 to 1.")
    require_new(output, release_folder)
    origin = read_origin(release_folder)
    files = _list(images)
    if model == COMMITTEE:  # it explains: who has no workflow is told so, and not of torch
        import dollmaker.config.masks  # noqa: F401
    from dollmaker.predict.models import open_model
    from dollmaker.runtime import devices

    predictor = open_model(release_folder, model, devices.choose(device), min_probability)
    wanted = list(dict.fromkeys(findings or predictor.findings))
    for name in wanted:
        if name not in predictor.findings:
            raise ConfigError(unknown("finding", name, predictor.findings))
    found = _predict(images, files, predictor, wanted, origin)
    with atomic_path(output.resolve()) as part:
        part.mkdir(parents=True)
        FORMS[to](part, found, maps)


def _list(images: Path) -> dict[str, Path]:
    """Name -> file of a picture, or of all pictures below a folder."""
    if not images.is_dir():
        if not images.exists():
            raise DataError(f"{images} does not exist; give a picture or a folder of pictures.")
        return {images.name: images}
    names = list_pictures(images)
    if not names:
        raise DataError(f"{images} holds no picture (by suffix: PNG, JPEG, TIFF, DICOM); give one.")
    return {name: images / name for name in names}


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """A picture, and of the findings that were wanted those that were found in it."""

    name: str  #: Its identifier, as the workflow makes it of a path.
    pixels: Stored  #: The picture, uint8 or uint16 (C, height, width), turned upright.
    fit: Fit  #: How it was brought into the square.
    wanted: Sequence[str]
    found: Sequence[Found]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[2], self.pixels.shape[1]

    def masks(self) -> Iterator[tuple[Found, Mask]]:
        """What was found, and its mask (height, width)."""
        for one in self.found:
            yield one, source_mask(one.levels, *self.size, self.fit)

    def map(self, one: Found) -> npt.NDArray[np.float32]:
        """A map (height, width) in [0, 1]; what speaks against the finding is 0."""
        return unfit_map(one.map, *self.size, self.fit).clip(0, 1)


def _predict(
    images: Path,
    files: Mapping[str, Path],
    predictor: Predictor,
    wanted: Sequence[str],
    origin: Origin,
) -> Iterator[Predicted]:
    """What is found in each picture that can be read."""
    progress = Progress("predict", len(files))
    read = 0
    for name, path in zip(image_ids(list(files)), files.values(), strict=True):
        try:
            whole, _ = read_channels(
                path, channels=origin.channels, bits=origin.bits, max_pixels=origin.max_pixels
            )
        except DataError as error:
            print(f"{path} is left out: {error}", file=sys.stderr)
            progress.add(1, 0, 0)
            continue
        height, width = whole.shape[1:]
        where = box(width, height, origin.size, origin.fit)
        found = predictor.run(fit_image(whole, origin.size, origin.fit), where, wanted)
        read += 1
        yield Predicted(name=name, pixels=whole, fit=origin.fit, wanted=wanted, found=found)
        progress.add(1, len(found), 0)
    if not read:
        raise DataError(f"{images} holds no picture that can be read; see the reasons above.")


# --- forms --------------------------------------------------------------------------------------

Images = Iterator[Predicted]


def _table(output: Path, images: Images, keep: Callable[[Predicted, Found, Mask], None]) -> None:
    """Write predictions.csv, and of every mask what the form keeps."""
    with (output / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("image_id", "width", "height", "finding", "probability", "area", "file"))
        for image in images:
            for one, mask in image.masks():
                chance, area = f"{one.probability:.4f}", int(mask.sum())
                stem = safe_name(image.name)
                rows.writerow((image.name, *image.size, one.finding, chance, area, stem))
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
