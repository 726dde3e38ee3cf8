"""The stage thresholds: one table of thresholds for each sample."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dollmaker.binarize.cuts import COUNT, FAMILIES, Cut, candidates
from dollmaker.binarize.label_free import CRITERIA, Views, choose, curves
from dollmaker.store import provenance, tables
from dollmaker.store.files import sha256_file
from dollmaker.store.findings import PRESENT
from dollmaker.store.shards import Shard

#: One row per finding and candidate; the finding "" stands for all that have no pair.
COLUMNS: dict[str, Any] = {
    "finding": pl.String,
    "pairs": pl.Int64,
    "family": pl.String,
    "value": pl.Float64,
    **dict.fromkeys(CRITERIA, pl.Float64),
    **{f"chosen_by_{name}": pl.Boolean for name in CRITERIA},
}


@dataclass(frozen=True)
class Chosen:
    """The candidates of a finding, and which of them was chosen.

    Attributes:
        candidates: In the order of the table, which is that of every finding.
        places: Criterion and family -> place of the chosen candidate.
    """

    candidates: tuple[Cut, ...]
    places: Mapping[tuple[str, str], int]


Cuts = Mapping[str, Chosen]


def choose_thresholds(sample: Path, output: Path) -> None:
    """Choose thresholds without truth, from the sample of a recipe.

    Args:
        sample: The sample that ``dollmaker sample`` made, with at least one pair that has its
            finding.
        output: The table to write (Parquet).
    """
    with Shard(sample, "relevance") as shard:
        table, maps = shard.table(), shard.read("views").astype(np.float32)
        views = Views(maps.reshape(*maps.shape[:3], -1), shard.read("view_scale"))
    positive = table["label"] == PRESENT
    findings = list(dict.fromkeys(table["finding"][positive]))
    with_it, without = {}, {}
    for finding in findings:
        mine = views.by(views.experts(table["finding"] == finding))
        with_it[finding] = mine.of(np.nonzero(positive & (table["finding"] == finding))[0])
        without[finding] = mine.of(np.nonzero(~positive & (table["finding"] == finding))[0])
    numbers = {f: _candidates(with_it[f], without[f]) for f in findings}
    numbers[""] = _candidates(*(views.of(np.nonzero(rows)[0]) for rows in (positive, ~positive)))
    given = {f: curves(with_it[f], without[f], numbers[f]) for f in findings}
    counts = {f: len(with_it[f].maps) for f in findings}
    chosen = choose(given, counts)
    rows = [
        {
            "finding": finding,
            "pairs": counts.get(finding, 0),
            "family": family,
            "value": float(value),
            **{name: given[finding][name][family][place] if finding else None for name in CRITERIA},
            **{f"chosen_by_{name}": chosen[finding][name][family] == place for name in CRITERIA},
        }
        for finding in (*findings, "")
        for family in FAMILIES
        for place, value in enumerate(numbers[finding][family])
    ]
    header = provenance.header(
        "thresholds", {"candidates": COUNT}, inputs={"sample": sha256_file(sample)}
    )
    tables.write(pl.DataFrame(rows, schema=COLUMNS, orient="row"), output, header)


def _candidates(views: Views, null: Views) -> Mapping[str, Any]:
    parts = (views.known(), null.known())
    return candidates(*(array for maps, scales in parts for array in (maps, scales[:, None])))


def read_thresholds(file: Path) -> Cuts:
    """Finding -> what was chosen for it, from a table of :func:`choose_thresholds`."""
    found: dict[str, Chosen] = {}
    table = tables.read(file)
    for (finding,), rows in table.group_by(["finding"], maintain_order=True):
        places = {
            (name, str(family)): place
            for name in CRITERIA
            for place, (family, chosen) in enumerate(
                rows.select("family", f"chosen_by_{name}").iter_rows()
            )
            if chosen
        }
        cuts = (Cut(*row) for row in rows.select("family", "value").iter_rows())
        found[str(finding)] = Chosen(tuple(cuts), places)
    return found


def chosen_of(cuts: Cuts, finding: str) -> Chosen:
    """What was chosen for a finding; without pairs in the sample, the choice for all findings."""
    return cuts[finding] if finding in cuts else cuts[""]


def cuts_of(cuts: Cuts, finding: str) -> dict[tuple[str, str], Cut]:
    """Criterion and family -> cut of one finding; empty without thresholds."""
    if not cuts:
        return {}
    chosen = chosen_of(cuts, finding)
    return {key: chosen.candidates[place] for key, place in chosen.places.items()}
