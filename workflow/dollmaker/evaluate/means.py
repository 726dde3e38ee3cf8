"""Means of pairs with intervals, as CheXlocalize does (Saporta et al. 2022).

Scores are at the size of the source image, on two slices: ``positive`` holds the pairs where mask
and truth both have pixels; ``full`` holds every pair where either has, so that false positives and
negatives count 0. Hit rates do not know the mask: on both slices they are over every pair with
truth, as CheXlocalize's are.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.measures import scores
from dollmaker.measures.scores import rank_correlation
from dollmaker.store.findings import PRESENT

#: Columns of pairs.parquet: one row per recipe, target, image and finding.
PAIRS: dict[str, Any] = {
    **dict.fromkeys(("recipe", "target", "split", "image_id", "patient_id", "finding"), pl.String),
    "label": pl.Int8,
    "probability": pl.Float32,
    "explained": pl.Boolean,
    **dict.fromkeys(("truth_area", "mask_area", "iou", "dice", "hit", "auprc"), pl.Float64),
    "quality": pl.Float64,
}

SLICES = ("full", "positive")

#: Name of the row that holds the mean, over findings or over pairs (``mean_over``).
MEAN = "mean"

#: Column of the pairs -> name of its mean in masks.parquet.
METRICS = {"iou": "miou", "dice": "dice", "hit": "hit_rate", "auprc": "auprc"}

#: Columns of masks.parquet: one row per recipe, target, split, slice and finding.
MASKS = {
    **dict.fromkeys(("recipe", "target", "split", "slice", "finding"), pl.String),
    **dict.fromkeys(("gated_by", "mean_over"), pl.String),
    **dict.fromkeys(("n", "n_truth"), pl.Int64),
    **{f"{name}{end}": pl.Float64 for name in METRICS.values() for end in ("", "_low", "_high")},
    "area_correlation": pl.Float64,
}

#: What the row ``mean`` is the mean over: each finding counts once, or each pair.
FINDINGS, POOLED = "findings", "pairs"


def compare_mask(
    mask: npt.NDArray[np.bool_],
    values: npt.NDArray[Any],
    area: npt.NDArray[np.bool_],
    *,
    curve: bool = True,
) -> dict[str, Any]:
    """All scores of one mask and its map against the truth, all at the size of the source.

    Without ``curve`` the average precision, which sorts all pixels, is ``None``.
    """
    return {
        "truth_area": float(area.mean()),
        "mask_area": float(mask.mean()),
        "iou": float(scores.iou(mask, area)),
        "dice": float(scores.dice(mask, area)),
        "hit": scores.hit(values, area),
        "auprc": scores.average_precision(area, values) if curve else None,
    }


def summarize(
    pairs: pl.DataFrame,
    findings: Sequence[str],
    replicates: int,
    seed: int,
    *,
    min_pairs: int,
    gated_by: Mapping[str, str],
) -> pl.DataFrame:
    """Means over pairs with bootstrap intervals over patients.

    The row ``mean`` is the mean over findings where each has at least ``min_pairs`` pairs with
    truth, else the mean over all pairs: a finding of three pairs would count as much as one of
    three hundred. It is the same for all recipes of a target and split, so that they compare.

    ``pairs`` have the columns :data:`PAIRS`; ``gated_by`` says of each recipe who says that a
    finding is there (:func:`gated_by_steps`).

    Returns:
        A table with the columns :data:`MASKS`. ``mean_over`` of the row ``mean`` says which mean
        it is; its interval draws each patient with all images and findings. ``n_truth`` counts
        pairs with truth. ``area_correlation`` is Spearman's, of the areas of mask and truth over
        the slice's pairs with truth; of the row ``mean`` the mean over the findings with
        ``min_pairs`` of them (pooled, large and small findings would correlate by themselves).
    """
    rows: list[dict[str, Any]] = []
    keys = ("recipe", "target", "split")
    over = _mean_over(pairs, min_pairs)
    for (recipe, target, split), group in pairs.group_by(keys, maintain_order=True):
        for name in SLICES:
            where = {"recipe": recipe, "target": target, "split": split, "slice": name}
            where["gated_by"] = gated_by.get(str(recipe))
            mean = over.get((str(target), str(split)), FINDINGS)
            scored = _Slice(group, name, findings, min_pairs)
            rows += [where | row for row in scored.rows(mean, replicates, seed)]
    return pl.DataFrame(rows, schema=MASKS, orient="row")


def _mean_over(pairs: pl.DataFrame, min_pairs: int) -> dict[tuple[str, str], str]:
    """Target and split -> what the row ``mean`` is the mean over."""
    true = pl.col("truth_area") > 0
    counts = (
        pairs.filter(true | (pl.col("mask_area") > 0))
        .group_by("target", "split", "finding")
        .agg(pl.col("image_id").filter(true).n_unique().alias("n"))
        .group_by("target", "split")
        .agg(pl.col("n").min())
    )
    return {
        (target, split): FINDINGS if n >= min_pairs else POOLED
        for target, split, n in counts.iter_rows()
    }


class _Slice:
    """The pairs of one recipe, target and split, and which of them a slice holds."""

    def __init__(
        self, group: pl.DataFrame, name: str, findings: Sequence[str], min_pairs: int
    ) -> None:
        self._group, self._findings, self._min_pairs = group, findings, min_pairs
        images = sorted(group["image_id"].unique())
        patient_of = dict(group.select("image_id", "patient_id").iter_rows())
        self._patients = [patient_of[image] for image in images]
        row = {image: number for number, image in enumerate(images)}
        column = {finding: number for number, finding in enumerate(findings)}
        #: Place of each pair in a table of images and findings.
        self._at = [row[i] for i in group["image_id"]], [column[f] for f in group["finding"]]
        true, drawn = (group[key].to_numpy() > 0 for key in ("truth_area", "mask_area"))
        inside = (true & drawn) if name == "positive" else (true | drawn)
        #: Metric -> the pairs that count.
        self._counted = {**dict.fromkeys(METRICS, inside), "hit": true, "area": inside & true}

    def rows(self, mean: str, replicates: int, seed: int) -> Iterable[dict[str, Any]]:
        names = (MEAN, *self._findings)
        counts, true = (self._counts(metric) for metric in ("iou", "hit"))
        shares = self._correlations()
        result = {
            name: {"finding": name, "n": counts[name], "n_truth": true[name]}
            | {"mean_over": mean if name == MEAN else None, "area_correlation": shares[name]}
            for name in names
            if counts[name]
        }
        for metric, title in METRICS.items():
            intervals = self._intervals(metric, mean, replicates, seed)
            for name, interval in zip(names, intervals, strict=True):
                if name in result:
                    result[name] |= interval.columns(title)
        return result.values()

    def _counts(self, metric: str) -> dict[str, int]:
        named = self._group["finding"].to_numpy()[self._counted[metric]].tolist()
        return {MEAN: len(named)} | {finding: named.count(finding) for finding in self._findings}

    def _correlations(self) -> dict[str, float]:
        """Finding -> rank correlation of the areas of masks and truth; and their mean."""
        areas = self._group.filter(pl.Series(self._counted["area"]))
        found: dict[str, float] = {}
        enough = []
        for finding in self._findings:
            mine = areas.filter(finding=finding)
            found[finding] = rank_correlation(mine["mask_area"], mine["truth_area"])
            enough += [found[finding]] * (len(mine) >= self._min_pairs)
        return {MEAN: float(scores.nanmean(np.array(enough), axis=0)), **found}

    def _intervals(
        self, metric: str, mean: str, replicates: int, seed: int
    ) -> list[scores.Interval]:
        """Of the row ``mean``, then of each finding."""
        group = self._group
        values = np.where(self._counted[metric], group[metric].cast(pl.Float64).to_numpy(), np.nan)
        drawn: dict[str, Any] = {"replicates": replicates, "seed": seed}
        table = np.full((len(self._patients), len(self._findings)), np.nan)
        table[self._at] = values
        intervals = scores.column_intervals(table, self._patients, **drawn)
        if mean == POOLED:
            intervals[0] = scores.bootstrap_interval(values, group["patient_id"], **drawn)
        return intervals


#: What the step ``gate`` keeps unless it is told otherwise.
GATE_LABELS = (PRESENT,)


def gated_by_steps(
    steps: Sequence[Mapping[str, Any]], asked: float | None, min_probability: float = 0.0
) -> str:
    """Which pairs of image and finding can have a mask, as far as a recipe decides it.

    Masks that go by the label know that the finding is there; a score over them says where, not
    whether. Masks that go by the model miss findings and raise false alarms: CheXlocalize's
    own set.

    Pairs without a positive label are explained from the probability ``asked`` on, none if it is
    ``None`` (``attribute.min_probability``). Masks of less than ``min_probability`` are emptied
    after the recipe (``evaluate.min_probability``).

    Returns:
        ``label``; ``model`` (every pair over a probability, whatever its label); ``label and
        model``; ``label or model``; or ``nothing``, where every pair has a mask.
    """
    gates = [step["gate"] or {} for step in steps if "gate" in step]
    least = max([min_probability, *(gate.get("min_probability", 0.0) for gate in gates)])
    if asked is None or any(gate.get("labels", GATE_LABELS) is not None for gate in gates):
        return "label and model" if least > 0 else "label"
    if least >= asked:
        return "model" if least > 0 else "nothing"
    return "label or model"
