"""What a run has to do: by hand in a small table, and by Snakemake itself."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dollmaker.config import settings
from dollmaker.estimate.jobs import Counts, count, list_jobs
from dollmaker.prepare.sources import list_source
from dollmaker.runtime.errors import DataError
from snakemake_here import MICRO, planned

TABLE = """\
file,who,part,A,B,mask
a.png,p1,train,1,0,
b.png,p1,train,1,1,
c.png,p2,train,0,0,c
d.png,p3,train,-1,,d
e.png,p4,valid,,1,e
f.png,p5,test,1,-1,f
"""


def counted(root: Path, **changes: Any) -> Counts:
    (root / "t.csv").write_text(TABLE)
    table = {
        **{"file": "t.csv", "images": "i", "image_column": "file", "patient_column": "who"},
        **{"split_column": "part", "finding_columns": ["A", "B"]},
    }
    source = {"kind": "table", "table": table}
    config = settings.resolved({"dataset": "x", "source": source, **changes})
    index, names = list_source(config, root)
    index = index.with_columns(shard=pl.lit(""), row=pl.int_range(pl.len()))
    return count(config, index, config.attribute.findings or names, root)


def test_a_small_table_by_hand(tmp_path: Path) -> None:
    found = counted(tmp_path, sample={"positives": 2, "checks": 1})
    assert found.images == {"train": 4, "valid": 1, "test": 1}
    assert (found.pairs, found.most) == (5, 5)
    # Of A two positives, one absent; of B two and one: each twice, and one of each checked.
    assert found.sample == 2 * (2 + 1 + 2 + 1) + 4 * 2
    # a and b have masks, c and d (uncertain, blank = absent) show what absence looks like.
    assert found.segment == {"train": 4, "valid": 1}


@pytest.mark.parametrize(
    ("changes", "pairs", "most", "segment"),
    [
        ({"attribute": {"splits": ["train"]}}, 3, 3, {"train": 4, "valid": 0}),
        ({"attribute": {"max_images": 1}}, 3, 3, {"train": 3, "valid": 1}),
        ({"attribute": {"findings": ["B"]}}, 2, 2, {"train": 4, "valid": 1}),
        ({"attribute": {"min_probability": 0.5}}, 5, 12, {"train": 4, "valid": 1}),
        ({"classify": {"blank": "ignore"}}, 5, 5, {"train": 3, "valid": 1}),
    ],
)
def test_the_selection_is_respected(
    tmp_path: Path, changes: dict[str, Any], pairs: int, most: int, segment: dict[str, int]
) -> None:
    found = counted(tmp_path, **changes)
    assert (found.pairs, found.most, found.segment) == (pairs, most, segment)


def test_tasks_split_as_they_will_be(tmp_path: Path) -> None:
    task = {
        **{"table": "t.csv", "images": "i", "masks": "m", "image_column": "file"},
        **{"mask_column": "mask", "patient_column": "who", "classes": {"x": [1]}},
    }
    own = {**task, "valid": None, "test": None}  # the splits of the data set
    found = counted(tmp_path, tasks={"own": own, "hashed": {**task, "valid": 0.9, "test": 0.09}})
    assert found.tasks["own"] == {"train": 2, "valid": 1, "test": 1}
    assert sum(found.tasks["hashed"].values()) == 4
    with pytest.raises(DataError, match="lacks the column 'nothing'"):
        counted(tmp_path, tasks={"own": {**task, "mask_column": "nothing"}})


def test_nothing_to_explain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image of the explained splits has a positive label"):
        counted(tmp_path, attribute={"splits": ["valid"], "findings": ["A"]})


def test_jobs_are_those_that_snakemake_would_run(tmp_path: Path) -> None:
    """By the table of jobs of a dry run."""
    said = planned(tmp_path, MICRO, "--quiet", "rules")
    table = dict(re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE))
    expected = {rule: int(n) for rule, n in table.items() if rule not in ("all", "total")}
    config = settings.resolved(settings.read(str(tmp_path / "c.yaml")))
    few = {"train": 4, "valid": 1}
    counts = Counts(
        images={**few, "test": 1}, pairs=9, most=9, sample=9, segment=few,
        tasks={"organs": {**few, "test": 1}},
    )  # fmt: skip
    jobs = list_jobs(config, counts)
    found = Counter[str]()
    for one in jobs:
        found[one.rule] += one.number
    assert found == expected
    passes = {one.rule: one.units for one in jobs}
    # Three epochs of four images learned from and one looked at; two predicted in the end.
    assert passes["train_member"] == pytest.approx(3 * (4 + 1 / 3) + 2 / 3)
    batch = config.adapt.batch_size
    assert passes["adapt_segmenter"] == pytest.approx(2 * batch + 2 / 3)
