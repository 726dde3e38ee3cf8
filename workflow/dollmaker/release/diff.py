"""What changed from one release to another."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dollmaker.measures import scores
from dollmaker.release.parts import KEY
from dollmaker.release.read import read_release, square_mask
from dollmaker.store.files import write_json


def diff(old_folder: Path, new_folder: Path) -> dict[str, Any]:
    """Compare two releases mask by mask.

    Returns:
        ``versions``, and ``findings``: one row per finding and ``all``: masks in the old and in
        the new, added, removed, changed (of those in both), mean IoU of those in both (1 where
        nothing changed, null without any, not counted where the squares differ in size), mean
        area in pixels of both.

    Raises:
        ArtifactError: If a folder is no release.
    """
    old, new = read_release(old_folder), read_release(new_folder)
    columns = [*KEY, "counts", "size", "area"]
    both = old.table.select(columns).join(
        new.table.select(columns), on=KEY, how="full", coalesce=True, suffix="_new"
    )
    rows = []
    for finding in ["all", *dict.fromkeys([*old.findings, *new.findings])]:
        part = both if finding == "all" else both.filter(finding=finding)
        there, then = part["counts_new"].is_not_null(), part["counts"].is_not_null()
        kept = part.filter(there & then)
        differs = (kept["counts"] != kept["counts_new"]) | (kept["size"] != kept["size_new"])
        overlaps = [1.0] * int((~differs).sum())
        overlaps += [
            float(scores.iou(square_mask(row), square_mask(_renamed(row))))
            for row in kept.filter(differs).iter_rows(named=True)
            if row["size"] == row["size_new"]
        ]
        rows.append(
            {
                "finding": finding,
                "old": int(then.sum()),
                "new": int(there.sum()),
                "added": int((there & ~then).sum()),
                "removed": int((then & ~there).sum()),
                "changed": int(differs.sum()),
                "iou": float(np.mean(overlaps)) if overlaps else None,
                "area_old": part["area"].mean(),
                "area_new": part["area_new"].mean(),
            }
        )
    return {"versions": [old.version, new.version], "findings": rows}


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    return {"counts": row["counts_new"], "size": row["size_new"]}


def describe(result: dict[str, Any]) -> str:
    """The comparison as text."""
    old, new = result["versions"]
    with pl.Config(
        tbl_hide_dataframe_shape=True, tbl_rows=-1, tbl_cols=-1, tbl_hide_column_data_types=True,
        tbl_width_chars=200,
    ):  # fmt: skip
        return f"{old} -> {new}\n{pl.DataFrame(result['findings'])}"


def tell_changes(old: Path, new: Path, /, json: Path | None = None) -> str:
    """Tell what changed from one release to another, mask by mask.

    Args:
        old: Folder of the older release.
        new: Folder of the newer release.
        json: Write the numbers to this file.
    """
    result = diff(old, new)
    if json:
        write_json(json, result)
    return describe(result)
