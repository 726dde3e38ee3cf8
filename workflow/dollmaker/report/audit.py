"""What is in the data set: splits, findings, views, what was left out."""

from typing import Any

import polars as pl

from dollmaker.report.gather import Results
from dollmaker.store.findings import ABSENT, PRESENT, UNCERTAIN

_SPLITS = ("train", "valid", "test")


def audit(results: Results) -> dict[str, Any]:
    """Facts about the data for the page.

    Returns:
        ``splits`` (one row a split), ``findings`` (one row a finding), ``views``, ``shared``
        (patients in more than one split), ``quarantine``, ``sizes`` and ``confounding`` (one row a
        finding, part -> its row; empty if it was not measured).
    """
    index = results.index
    patients = index.group_by("patient_id").agg(pl.col("split").n_unique().alias("splits"))
    return {
        "splits": [_split(index, split) for split in _SPLITS],
        "total": {"images": len(index), "patients": index["patient_id"].n_unique()},
        "findings": [_finding(index, name) for name in results.names],
        "views": [
            (view or "not given", count)
            for view, count in index["view"].value_counts(sort=True).iter_rows()
        ],
        "shared": patients.filter(pl.col("splits") > 1).height,
        "quarantine": results.header.get("quarantine", []),
        "sizes": [_range(index[side].to_list()) for side in ("width", "height")],
        "confounding": _confounding(results.confounding),
    }


def _confounding(table: pl.DataFrame) -> dict[str, dict[str, dict[str, Any]]]:
    """Finding -> part (border, shape, both) -> its row of the audit."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in table.iter_rows(named=True):
        found.setdefault(row["finding"], {})[row["part"]] = row
    return found


def _range(values: list[int]) -> str:
    low, high = min(values, default=0), max(values, default=0)
    return str(low) if low == high else f"{low} to {high}"


def _split(index: pl.DataFrame, split: str) -> dict[str, Any]:
    rows = index.filter(pl.col("split") == split)
    return {
        "name": split,
        "images": len(rows),
        "patients": rows["patient_id"].n_unique(),
        "masks": rows["mask"].count(),
    }


def _finding(index: pl.DataFrame, name: str) -> dict[str, Any]:
    column = index[name]
    counts = {
        "present": int((column == PRESENT).sum()),
        "absent": int((column == ABSENT).sum()),
        "uncertain": int((column == UNCERTAIN).sum()),
        "blank": column.null_count(),
    }
    total = max(1, len(column))
    by_split = {
        split: int((index.filter(pl.col("split") == split)[name] == PRESENT).sum())
        for split in _SPLITS
    }
    shares = {key: 100 * count / total for key, count in counts.items()}
    return {"name": name, **counts, "shares": shares, "by_split": by_split}
