"""From a picture or a folder of pictures to masks at the pictures' own size."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from dollmaker.pixels.geometry import box, fit_image
from dollmaker.pixels.names import image_ids, list_pictures
from dollmaker.pixels.pictures import read_channels
from dollmaker.predict.models import open_model
from dollmaker.predict.write import FORMS, Predicted
from dollmaker.release.read import read_origin
from dollmaker.runtime import devices
from dollmaker.runtime.errors import ConfigError, DataError, unknown
from dollmaker.runtime.progress import Progress
from dollmaker.store.files import atomic_path, require_new


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
        output: Folder to make, see :mod:`dollmaker.predict.write`.
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
    require_new(output)
    origin = read_origin(release_folder)
    files = _list(images)
    predictor = open_model(release_folder, model, devices.choose(device), min_probability)
    wanted = list(dict.fromkeys(findings or predictor.findings))
    for name in wanted:
        if name not in predictor.findings:
            raise ConfigError(unknown("finding", name, predictor.findings))
    size, fit = origin.size, origin.fit
    progress = Progress("predict", len(files))

    def every() -> Iterator[Predicted]:
        read = 0
        for name, path in zip(image_ids(list(files)), files.values(), strict=True):
            try:
                whole, _ = read_channels(
                    path,
                    channels=origin.channels,
                    bits=origin.bits,
                    max_pixels=origin.max_pixels,
                )
            except DataError as error:
                print(f"{path} is left out: {error}", file=sys.stderr)
                progress.add(1, 0, 0)
                continue
            height, width = whole.shape[1:]
            pixels = fit_image(whole, size, fit)
            found = predictor.run(pixels, box(width, height, size, fit), wanted)
            read += 1
            yield Predicted(name=name, pixels=whole, fit=fit, wanted=wanted, found=found)
            progress.add(1, len(found), 0)
        if not read:
            raise DataError(f"{images} holds no picture that can be read; see the reasons above.")

    with atomic_path(output.resolve()) as part:
        part.mkdir(parents=True)
        FORMS[to](part, every(), maps)


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
