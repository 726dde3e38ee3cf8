"""Verify: is a release whole, and do its parts agree?"""

from pathlib import Path

import numpy as np
import polars as pl

from dollmaker import tables
from dollmaker.errors import ArtifactError, DataError, DollmakerError
from dollmaker.files import inside, sha256_file
from dollmaker.prepare.splits import assert_disjoint
from dollmaker.release.collect import SCHEMA, SPLITS
from dollmaker.release.stage import CHECKSUMS
from dollmaker.rle import decode
from dollmaker.shards import Shard

_BLOCK = 512


def verify(folder: Path, images: Path | None = None) -> list[str]:
    """Everything that is wrong with a release; an empty list if nothing is.

    Checked: every file's sha256, files that are missing or not listed, the schema of the tables,
    size and content of every RLE against the mask files, patients in one split only.

    Args:
        folder: The release.
        images: Root of the user's copy of the source images: every image that the release has a
            mask of must be there, byte for byte.

    Raises:
        ArtifactError: If the folder is no release at all.
    """
    if not (folder / CHECKSUMS).is_file():
        raise ArtifactError(f"{folder} holds no {CHECKSUMS}; give the folder of a release.")
    faults = _verify_checksums(folder)
    parts = []
    for split in SPLITS:
        try:
            parts.append(_verify_split(folder, split, faults))
        except DollmakerError as error:
            faults.append(str(error))
    try:
        rows = pl.concat(part.select("patient_id", "split") for part in parts if len(part))
        assert_disjoint(rows)
    except (DataError, ValueError) as error:
        faults.append(str(error))
    if images is not None:
        faults += [fault for part in parts for fault in _verify_images(part, images)]
    return faults


def _verify_images(table: pl.DataFrame, root: Path) -> list[str]:
    faults = []
    for name, digest in table.select("path", "sha256").unique(maintain_order=True).iter_rows():
        try:
            path = inside(root, name)
        except DataError as error:
            faults.append(str(error))
            continue
        if not path.is_file():
            faults.append(f"image {name}: missing under {root}")
        elif sha256_file(path) != digest:
            faults.append(f"image {name}: not the file that the masks were made from")
    return faults


def _verify_checksums(folder: Path) -> list[str]:
    faults, listed = [], set()
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        listed.add(name)
        try:
            path = inside(folder, name)
        except DataError as error:
            faults.append(f"{CHECKSUMS}: {error}")
            continue
        if not path.is_file():
            faults.append(f"{name}: missing")
        elif sha256_file(path) != digest:
            faults.append(f"{name}: sha256 differs")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != CHECKSUMS and name not in listed:
            faults.append(f"{name}: not listed in {CHECKSUMS}")
    return faults


def _verify_split(folder: Path, split: str, faults: list[str]) -> pl.DataFrame:
    name = f"data/{split}.parquet"
    table = tables.read(folder / name)
    if dict(table.schema) != {k: v() if isinstance(v, type) else v for k, v in SCHEMA.items()}:
        faults.append(f"{name}: columns or types are not those of a release")
        return pl.DataFrame(schema=SCHEMA)
    if table.filter(pl.col("split") != split).height:
        faults.append(f"{name}: holds rows of another split")
    with Shard(folder / "masks" / f"{split}.h5", "masks") as shard:
        columns = shard.table()
        same = all(columns[key].tolist() == table[key].to_list() for key in ("image_id", "finding"))
        if not same:
            faults.append(f"masks/{split}.h5: rows differ from {name}")
            return table
        for start in range(0, len(table), _BLOCK):
            part = table[start : start + _BLOCK]
            masks = shard.read("mask", slice(start, start + len(part)))
            for row, mask in zip(part.iter_rows(named=True), masks, strict=True):
                where = f"{name}: {row['image_id']} / {row['finding']}"
                if row["size"] != list(mask.shape):
                    faults.append(f"{where}: size differs from the mask file")
                    continue
                try:
                    rle = decode(row["counts"], *row["size"])
                except DataError as error:
                    faults.append(f"{where}: {error}")
                    continue
                if not np.array_equal(rle, mask == 1) or row["area"] != int(rle.sum()):
                    faults.append(f"{where}: RLE, area and mask file differ")
    return table
