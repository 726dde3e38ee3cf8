"""The stage on a tree whose answers are known by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

import fake_results as fake
from dollmaker.config.settings import resolved
from dollmaker.evaluate.stage import Inputs, evaluate
from dollmaker.runtime import cli
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store import tables


def _run(tree: Any, output: Path, **changes: Any) -> dict[str, pl.DataFrame]:
    arguments = fake.scored_things(tree.results, tree.data)
    config = changes.pop("config", tree.config)
    evaluate(resolved(config), Inputs(**(arguments | changes)), output)
    return {file.stem: tables.read(file) for file in output.iterdir()}


@pytest.fixture(scope="module")
def scores(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """All tables of the stage."""
    return _run(tree, tmp_path_factory.mktemp("scores") / "scores")


def _number(image_id: str) -> int:
    return [fake.image_id(n) for n in range(len(fake.SPLITS))].index(image_id)


def test_every_pair_has_the_iou_it_was_built_with(scores: dict[str, pl.DataFrame]) -> None:
    doll = scores["pairs"].filter(pl.col("recipe") == "doll")
    explained = doll.filter("explained")
    assert len(explained) == sum(fake.labels(n).count(1) for n in range(4, 16))
    for row in explained.iter_rows(named=True):
        iou = fake.expected_iou(row["finding"], _number(row["image_id"]))
        assert_allclose([row["iou"], row["dice"]], [iou, 2 * iou / (1 + iou)])
        assert_allclose(
            row["truth_area"], fake.to_source(fake.rectangle(fake.AREAS[row["finding"]])).mean()
        )
        assert row["hit"] == 1.0  # moved by two pixels, the hill's top is still inside
        assert 0.5 < row["auprc"] <= 1.0


def test_what_was_not_explained_counts_as_missed(scores: dict[str, pl.DataFrame]) -> None:
    missed = scores["pairs"].filter(~pl.col("explained"), pl.col("recipe") == "doll")
    assert set(missed["finding"]) == {"Lung Lesion"}  # truly there, but the label was blank
    assert missed["iou"].to_list() == [0.0] * len(missed) and len(missed) == 3
    assert missed["label"].to_list() == [-2] * 3
    assert_allclose(missed["auprc"], missed["truth_area"])


def test_means_and_slices_by_hand(scores: dict[str, pl.DataFrame]) -> None:
    def row(slice_name: str, finding: str, recipe: str = "doll") -> dict[str, Any]:
        return scores["masks"].row(
            by_predicate=(pl.col("recipe") == recipe)
            & (pl.col("split") == "test")
            & (pl.col("slice") == slice_name)
            & (pl.col("finding") == finding),
            named=True,
        )

    test = range(8, 16)
    by_finding = {
        finding: [fake.expected_iou(finding, n) for n in test if fake.labels(n)[k] == 1]
        for k, finding in enumerate(fake.FINDINGS)
    }
    for finding, values in by_finding.items():
        assert_allclose(row("positive", finding)["miou"], np.mean(values))
    lesion = [*by_finding["Lung Lesion"], 0.0, 0.0]  # images 11 and 15 were missed
    assert row("full", "Lung Lesion")["n"] == 8
    assert_allclose(row("full", "Lung Lesion")["miou"], np.mean(lesion))
    full = [np.mean(v) for v in (by_finding[fake.FINDINGS[0]], lesion, by_finding[fake.HOSTILE])]
    mean = row("full", "mean")
    assert_allclose(mean["miou"], np.mean(full))
    assert mean["miou_low"] < mean["miou"] < mean["miou_high"]
    # "tight" gates images 14 and 15 out: gone from the positive slice, zero in the full one.
    kept = [fake.expected_iou("Cardiomegaly", n) for n in (8, 10, 12)]
    assert_allclose(row("positive", "Cardiomegaly", "tight")["miou"], np.mean(kept))
    assert_allclose(row("full", "Cardiomegaly", "tight")["miou"], np.sum(kept) / 4)
    # The whole image overlaps by the share of the truth.
    area = fake.to_source(fake.rectangle(fake.AREAS["Cardiomegaly"])).mean()
    assert_allclose(row("positive", "Cardiomegaly", "whole")["miou"], area)
    assert_allclose(row("positive", "Cardiomegaly", "whole")["auprc"], area)


def test_a_probability_cut_off_empties_masks(tree: Any, tmp_path: Path) -> None:
    config = fake.make_config(evaluate={"bootstrap": 10, "min_probability": 0.7})
    pairs = _run(tree, tmp_path / "scores", config=config)["pairs"]
    for row in pairs.filter(pl.col("explained")).iter_rows(named=True):
        assert (row["mask_area"] > 0) == (row["probability"] >= 0.7) or row["recipe"] == "tight"
    assert pairs.filter(pl.col("recipe") == "whole", pl.col("probability") < 0.7)["iou"].max() == 0


def test_classifiers(scores: dict[str, pl.DataFrame]) -> None:
    table = scores["classifiers"]
    assert set(table["member"]) == {"first", "second", "committee"}
    assert set(table["split"]) == {"test", "valid"}
    row = table.row(
        by_predicate=(pl.col("member") == "first")
        & (pl.col("split") == "test")
        & (pl.col("finding") == "Cardiomegaly"),
        named=True,
    )
    assert (row["n_positive"], row["n_negative"], row["auroc"], row["auprc"]) == (4, 4, 1.0, 1.0)
    lesion = table.filter(pl.col("finding") == "Lung Lesion", pl.col("split") == "test")
    assert set(lesion["n_negative"]) == {2}  # blanks count as absent
    macro = table.filter(pl.col("finding") == "macro")
    assert macro["auroc"].is_between(0.9, 1.0).all()
    for member, split in table.select("member", "split").unique().iter_rows():
        mine = table.filter(pl.col("member") == member, pl.col("split") == split)
        whole, each = (
            mine.filter(pl.col("finding") == "macro"),
            mine.filter(pl.col("finding") != "macro"),
        )
        counts = np.array(each["bin_counts"].to_list()).sum(0)
        assert whole["bin_counts"][0].to_list() == counts.tolist()
        assert counts.sum() == (each["n_positive"] + each["n_negative"]).sum()
        assert 0 < whole["ece"][0] < 1


def test_blank_labels_can_be_left_out(tree: Any, tmp_path: Path) -> None:
    config = fake.make_config(classify={"members": {"first": {}}, "blank": "ignore"})
    table = _run(tree, tmp_path / "scores", config=config)["classifiers"]
    lesion = table.filter(pl.col("finding") == "Lung Lesion")
    assert set(lesion["n_negative"]) == {0} and lesion["auroc"].is_nan().all()


def test_tasks_by_hand(scores: dict[str, pl.DataFrame]) -> None:
    row = scores["tasks"].row(
        by_predicate=(pl.col("init") == "doll")
        & (pl.col("tuning") == "full")
        & (pl.col("n") == "all")
        & (pl.col("class") == "mean"),
        named=True,
    )
    lungs, heart = 0.7 + 0.025, 0.7 - 0.05 + 0.02  # the last image has no heart
    assert_allclose(row["seeds"], [(lungs + heart) / 2, (lungs + heart) / 2 + 0.02])
    assert_allclose(row["miou"], np.mean(row["seeds"]))
    assert row["miou_low"] < row["miou"] < row["miou_high"]
    assert (row["images"], row["n_images"]) == (6, 40)
    assert row["images_present"] == 6  # the lungs are in all of them
    assert_allclose(row["miou_present"], row["miou"])  # of the last heart nothing is known


def test_trivial_masks_stand_beside_the_starts(scores: dict[str, pl.DataFrame]) -> None:
    table = scores["tasks"].filter(pl.col("tuning") == "-")
    assert table["init"].unique(maintain_order=True).to_list() == ["empty", "centre", "whole"]
    assert set(table["n"]) == {"-"} and set(table["n_images"]) == {0}
    assert set(table["class"]) == {"mean", *fake.CLASSES}
    empty = table.filter(pl.col("init") == "empty", pl.col("class") == "heart").row(0, named=True)
    assert_allclose((empty["miou"], empty["miou_present"]), (1 / 6, 0))
    assert (empty["images"], empty["images_present"], len(empty["seeds"])) == (6, 5, 1)
    assert "-" not in set(scores["differences"]["tuning"])


def test_starts_are_compared_on_the_same_images(scores: dict[str, pl.DataFrame]) -> None:
    table = scores["differences"]
    assert set(table["init"]) == {"doll"} and set(table["reference"]) == {"random"}
    assert set(table["tuning"]) == {"full"}  # no random start with adapters
    for column in ("difference", "low", "high"):
        assert_allclose(table[column], 0.2, atol=1e-12)  # images differ, the gain does not


def test_without_truth_and_tasks_the_tables_are_empty(tree: Any, tmp_path: Path) -> None:
    config = fake.make_config(truth=None)
    result = _run(tree, tmp_path / "scores", config=config, tasks=[])
    for name, column in (
        ("pairs", "iou"),
        ("masks", "miou"),
        ("tasks", "miou"),
        ("differences", "low"),
    ):
        assert result[name].is_empty() and column in result[name].columns


def test_a_limit_on_images_scores_only_what_was_asked_for(tree: Any, tmp_path: Path) -> None:
    config = fake.make_config(attribute={"max_images": 100})
    pairs = _run(tree, tmp_path / "scores", config=config)["pairs"]
    assert set(pairs["image_id"]) == {fake.image_id(n) for n in range(4, 16)}


def test_masks_of_other_pairs_are_refused(tree: Any, tmp_path: Path) -> None:
    swapped = tmp_path / "masks"
    for recipe in ("doll", "tight"):
        (swapped / recipe).mkdir(parents=True)
        for name, other in (("0000", "0001"), ("0001", "0000")):
            source = tree.results / "masks" / recipe / f"{other}.h5"
            (swapped / recipe / f"{name}.h5").symlink_to(source)
    with pytest.raises(ArtifactError, match="same pairs"):
        _run(tree, tmp_path / "scores", masks=swapped)
    assert not (tmp_path / "scores").exists()


def test_the_command_writes_the_same_bytes_twice(tree: Any, tmp_path: Path) -> None:
    results = tree.results
    for name in ("one", "two"):
        words = ["evaluate", "--config", fake.inline(tree.config)]
        words += ["--index", str(results / "index.parquet"), "--images", str(results / "images")]
        words += ["--data-root", str(tree.data), "--committee"]
        words += [str(folder) for folder in sorted((results / "committee").iterdir())]
        words += ["--relevance", str(results / "relevance"), "--masks", str(results / "masks")]
        words += ["--tasks", "--output", str(tmp_path / name)]
        assert cli.main(words) == 0
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
