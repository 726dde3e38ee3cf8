"""Means over pairs: of what, over which pairs, and with which intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from dollmaker.evaluate.means import PAIRS, summarize

#: Four patients of 16 images that agree within a patient.
IOU = np.repeat([0.1, 0.3, 0.5, 0.9], 4)


def pair(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "recipe": "doll", "target": "finding", "split": "test", "image_id": f"i{number:02d}",
        "patient_id": f"p{number:02d}", "finding": "Edema", "label": 1, "probability": 0.5,
        "explained": True, "truth_area": 0.1, "mask_area": 0.1, "iou": 0.5, "dice": 0.5,
        "hit": 1.0, "auprc": 0.5, "quality": 1.0, **changes,
    }  # fmt: skip


def pairs(patients: Sequence[str]) -> pl.DataFrame:
    rows = [
        pair(n, patient_id=patient, iou=float(iou), dice=float(iou), auprc=float(iou))
        for n, (patient, iou) in enumerate(zip(patients, IOU, strict=True))
    ]
    return pl.DataFrame(rows, schema=PAIRS, orient="row")


def means(rows: list[dict[str, Any]], *, least: int, **where: str) -> dict[str, dict[str, Any]]:
    """Finding -> its row."""
    table = pl.DataFrame(rows, schema=PAIRS, orient="row")
    names = list(dict.fromkeys(row["finding"] for row in rows))
    gates = {"doll": "model"}
    found = summarize(table, names, 200, 0, min_pairs=least, gated_by=gates)
    chosen = found.filter(**{"slice": "full", "recipe": "doll", **where})
    return {row["finding"]: row for row in chosen.iter_rows(named=True)}


def width(patients: Sequence[str]) -> float:
    (row,) = (
        summarize(pairs(patients), ["Edema"], 2000, 0, min_pairs=1, gated_by={})
        .filter(slice="full", finding="mean")
        .to_dicts()
    )
    assert row["miou"] == pytest.approx(np.mean(IOU))
    return float(row["miou_high"] - row["miou_low"])


def test_images_of_a_patient_are_drawn_together() -> None:
    alone = width([f"p{n}" for n in range(16)])
    together = width([f"p{n // 4}" for n in range(16)])
    # Four equal images of a patient tell as much as one: the interval is sqrt(4) times as wide.
    assert 1.7 < together / alone < 2.2


def test_one_patient_gives_no_interval() -> None:
    assert np.isnan(width(["p"] * 16))


def two_findings(few: int) -> list[dict[str, Any]]:
    """Twelve pairs of IoU 0.2, and a few of another finding of 0.8."""
    rows = [pair(n, iou=0.2) for n in range(12)]
    return rows + [pair(n, finding="Mass", iou=0.8) for n in range(few)]


def test_findings_count_alike_only_where_each_has_enough_pairs() -> None:
    enough = means(two_findings(10), least=10)["mean"]
    assert (enough["mean_over"], enough["miou"]) == ("findings", pytest.approx(0.5))
    found = means(two_findings(9), least=10)
    mean = found["mean"]
    assert (mean["mean_over"], mean["n"], mean["gated_by"]) == ("pairs", 21, "model")
    assert mean["miou"] == pytest.approx((12 * 0.2 + 9 * 0.8) / 21)
    assert mean["miou_low"] < mean["miou"] < mean["miou_high"]
    assert found["Mass"]["mean_over"] is None and found["Mass"]["miou"] == pytest.approx(0.8)


def test_the_pooled_interval_is_that_of_patients() -> None:
    rows = two_findings(9)
    mean = means(rows, least=10)["mean"]
    rng = np.random.default_rng(1)
    iou = np.array([row["iou"] for row in rows])
    patient = np.array([int(row["patient_id"][1:]) for row in rows])
    drawn = [np.bincount(rng.integers(12, size=12), minlength=12)[patient] for _ in range(4000)]
    low, high = np.percentile([(w * iou).sum() / w.sum() for w in drawn], (2.5, 97.5))
    assert mean["miou_low"] == pytest.approx(low, abs=0.015)
    assert mean["miou_high"] == pytest.approx(high, abs=0.015)


def test_all_recipes_have_the_same_mean() -> None:
    """One that masks nothing of a finding, and one with false alarms only, count as the others."""
    rows = two_findings(10)
    none = [row | {"recipe": "none", "mask_area": 0.0, "iou": 0.0} for row in rows]
    alarm = [pair(n, recipe="none", finding="Nodule", truth_area=0.0, iou=0.0, hit=np.nan)
             for n in range(20, 50)]  # fmt: skip
    assert means(rows + none, least=10)["mean"]["mean_over"] == "findings"
    assert means(rows + none + alarm, least=10)["mean"]["mean_over"] == "pairs"


def test_hit_rates_are_of_every_pair_with_truth() -> None:
    """As CheXlocalize's: a map whose mask is empty may hit, and one without truth cannot."""
    rows = [pair(0), pair(1, hit=0.0), pair(2, mask_area=0.0, iou=0.0)]
    rows += [pair(3, truth_area=0.0, iou=0.0, hit=np.nan)]
    for name, count in (("full", 4), ("positive", 2)):
        mean = means(rows, least=1, slice=name)["mean"]
        assert (mean["n"], mean["n_truth"]) == (count, 3)
        assert mean["hit_rate"] == pytest.approx(2 / 3)


def test_areas_are_correlated_within_findings() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for finding, base in (("Edema", 0.1), ("Mass", 0.001)):
        true, drawn = base * rng.uniform(1, 2, (2, 12))
        drawn[3] = 0  # missed, a pair with truth all the same
        rows += [
            pair(n, finding=finding, truth_area=float(true[n]), mask_area=float(drawn[n]))
            for n in range(12)
        ]
    rows.append(pair(20, truth_area=0.0, mask_area=0.9, iou=0.0))
    expected = {}
    for finding in ("Edema", "Mass"):
        mine = [row for row in rows if row["finding"] == finding and row["truth_area"]]
        areas = [[row[key] for row in mine] for key in ("mask_area", "truth_area")]
        expected[finding] = spearmanr(*areas).statistic
    found = means(rows, least=12)
    for finding, value in expected.items():
        assert found[finding]["area_correlation"] == pytest.approx(value)
    mean = found["mean"]["area_correlation"]
    assert mean == pytest.approx(np.mean(list(expected.values()))) and abs(mean) < 0.5
    assert np.isnan(means(rows, least=13)["mean"]["area_correlation"])


def test_masks_of_one_size_have_no_correlation() -> None:
    rows = [pair(n, truth_area=0.01 * (n + 1)) for n in range(12)]
    assert np.isnan(means(rows, least=1)["mean"]["area_correlation"])
