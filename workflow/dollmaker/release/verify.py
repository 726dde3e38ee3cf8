"""Verify: is a release whole, and do its parts agree?"""

import multiprocessing
import os
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl

from dollmaker.pixels.geometry import Fit
from dollmaker.prepare.splits import assert_disjoint
from dollmaker.release import formats
from dollmaker.release.bounds import BOUNDS, read_bounds, wrong_bounds
from dollmaker.release.formats import Form
from dollmaker.release.parts import IMAGES, KINDS, SCHEMA, SPLITS, find_parts, is_table
from dollmaker.release.signature import verify_signature
from dollmaker.release.source import SourceMask, to_source
from dollmaker.runtime.errors import ArtifactError, DataError, DollmakerError
from dollmaker.store import rle, tables
from dollmaker.store.files import inside, read_json, sha256_file
from dollmaker.store.shards import Shard
from dollmaker.store.sums import verify_checksums

_BLOCK = 512


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


def require_whole(
    release_folder: Path, /, images: Path | None = None, key: Path | None = None
) -> str:
    """Check that a release is whole and consistent.

    Args:
        release_folder: Folder of the release.
        images: Root of your copy of the source images, which are checked, too.
        key: Public key (.pub) of who signed the release.

    Raises:
        ArtifactError: With all that is wrong with it.
    """
    faults = verify(release_folder, images, os.cpu_count() or 1)
    if key:
        faults += verify_signature(release_folder, key)
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise ArtifactError(
            f"{release_folder} has {len(faults)} faults; get the release (or the images that are "
            f"named) again:\n{listed}"
        )
    return f"{release_folder} is whole."


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
            for part in _read_parts(folder, split, {}, faults):
                list(_compare_part(part, None, faults, pool))
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
    polygons = provenance.get("format") == 1  # releases of version 0.1
    images = tables.read(folder / "images.parquet")
    for split in SPLITS:
        parts = _read_parts(folder, split, damaged, faults)
        masks = chain.from_iterable(
            _compare_part(part, fit, faults, pool, polygons=polygons) for part in parts
        )
        of_split = images.filter(split=split)
        try:
            if None not in parts and len(of_split):
                known = [pl.DataFrame(schema=SCHEMA), *(part.table for part in parts if part)]
                table = pl.concat(known, how="diagonal")
                text = formats.pieces(of_split, table, masks, findings)
                faults += _compare_texts(folder, split, text, damaged)
            else:
                list(masks)
        except DollmakerError as error:
            faults.append(str(error))
    return faults


def _compare_texts(
    folder: Path, split: str, pieces: Iterable[tuple[Form, str]], damaged: Container[str]
) -> list[str]:
    """Where the JSON files of a split are not the text that tables and mask files give."""
    faults: list[str] = []
    with ExitStack() as stack:
        files = {}
        for form in formats.FORMS:
            name = f"{form}/{split}.json"
            if not (folder / name).is_file():
                faults += [f"{name}: missing"] * (name not in damaged)
            elif name not in damaged:
                file = (folder / name).open(encoding="utf-8", errors="replace", newline="")
                files[form] = stack.enter_context(file)
        line = dict.fromkeys(files, 1)
        for form, text in chain(pieces, ((form, "") for form in formats.FORMS)):
            if form in files:
                found = files[form].read(len(text) or 1)  # nothing may follow the last piece
                alike = [a == b for a, b in zip(text, found, strict=False)]
                line[form] += text[: [*alike, False].index(False)].count("\n")
                if found != text:
                    where = f"{form}/{split}.json: differs from tables and mask files"
                    faults.append(f"{where} in line {line[form]}")
                    del files[form]
    return faults


class _Part(NamedTuple):
    """A table and its mask file, whose rows are the same."""

    name: str
    table: pl.DataFrame
    masks: Path


def _read_parts(
    folder: Path, split: str, damaged: Container[str], faults: list[str]
) -> list[_Part | None]:
    """The files of a split, ``None`` for what cannot be compared; faults are added to the list."""
    data, masks = (find_parts(folder, kind, split) for kind in KINDS)
    if len(data) != len(masks):
        faults.append(f"masks/: not as many files of {split!r} as in data/")
        return [None]
    parts: list[_Part | None] = []
    for paths in zip(data, masks, strict=True):
        name, other = (path.relative_to(folder).as_posix() for path in paths)
        table = None
        if name not in damaged and other not in damaged:
            try:
                table = _read_part(paths[0], paths[1], name, other, split, faults)
            except DollmakerError as error:
                faults.append(str(error))
        parts.append(None if table is None else _Part(name, table, paths[1]))
    return parts


def _compare_part(
    part: _Part | None,
    fit: Fit | None,
    faults: list[str],
    pool: _Workers,
    *,
    polygons: bool = False,
) -> Iterator[SourceMask]:
    """Compare a table and its mask file; faults are added to the list.

    Yields:
        The masks at the size of the source, if ``fit`` is given.

    Raises:
        ArtifactError: If masks cannot be read.
    """
    if part is None:
        return
    starts = range(0, len(part.table), _BLOCK)
    blocks = [part.table[start : start + _BLOCK].to_dicts() for start in starts]
    more = repeat(part.masks), repeat(fit), repeat(polygons)
    for wrong, masks in pool.map(_compare_block, blocks, starts, *more):
        if masks is None:
            raise ArtifactError(wrong[0])
        faults += [f"{part.name}: {fault}" for fault in wrong]
        yield from masks


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
    rows: list[dict[str, Any]], start: int, path: Path, fit: Fit | None, polygons: bool
) -> tuple[list[str], list[SourceMask] | None]:
    """Rows of a table against the arrays from ``start`` on; nothing is decoded, codes are equal."""
    from pycocotools import mask as coco

    try:
        with Shard(path, "masks") as shard:
            block = slice(start, start + len(rows))
            masks, levels = shard.read("mask", block) == 1, shard.read("level", block)
    except DollmakerError as error:
        return [str(error)], None
    if len(masks) != len(rows) or len(levels) not in (0, len(rows)):
        return [f"{path.name} has fewer masks than rows"], None
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
    return faults, to_source(list(levels) or list(masks), sizes, fit, polygons=polygons)


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
