"""Gather the masks of a recipe into one table and one mask file per split."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import ndimage

from dollmaker import tables
from dollmaker.rle import encode
from dollmaker.shards import Shard, create_shard

SPLITS = ("train", "valid", "test")

#: Columns of data/{split}.parquet, one row per image-finding pair with a mask.
SCHEMA: dict[str, Any] = {
    "image_id": pl.String,
    "path": pl.String,
    "sha256": pl.String,
    "patient_id": pl.String,
    "split": pl.String,
    "width": pl.Int64,
    "height": pl.Int64,
    "finding": pl.String,
    "label": pl.Int8,
    "probability": pl.Float32,
    "size": pl.List(pl.Int64),
    "counts": pl.String,
    "area": pl.Int64,
    "box": pl.List(pl.Int64),
    "components": pl.Int64,
    "threshold": pl.Float32,
    "quality": pl.Float32,
    "agreement": pl.Float32,
    "completeness": pl.Float32,
}

_FROM_MASKS = ("label", "probability", "threshold", "quality", "agreement", "completeness")
_FROM_INDEX = ("path", "sha256", "patient_id", "split", "width", "height")
_BLOCK = 256


def collect_split(
    index: pl.DataFrame,
    shards: Sequence[Path],
    split: str,
    folder: Path,
    header: dict[str, Any],
) -> pl.DataFrame:
    """Write ``data/{split}.parquet`` and ``masks/{split}.h5``, same rows in the same order.

    Pairs that were gated out or whose mask is empty are left out.

    Args:
        index: The index.
        shards: Mask shards in the order of the index.
        split: The split.
        folder: The release.
        header: Provenance.

    Returns:
        The table.
    """
    images = {row["image_id"]: row for row in index.filter(split=split).iter_rows(named=True)}
    parts = [pl.DataFrame(schema=SCHEMA)]
    with create_shard(folder / "masks" / f"{split}.h5", "masks", header, gzip=True) as writer:
        for rows in _blocks(shards, images):
            part = pl.DataFrame([row for row, _ in rows], schema=SCHEMA, orient="row")
            writer.append(
                {
                    "image_id": part["image_id"].to_numpy().astype(object),
                    "finding": part["finding"].to_numpy().astype(object),
                    "quality": part["quality"].to_numpy(),
                },
                **({"mask": np.stack([mask for _, mask in rows])} if rows else {}),
            )
            parts.append(part)
    result = pl.concat(parts)
    tables.write(result, folder / "data" / f"{split}.parquet", header)
    return result


_Row = tuple[dict[str, Any], npt.NDArray[np.uint8]]


def _blocks(shards: Sequence[Path], images: Mapping[str, dict[str, Any]]) -> Iterator[list[_Row]]:
    """Blocks of one length whatever the shards are, the last one shorter (perhaps empty).

    What is written in one piece decides how HDF5 lays out a file: equal blocks, equal bytes.
    """
    waiting: list[_Row] = []
    for row in _rows(shards, images):
        waiting.append(row)
        if len(waiting) == _BLOCK:
            yield waiting
            waiting = []
    yield waiting


def _rows(shards: Sequence[Path], images: Mapping[str, dict[str, Any]]) -> Iterator[_Row]:
    """Rows of these images with a mask that is kept and not empty."""
    for path in shards:
        with Shard(path, "masks") as shard:
            table = shard.table()
            for start in range(0, len(shard), _BLOCK):
                stop = min(start + _BLOCK, len(shard))
                masks = shard.read("mask", slice(start, stop))
                for i in range(start, stop):
                    image = images.get(table["image_id"][i])
                    if image is not None and table["kept"][i] and table["area"][i] > 0:
                        mask = masks[i - start]
                        yield _row(table, i, image, mask), mask


def _row(
    table: dict[str, Any], i: int, image: dict[str, Any], mask: npt.NDArray[np.uint8]
) -> dict[str, Any]:
    foreground = mask == 1
    ys, xs = np.nonzero(foreground)
    left, top = int(xs.min()), int(ys.min())
    return {
        "image_id": table["image_id"][i],
        "finding": table["finding"][i],
        **{name: image[name] for name in _FROM_INDEX},
        **{name: table[name][i].item() for name in _FROM_MASKS},
        "size": list(mask.shape),
        "counts": encode(foreground),
        "area": int(foreground.sum()),
        "box": [left, top, int(xs.max()) - left + 1, int(ys.max()) - top + 1],
        "components": int(ndimage.label(foreground)[1]),
    }
