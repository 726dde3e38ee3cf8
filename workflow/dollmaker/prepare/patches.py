"""Patches: images are cut into squares, and each square is labelled by its mask.

The protocol of ExplainSeg for nuclei and polyps: a classifier learns from the labels only whether
a patch holds an object; the masks are used again for scores, never for training.
"""

import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker import tables
from dollmaker.errors import DataError
from dollmaker.files import inside
from dollmaker.prepare.columns import filled, identifier
from dollmaker.prepare.convert import Item, Piece
from dollmaker.prepare.images import FORMATS, read_bytes, read_picture
from dollmaker.prepare.splits import assign


def list_items(options: Mapping[str, Any], data_root: Path, max_pixels: int) -> list[Item]:
    """One item per row of the table.

    Args:
        options: Section ``source.patches``.
        data_root: Folder of the source data.
        max_pixels: Larger images are left out.

    Raises:
        DataError: If the table, a column or a folder is missing.
    """
    file = inside(data_root, options["table"])
    table = tables.read_source(file)
    columns = [options["image_column"], options["mask_column"]]
    if options["patient_column"]:
        columns.append(options["patient_column"])
    tables.require_columns(table, columns, file)
    for key in ("images", "masks"):
        if not inside(data_root, options[key]).is_dir():
            raise DataError(
                f"folder {data_root / options[key]} does not exist; correct source.patches.{key}."
            )
    values = [filled(table, column, file) for column in columns]
    images, masks = values[:2]
    patients = values[2] if options["patient_column"] else [identifier(name) for name in images]
    cut = partial(_cut, options=options, data_root=data_root, max_pixels=max_pixels)
    return [
        Item(source=image, patient=patient, make=partial(cut, image, mask))
        for image, mask, patient in zip(images, masks, patients, strict=True)
    ]


def _cut(
    image: str, mask: str, *, options: Mapping[str, Any], data_root: Path, max_pixels: int
) -> list[Piece]:
    """The whole patches of one image; what is left at its right and lower border is dropped."""
    picture, _ = read_picture(
        inside(data_root, f"{options['images']}/{image}"), mode=None, max_pixels=max_pixels
    )
    path = inside(data_root, f"{options['masks']}/{mask}")
    found = read_objects(path, options["values"], picture.size)
    side, stride = options["side"], options["stride"] or options["side"]
    width, height = (max(1, round(length * options["scale"])) for length in picture.size)
    if width * height > max_pixels:
        raise DataError(f"{width}x{height} after source.patches.scale is over {max_pixels} pixels")
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        scaled = Image.fromarray(found.astype(np.uint8))
        found = np.asarray(scaled.resize((width, height), Image.Resampling.NEAREST)) > 0
    if side > min(width, height):
        raise DataError(f"{width}x{height} pixels are less than one patch of {side}")
    pixels, name = np.asarray(picture), identifier(image)
    pieces = []
    for top in range(0, height - side + 1, stride):
        for left in range(0, width - side + 1, stride):
            area = found[top : top + side, left : left + side]
            share = float(area.mean())
            label = int(share > 0 and share >= options["min_share"])
            pieces.append(
                Piece(
                    name=f"{name}_y{top:04d}_x{left:04d}",
                    image=np.ascontiguousarray(pixels[top : top + side, left : left + side]),
                    mask=area.astype(np.uint8),
                    labels={options["finding"]: label},
                )
            )
    return pieces


def read_objects(
    path: Path, values: Sequence[int] | None, size: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Where a mask file says that there is an object.

    Args:
        path: The file: grey, palette, or colours whose channels are equal.
        values: Pixel values of objects; ``None`` means any but 0, and in a JPEG file, whose
            compression smears borders, anything brighter than half.
        size: Width and height of the image that it belongs to.

    Returns:
        bool (height, width).

    Raises:
        DataError: If it cannot be read or has another size.
    """
    where = f"mask {path.name!r}"
    try:
        data = read_bytes(path, size[0] * size[1])
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as mask:
                if mask.size != size:
                    raise DataError(
                        f"{where} is {mask.width}x{mask.height}, its image {size[0]}x{size[1]} "
                        "pixels"
                    )
                lossy, numbers = mask.format == "JPEG", np.asarray(mask)
    except DataError:
        raise
    except Exception as error:  # decoders raise anything on hostile bytes
        raise DataError(f"{where} is not a readable image ({type(error).__name__})") from None
    if numbers.ndim == 3 and (numbers[..., :3] == numbers[..., :1]).all():
        numbers = numbers[..., 0]
    if numbers.ndim != 2:
        raise DataError(f"{where} has colours; save it as grey or palette PNG")
    if values is not None:
        return np.isin(numbers, values)
    return numbers > (127 if lossy else 0)


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
    for (split, label), names in groups.items():
        others = len(groups.get((split, 1 - label), ()))
        ranked = sorted(names, key=partial(_rank, config["seed"]))
        kept.update(ranked[: others or None])
    return [row for row in rows if row["image"] in kept]


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"dollmaker thin {seed} {name}".encode()).hexdigest()
