"""The three steps of prepare: list the images, decode a shard of them, index what is good."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dollmaker.config import reads
from dollmaker.pixels.decode import Decoded, decode
from dollmaker.prepare.columns import COLUMNS, DECODED
from dollmaker.prepare.sources import check_findings, list_source
from dollmaker.prepare.splits import assert_disjoint
from dollmaker.prepare.twins import tell_alike
from dollmaker.runtime.errors import DataError
from dollmaker.store import provenance, tables
from dollmaker.store.depth import type_of
from dollmaker.store.files import atomic_path, inside
from dollmaker.store.shards import create_shard

_BLOCK = 256


def list_images(config: dict[str, Any], data_root: Path, output: Path) -> None:
    """List the images of the source with their labels, split and shard.

    Shards are runs of the listing of equal length, so that their number changes nothing else.

    Args:
        config: The resolved configuration.
        data_root: Folder of the source.
        output: The listing to write.
    """
    listing, names = list_source(config, data_root)
    check_findings(names, config)
    shards = config["prepare"]["shards"]
    number = (np.arange(len(listing)) * shards) // len(listing)
    listing = listing.with_columns(pl.Series("shard", [f"{value:04d}" for value in number]))
    tables.write(listing, output, {**_header(config, "list"), "findings": names})


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is decoded.

    Attributes:
        plan: The listing made by ``prepare-list``.
        data_root: Folder of the source.
    """

    plan: Path
    data_root: Path


def decode_shard(
    config: dict[str, Any],
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
    options = config["prepare"]
    listing = tables.read(inputs.plan).filter(pl.col("shard") == shard)
    links = config.get("allow_links", False)
    decoded = partial(_try_decode, data_root=inputs.data_root, options=options, links=links)
    rows: list[dict[str, Any]] = []
    with (
        create_shard(output, "images", _header(config, "decode")) as writer,
        ThreadPoolExecutor(workers) as pool,
    ):
        size, channels = options["size"], options["channels"]
        empty = np.zeros((0, channels, size, size), type_of(options["bits"]))
        writer.append(_identities([]), image=empty)
        good_count = 0
        items = listing.select("image_id", "path").rows()
        for block in (items[start : start + _BLOCK] for start in range(0, len(items), _BLOCK)):
            results = list(pool.map(lambda item: decoded(item[1]), block))
            good = [
                (item[0], r)
                for item, r in zip(block, results, strict=True)
                if isinstance(r, Decoded)
            ]
            if good:
                writer.append(
                    _identities(good), image=np.stack([result.pixels for _, result in good])
                )
            for (image_id, _), result in zip(block, results, strict=True):
                rows.append(_row(image_id, result, good_count))
                good_count += isinstance(result, Decoded)
    tables.write(
        pl.DataFrame(rows, schema=_ROW, orient="row"), rows_file, _header(config, "decode")
    )


def _identities(good: Sequence[tuple[str, Decoded]]) -> dict[str, Any]:
    """Columns of an image shard: whose pixels they are, and the shape that they had."""
    return {
        "image_id": np.array([image_id for image_id, _ in good], object),
        "width": np.array([result.width for _, result in good], np.int32),
        "height": np.array([result.height for _, result in good], np.int32),
    }


_ROW: dict[str, Any] = {
    "image_id": pl.String,
    "row": pl.Int64,
    "width": pl.Int64,
    "height": pl.Int64,
    "sha256": pl.String,
    "orientation": pl.Int8,
    "mean": pl.List(pl.Float64),
    "hash": pl.String,
    "reason": pl.String,
}


def _try_decode(path: str, data_root: Path, options: dict[str, Any], links: bool) -> Decoded | str:
    try:
        return decode(
            inside(data_root, path, links),
            size=options["size"],
            channels=options["channels"],
            bits=options["bits"],
            fit=options["fit"],
            max_pixels=options["max_pixels"],
        )
    except DataError as error:
        return str(error)


def _row(image_id: str, result: Decoded | str, row: int) -> dict[str, Any]:
    if isinstance(result, str):
        return dict.fromkeys(_ROW) | {"image_id": image_id, "reason": result}
    return {
        "image_id": image_id,
        "row": row,
        "width": result.width,
        "height": result.height,
        "sha256": result.sha256,
        "orientation": result.orientation,
        "mean": result.mean,
        "hash": result.hash,
        "reason": None,
    }


def build_index(
    config: dict[str, Any], plan_file: Path, rows: Sequence[Path], output: Path, quarantine: Path
) -> None:
    """Gather the decoded shards into the index; list what was left out in the quarantine.

    Args:
        config: The resolved configuration.
        plan_file: The listing made by ``prepare-list``.
        rows: Tables of rows of all shards.
        output: The index to write.
        quarantine: CSV of broken images to write.

    Raises:
        DataError: If more than ``max_quarantined`` of the images are broken, or a patient is in
            two splits.
    """
    listing = tables.read(plan_file)
    names: list[str] = tables.read_header(plan_file)["findings"]
    decoded = pl.concat([tables.read(path) for path in rows])
    joined = pl.concat([listing, decoded.drop("image_id")], how="horizontal")
    joined = _without_duplicates(joined)
    bad = joined.filter(pl.col("reason").is_not_null())
    with atomic_path(quarantine) as part:
        bad.select("image_id", "path", "reason").write_csv(part)
    share = len(bad) / len(joined)
    if share > config["prepare"]["max_quarantined"]:
        worst = bad.row(0, named=True)
        raise DataError(
            f"{len(bad)} of {len(joined)} images cannot be used (listed in {quarantine}; the first "
            f"is {worst['path']!r}: {worst['reason']}); mend them or raise prepare.max_quarantined."
        )
    index = joined.filter(pl.col("reason").is_null()).select(*COLUMNS, *DECODED, *names)
    assert_disjoint(index)
    if config["source"]["kind"] == "folder":
        tell_alike(index, names)
    means = joined.filter(pl.col("reason").is_null() & (pl.col("split") == "train"))[
        "mean"
    ].to_list()
    channel_mean = (
        np.mean(means, axis=0).tolist() if means else [127.5] * config["prepare"]["channels"]
    )
    left_out = bad.select("image_id", "path", "reason").head(1000).to_dicts()
    facts = {"findings": names, "quarantine": left_out, "channel_mean": channel_mean}
    tables.write(index, output, {**_header(config, "index"), **facts})


def _without_duplicates(images: pl.DataFrame) -> pl.DataFrame:
    """Give images a reason that occur twice, or lie as the same file with another patient.

    The first stays. The same file with two patients could be learned from and scored at once.
    """
    twice = ~pl.col("image_id").is_first_distinct()
    again = pl.col("sha256").is_not_null() & (
        pl.col("patient_id") != pl.col("patient_id").first().over("sha256")
    )
    owner = pl.col("patient_id").first().over("sha256")
    reason = (
        pl.when(twice)
        .then(pl.lit("image_id occurs twice"))
        .when(pl.col("reason").is_null() & again)
        .then(pl.format("the same file belongs to patient {}", owner))
        .otherwise("reason")
    )
    return images.with_columns(reason=reason)


def _header(config: dict[str, Any], stage: str) -> dict[str, Any]:
    """Of the section ``prepare`` what a stage gets: the rest would be defaults."""
    asked = reads.READS[stage].keys
    chosen = {
        key: value
        for key, value in config["prepare"].items()
        if "prepare" in asked or f"prepare.{key}" in asked
    }
    return provenance.header("prepare", chosen)
