"""Verify: is a release whole, and do its parts agree?"""

import subprocess
import tempfile
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, repeat
from os.path import commonprefix
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from pycocotools import mask as coco

from dollmaker.pixels.geometry import Fit
from dollmaker.prepare.listing import assert_disjoint
from dollmaker.release import formats
from dollmaker.release.bounds import BOUNDS, read_bounds, wrong_bounds
from dollmaker.release.formats import Form
from dollmaker.release.parts import IMAGE, IMAGES, KINDS, SCHEMA, SPLITS, Row, find_parts, is_table
from dollmaker.release.read import read_origin
from dollmaker.release.sanity import read_sanity
from dollmaker.release.source import SourceMask, measure, to_source
from dollmaker.runtime.cores import Spread, cores, mapping
from dollmaker.runtime.errors import ArtifactError, ConfigError, DataError, DollmakerError
from dollmaker.store import rle, tables
from dollmaker.store.files import inside, read_json, sha256_file
from dollmaker.store.shards import Shard
from dollmaker.store.sums import CHECKSUMS, SIGNATURE, verify_checksums

_BLOCK = 512

#: What signatures are for (``ssh-keygen -Y sign -n``), so that none for another end counts.
_NAMESPACE = "dollmaker"


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
    with mapping(workers) as spread:
        for check in (_verify_patients, _verify_bounds, _verify_formats):
            try:
                faults += check(folder, damaged, spread)
            except DollmakerError as error:
                faults += [str(error)] * (not damaged)
    if images is not None:
        faults += _verify_images(folder, damaged, images)
    return faults


def require_whole(
    release_folder: Path, /, images: Path | None = None, key: Path | None = None
) -> str:
    """Check that a release is whole and consistent, and tell what its sanity checks say.

    Args:
        release_folder: Folder of the release.
        images: Root of your copy of the source images, which are checked, too.
        key: Public key (.pub) of who signed the release.

    Raises:
        ArtifactError: With all that is wrong with it.
    """
    faults = verify(release_folder, images, cores())
    if key:
        faults += verify_signature(release_folder, key)
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults)
        raise ArtifactError(
            f"{release_folder} has {len(faults)} faults; get the release (or the images that are "
            f"named) again:\n{listed}"
        )
    sanity = read_sanity(release_folder)
    return f"{release_folder} is whole." + (f"\n{sanity.tell()}" if sanity else "")


def compare_masks(folder: Path, workers: int = 1) -> list[str]:
    """Where tables and mask files of a folder differ."""
    faults: list[str] = []
    with mapping(workers) as spread:
        for split in SPLITS:
            for part in _read_parts(folder, split, {}, faults):
                list(_compare_part(part, None, faults, spread))
    return faults


# --- tables -------------------------------------------------------------------------------------


def _verify_patients(folder: Path, damaged: Container[str], _: Spread) -> list[str]:
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
    facts = list(IMAGE)
    known = images.select(facts)
    for name, rows in _tables(folder, damaged):
        if set(facts) <= set(rows.columns) and len(rows.join(known, on=facts, how="anti")):
            faults.append(f"{name}: an image is not, or not so, in images.parquet")
    return faults


def _verify_bounds(folder: Path, damaged: Container[str], _: Spread) -> list[str]:
    """Bounds of the tables are those that bounds.json gives."""
    if BOUNDS in damaged:
        return []
    facts = read_bounds(folder)
    return [
        f"{name}: bounds of the IoU are not those of {BOUNDS}"
        for name, table in _tables(folder, damaged)
        if is_table(table) and wrong_bounds(table, facts)
    ]


def _tables(folder: Path, damaged: Container[str]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Names and rows of the files of ``data/`` that are not damaged."""
    for path in chain.from_iterable(find_parts(folder, "data", split) for split in SPLITS):
        name = path.relative_to(folder).as_posix()
        if name not in damaged:
            yield name, tables.read(path)


def _verify_images(folder: Path, damaged: Container[str], root: Path) -> list[str]:
    """The user's copies of the images with a mask."""
    if not root.is_dir():
        return [f"folder of images {root} does not exist"]
    parts = [table.select("path", "sha256") for _, table in _tables(folder, damaged)]
    if not parts:
        return []
    rows = pl.concat(parts).unique(maintain_order=True).rows()
    missing = f": missing under {root}"

    def check(image: tuple[str, str]) -> str:
        name, digest = image
        try:
            path = inside(root, name, links=True)
        except DataError as error:
            return str(error)
        if not path.is_file():
            return f"image {name}{missing}"
        changed = sha256_file(path) != digest
        return f"image {name}: not the file that the masks were made from" if changed else ""

    with ThreadPoolExecutor(cores()) as pool:
        faults = [*filter(None, pool.map(check, rows))]
    if faults and len(faults) == len(rows) and all(fault.endswith(missing) for fault in faults):
        one = rows[0][0]
        return [f"no image is under {root}; give --images the folder that {one} is relative to"]
    return faults


# --- masks --------------------------------------------------------------------------------------


def _verify_formats(folder: Path, damaged: Container[str], spread: Spread) -> list[str]:
    """Tables, mask files and JSON files hold the same masks."""
    faults: list[str] = []
    if "provenance.json" in damaged or "images.parquet" in damaged:
        return faults
    origin = read_origin(folder)
    findings, fit = origin.findings, origin.fit
    polygons = read_json(folder / "provenance.json").get("format") == 1  # of version 0.1
    images = tables.read(folder / "images.parquet")
    for split in SPLITS:
        parts = _read_parts(folder, split, damaged, faults)
        compared = (_compare_part(part, fit, faults, spread, polygons) for part in parts)
        masks = chain.from_iterable(compared)
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
            if form not in files:
                continue
            found = files[form].read(len(text) or 1)  # nothing may follow the last piece
            same = text if found == text else commonprefix([text, found])  # noqa: RUF071 (of characters)
            line[form] += same.count("\n")
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
    parts = []
    for path, other in zip(data, masks, strict=True):
        names = [one.relative_to(folder).as_posix() for one in (path, other)]
        part = None
        if not any(name in damaged for name in names):
            try:
                part = _Part(names[0], tables.read(path), other)
                wrong, whole = _wrong_rows(part, split, names[1])
            except DollmakerError as error:
                wrong, whole = [str(error)], False
            faults += wrong
            part = part if whole else None
        parts.append(part)
    return parts


def _wrong_rows(part: _Part, split: str, masks: str) -> tuple[list[str], bool]:
    """Faults of a table and the keys of its mask file, and whether masks can be compared."""
    name, table = part.name, part.table
    if not is_table(table):
        return [f"{name}: columns or types are not those of a release"], False
    faults = []
    if table.filter(pl.col("split") != split).height:
        faults.append(f"{name}: holds rows of another split")
    with Shard(part.masks, "masks") as shard:
        columns = shard.table()
    keys = ("image_id", "finding", "quality")
    whole = all(columns[key].tolist() == table[key].to_list() for key in keys)
    return faults + [f"{masks}: rows differ from {name}"] * (not whole), whole


def _compare_part(
    part: _Part | None, fit: Fit | None, faults: list[str], spread: Spread, polygons: bool = False
) -> Iterator[SourceMask]:
    """Compare a table and its mask file; faults are added to the list.

    If ``fit`` is given, yields the masks at the size of the source. An ``ArtifactError`` says that
    masks cannot be read.
    """
    if part is None:
        return
    starts = range(0, len(part.table), _BLOCK)
    blocks = [part.table[start : start + _BLOCK].to_dicts() for start in starts]
    more = repeat(part.masks), repeat(fit), repeat(polygons)
    for wrong, masks in spread(_compare_block, blocks, starts, *more):
        if masks is None:
            raise ArtifactError(wrong[0])
        faults += [f"{part.name}: {fault}" for fault in wrong]
        yield from masks


def _compare_block(
    rows: list[Row], start: int, path: Path, fit: Fit | None, polygons: bool
) -> tuple[list[str], list[SourceMask] | None]:
    """Rows of a table against the arrays from ``start`` on; nothing is decoded, codes are equal."""
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
    for k, (row, code) in enumerate(zip(rows, codes, strict=True)):
        where = f"{row['image_id']} / {row['finding']}"
        if row["size"] != list(masks.shape[1:]):
            faults.append(f"{where}: size differs from the mask file")
        elif row["counts"] != code["counts"].decode("ascii"):
            faults.append(f"{where}: {_judge(row)}")
        elif (row["area"], row["box"]) != measure(masks[k]):
            faults.append(f"{where}: area or box is not that of the mask")
        elif len(levels) and not np.array_equal(levels[k] > 0, masks[k]):
            faults.append(f"{where}: level set and mask differ")
    if fit is None:
        return faults, []
    sizes = [(row["width"], row["height"]) for row in rows]
    # Releases of earlier versions have no level sets: they know the outline by pixels only.
    return faults, to_source(list(levels) or list(masks), sizes, fit, polygons=polygons)


def _judge(row: Row) -> str:
    """What is wrong with counts that are not those of the mask."""
    try:
        rle.decode(row["counts"], *row["size"])
    except DataError as error:
        return str(error)
    return "RLE and mask file differ"


# --- signature ----------------------------------------------------------------------------------


def verify_signature(folder: Path, key: Path) -> list[str]:
    """What is wrong with OpenSSH's detached signature of SHA256SUMS; an empty list if nothing is.

    Args:
        folder: The release.
        key: Public key of its signer, as ``ssh-keygen`` writes it.

    Raises:
        ConfigError: If the key is none, or OpenSSH is not installed.
    """
    words = key.read_text(encoding="utf-8", errors="replace").split() if key.is_file() else []
    if len(words) < 2 or not words[0].startswith(("ssh-", "ecdsa-", "sk-")):
        raise ConfigError(f"{key} is no public key; give the .pub file of the signer.")
    if not (folder / SIGNATURE).is_file():
        return [f"{SIGNATURE}: missing; the release is not signed"]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as known:
        known.write(f"signer {words[0]} {words[1]}\n")
        known.flush()
        command = [
            *("ssh-keygen", "-Y", "verify", "-f", known.name, "-I", "signer"),
            *("-n", _NAMESPACE, "-s", str(folder / SIGNATURE)),
        ]
        sums = (folder / CHECKSUMS).read_bytes()
        try:
            done = subprocess.run(command, input=sums, capture_output=True, check=False)
        except FileNotFoundError:
            raise ConfigError("--key needs ssh-keygen; install OpenSSH's client.") from None
    return [f"{SIGNATURE}: is not of this key and {CHECKSUMS}"] if done.returncode else []
