"""Patches: images are cut into squares, and each square is labelled by its mask.

The protocol of ExplainSeg for nuclei and polyps: a classifier learns from the labels only whether
a patch holds an object; the masks are used again for scores, never for training.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker.pixels import names
from dollmaker.pixels.geometry import resized
from dollmaker.pixels.levels import Numbers, objects
from dollmaker.pixels.masks import read_mask
from dollmaker.pixels.pictures import read_channels
from dollmaker.prepare.columns import filled, patients
from dollmaker.prepare.pieces import Item, Piece
from dollmaker.prepare.splits import assign
from dollmaker.runtime.errors import DataError
from dollmaker.store import tables
from dollmaker.store.files import inside


def list_items(
    options: Mapping[str, Any],
    data_root: Path,
    prepare: Mapping[str, Any],
    links: bool = False,
) -> list[Item]:
    """One item per row of the table.

    Args:
        options: Section ``source.patches``.
        data_root: Folder of the source data.
        prepare: Section ``prepare``: images over ``max_pixels`` are left out. They stay grey or in
            colours where ``channels`` is 1 or 3, and have as many channels else.
        links: Whether links may leave ``data_root``.

    Raises:
        DataError: If the table, a column or a folder is missing.
    """
    file = inside(data_root, options["table"], links)
    table = tables.read_source(file)
    columns = [options["image_column"], options["mask_column"]]
    patient = options["patient_column"]
    tables.require_columns(table, [*columns, *([patient] if patient else [])], file)
    for key in ("images", "masks"):
        if not inside(data_root, options[key], links).is_dir():
            raise DataError(
                f"folder {data_root / options[key]} does not exist; correct source.patches.{key}."
            )
    values = [filled(table, column, file) for column in columns]
    images, masks = ([names.posix(text) for text in column] for column in values[:2])
    ids = names.image_ids(images)
    people = patients(table, patient, file) if patient else ids
    reader = Numbers({options["finding"]: options["values"]}) if options["values"] else None
    cut = partial(
        _cut,
        options=options,
        reader=reader,
        root=partial(inside, data_root, links=links),
        prepare=prepare,
    )
    return [
        Item(source=image, patient=who, make=partial(cut, name, image, mask), reader=reader)
        for name, image, mask, who in zip(ids, images, masks, people, strict=True)
    ]


def _cut(
    name: str,
    image: str,
    mask: str,
    *,
    options: Mapping[str, Any],
    reader: Numbers | None,
    root: Callable[[str], Path],
    prepare: Mapping[str, Any],
) -> list[Piece]:
    """The whole patches of one image; what is left at its right and lower border is dropped."""
    max_pixels = prepare["max_pixels"]
    picture, origin = read_channels(
        root(f"{options['images']}/{image}"),
        channels=None if prepare["channels"] in (1, 3) else prepare["channels"],
        bits=prepare["bits"],
        max_pixels=max_pixels,
    )
    size = picture.shape[2], picture.shape[1]
    found = read_objects(
        root(f"{options['masks']}/{mask}"),
        options["values"],
        size,
        turned=origin.orientation != 1,
        reader=reader,
    )
    side, stride = options["side"], options["stride"] or options["side"]
    width, height = (max(1, round(length * options["scale"])) for length in size)
    if width * height > max_pixels:
        raise DataError(f"{width}x{height} after source.patches.scale is over {max_pixels} pixels")
    if (width, height) != size:
        picture = resized(picture, width, height)
        whole = Image.fromarray(found.astype(np.uint8))
        found = np.asarray(whole.resize((width, height), Image.Resampling.NEAREST)) > 0
    if side > min(width, height):
        raise DataError(f"{width}x{height} pixels are less than one patch of {side}")
    pieces = []
    for top in range(0, height - side + 1, stride):
        for left in range(0, width - side + 1, stride):
            area = found[top : top + side, left : left + side]
            share = float(area.mean())
            label = int(share > 0 and share >= options["min_share"])
            pieces.append(
                Piece(
                    name=f"{name}_y{top:04d}_x{left:04d}",
                    image=picture[:, top : top + side, left : left + side].copy(),
                    mask=area.astype(np.uint8),
                    labels={options["finding"]: label},
                )
            )
    return pieces


def read_objects(
    path: Path,
    values: Sequence[int] | None,
    size: tuple[int, int],
    turned: bool = False,
    reader: Numbers | None = None,
) -> npt.NDArray[np.bool_]:
    """Where a mask file says that there is an object.

    Args:
        path: The file.
        values: Pixel values of objects; ``None`` means any but black.
        size: Width and height of the image that it belongs to.
        turned: Whether that image was turned by its EXIF tag.
        reader: Keeps what was seen in the whole set, for one class with these values.

    Returns:
        bool (height, width).

    Raises:
        DataError: If it cannot be read or has another size.
    """
    try:
        mask = read_mask(path, size=size, turned=turned)
        if values is None:
            return objects(mask)
        numbers = (reader or Numbers({"": values})).read(mask)
        return np.isin(numbers, values)
    except DataError as error:
        raise DataError(f"mask {path.name!r}: {error}") from None


def thin(rows: list[dict[str, Any]], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Thin the larger class of each split to the number of the smaller one, if so configured.

    Which patches stay follows from the seed and the patch's name alone. A split with one class
    only is left as it is.

    Raises:
        DataError: If all patches are of one class: there would be nothing to learn.
    """
    options, prepare = config["source"]["patches"], config["prepare"]
    finding = options["finding"]
    counts = [sum(row[finding] == label for row in rows) for label in (0, 1)]
    if not counts[1]:
        raise DataError(
            f"none of {len(rows)} patches holds {finding}; correct source.patches.values or lower "
            "min_share."
        )
    if not counts[0]:
        raise DataError(
            f"each of {len(rows)} patches holds {finding}; lower source.patches.side or raise "
            "min_share."
        )
    if not options["balance"]:
        return rows
    groups: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        split = assign(row["patient"], prepare["valid"], prepare["test"])
        groups.setdefault((split, row[finding]), []).append(row["image"])
    kept: set[str] = set()
    for (split, label), images in groups.items():
        others = len(groups.get((split, 1 - label), ()))
        ranked = sorted(images, key=partial(_rank, config["seed"]))
        kept.update(ranked[: others or None])
    return [row for row in rows if row["image"] in kept]


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"dollmaker thin {seed} {name}".encode()).hexdigest()
