"""A release in the forms that other tools read."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from PIL import Image

from dollmaker.errors import ConfigError, DataError, unknown
from dollmaker.files import atomic_path, inside, require_new, safe_name, write_json
from dollmaker.geometry import unfit_mask
from dollmaker.prepare.images import read_picture
from dollmaker.release.formats import source_masks
from dollmaker.release.parts import SPLITS, find_parts
from dollmaker.release.read import Release, read_release, source_mask
from dollmaker.shards import ShardSeries

_MAX_PIXELS = 100_000_000


def export(folder: Path, form: str, output: Path, images: Path | None = None) -> None:
    """Write a release in another form, whole or not at all, at the size of the source images.

    - ``png``: {split}/{finding}/{image_id}.png, 255 where the finding is;
    - ``chexlocalize``, ``coco``: {split}.json as in the release;
    - ``yolo``: labels/{split}/{image_id}.txt, a normalised polygon per part of a mask, data.yaml;
    - ``nnunet``: one nnU-Net v2 raw data set per finding: DatasetNNN_Finding with imagesTr,
      labelsTr, imagesTs, labelsTs and dataset.json. Needs the images.

    Args:
        folder: The release.
        form: One of the above.
        output: Folder to write; nothing may be there, nothing is overwritten.
        images: Root of the source images.

    Raises:
        ConfigError: For an unknown form, or one that needs images that were not given.
        DataError: If the output is there already.
    """
    if form not in FORMS:
        raise ConfigError(unknown("form", form, FORMS))
    release = read_release(folder)
    require_new(output)
    with atomic_path(output.resolve()) as part:
        part.mkdir(parents=True)
        FORMS[form](release, part, images)


def _png(release: Release, output: Path, _: Path | None) -> None:
    for facts, rows in release.images():
        for row in rows:
            path = (
                output
                / facts["split"]
                / safe_name(row["finding"])
                / f"{safe_name(row['image_id'])}.png"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(source_mask(row, release.fit).astype(np.uint8) * 255).save(path)


def _copy(form: str) -> Callable[[Release, Path, Path | None], None]:
    """What a release has already."""

    def copy(release: Release, output: Path, _: Path | None) -> None:
        shutil.copytree(release.folder / form, output, dirs_exist_ok=True)

    return copy


def _yolo(release: Release, output: Path, _: Path | None) -> None:
    for facts, rows in release.images():
        lines = []
        size = np.array([facts["width"], facts["height"]])
        for row, mask in zip(rows, source_masks(rows, release.fit), strict=True):
            for polygon in mask.polygons or ():
                points = np.array(polygon).reshape(-1, 2) / size
                numbers = " ".join(f"{value:.6f}" for value in points.ravel())
                lines.append(f"{release.findings.index(row['finding'])} {numbers}\n")
        path = output / "labels" / facts["split"] / f"{safe_name(facts['image_id'])}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
    names = dict(enumerate(release.findings))
    lists = {"train": "images/train", "val": "images/valid", "test": "images/test"}
    text = json.dumps({"path": ".", **lists, "names": names}, ensure_ascii=False, indent=2)
    (output / "data.yaml").write_text(text + "\n", encoding="utf-8")  # JSON is YAML


def _nnunet(release: Release, output: Path, images: Path | None) -> None:
    if images is None:
        raise ConfigError("nnU-Net's layout holds the images; give --images, their root.")
    masks = {s: ShardSeries(find_parts(release.folder, "masks", s)) for s in SPLITS}
    table = release.table.with_columns(pl.int_range(pl.len()).over("split").alias("place"))
    for number, finding in enumerate(release.findings, start=1):
        rows = table.filter(finding=finding).to_dicts()
        training = sum(row["split"] != "test" for row in rows)
        if not training:
            continue
        folder = output / f"Dataset{900 + number:03d}_{safe_name(finding)}"
        pictures = {row["image_id"]: inside(images, row["path"]) for row in rows}
        mode = _common_mode(pictures.values())
        for row in rows:
            kind = "Ts" if row["split"] == "test" else "Tr"
            case = safe_name(row["image_id"])
            path = pictures[row["image_id"]]
            picture, _ = read_picture(path, mode=mode, max_pixels=_MAX_PIXELS)
            if picture.size != (row["width"], row["height"]):
                raise DataError(
                    f"{path} is not of the size the release knows; give the images that it was "
                    "made from."
                )
            stored = masks[row["split"]].read("mask", row["place"])
            for name, content in (
                (f"images{kind}/{case}_0000.png", picture),
                (f"labels{kind}/{case}.png", _label(stored, row, release)),
            ):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                content.save(folder / name)
        names = ["x-ray"] if mode == "L" else ["R", "G", "B"]
        write_json(
            folder / "dataset.json",
            {
                "channel_names": {str(k): name for k, name in enumerate(names)},
                "labels": {"background": 0, finding: 1, "ignore": 2},
                "numTraining": training,
                "file_ending": ".png",
            },
        )


def _common_mode(paths: Iterable[Path]) -> Literal["L", "RGB"]:
    """Grey if all pictures are: nnU-Net wants as many channels in each."""
    for path in paths:
        picture, _ = read_picture(path, mode=None, max_pixels=_MAX_PIXELS)
        if picture.mode != "L":
            return "RGB"
    return "L"


def _label(stored: Any, row: dict[str, Any], release: Release) -> Image.Image:
    """0, 1 and 2 for pixels to ignore."""
    values = np.where(stored == 255, 2, stored)
    return Image.fromarray(unfit_mask(values, row["width"], row["height"], release.fit))


FORMS: dict[str, Callable[[Release, Path, Path | None], None]] = {
    "png": _png,
    "chexlocalize": _copy("chexlocalize"),
    "coco": _copy("coco"),
    "yolo": _yolo,
    "nnunet": _nnunet,
}
