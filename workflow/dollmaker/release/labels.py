"""The stage: the masks of the released recipe as a folder that networks learn from.

``labels/`` is the part of a release that does not need the segmenter, which learns from it: tables
and mask files, some thousand rows each.
"""

from bisect import bisect_left
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, repeat
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import ndimage

from dollmaker.config import reads
from dollmaker.config.whole import Config
from dollmaker.pixels.geometry import level_set
from dollmaker.release.parts import (
    IMAGE,
    IMAGES,
    ROWS_PER_FILE,
    SCHEMA,
    SPLITS,
    Row,
    Tree,
    part_name,
)
from dollmaker.release.source import measure
from dollmaker.release.verify import compare_masks
from dollmaker.runtime.cores import cores, mapping
from dollmaker.runtime.errors import ArtifactError, DataError
from dollmaker.store import findings, provenance, tables
from dollmaker.store.files import atomic_path, read_json, write_json, write_text
from dollmaker.store.rle import encode
from dollmaker.store.shards import Shard, create_shard, tables_of_pairs
from dollmaker.store.sums import CHECKSUMS, checksums
from dollmaker.store.tables import read_index

#: Sections that determine the masks; the number of shards or the device do not belong to them.
SECTIONS = ("dataset", "seed", "source", "prepare", "classify", "attribute", "sample", "recipes")

#: Told with four digits: the last bits of a forward pass depend on what else was in its batch.
_NUMBERS = ("probability", "threshold", "quality", "agreement", "completeness")
_DIGITS = 4
_BLOCK = 256

#: A shard of masks, and that of the maps they were cut from.
Source = tuple[Path, Path]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What labels are made of."""

    index: Path  #: The index.
    masks: Sequence[Path]  #: Shards of masks, in the order of the index.
    relevance: Sequence[Path]  #: Shards of the maps they were cut from, in the same order.
    committee: Sequence[Path]  #: Folders of the members that explained.
    sanity: Path  #: What the stage sanity says about the recipe.


def collect_labels(config: Config, inputs: Inputs, output: Path) -> None:
    """Gather the masks of the released recipe, which segmenters learn from.

    The folder is written whole or not at all, and read again before it gets its name. Pairs that
    were gated out or whose mask is empty are left out.

    Args:
        config: The resolved configuration.
        inputs: What earlier stages made.
        output: Folder to make.

    Raises:
        DataError: If there is not a single mask to release, or the recipe failed its sanity checks
            and ``release.allow_failed_sanity`` is off.
        ArtifactError: If shards do not fit each other.
    """
    _require_sanity(inputs.sanity, config.release.allow_failed_sanity)
    index, names = read_index(inputs.index)
    header = labels_header(config, inputs.committee)
    header["findings"] = findings.localized(names, config.attribute.findings)
    turned = index.filter(pl.col("orientation") != 1).select("image_id", "orientation")
    if len(turned):
        header["orientation"] = dict(turned.iter_rows())  # true masks must be turned, too
    if len(inputs.relevance) != len(inputs.masks):
        raise ArtifactError(
            f"{len(inputs.masks)} shards of masks but {len(inputs.relevance)} of maps; give those "
            "of one recipe."
        )
    files = _plan(index, list(zip(inputs.masks, inputs.relevance, strict=True)))
    if not files:
        raise DataError("no mask is left to release; loosen the gates of the released recipe.")
    with atomic_path(output) as folder:
        folder.mkdir()
        with mapping(cores()) as spread:
            list(spread(_write_file, files, repeat(folder), repeat(header), repeat(config)))
        tables.write(_list_images(index, inputs.masks), folder / "images.parquet", header)
        write_json(folder / "provenance.json", header)
        faults = compare_masks(folder, cores())
        if faults:
            raise ArtifactError(f"{faults[0]}; the disk is not to be trusted, try another one.")
        write_text(folder / CHECKSUMS, checksums(folder))


def labels_header(config: Config, committee: Sequence[Path]) -> Tree:
    """Provenance of the masks; recipes and members that have no part in them are left out."""
    release = {key: config.release.dump()[key] for key in ("recipe", "relevance")}
    settings = {**recorded(config), "release": release}
    members = {folder.name: read_json(folder / "model.json") for folder in committee}
    inputs = {name: member["sha256"] for name, member in members.items()}
    return provenance.header("labels", settings, seed=config.seed, inputs=inputs)


def recorded(config: Config) -> Tree:
    """What a release tells of its configuration: what masks are made by, and section release."""
    made_by = reads.of_labels(config).dump()
    settings = {key: made_by[key] for key in (*SECTIONS, "release")}
    settings["prepare"] = {k: v for k, v in made_by["prepare"].items() if k != "shards"}
    return settings


def _require_sanity(file: Path, allow_failed: bool) -> None:
    """Refuse maps that fail a check or that could not be checked."""
    checks = read_json(file)
    reasons = {
        "ignores_model": "lead to the same masks when the networks' weights are random",
        "ignores_finding": "are the same for every finding of an image",
    }
    unknown = {
        "ignores_model": "could not be compared with those of random weights (see section sample)",
        "ignores_finding": "could not be compared with those of another finding (see sample)",
    }
    failed = [reason for check, reason in reasons.items() if checks[check]]
    failed += [reason for check, reason in unknown.items() if checks[check] is None]
    recipe = checks["recipe"]
    if failed and not allow_failed:
        raise DataError(
            f"the maps of recipe {recipe!r} {' and '.join(failed)}: they are no evidence for a "
            f"finding. {file.with_suffix('.png')} shows the masks beside those of random weights. "
            "If they are not what you want, train the classifiers better or change the recipe; if "
            "they are, set release.allow_failed_sanity ('When the masks are refused' in "
            "docs/how-to/own-images.md says in which order)."
        )


def _list_images(index: pl.DataFrame, masks: Sequence[Path]) -> pl.DataFrame:
    """Every image of the index, and whether any of its findings was explained at all."""
    seen: set[str] = set()
    for path in masks:
        with Shard(path, "masks") as shard:
            seen.update(shard.table().get("image_id", ()))
    explained = pl.Series("explained", [i in seen for i in index["image_id"]], dtype=pl.Boolean)
    return index.with_columns(explained).select(pl.col(n).cast(t) for n, t in IMAGES.items())


def read_pairs(index: pl.DataFrame, masks: Sequence[Path]) -> pl.DataFrame:
    """Rows of a recipe's masks of the images of an index, with the columns of a release."""
    images = {row["image_id"]: row for row in index.to_dicts()}
    rows = []
    for path in masks:
        chosen = _chosen(path, images)
        with Shard(path, "masks") as shard:
            table = shard.table()
            for i, image in chosen:
                rows.append(_row(table, i, images[image], shard.read("mask", i)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


# --- files and their rows -------------------------------------------------------------------------

#: A row of the tables, and its arrays (S, S) by name.
_Pair = tuple[Row, dict[str, npt.NDArray[Any]]]


class _File(NamedTuple):
    """A file of ``data/`` and one of ``masks/``, same rows in the same order."""

    name: tuple[str, int, int]  #: The split, and its number among how many files of the split.
    #: Rows of shards, in the order of the file; no shard without a row.
    rows: list[tuple[Source, list[int]]]
    images: pl.DataFrame  #: Rows of the index of its images.


def _plan(index: pl.DataFrame, shards: Sequence[Source]) -> list[_File]:
    """The files to write: pairs with a mask that is kept and not empty, none without a row."""
    split_of = dict(index.select("image_id", "split").iter_rows())
    found: dict[str, list[tuple[Source, int, str]]] = {split: [] for split in SPLITS}
    for source in shards:
        for row, image in _chosen(source[0], split_of):
            found[split_of[image]].append((source, row, image))
    files = []
    for split, pairs in found.items():
        starts = range(0, len(pairs), ROWS_PER_FILE)
        pieces = [pairs[start : start + ROWS_PER_FILE] for start in starts]
        for number, piece in enumerate(pieces):
            rows = [
                (source, [row for _, row, _ in group])
                for source, group in groupby(piece, key=itemgetter(0))
            ]
            mine = index.filter(pl.col("image_id").is_in([image for _, _, image in piece]))
            files.append(_File((split, number, len(pieces)), rows, mine))
    return files


def _write_file(file: _File, folder: Path, header: Tree, config: Config) -> None:
    images = {row["image_id"]: row for row in file.images.to_dicts()}
    rows = _rows(file.rows, images, config.release.relevance)
    masks, data = (folder / part_name(kind, *file.name) for kind in ("masks", "data"))
    parts = []
    with create_shard(masks, "masks", header, gzip=True) as writer:
        # What is written in one piece decides how HDF5 lays out a file: blocks of one length,
        # whatever the shards are, give the same bytes.
        while block := list(islice(rows, _BLOCK)):
            part = pl.DataFrame([row for row, _ in block], schema=SCHEMA, orient="row")
            names = {k: part[k].to_numpy().astype(object) for k in ("image_id", "finding")}
            arrays = {k: np.stack([a[k] for _, a in block]) for k in block[0][1]}
            writer.append({**names, "quality": part["quality"].to_numpy()}, **arrays)
            parts.append(part)
    tables.write(pl.concat(parts), data, header)


def _chosen(path: Path, images: Container[str]) -> list[tuple[int, str]]:
    """Rows of these images with a mask that is kept and not empty, and the images."""
    with Shard(path, "masks") as shard:
        table = shard.table()
    pairs = zip(*(table.get(name, ()) for name in ("image_id", "kept", "area")), strict=True)
    return [
        (i, image)
        for i, (image, kept, area) in enumerate(pairs)
        if kept and area > 0 and image in images
    ]


def _rows(
    wanted: Sequence[tuple[Source, list[int]]], images: Mapping[str, Row], relevance: bool
) -> Iterator[_Pair]:
    for (path, maps_path), chosen in wanted:
        with Shard(path, "masks") as shard, Shard(maps_path, "relevance") as maps:
            table, _ = tables_of_pairs(shard, maps)
            for start in range(0, len(table.get("image_id", ())), _BLOCK):
                here = chosen[bisect_left(chosen, start) : bisect_left(chosen, start + _BLOCK)]
                masks, values = _read(shard, "mask", start, here), _read(maps, "map", start, here)
                for i, mask, value in zip(here, masks, values, strict=True):
                    level = level_set(mask, value, float(table["threshold"][i]))
                    arrays = {"mask": mask, "level": level}
                    if relevance:
                        arrays["relevance"] = _to_bytes(value)
                    yield _row(table, i, images[table["image_id"][i]], mask), arrays


def _read(shard: Shard, name: str, start: int, rows: Sequence[int]) -> Sequence[npt.NDArray[Any]]:
    """Some rows of a block, few of them by themselves; h5py is slow with lists of rows."""
    if len(rows) < _BLOCK // 4:
        return [shard.read(name, row) for row in rows]
    block = shard.read(name, slice(start, start + _BLOCK))
    return [block[row - start] for row in rows]


def _to_bytes(maps: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Maps with maximum 1 in 255 steps; what speaks against the finding becomes 0."""
    return np.rint(np.clip(maps.astype(np.float32), 0, 1) * 255).astype(np.uint8)


def _row(
    table: Mapping[str, npt.NDArray[Any]], i: int, image: Row, mask: npt.NDArray[np.uint8]
) -> Row:
    foreground = mask == 1
    area, box = measure(foreground)
    left, top, wide, tall = box
    return {
        **{name: image[name] for name in IMAGE},
        "finding": table["finding"][i],
        "label": table["label"][i].item(),
        **{name: round(table[name][i].item(), _DIGITS) for name in _NUMBERS},
        "size": list(mask.shape),
        "counts": encode(foreground),
        "area": area,
        "box": box,
        "components": int(ndimage.label(foreground[top : top + tall, left : left + wide])[1]),
    }
