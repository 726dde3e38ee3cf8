"""The three steps of prepare: list the images, decode a shard of them, index what is good."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dollmaker.config import reads
from dollmaker.config.sources import PrepareConfig
from dollmaker.config.whole import Config
from dollmaker.pixels.image_hash import near_pairs
from dollmaker.pixels.pictures import Decoded, decode
from dollmaker.prepare.listing import COLUMNS, DECODED, assert_disjoint
from dollmaker.prepare.sources import check_findings, list_source
from dollmaker.runtime.errors import DataError
from dollmaker.store import provenance, tables
from dollmaker.store.depth import type_of
from dollmaker.store.files import atomic_path, inside
from dollmaker.store.shards import create_shard

_BLOCK = 256


def list_images(config: Config, data_root: Path, output: Path) -> None:
    """List the images of the source with their labels, split and shard.

    Shards are runs of the listing of equal length, so that their number changes nothing else.

    Args:
        config: The resolved configuration.
        data_root: Folder of the source.
        output: The listing to write.
    """
    listing, names = list_source(config, data_root)
    check_findings(names, config)
    number = (np.arange(len(listing)) * config.prepare.shards) // len(listing)
    listing = listing.with_columns(pl.Series("shard", [f"{value:04d}" for value in number]))
    tables.write(listing, output, {**_header(config.prepare, "list"), "findings": names})


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is decoded.

    Attributes:
        listing: The listing made by ``prepare-list``.
        data_root: Folder of the source.
    """

    listing: Path
    data_root: Path


def decode_shard(
    config: Config,
    inputs: Inputs,
    shard: str,
    output: Path,
    rows_file: Path,
    workers: int = 1,
) -> None:
    """Decode the images of one shard; broken ones are noted with the reason, never fatal.

    Args:
        config: The resolved configuration.
        inputs: What is decoded.
        shard: Shard to decode, e.g. 0000.
        output: Image shard to write.
        rows_file: Table of the shard's rows to write.
        workers: Threads.
    """
    options = config.prepare
    listing = tables.read(inputs.listing).filter(pl.col("shard") == shard)
    header = _header(options, "decode")

    def attempt(path: str) -> Decoded | str:
        try:
            file = inside(inputs.data_root, path, config.allow_links)
            return decode(
                file,
                size=options.size,
                channels=options.channels,
                bits=options.bits,
                fit=options.fit,
                max_pixels=options.max_pixels,
            )
        except DataError as error:
            return str(error)

    rows: list[dict[str, Any]] = []
    with create_shard(output, "images", header) as writer, ThreadPoolExecutor(workers) as pool:
        empty = (0, options.channels, options.size, options.size)
        writer.append(_identities([]), image=np.zeros(empty, type_of(options.bits)))
        good_count = 0
        items = listing.select("image_id", "path").rows()
        for start in range(0, len(items), _BLOCK):
            names, paths = zip(*items[start : start + _BLOCK], strict=True)
            results = list(zip(names, pool.map(attempt, paths), strict=True))
            good = [(name, one) for name, one in results if isinstance(one, Decoded)]
            if good:
                writer.append(_identities(good), image=np.stack([one.pixels for _, one in good]))
            for name, one in results:
                rows.append(_row(name, one, good_count))
                good_count += isinstance(one, Decoded)
    tables.write(pl.DataFrame(rows, schema=_ROW, orient="row"), rows_file, header)


def _identities(good: Sequence[tuple[str, Decoded]]) -> dict[str, Any]:
    """Columns of an image shard: whose pixels they are, and the shape that they had."""
    return {
        "image_id": np.array([image_id for image_id, _ in good], object),
        "width": np.array([result.width for _, result in good], np.int32),
        "height": np.array([result.height for _, result in good], np.int32),
    }


_ROW: dict[str, Any] = {
    "image_id": pl.String,
    **dict.fromkeys(("row", "width", "height"), pl.Int64),
    "sha256": pl.String,
    "orientation": pl.Int8,
    "mean": pl.List(pl.Float64),
    "hash": pl.String,
    "reason": pl.String,
}


def _row(image_id: str, result: Decoded | str, row: int) -> dict[str, Any]:
    if isinstance(result, str):
        return dict.fromkeys(_ROW) | {"image_id": image_id, "reason": result}
    facts = {name: value for name, value in vars(result).items() if name in _ROW}
    return {"image_id": image_id, "row": row, **facts, "reason": None}


def build_index(
    config: Config, listing_file: Path, rows: Sequence[Path], output: Path, quarantine: Path
) -> None:
    """Gather the decoded shards into the index; list what was left out in the quarantine.

    Args:
        config: The resolved configuration.
        listing_file: The listing made by ``prepare-list``.
        rows: Tables of rows of all shards.
        output: The index to write.
        quarantine: CSV of broken images to write.

    Raises:
        DataError: If more than ``max_quarantined`` of the images are broken, or a patient is in
            two splits.
    """
    options = config.prepare
    listing = tables.read(listing_file)
    names: list[str] = tables.read_header(listing_file)["findings"]
    decoded = pl.concat([tables.read(path) for path in rows])
    images = pl.concat([listing, decoded.drop("image_id")], how="horizontal")
    images = _without_duplicates(images)
    bad = images.filter(pl.col("reason").is_not_null()).select("image_id", "path", "reason")
    with atomic_path(quarantine) as part:
        bad.write_csv(part)
    if len(bad) / len(images) > options.max_quarantined:
        worst = bad.row(0, named=True)
        raise DataError(
            f"{len(bad)} of {len(images)} images cannot be used (listed in {quarantine}; the first "
            f"is {worst['path']!r}: {worst['reason']}); mend them or raise prepare.max_quarantined."
        )
    good = images.filter(pl.col("reason").is_null())
    index = good.select(*COLUMNS, *DECODED, *names)
    assert_disjoint(index)
    if config.source.kind == "folder":
        _tell_alike(index, names)
    means = good.filter(pl.col("split") == "train")["mean"].to_list()
    header = {
        **_header(options, "index"),
        "findings": names,
        "quarantine": bad.head(1000).to_dicts(),
        "channel_mean": np.mean(means, axis=0).tolist() if means else [127.5] * options.channels,
    }
    tables.write(index, output, header)


def _without_duplicates(images: pl.DataFrame) -> pl.DataFrame:
    """Give images a reason that occur twice, or lie as the same file with another patient.

    The first stays. The same file with two patients could be learned from and scored at once.
    """
    twice = ~pl.col("image_id").is_first_distinct()
    owner = pl.col("patient_id").first().over("sha256")
    again = pl.col("sha256").is_not_null() & (pl.col("patient_id") != owner)
    reason = (
        pl.when(twice)
        .then(pl.lit("image_id occurs twice"))
        .when(pl.col("reason").is_null() & again)
        .then(pl.format("the same file belongs to patient {}", owner))
        .otherwise("reason")
    )
    return images.with_columns(reason=reason)


def _tell_alike(index: pl.DataFrame, findings: Sequence[str]) -> None:
    """Say how many pairs of images look the same and have different labels."""
    labels, hashes = index.select(findings).rows(), index["hash"].to_list()
    count, example = 0, (0, 0)
    for i, j in near_pairs(hashes, hashes):
        if i < j and labels[i] != labels[j]:
            count, example = count + 1, example if count else (i, j)
    if count:
        one, other = (index["path"][place] for place in example)
        print(
            f"folder: {count:,} pairs of images look the same and lie in two classes, e.g. {one!r} "
            f"and {other!r}; one of the labels is wrong, or neither can be learned.",
            file=sys.stderr,
            flush=True,
        )


def _header(prepare: PrepareConfig, stage: str) -> dict[str, Any]:
    """Of the section ``prepare`` what a stage gets: the rest would be defaults."""
    asked, options = reads.READS[stage].keys, prepare.dump()
    if "prepare" not in asked:
        options = {key: value for key, value in options.items() if f"prepare.{key}" in asked}
    return provenance.header("prepare", options)
