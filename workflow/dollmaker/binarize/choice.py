"""The stage thresholds: one table of chosen cuts per sample."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker import provenance, tables
from dollmaker.binarize.label_free import AREAS, CANDIDATES, CRITERIA, Cut, choose, curves
from dollmaker.files import sha256_file
from dollmaker.findings import PRESENT
from dollmaker.shards import Shard

#: One row per finding and candidate.
COLUMNS: dict[str, Any] = {
    "finding": pl.String,
    "pairs": pl.Int64,
    "family": pl.String,
    "area": pl.Float64,
    **dict.fromkeys(CRITERIA, pl.Float64),
    **{f"chosen_by_{name}": pl.Boolean for name in CRITERIA},
}

#: What a finding without any positive pair in the sample gets.
FALLBACK = Cut("otsu")

Cuts = dict[str, dict[str, Cut]]


def choose_thresholds(sample: Path, output: Path) -> None:
    """Write the thresholds of a sample.

    Args:
        sample: The sample (see :mod:`dollmaker.attribute.sample`).
        output: Parquet file with the columns :data:`COLUMNS`.
    """
    with Shard(sample, "relevance") as shard:
        table, views = shard.table(), shard.read("views").astype(np.float32)
    positive = table["label"] == PRESENT
    findings = list(dict.fromkeys(table["finding"][positive]))
    rows_of = {f: np.nonzero(positive & (table["finding"] == f))[0] for f in findings}
    given = {finding: curves(_seen(views[rows])) for finding, rows in rows_of.items()}
    counts = {finding: len(rows) for finding, rows in rows_of.items()}
    chosen = choose(given, counts) if given else {}
    rows = [
        {
            "finding": finding,
            "pairs": counts[finding],
            "family": cut.family,
            "area": cut.area if cut.family == "area" else None,
            **{name: given[finding][name][number] for name in CRITERIA},
            **{f"chosen_by_{name}": chosen[name][finding] == cut for name in CRITERIA},
        }
        for finding in findings
        for number, cut in enumerate(CANDIDATES)
    ]
    header = provenance.header(
        "thresholds", {"areas": AREAS.tolist()}, inputs={"sample": sha256_file(sample)}
    )
    tables.write(pl.DataFrame(rows, schema=COLUMNS, orient="row"), output, header)


def _seen(views: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Views (P, M, 2, v, v) without the members that do not know the finding, which are NaN."""
    return views[:, ~np.isnan(views).all((0, 2, 3, 4))]


def cuts_of(cuts: Cuts, finding: str) -> dict[str, Cut]:
    """Criterion -> cut of one finding; Otsu's where the sample has no pair of it."""
    return {criterion: by_finding.get(finding, FALLBACK) for criterion, by_finding in cuts.items()}


def read_thresholds(file: Path) -> Cuts:
    """Criterion -> finding -> cut, from a table of :func:`choose_thresholds`."""
    table = tables.read(file)
    found: Cuts = {name: {} for name in CRITERIA}
    for row in table.iter_rows(named=True):
        for name in CRITERIA:
            if row[f"chosen_by_{name}"]:
                area = row["area"] or 0.0
                found[name][row["finding"]] = Cut(row["family"], area)
    return found
