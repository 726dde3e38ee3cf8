"""Means of pairs with intervals, as CheXlocalize does (Saporta et al. 2022).

Scores are at the size of the source image, on two slices: ``positive`` holds the pairs where mask
and truth both have pixels; ``full`` holds every pair where either has, so that false positives and
negatives count 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker import scores

#: Columns of pairs.parquet: one row per recipe, target, image and finding.
PAIRS = {
    "recipe": pl.String,
    "target": pl.String,
    "split": pl.String,
    "image_id": pl.String,
    "patient_id": pl.String,
    "finding": pl.String,
    "label": pl.Int8,
    "probability": pl.Float32,
    "explained": pl.Boolean,
    "truth_area": pl.Float64,
    "mask_area": pl.Float64,
    "iou": pl.Float64,
    "dice": pl.Float64,
    "hit": pl.Float64,
    "auprc": pl.Float64,
    "quality": pl.Float64,
}

SLICES = ("full", "positive")

#: Name of the row that holds the mean over findings.
MEAN = "mean"

#: Column of the pairs -> name of its mean in masks.parquet.
METRICS = {"iou": "miou", "dice": "dice", "hit": "hit_rate", "auprc": "auprc"}

#: Columns of masks.parquet: one row per recipe, target, split, slice and finding.
MASKS = {
    "recipe": pl.String,
    "target": pl.String,
    "split": pl.String,
    "slice": pl.String,
    "finding": pl.String,
    "n": pl.Int64,
    **{f"{name}{end}": pl.Float64 for name in METRICS.values() for end in ("", "_low", "_high")},
}


def compare_mask(
    mask: npt.NDArray[np.bool_], values: npt.NDArray[np.float32], area: npt.NDArray[np.bool_]
) -> dict[str, float]:
    """All scores of one mask and its map against the truth, all at the size of the source."""
    return {
        "truth_area": float(area.mean()),
        "mask_area": float(mask.mean()),
        "iou": float(scores.iou(mask, area)),
        "dice": float(scores.dice(mask, area)),
        "hit": scores.hit(values, area),
        "auprc": scores.average_precision(area, values),
    }


def summarize(
    pairs: pl.DataFrame, findings: Sequence[str], replicates: int, seed: int
) -> pl.DataFrame:
    """Means over pairs with bootstrap intervals over patients.

    Args:
        pairs: Rows with the columns :data:`PAIRS`.
        findings: Findings in the order of the table.
        replicates: Bootstrap replicates.
        seed: Seed of the bootstrap.

    Returns:
        A table with the columns :data:`MASKS`; finding ``mean`` is the mean over findings, whose
        interval draws each patient with all images and findings.
    """
    rows: list[dict[str, Any]] = []
    keys = ("recipe", "target", "split")
    for (recipe, target, split), group in pairs.group_by(keys, maintain_order=True):
        for name in SLICES:
            where = {"recipe": recipe, "target": target, "split": split, "slice": name}
            rows += _summarize_slice(where, group, findings, replicates, seed)
    return pl.DataFrame(rows, schema=MASKS, orient="row")


def _summarize_slice(
    where: Mapping[str, Any],
    group: pl.DataFrame,
    findings: Sequence[str],
    replicates: int,
    seed: int,
) -> Iterable[dict[str, Any]]:
    images = sorted(group["image_id"].unique())
    patient_of = dict(group.select("image_id", "patient_id").iter_rows())
    patients = [patient_of[image] for image in images]
    row = {image: number for number, image in enumerate(images)}
    column = {finding: number for number, finding in enumerate(findings)}
    at = ([row[i] for i in group["image_id"]], [column[f] for f in group["finding"]])
    true, predicted = group["truth_area"].to_numpy() > 0, group["mask_area"].to_numpy() > 0
    inside = (true & predicted) if where["slice"] == "positive" else (true | predicted)
    tables: dict[str, npt.NDArray[np.float64]] = {}
    for metric in METRICS:
        values = np.full((len(images), len(findings)), np.nan)
        values[at] = np.where(inside, group[metric].cast(pl.Float64).to_numpy(), np.nan)
        tables[metric] = values
    counts = (~np.isnan(tables["iou"])).sum(axis=0)
    result = [
        dict(where) | {"finding": finding, "n": int(count)}
        for finding, count in zip((MEAN, *findings), (counts.sum(), *counts), strict=True)
        if count
    ]
    for metric, mean in METRICS.items():
        intervals = scores.column_intervals(
            tables[metric], patients, replicates=replicates, seed=seed
        )
        by_finding = dict(zip((MEAN, *findings), intervals, strict=True))
        for line in result:
            interval = by_finding[line["finding"]]
            line |= {
                mean: interval.point,
                f"{mean}_low": interval.low,
                f"{mean}_high": interval.high,
            }
    return result
