"""Gather the masks of a recipe into tables and mask files, some thousand rows each."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import ndimage

from dollmaker.pixels.geometry import level_set, pack
from dollmaker.release.parts import IMAGES, ROWS_PER_FILE, SCHEMA, part_name
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store import tables
from dollmaker.store.rle import encode
from dollmaker.store.shards import Shard, create_shard

#: A shard of masks, and that of the maps they were cut from.
Source = tuple[Path, Path]

#: Told with four digits: the last bits of a forward pass depend on what else was in its batch.
_NUMBERS = ("probability", "threshold", "quality", "agreement", "completeness")
_DIGITS = 4
_FROM_INDEX = ("path", "sha256", "patient_id", "split", "width", "height")
_BLOCK = 256


def collect_split(
    index: pl.DataFrame,
    shards: Sequence[Source],
    split: str,
    folder: Path,
    header: dict[str, Any],
    rows_per_file: int = ROWS_PER_FILE,
    *,
    relevance: bool = False,
) -> int:
    """Write the files of ``data/`` and ``masks/`` of a split, same rows in the same order.

    Pairs that were gated out or whose mask is empty are left out; a split without a mask has no
    file.

    Args:
        index: The index.
        shards: Shards of masks and of their maps, in the order of the index.
        split: The split.
        folder: The folder to write to.
        header: Provenance.
        rows_per_file: Rows of each file but the last.
        relevance: Write the maps, too.

    Returns:
        The number of masks.

    Raises:
        ArtifactError: If masks and maps do not hold the same pairs.
    """
    images = {row["image_id"]: row for row in index.filter(split=split).iter_rows(named=True)}
    total = sum(len(_chosen(path, images)) for path, _ in shards)
    count = -(-total // rows_per_file)
    rows = _rows(shards, images, relevance)
    for number in range(count):
        parts = []
        masks = folder / part_name("masks", split, number, count)
        with create_shard(masks, "masks", header, gzip=True) as writer:
            for block in _blocks(islice(rows, rows_per_file)):
                part = pl.DataFrame([row for row, _ in block], schema=SCHEMA, orient="row")
                writer.append(
                    {
                        "image_id": part["image_id"].to_numpy().astype(object),
                        "finding": part["finding"].to_numpy().astype(object),
                        "quality": part["quality"].to_numpy(),
                    },
                    **{
                        name: np.stack([arrays[name] for _, arrays in block])
                        for name in block[0][1]
                    },
                )
                parts.append(part)
        tables.write(pl.concat(parts), folder / part_name("data", split, number, count), header)
    return total


def list_images(index: pl.DataFrame, shards: Sequence[Source]) -> pl.DataFrame:
    """Every image of the index, and whether any of its findings was explained at all."""
    seen: set[str] = set()
    for path, _ in shards:
        with Shard(path, "masks") as shard:
            seen.update(shard.table().get("image_id", ()))
    explained = pl.Series("explained", [i in seen for i in index["image_id"]], dtype=pl.Boolean)
    return index.with_columns(explained).select(pl.col(n).cast(t) for n, t in IMAGES.items())


def read_pairs(index: pl.DataFrame, shards: Sequence[Path]) -> pl.DataFrame:
    """Rows of a recipe's masks of some images, with the columns of a release."""
    images = {row["image_id"]: row for row in index.iter_rows(named=True)}
    rows = []
    for path in shards:
        chosen = _chosen(path, images)
        with Shard(path, "masks") as shard:
            table = shard.table()
            for i in chosen:
                row = _row(table, i, images[table["image_id"][i]], shard.read("mask", i))
                rows.append(row)
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


_Row = tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]


def _blocks(rows: Iterator[_Row]) -> Iterator[list[_Row]]:
    """Blocks of one length whatever the shards are, the last one shorter.

    What is written in one piece decides how HDF5 lays out a file: equal blocks, equal bytes.
    """
    while block := list(islice(rows, _BLOCK)):
        yield block


def _chosen(path: Path, images: Mapping[str, Any]) -> list[int]:
    """Rows of these images with a mask that is kept and not empty."""
    with Shard(path, "masks") as shard:
        table = shard.table()
    pairs = zip(*(table.get(name, ()) for name in ("image_id", "kept", "area")), strict=True)
    return [
        i for i, (image, kept, area) in enumerate(pairs) if kept and area > 0 and image in images
    ]


def _rows(
    shards: Sequence[Source], images: Mapping[str, dict[str, Any]], relevance: bool
) -> Iterator[_Row]:
    for path, maps_path in shards:
        chosen = _chosen(path, images)
        with Shard(path, "masks") as shard, Shard(maps_path, "relevance") as maps:
            table = shard.table()
            _require_same_pairs(shard, table, maps)
            for start in range(0, len(table.get("image_id", ())), _BLOCK):
                rows = slice(start, start + _BLOCK)  # h5py is slow with lists of rows
                masks, values = shard.read("mask", rows), maps.read("map", rows)
                for i in chosen[bisect_left(chosen, start) : bisect_left(chosen, rows.stop)]:
                    mask, value = masks[i - start], values[i - start]
                    levels = level_set(mask, value, float(table["threshold"][i]))
                    arrays = {"mask": mask, "level": pack(levels)}
                    if relevance:
                        arrays["relevance"] = _to_bytes(value)
                    yield _row(table, i, images[table["image_id"][i]], mask), arrays


def _require_same_pairs(masks: Shard, table: Mapping[str, Any], maps: Shard) -> None:
    other = maps.table()
    for key in ("image_id", "finding"):
        if list(table.get(key, ())) != list(other.get(key, ())):
            raise ArtifactError(
                f"{masks.path} and {maps.path} do not hold the same pairs; delete the masks and "
                "run the workflow again."
            )


def _to_bytes(maps: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Maps with maximum 1 in 255 steps; what speaks against the finding becomes 0."""
    return np.rint(np.clip(maps.astype(np.float32), 0, 1) * 255).astype(np.uint8)


def _row(
    table: dict[str, Any], i: int, image: dict[str, Any], mask: npt.NDArray[np.uint8]
) -> dict[str, Any]:
    foreground = mask == 1
    ys, xs = np.flatnonzero(foreground.any(1)), np.flatnonzero(foreground.any(0))
    left, top = int(xs[0]), int(ys[0])
    return {
        "image_id": table["image_id"][i],
        "finding": table["finding"][i],
        **{name: image[name] for name in _FROM_INDEX},
        "label": table["label"][i].item(),
        **{name: round(table[name][i].item(), _DIGITS) for name in _NUMBERS},
        "size": list(mask.shape),
        "counts": encode(foreground),
        "area": int(foreground.sum()),
        "box": [left, top, int(xs[-1]) - left + 1, int(ys[-1]) - top + 1],
        "components": int(ndimage.label(foreground)[1]),
    }
