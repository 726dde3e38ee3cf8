"""The index: a table with one row for each image of the data set that could be decoded."""

import hashlib
from pathlib import Path

import polars as pl

from dollmaker.store import tables


def read_index(path: Path) -> tuple[pl.DataFrame, list[str]]:
    """The index and its findings."""
    index = tables.read(path)
    return index, list(tables.read_header(path)["findings"])


def digest_index(index: pl.DataFrame) -> str:
    """SHA-256 of an index, whatever the number of its shards.

    Orientation and perceptual hash are left out: the checksums of the files decide the pixels.
    """
    text = index.drop("shard", "row", "orientation", "hash", strict=False).write_csv()
    return hashlib.sha256(text.encode()).hexdigest()
