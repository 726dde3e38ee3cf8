"""Verify: is a release whole, and do its parts agree?"""

import multiprocessing
import os
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from dollmaker.pixels.geometry import Fit
from dollmaker.prepare.splits import assert_disjoint
from dollmaker.release import formats
from dollmaker.release.bounds import BOUNDS, read_bounds, wrong_bounds
from dollmaker.release.parts import IMAGES, SPLITS, find_parts, is_table
from dollmaker.release.polygons import paint_all
from dollmaker.release.source import SourceMask, to_source
from dollmaker.runtime.errors import DataError, DollmakerError
from dollmaker.store import rle, tables
from dollmaker.store.checksums import verify_checksums
from dollmaker.store.files import inside, read_json, sha256_file
from dollmaker.store.shards import Shard

_BLOCK = 512

#: A row of the tables with its mask at the size of the source.
_Pair = tuple[dict[str, Any], SourceMask]


def verify(folder: Path, images: Path | None = None, workers: int = 1) -> list[str]:
    """Everything that is wrong with a release; an empty list if nothing is.

    Checked: every file's sha256, files that are missing or not listed, the schema of the tables,
    every RLE, area and box against the mask files, bounds of the IoU against bounds.json, the JSON
    files of CheXlocalize and COCO against both, patients in one split only. What a damaged file
    says is not compared with others.

    Args:
        folder: The release.
        images: Root of the user's copy of the source images: every image that the release has a
            mask of must be there, byte for byte.
        workers: Processes for the masks of a large release. With more than one, a script that
            calls this needs the usual ``if __name__ == "__main__"``.

    Raises:
        ArtifactError: If the folder is no release at all.
    """
    damaged = verify_checksums(folder)
    faults = [f"{name}: {fault}" for name, fault in damaged.items()]
    with _Workers(workers) as pool:
        for check in (_verify_patients, _verify_bounds, _verify_formats):
            try:
                faults += check(folder, damaged, pool)
            except DollmakerError as error:
                faults += [str(error)] * (not damaged)
    if images is not None:
        faults += _verify_images(folder, damaged, images)
    return faults


class _Workers:
    """Runs blocks of work in processes, if there are enough of them to start any."""

    def __init__(self, workers: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._workers = workers
        self._pool = ProcessPoolExecutor(workers, spawn)

    def map(self, function: Callable[..., Any], blocks: Sequence[Any], *more: Any) -> Iterator[Any]:
        """As :func:`map`."""
        many = self._workers > 1 and len(blocks) > 2 * self._workers
        return (self._pool.map if many else map)(function, blocks, *more)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()


def compare_masks(folder: Path) -> list[str]:
    """Where tables and mask files of a folder differ."""
    faults: list[str] = []
    with _Workers(1) as pool:
        for split in SPLITS:
            list(_compare_split(folder, split, {}, None, faults, pool))
    return faults


def _verify_patients(folder: Path, damaged: Container[str], _: _Workers) -> list[str]:
    """Images and patients of the tables are those of images.parquet, each in one split."""
    if "images.parquet" in damaged:
        return []
    images = tables.read(folder / "images.parquet")
    if dict(images.schema) != dict(pl.DataFrame(schema=IMAGES).schema):
        return ["images.parquet: columns or types are not those of a release"]
    faults = []
    try:
        assert_disjoint(images)
    except DataError as error:
        faults.append(f"images.parquet: {error}")
    facts = [name for name in IMAGES if name != "explained"]
    known = images.select(facts)
    for path in _tables(folder, damaged):
        rows = tables.read(path)
        if set(facts) <= set(rows.columns) and len(rows.join(known, on=facts, how="anti")):
            name = path.relative_to(folder)
            faults.append(f"{name}: an image is not, or not so, in images.parquet")
    return faults


def _verify_bounds(folder: Path, damaged: Container[str], _: _Workers) -> list[str]:
    """Bounds of the tables are those that bounds.json gives."""
    if BOUNDS in damaged:
        return []
    facts = read_bounds(folder)
    return [
        f"{path.relative_to(folder)}: bounds of the IoU are not those of {BOUNDS}"
        for path in _tables(folder, damaged)
        if is_table(table := tables.read(path)) and wrong_bounds(table, facts)
    ]


def _tables(folder: Path, damaged: Container[str]) -> list[Path]:
    paths = [path for split in SPLITS for path in find_parts(folder, "data", split)]
    return [path for path in paths if path.relative_to(folder).as_posix() not in damaged]


def _verify_formats(folder: Path, damaged: Container[str], pool: _Workers) -> list[str]:
    """Tables, mask files and JSON files hold the same masks."""
    faults: list[str] = []
    if "provenance.json" in damaged or "images.parquet" in damaged:
        return faults
    provenance = read_json(folder / "provenance.json")
    findings, fit = provenance["findings"], provenance["config"]["prepare"]["fit"]
    images = tables.read(folder / "images.parquet")
    for split in SPLITS:
        pairs = list(_compare_split(folder, split, damaged, fit, faults, pool))
        of_split = images.filter(split=split)
        if of_split.is_empty() or None in pairs:
            continue
        rows, masks = [p[0] for p in pairs if p], [p[1] for p in pairs if p]
        name = f"chexlocalize/{split}.json"
        if name not in damaged:
            expected = dict(formats.chexlocalize(of_split, rows, masks, findings))
            faults += _compare_json(folder, name, expected)
        name = f"coco/{split}.json"
        if name not in damaged:
            content = formats.coco(rows, masks, findings)
            faults += _compare_coco(folder, name, content, [m for m in masks if m.area], pool)
    return faults


def _compare_coco(
    folder: Path, name: str, expected: dict[str, Any], masks: list[SourceMask], pool: _Workers
) -> list[str]:
    """As :func:`_compare_json`, but polygons are painted: what they say is the mask."""
    found = read_json(folder / name)
    try:
        polygons = [entry.pop("segmentation") for entry in found["annotations"]]
        for entry in expected["annotations"]:
            del entry["segmentation"]
    except (AttributeError, KeyError, TypeError):
        return [f"{name}: is no file of COCO's with polygons"]
    faults = _differences(name, found, expected)
    if faults:
        return faults
    sizes = {image["id"]: (image["width"], image["height"]) for image in expected["images"]}
    of_image = [sizes[entry["image_id"]] for entry in expected["annotations"]]
    parts = [slice(start, start + _BLOCK) for start in range(0, len(masks), _BLOCK)]
    painted = pool.map(paint_all, [polygons[p] for p in parts], [of_image[p] for p in parts])
    counts = [code for block in painted for code in block]
    return [
        f"{name}: annotation {number} differs from tables and mask files"
        for number, (code, mask) in enumerate(zip(counts, masks, strict=True), start=1)
        if code != mask.counts
    ]


def _compare_json(folder: Path, name: str, expected: dict[str, Any]) -> list[str]:
    return _differences(name, read_json(folder / name), expected)


def _differences(name: str, found: Any, expected: dict[str, Any]) -> list[str]:
    if found == expected:
        return []
    keys = set(expected) | set(found) if isinstance(found, dict) else set()
    where = [key for key in sorted(keys) if found.get(key) != expected.get(key)][:3]
    return [f"{name}: differs from tables and mask files at {', '.join(where) or 'its root'}"]


def _compare_split(
    folder: Path,
    split: str,
    damaged: Container[str],
    fit: Fit | None,
    faults: list[str],
    pool: _Workers,
) -> Iterator[_Pair | None]:
    """Compare tables and mask files of a split; faults are added to the list.

    Yields:
        Every row with its mask at the size of the source, if ``fit`` is given; ``None`` for what
        could not be compared.
    """
    parts = [find_parts(folder, kind, split) for kind in ("data", "masks")]
    if len(parts[0]) != len(parts[1]):
        faults.append(f"masks/: not as many files of {split!r} as in data/")
        yield None
        return
    for paths in zip(*parts, strict=True):
        name, other = (path.relative_to(folder).as_posix() for path in paths)
        table = None
        if name not in damaged and other not in damaged:
            try:
                table = _read_part(paths[0], paths[1], name, other, split, faults)
            except DollmakerError as error:
                faults.append(str(error))
        if table is None:
            yield None
            continue
        starts = range(0, len(table), _BLOCK)
        blocks = [table[start : start + _BLOCK].to_dicts() for start in starts]
        done = pool.map(_compare_block, blocks, starts, repeat(paths[1]), repeat(fit))
        for rows, (wrong, masks) in zip(blocks, done, strict=True):
            faults += [f"{name}: {fault}" for fault in wrong]
            yield from zip(rows, masks, strict=True) if masks else [None]


def _read_part(
    data: Path, masks: Path, name: str, other: str, split: str, faults: list[str]
) -> pl.DataFrame | None:
    table = tables.read(data)
    if not is_table(table):
        faults.append(f"{name}: columns or types are not those of a release")
        return None
    if table.filter(pl.col("split") != split).height:
        faults.append(f"{name}: holds rows of another split")
    with Shard(masks, "masks") as shard:
        columns = shard.table()
    for key in ("image_id", "finding", "quality"):
        if columns[key].tolist() != table[key].to_list():
            faults.append(f"{other}: rows differ from {name}")
            return None
    return table


def _compare_block(
    rows: list[dict[str, Any]], start: int, path: Path, fit: Fit | None
) -> tuple[list[str], list[SourceMask]]:
    """Rows of a table against the arrays from ``start`` on; nothing is decoded, codes are equal."""
    from pycocotools import mask as coco

    try:
        with Shard(path, "masks") as shard:
            block = slice(start, start + len(rows))
            masks, levels = shard.read("mask", block) == 1, shard.read("level", block)
    except DollmakerError as error:
        return [str(error)], []
    if len(masks) != len(rows) or len(levels) not in (0, len(rows)):
        return [f"{path.name} has fewer masks than rows"], []
    columns: Any = np.ascontiguousarray(masks.transpose(0, 2, 1))
    codes = coco.encode(columns.view(np.uint8).transpose(2, 1, 0))
    faults = []
    across, down = columns.any(2), masks.any(2)
    for k, (row, code) in enumerate(zip(rows, codes, strict=True)):
        where = f"{row['image_id']} / {row['finding']}"
        if row["size"] != list(masks.shape[1:]):
            faults.append(f"{where}: size differs from the mask file")
        elif row["counts"] != code["counts"].decode("ascii"):
            faults.append(f"{where}: {_judge(row)}")
        elif [row["area"], row["box"]] != _measure(masks[k], across[k], down[k]):
            faults.append(f"{where}: area or box is not that of the mask")
        elif len(levels) and not np.array_equal(levels[k] > 0, masks[k]):
            faults.append(f"{where}: level set and mask differ")
    if fit is None:
        return faults, []
    sizes = [(row["width"], row["height"]) for row in rows]
    # Releases of earlier versions have no level sets: they know the outline by pixels only.
    return faults, to_source(list(levels) or list(masks), sizes, fit)


def _judge(row: dict[str, Any]) -> str:
    """What is wrong with counts that are not those of the mask."""
    try:
        rle.decode(row["counts"], *row["size"])
    except DataError as error:
        return str(error)
    return "RLE and mask file differ"


def _measure(mask: Any, across: Any, down: Any) -> list[Any]:
    """Area and box of a mask, given which of its columns and rows have a pixel."""
    columns, rows = np.flatnonzero(across), np.flatnonzero(down)
    if not len(columns):
        return [0, [0, 0, 0, 0]]
    left, top = int(columns[0]), int(rows[0])
    sides = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
    return [int(np.count_nonzero(mask)), sides]


def _verify_images(folder: Path, damaged: Container[str], root: Path) -> list[str]:
    """The user's copies of the images with a mask."""
    if not root.is_dir():
        return [f"folder of images {root} does not exist"]
    parts = [tables.read(path).select("path", "sha256") for path in _tables(folder, damaged)]
    if not parts:
        return []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(
            lambda row: _verify_image(row[0], row[1], root),
            pl.concat(parts).unique(maintain_order=True).rows(),
        )
        return [fault for fault in found if fault]


def _verify_image(name: str, digest: str, root: Path) -> str:
    try:
        path = inside(root, name, links=True)
    except DataError as error:
        return str(error)
    if not path.is_file():
        return f"image {name}: missing under {root}"
    if sha256_file(path) != digest:
        return f"image {name}: not the file that the masks were made from"
    return ""
