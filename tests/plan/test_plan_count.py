"""What a run has to do, counted in tables whose content is known."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dollmaker.config import settings as configuration
from dollmaker.plan.count import Counts, count, read_source, spread_by_pairs
from dollmaker.plan.phantoms import generate_source
from dollmaker.runtime.errors import ConfigError, DataError
from dollmaker.store.findings import CHEXPERT, NO_FINDING

TABLE = """\
file,who,part,A,B,mask
a.png,p1,train,1,0,
b.png,p1,train,1,1,
c.png,p2,train,0,0,c
d.png,p3,train,-1,,d
e.png,p4,valid,,1,e
f.png,p5,test,1,-1,f
a.png,p1,train,0,1,
"""


def small(root: Path, **changes: Any) -> dict[str, Any]:
    (root / "t.csv").write_text(TABLE)
    table = {
        **{"file": "t.csv", "images": "i", "image_column": "file", "patient_column": "who"},
        **{"split_column": "part", "finding_columns": ["A", "B"]},
    }
    source = {"kind": "table", "table": table}
    return configuration.resolve({"dataset": "x", "source": source, **changes})


def counted(root: Path, **changes: Any) -> Counts:
    config = small(root, **changes)
    return count(read_source(config, root), config)


def test_a_small_table_by_hand(tmp_path: Path) -> None:
    found = counted(tmp_path)  # the second a.png goes to quarantine
    assert found.images == {"train": 4, "valid": 1, "test": 1}
    assert found.patients == 5
    assert (found.explained, found.maps, found.most) == (4, {"A": 3, "B": 2}, 5)
    # a and b have masks, c and d (uncertain, blank = absent) show what absence looks like.
    assert found.segment == {"train": 4, "valid": 1}


@pytest.mark.parametrize(
    ("changes", "explained", "maps", "most", "segment"),
    [
        ({"attribute": {"splits": ["train"]}}, 2, {"A": 2, "B": 1}, 3, {"train": 4, "valid": 0}),
        ({"attribute": {"max_images": 1}}, 3, {"A": 2, "B": 1}, 3, {"train": 3, "valid": 1}),
        ({"attribute": {"findings": ["B"]}}, 2, {"B": 2}, 2, {"train": 4, "valid": 1}),
        ({"attribute": {"min_probability": 0.5}}, 6, {"A": 3, "B": 2}, 12,
         {"train": 4, "valid": 1}),
        ({"classify": {"blank": "ignore"}}, 4, {"A": 3, "B": 2}, 5, {"train": 3, "valid": 1}),
    ],
)  # fmt: skip
def test_the_selection_is_respected(
    tmp_path: Path,
    changes: dict[str, Any],
    explained: int,
    maps: dict[str, int],
    most: int,
    segment: dict[str, int],
) -> None:
    found = counted(tmp_path, **changes)
    assert (found.explained, found.maps, found.most) == (explained, maps, most)
    assert found.segment == segment


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
    with pytest.raises(DataError, match="leaves the data root"):
        counted(tmp_path, tasks={"own": {**task, "table": "../t.csv"}})


def test_nothing_to_explain_is_refused(tmp_path: Path) -> None:
    changes = {"attribute": {"splits": ["valid"], "findings": ["A"]}}
    with pytest.raises(DataError, match="no image of the explained splits has a positive label"):
        counted(tmp_path, **changes)
    with pytest.raises(ConfigError, match="unknown finding 'C'; use one of: A, B"):
        counted(tmp_path, attribute={"findings": ["C"]})


def test_the_sample_stands_for_the_rest(tmp_path: Path) -> None:
    config = small(tmp_path)
    source = read_source(config, tmp_path)
    assert spread_by_pairs(source, config, 2)["image_id"].to_list() == ["e", "b"]
    assert len(spread_by_pairs(source, config, 99)) == 4


def write_chexpert(root: Path, images: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """CheXpert's tables, three images a patient, every third lateral; returns train's labels."""
    labels = rng.choice(np.array(["1.0", "0.0", "-1.0", ""]), (images, 14), p=[0.2, 0.1, 0.1, 0.6])
    for name, number, first in (("train", images, 1), ("valid", 234, 90_001)):
        rows = pl.DataFrame({"n": np.arange(number)}).with_columns(
            who=(first + pl.col("n") // 3).cast(pl.String).str.zfill(5),
            study=(1 + pl.col("n") % 3).cast(pl.String),
            view=pl.when(pl.col("n") % 3 == 2).then(pl.lit("lateral")).otherwise(pl.lit("frontal")),
        )
        table = rows.select(
            pl.format(
                "CheXpert-v1.0-small/" + name + "/patient{}/study{}/view1_{}.jpg",
                *("who", "study", "view"),
            ).alias("Path"),
            *(pl.lit("").alias(column) for column in ("Sex", "Age")),
            pl.col("view").str.to_titlecase().alias("Frontal/Lateral"),
            pl.lit("AP").alias("AP/PA"),
            *(pl.Series(finding, labels[:number, k]) for k, finding in enumerate(CHEXPERT)),
        )
        (root / "CheXpert-v1.0-small").mkdir(exist_ok=True)
        table.write_csv(root / f"CheXpert-v1.0-small/{name}.csv", quote_style="never")
    return labels


def test_all_of_chexpert_is_counted_without_an_image(tmp_path: Path) -> None:
    labels = write_chexpert(tmp_path, 223_414, np.random.default_rng(0))
    source = {"kind": "chexpert"}
    config = configuration.resolve(
        {"dataset": "x", "source": source, "prepare": {"valid": 0.02, "shards": 64}}
    )
    listed = read_source(config, tmp_path)
    found = count(listed, config)
    frontal = np.arange(223_414) % 3 != 2
    assert found.images["train"] + found.images["valid"] == frontal.sum()
    assert abs(found.images["valid"] / frontal.sum() - 0.02) < 0.002
    assert found.images["test"] == 156
    assert found.patients == 74_472 + 78
    positive = np.concatenate([labels[frontal], labels[:234][frontal[:234]]]) == "1.0"
    wanted = dict(zip(CHEXPERT, positive.sum(0).tolist(), strict=True))
    del wanted[NO_FINDING]
    assert found.maps == wanted
    assert found.explained == int(positive[:, 1:].any(1).sum())
    assert listed.index["shard"].n_unique() == 64


def test_phantoms_are_counted_before_they_exist(tmp_path: Path) -> None:
    phantoms = {"images": 90, "size": 32, "task_images": 30}
    classes = {"lungs": [1]}
    task = {
        **{"table": "organs/index.csv", "images": "organs", "masks": "organs"},
        **{"image_column": "image", "mask_column": "mask", "classes": classes},
    }
    config = configuration.resolve(
        {
            **{"dataset": "x", "tasks": {"organs": task}, "classify": {"members": {"a": {}}}},
            "source": {"kind": "phantoms", "phantoms": phantoms},
        }
    )
    source = generate_source(config, tmp_path / "some")
    assert "the first 64 of 90" in source.counted_from and source.seconds > 0
    found = count(source, config)
    # Frontal views only: about 88 of 100.
    assert 66 <= sum(found.images.values()) <= 90
    assert source.index["image_id"].is_unique().all()
    assert 28 <= sum(found.tasks["organs"].values()) <= 32
    assert source.index.group_by("patient_id").agg(pl.col("split").n_unique())["split"].max() == 1
