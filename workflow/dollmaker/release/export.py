"""A release in the forms that other tools read."""

import os.path
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from PIL import Image

from dollmaker.pixels.geometry import unfit_mask
from dollmaker.pixels.masks import IGNORE
from dollmaker.pixels.names import without_suffix
from dollmaker.pixels.pictures import read_channels, read_picture
from dollmaker.release.formats import pieces, source_masks
from dollmaker.release.parts import SPLITS, Row
from dollmaker.release.read import (
    Release,
    read_release,
    require_size,
    source_mask,
    square,
    user_copy,
)
from dollmaker.release.source import to_source
from dollmaker.runtime.errors import ConfigError, DataError, unknown
from dollmaker.store import tables
from dollmaker.store.files import atomic_path, inside, require_new, safe_name, write_json
from dollmaker.store.sums import require_listed

#: Grey, colours, or as the file is.
Mode = Literal["L", "RGB"] | None

_MAX_PIXELS = 100_000_000

#: Suffixes of pictures that YOLO reads, and those of which it sees each as it is meant: it takes
#: the high byte of deeper pictures, leaves opacity out, and turns JPEG alone by its EXIF tag.
_YOLO_READS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_YOLO_SEES = (".jpg", ".jpeg", ".bmp")


def export(release_folder: Path, /, to: str, output: Path, images: Path | None = None) -> None:
    """Write a release in the form of another tool, at the size of the source images.

    - ``png``: {split}/{finding}/{image_id}.png, 255 where the finding is;
    - ``chexlocalize``: {split}.json as in the release;
    - ``coco``: {split}.json with polygons, for tools that read no run lengths;
    - ``yolo``: labels/{split}/{path}.txt, a normalised polygon per part of a mask, and data.yaml;
      with the images images/{split}/{path} too, ready to train. ``path`` is the image's, below
      the folder that all of them share. Pictures that YOLO does not read become PNG files; those
      that it would see otherwise (deep, transparent) are written with 8 bits;
    - ``nnunet``: one nnU-Net v2 raw data set per finding: DatasetNNN_Finding with imagesTr,
      labelsTr, imagesTs, labelsTs and dataset.json. Needs the images; those of other channels
      than one and three have a file for each.

    Args:
        release_folder: Folder of the release.
        to: One of the above: png, chexlocalize, coco, yolo or nnunet.
        output: Folder to make; nothing may be there, nothing is overwritten.
        images: Root of your copy of the source images.

    Raises:
        ConfigError: For an unknown form, or one that needs images that were not given.
        DataError: If the output is there already, an image is missing or not readable, or YOLO
            would find one label for two images.
    """
    if to not in FORMS:
        raise ConfigError(unknown("form", to, FORMS))
    release = read_release(release_folder)
    require_new(output, release_folder)
    with atomic_path(output.resolve()) as part:
        part.mkdir(parents=True)
        FORMS[to](release, part, images)


def _png(release: Release, output: Path, _: Path | None) -> None:
    for facts, rows in release.images():
        for row in rows:
            finding, image = safe_name(row["finding"]), safe_name(row["image_id"])
            pixels = source_mask(release, row).astype(np.uint8) * 255
            path = _place(output, f"{facts['split']}/{finding}/{image}.png")
            Image.fromarray(pixels).save(path)


def _chexlocalize(release: Release, output: Path, _: Path | None) -> None:
    require_listed(release.folder, "chexlocalize/")
    shutil.copytree(release.folder / "chexlocalize", output, dirs_exist_ok=True)


def _coco(release: Release, output: Path, _: Path | None) -> None:
    images = tables.read(release.folder / "images.parquet")
    for split in SPLITS:
        rows = release.table.filter(split=split)
        if len(of_split := images.filter(split=split)):
            masks = source_masks(release.folder, split, rows, release.fit, polygons=True)
            with (output / f"{split}.json").open("w", encoding="utf-8", newline="\n") as file:
                for form, text in pieces(of_split, rows, masks, release.findings):
                    file.write(text if form == "coco" else "")


def _yolo(release: Release, output: Path, images: Path | None) -> None:
    if images is not None and release.channels not in (1, 3):
        raise ConfigError(
            f"YOLO reads grey pictures and colours, and these images have {release.channels} "
            "channels; leave --images out, the labels need none."
        )
    groups = release.images()
    pictures = _yolo_pictures([facts for facts, _ in groups], output)
    for (facts, rows), picture in zip(groups, pictures, strict=True):
        lines = []
        label = _place(output, yolo_label(picture))
        size = facts["width"], facts["height"]
        squares = [square(release, row) for row in rows]
        masks = to_source(squares, [size] * len(rows), release.fit, polygons=True)
        for row, mask in zip(rows, masks, strict=True):
            for polygon in mask.polygons or ():
                points = np.array(polygon).reshape(-1, 2) / np.array(size)
                numbers = " ".join(f"{value:.6f}" for value in points.ravel())
                lines.append(f"{release.findings.index(row['finding'])} {numbers}\n")
        label.write_text("".join(lines), encoding="utf-8")
        if images is not None:
            _copy_picture(images, facts, _place(output, picture))
    lists = {"train": "images/train", "val": "images/valid", "test": "images/test"}
    # Without a path YOLO looks beside this file; JSON is YAML.
    names = dict(enumerate(release.findings))
    write_json(output / "data.yaml", {"path": "", **lists, "names": names})


def yolo_label(picture: str) -> str:
    """Where YOLO looks for the label of a picture, by its own rule.

    The path of the picture has a folder ``images`` and a suffix.
    """
    before, _, after = f"/{picture}".rpartition("/images/")
    return f"{before}/labels/{after}"[1:].rpartition(".")[0] + ".txt"


def _yolo_pictures(images: Sequence[Row], output: Path) -> list[str]:
    """Where the pictures of a YOLO data set lie below its folder, each with a label of its own."""
    root = output.resolve()
    paths = [inside(root, facts["path"]).relative_to(root) for facts in images]
    shared = os.path.commonpath([path.parent for path in paths]) if paths else ""
    pictures: list[str] = []
    owners: dict[str, str] = {}
    for facts, path in zip(images, paths, strict=True):
        below = path.relative_to(shared).as_posix()
        if path.suffix.lower() not in _YOLO_READS:
            below = f"{without_suffix(below)}.png"
        pictures.append(f"images/{facts['split']}/{below}")
        label = yolo_label(pictures[-1])
        owner = owners.setdefault(label, facts["path"])
        if owner != facts["path"]:
            raise DataError(
                f"images {owner!r} and {facts['path']!r} would have one label for YOLO, {label}; "
                "give one of the two files another name and make the release again."
            )
    return pictures


def _place(output: Path, name: str) -> Path:
    """A file to write, in a folder that is there."""
    path = inside(output, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _copy_picture(images: Path, row: Row, target: Path) -> None:
    """The very bytes of a picture that YOLO sees as it is meant; another is decoded."""
    suffix = PurePosixPath(row["path"]).suffix.lower()
    with user_copy(images, row) as source:
        picture, origin = read_picture(source, mode=None, max_pixels=_MAX_PIXELS)
        require_size(row, *picture.size, scaled=True)  # labels are shares of the sides
    plain = suffix in _YOLO_READS and origin.plain and origin.orientation == 1
    if plain or suffix in _YOLO_SEES:
        shutil.copyfile(source, target)
    else:
        picture.save(target)


def _pictures(images: Path, row: Row, mode: Mode, channels: int) -> list[Image.Image]:
    """A picture of the user's copy, or one for each channel where these are no colours."""
    with user_copy(images, row) as path:
        if channels in (1, 3):
            pictures = [read_picture(path, mode=mode, max_pixels=_MAX_PIXELS).image]
        else:
            found = read_channels(path, channels=channels, bits=8, max_pixels=_MAX_PIXELS)
            pictures = [*map(Image.fromarray, found.pixels)]
        require_size(row, *pictures[0].size)
    return pictures


def _nnunet(release: Release, output: Path, images: Path | None) -> None:
    if images is None:
        raise ConfigError("nnU-Net's layout holds the images; give --images, their root.")
    several = release.channels not in (1, 3)
    for number, finding in enumerate(release.findings, start=901):
        rows = release.table.filter(finding=finding).to_dicts()
        training = sum(row["split"] != "test" for row in rows)
        if not training:
            continue
        folder = output / f"Dataset{number:03d}_{safe_name(finding)}"
        mode: Mode = None
        names = [f"channel {k}" for k in range(release.channels)]
        if not several:  # nnU-Net wants as many channels in each
            modes = (_pictures(images, row, None, 1)[0].mode for row in rows)
            mode = "L" if all(found == "L" for found in modes) else "RGB"
            names = ["x-ray"] if mode == "L" else ["R", "G", "B"]
        for row in rows:
            kind = "Ts" if row["split"] == "test" else "Tr"
            case = safe_name(row["image_id"])
            pictures = _pictures(images, row, mode, release.channels)
            for k, picture in enumerate(pictures):
                picture.save(_place(folder, f"images{kind}/{case}_{k:04d}.png"))
            _label(release, row).save(_place(folder, f"labels{kind}/{case}.png"))
        described = {
            "channel_names": {str(k): name for k, name in enumerate(names)},
            "labels": {"background": 0, finding: 1, "ignore": 2},
            "numTraining": training,
            "file_ending": ".png",
        }
        write_json(folder / "dataset.json", described)


def _label(release: Release, row: Row) -> Image.Image:
    """0, 1 where the finding is, and 2 where it is not known to be, pixels to ignore.

    So are those that a crop does not show.
    """
    known = release.masks[row["split"]].read("mask", row["place"]) != IGNORE
    values = 2 * (1 - unfit_mask(known, row["width"], row["height"], release.fit))
    values[source_mask(release, row)] = 1
    return Image.fromarray(values)


FORMS: dict[str, Callable[[Release, Path, Path | None], None]] = {
    "png": _png,
    "chexlocalize": _chexlocalize,
    "coco": _coco,
    "yolo": _yolo,
    "nnunet": _nnunet,
}
