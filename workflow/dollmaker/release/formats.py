"""The masks of a release in the forms of CheXlocalize and COCO, at the size of the source."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.pixels.geometry import Fit
from dollmaker.release.parts import find_parts
from dollmaker.release.source import SourceMask, to_source
from dollmaker.store import rle
from dollmaker.store.files import atomic_path
from dollmaker.store.shards import Shard

_BLOCK = 512


def write_formats(
    folder: Path,
    split: str,
    table: pl.DataFrame,
    images: pl.DataFrame,
    findings: Sequence[str],
    fit: Fit,
) -> None:
    """Write ``chexlocalize/{split}.json`` and ``coco/{split}.json``.

    Args:
        folder: The release.
        split: The split.
        table: Its rows.
        images: Its images, with or without a mask.
        findings: Names, in order.
        fit: How source images lie in the square.
    """
    rows = table.to_dicts()
    masks: list[SourceMask] = []
    for levels in _levels(folder, split):
        part = rows[len(masks) : len(masks) + len(levels)]
        sizes = [(row["width"], row["height"]) for row in part]
        masks += to_source(list(levels), sizes, fit, polygons=True)
    entries = chexlocalize(images, rows, masks, findings)
    _write_lines(
        folder / "chexlocalize" / f"{split}.json",
        (f"{_dump(image)}: {_dump(entry)}" for image, entry in entries),
    )
    content = coco(rows, masks, findings)
    lists = (
        f"{_dump(key)}: [\n" + ",\n".join(map(_dump, values)) + "\n]"
        for key, values in content.items()
    )
    _write_lines(folder / "coco" / f"{split}.json", lists)


def _levels(folder: Path, split: str) -> Iterator[npt.NDArray[np.int8]]:
    """The level sets of a split in blocks, in the order of its rows."""
    for path in find_parts(folder, "masks", split):
        with Shard(path, "masks") as shard:
            for start in range(0, len(shard), _BLOCK):
                yield shard.read("level", slice(start, start + _BLOCK))


def chexlocalize(
    images: pl.DataFrame,
    rows: Sequence[dict[str, Any]],
    masks: Sequence[SourceMask],
    findings: Sequence[str],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Image and ``{finding: {size, counts}}`` for every image and every finding.

    A finding without a mask has an empty one.
    """
    found: dict[str, dict[str, str]] = {}
    empty: dict[tuple[int, int], str] = {}
    for row, mask in zip(rows, masks, strict=True):
        found.setdefault(row["image_id"], {})[row["finding"]] = mask.counts
    for image, height, width in images.select("image_id", "height", "width").iter_rows():
        if (height, width) not in empty:
            empty[height, width] = rle.write_runs([np.array([height * width])])[0]
        counts = dict.fromkeys(findings, empty[height, width])
        counts |= found.get(image, {})
        yield image, {name: {"size": [height, width], "counts": c} for name, c in counts.items()}


def coco(
    rows: Sequence[dict[str, Any]], masks: Sequence[SourceMask], findings: Sequence[str]
) -> dict[str, list[Any]]:
    """COCO's images (those with a row), annotations (``score`` is the quality) and categories.

    Masks are polygons, which all tools read; pycocotools makes the very mask of them. A mask so
    thin that no pixel of a smaller source image is left of it is no annotation.
    """
    number = {name: k for k, name in enumerate(findings, start=1)}
    images: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for row, mask in zip(rows, masks, strict=True):
        facts = {"file_name": row["path"], "width": row["width"], "height": row["height"]}
        image = images.setdefault(row["image_id"], {"id": len(images) + 1, **facts})
        if mask.area:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": number[row["finding"]],
                    "segmentation": mask.polygons,
                    "bbox": mask.box,
                    "area": mask.area,
                    "iscrowd": 0,
                    "score": round(float(row["quality"]), 4),
                }
            )
    categories = [{"id": k, "name": name} for name, k in number.items()]
    return {"images": list(images.values()), "annotations": annotations, "categories": categories}


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    """A JSON object with so many lines: small, and a text tool can still look into it."""
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        separator = "{\n"
        for line in lines:
            file.write(separator + line)
            separator = ",\n"
        file.write("\n}\n")


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
