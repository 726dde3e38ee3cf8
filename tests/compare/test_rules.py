"""Thresholds by rule, on pairs whose best thresholds are known."""

import numpy as np
import polars as pl
import pytest

from dollmaker.binarize.cuts import FAMILY, Cut
from dollmaker.binarize.label_free import CRITERIA, Chosen
from dollmaker.compare.rules import (
    FEW_SHOT,
    HELD_OUT,
    PUBLISHED,
    RECIPES,
    TRAINED,
    TUNED,
    apply_rules,
    best,
    first,
    is_tuning,
    summarize_rules,
)  # fmt: skip
from dollmaker.evaluate.masks import PAIRS_AT, at_levels
from dollmaker.measures import scores

COUNT = 40
CANDIDATES = tuple(Cut(FAMILY, k / COUNT) for k in range(COUNT))


def test_scores_at_many_levels_are_those_of_each_mask() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 12, (17, 13)).astype(np.float32)  # many ties
    area = rng.random((17, 13)) < 0.3
    levels = np.array([3.0, 11.0, 0.5, 7.0, np.inf, 3.0, -1.0])
    iou, dice, share = at_levels(values, levels, area)
    for k, level in enumerate(levels):
        mask = values > level
        assert iou[k] == pytest.approx(scores.iou(mask, area) if mask.any() else 0)
        assert dice[k] == pytest.approx(scores.dice(mask, area) if mask.any() else 0)
        assert share[k] == mask.mean()


SHARES = np.linspace(0, 0.5, COUNT)


def pairs(count: int = 60) -> pl.DataFrame:
    """Two findings; the best candidate of "a" is 5, of "b" 20."""
    rows = []
    for k in range(count):
        finding = "ab"[k % 2]
        curve = np.exp(-(((np.arange(COUNT) - (5 if finding == "a" else 20)) / 6) ** 2))
        row = {"target": "t", "split": "train" if k % 3 else "test", "finding": finding}
        row |= {"image_id": f"i{k}", "patient_id": f"p{k}", "truth_area": 0.1, "mask_area": 0.1}
        row |= {"hit": 1.0, "auprc": 0.5, "quality": 0.5}
        rows.append(
            row
            | {"recipe": "r", "iou": 0.25, "dice": 0.4}
            | {"iou_at": curve.tolist(), "dice_at": curve.tolist()}
            | {"area_at": SHARES.tolist()}
        )
        rows.append(row | {"recipe": "whole", "iou": 0.1, "dice": 0.2, "quality": None})
    return pl.DataFrame(rows, schema=PAIRS_AT, orient="row")


def chosen(place: int) -> Chosen:
    return Chosen(CANDIDATES, {(name, FAMILY): place for name in CRITERIA})


CUTS = {"r": {"a": chosen(5), "": chosen(14)}}  # "b" is not in the sample


def test_rules_choose_and_score_other_patients() -> None:
    ruled = apply_rules(pairs(), CUTS, tuning=0.3, few=5)
    assert not any(is_tuning(p, 0.3) for p in ruled["patient_id"])
    assert set(ruled["split"]) == {HELD_OUT, TRAINED}
    means = dict(ruled.filter(recipe="r").group_by("rule").agg(pl.col("iou").mean()).iter_rows())
    assert means[PUBLISHED] == 0.25
    assert means[TUNED] == means[FEW_SHOT] == pytest.approx(1)
    assert means["stability"] == pytest.approx((1 + np.exp(-1)) / 2, abs=0.15)
    assert set(ruled.filter(recipe="whole")["rule"]) == {PUBLISHED}
    areas = ruled.filter(recipe="r").group_by("rule", "finding").agg(pl.col("mask_area").unique())
    found = {(rule, finding): area for rule, finding, area in areas.iter_rows()}
    assert found[TUNED, "b"] == pytest.approx([SHARES[20]])
    assert found["stability", "b"] == pytest.approx([SHARES[14]])
    assert found[PUBLISHED, "b"] == [0.1]


def test_a_finding_without_tuning_pairs_gets_the_best_over_all() -> None:
    tune = pairs().filter((pl.col("recipe") == "r") & (pl.col("finding") == "a"))
    assert best(tune) == {"": 5, "a": 5}
    assert best(tune.clear()) == {}


def test_the_few_are_the_same_for_every_recipe() -> None:
    table = pairs()
    few = [first(table.filter(recipe=name), 3) for name in ("r", "whole")]
    assert few[0]["image_id"].to_list() == few[1]["image_id"].to_list()
    assert few[0].group_by("finding").len()["len"].to_list() == [3, 3]


def test_the_summary_has_a_row_per_rule_and_finding() -> None:
    table = summarize_rules(
        apply_rules(pairs(), CUTS, tuning=0.3, few=5), ["a", "b"], 50, 0, min_pairs=1
    )
    assert set(table.columns) == set(RECIPES) - {"seconds"}
    row = table.filter(
        recipe="r", rule=TUNED, split=HELD_OUT, slice="full", finding="mean", target="t"
    )
    assert row["miou"].item() == pytest.approx(1)
