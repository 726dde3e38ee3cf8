"""The files of a release: their names, their columns, and how many rows one holds."""

import re
from pathlib import Path
from typing import Any, Literal

import polars as pl

from dollmaker.runtime.errors import ArtifactError
from dollmaker.store import tables
from dollmaker.store.sums import require_listed

SPLITS = ("train", "valid", "test")

#: A row of a table by column; a JSON document.
Row = dict[str, Any]
Tree = dict[str, Any]

#: Rows of one file of a split; the workflow's shards have nothing to do with it.
ROWS_PER_FILE = 50_000

#: What tells one mask from the others.
KEY = ("split", "image_id", "finding")

#: Columns of an image, in both kinds of tables.
IMAGE: dict[str, Any] = {
    **dict.fromkeys(("image_id", "path", "sha256", "patient_id", "split"), pl.String),
    **dict.fromkeys(("width", "height"), pl.Int64),
}

#: Columns of data/{split}-*.parquet, one row per image-finding pair with a mask.
SCHEMA: dict[str, Any] = {
    **IMAGE,
    "finding": pl.String,
    "label": pl.Int8,
    "probability": pl.Float32,
    "size": pl.List(pl.Int64),
    "counts": pl.String,
    "area": pl.Int64,
    "box": pl.List(pl.Int64),
    "components": pl.Int64,
    **dict.fromkeys(("threshold", "quality", "agreement", "completeness"), pl.Float32),
}

#: The column that tables have beside :data:`SCHEMA` where bounds of the IoU are known: null where
#: a mask has none.
BOUND = "iou_bound"

#: Columns of images.parquet, one row per image, with or without a mask.
IMAGES: dict[str, Any] = {**IMAGE, "explained": pl.Boolean}

Kind = Literal["data", "masks"]
KINDS: tuple[Kind, ...] = ("data", "masks")
_ENDINGS = {"data": "parquet", "masks": "h5"}


def part_name(kind: Kind, split: str, number: int, count: int) -> str:
    """Path of a file inside the release, e.g. ``data/train-00000-of-00002.parquet``."""
    return f"{kind}/{split}-{number:05d}-of-{count:05d}.{_ENDINGS[kind]}"


def find_parts(folder: Path, kind: Kind, split: str) -> list[Path]:
    """The files of a split in order; none where the split has no mask.

    Raises:
        ArtifactError: If one of them is missing.
    """
    require_listed(folder, f"{kind}/{split}-")
    names = re.compile(rf"{split}-(\d{{5}})-of-(\d{{5}})\.{_ENDINGS[kind]}")
    found = [names.fullmatch(path.name) for path in sorted((folder / kind).glob(f"{split}-*"))]
    numbers = [tuple(map(int, match.groups())) for match in found if match]
    count = numbers[0][1] if numbers else 0
    if numbers != [(number, count) for number in range(count)]:
        raise ArtifactError(
            f"{folder / kind} does not hold the {count} files of {split!r}, each once; get the "
            "folder again."
        )
    return [folder / part_name(kind, split, number, count) for number in range(count)]


def read_rows(folder: Path, split: str) -> pl.DataFrame:
    """All rows of a split, with the columns :data:`SCHEMA` and :data:`BOUND`.

    Raises:
        ArtifactError: If a file is missing, damaged or no table of masks.
    """
    parts = [pl.DataFrame(schema={**SCHEMA, BOUND: pl.Float32})]
    for path in find_parts(folder, "data", split):
        table = tables.read(path)
        if not is_table(table):
            raise ArtifactError(f"{path}: columns or types are not a release's; get it anew.")
        if table.filter(pl.col("split") != split).height:
            raise ArtifactError(f"{path} holds rows of another split; get it anew.")
        parts.append(table)
    return pl.concat(parts, how="diagonal")


def is_table(table: pl.DataFrame) -> bool:
    """Whether columns and types are those of ``data/``, with bounds of the IoU or without."""
    plain = dict(pl.DataFrame(schema=SCHEMA).schema)
    return dict(table.schema) in (plain, {**plain, BOUND: pl.Float32})
