"""Classifiers against labels, by member and for the mean of the committee: ranking, calibration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.config.whole import Config
from dollmaker.measures import scores
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store import tables
from dollmaker.store.findings import ABSENT, PRESENT

#: Name of the rows of the mean over members.
COMMITTEE = "committee"

#: Name of the rows of the mean over findings that have both classes.
MACRO = "macro"

#: Columns of classifiers.parquet: one row per member, split and finding.
CLASSIFIERS: dict[str, pl.DataType | type[pl.DataType]] = {
    **dict.fromkeys(("member", "split", "finding"), pl.String),
    **dict.fromkeys(("n_positive", "n_negative"), pl.Int64),
    **{f"{name}{end}": pl.Float64 for name in ("auroc", "auprc") for end in ("", "_low", "_high")},
    "ece": pl.Float64,
    "bin_counts": pl.List(pl.Int64),
    **dict.fromkeys(("bin_said", "bin_there"), pl.List(pl.Float64)),
}

Floats = npt.NDArray[np.float64]


def score_classifiers(
    config: Config, index: pl.DataFrame, findings: Sequence[str], members: Sequence[Path]
) -> pl.DataFrame:
    """AUROC and average precision of members, by their folders, with intervals over patients.

    A blank label counts as absent where ``classify.blank`` is zeros; an uncertain one never
    counts.

    Returns:
        A table with the columns :data:`CLASSIFIERS`. What needs a class that is missing is NaN.
        The calibration (:class:`Reliability`) of the rows of the mean is that of the labels of all
        findings together.

    Raises:
        ArtifactError: If predictions lack a finding or name an image that is not in the index.
    """
    predictions = {folder.name: _predictions(folder, findings) for folder in members}
    if len(predictions) > 1:
        predictions[COMMITTEE] = _mean(list(predictions.values()), findings)
    elif predictions:
        predictions[COMMITTEE] = next(iter(predictions.values()))
    zeros = config.classify.blank == "zeros"
    drawn = {"replicates": config.evaluate.bootstrap, "seed": config.seed}
    rows: list[dict[str, Any]] = []
    for member, table in predictions.items():
        joined = table.join(index, on="image_id", suffix=" label", maintain_order="left")
        if len(joined) != len(table):
            raise ArtifactError(
                f"predictions of member {member} name images that are not in the index; train "
                "the committee again."
            )
        for split in ("test", "valid"):
            part = joined.filter(split=split)
            if part.is_empty():
                continue
            labels = _labels(part, findings, zeros)
            values = part.select(findings).to_numpy().astype(np.float64)
            labels[np.isnan(values)] = np.nan  # a ready classifier does not know every finding
            patients = part["patient_id"].to_numpy()
            scored = _rows(findings, labels, np.nan_to_num(values), patients, drawn)
            rows += [{"member": member, "split": split} | row for row in scored]
    return pl.DataFrame(rows, schema=CLASSIFIERS, orient="row")


def _predictions(folder: Path, findings: Sequence[str]) -> pl.DataFrame:
    path = folder / "predictions.parquet"
    table = tables.read(path)
    missing = [name for name in ("image_id", *findings) if name not in table.columns]
    if missing:
        raise ArtifactError(f"{path} lacks the column {missing[0]!r}; train the committee again.")
    return table.select("image_id", *findings)


def _mean(members: Sequence[pl.DataFrame], findings: Sequence[str]) -> pl.DataFrame:
    """The mean probability over members, those that know a finding, of images that all saw."""
    together = pl.concat(members)
    return (
        together.group_by("image_id", maintain_order=True)
        .agg(pl.col(list(findings)).cast(pl.Float64).mean(), pl.len().alias("members of image"))
        .filter(pl.col("members of image") == len(members))
        .drop("members of image")
    )


def _labels(table: pl.DataFrame, findings: Sequence[str], zeros: bool) -> Floats:
    """Labels (N, K): 1, 0 or NaN where the label does not count."""
    columns = []
    for finding in findings:
        label = table[f"{finding} label"]
        if zeros:
            label = label.fill_null(ABSENT)
        values = label.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        columns.append(np.where((values == PRESENT) | (values == ABSENT), values, np.nan))
    return np.stack(columns, axis=1)


def _rows(
    findings: Sequence[str],
    labels: Floats,
    values: Floats,
    patients: npt.NDArray[Any],
    drawn: dict[str, int],
) -> list[dict[str, Any]]:
    positive, negative = (labels == PRESENT).sum(axis=0), (labels == ABSENT).sum(axis=0)
    both = (positive > 0) & (negative > 0)
    known, labels = labels, np.where(both, labels, np.nan)

    def row(finding: str, columns: npt.NDArray[np.bool_]) -> dict[str, Any]:
        area, precision = (
            measure(labels[:, columns], values[:, columns], patients, **drawn)
            for measure in (scores.auroc_interval, scores.average_precision_interval)
        )
        every = slice(None) if finding == MACRO else columns
        curve = reliability(known[:, every], values[:, every])
        return {
            "finding": finding,
            "n_positive": int(positive[columns].sum()),
            "n_negative": int(negative[columns].sum()),
            **area.columns("auroc"),
            **precision.columns("auprc"),
            "ece": curve.error(),
            "bin_counts": curve.counts.tolist(),
            "bin_said": curve.said.tolist(),
            "bin_there": curve.there.tolist(),
        }

    alone = np.eye(len(findings), dtype=bool)
    return [row(MACRO, both), *map(row, findings, alone)]


class Reliability(NamedTuple):
    """A reliability curve, by B bins of equal width."""

    counts: npt.NDArray[np.int64]  #: Labels in each bin, int64 (B,).
    said: Floats  #: Mean probability in each, NaN where there is none, (B,).
    there: Floats  #: Share of positives in each, likewise.

    def error(self) -> float:
        """Expected calibration error (Guo et al. 2017); NaN without labels."""
        if not self.counts.sum():
            return float("nan")
        distance = np.nan_to_num(np.abs(self.said - self.there))
        return float((self.counts * distance).sum() / self.counts.sum())


def reliability(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 15) -> Reliability:
    """The reliability curve of probabilities 0..1 by labels of their shape: 1, 0, others pass."""
    true, given = np.asarray(labels, float).ravel(), np.asarray(probabilities, float).ravel()
    known = np.isin(true, (0, 1)) & np.isfinite(given)
    true, given = true[known], given[known]
    place = np.clip((given * bins).astype(np.int64), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    said, there = (
        np.divide(np.bincount(place, values, bins), counts, np.full(bins, np.nan), where=counts > 0)
        for values in (given, true)
    )
    return Reliability(counts, said, there)
