"""Steps by whole runs, by hand."""

from typing import Any

import numpy as np
import pytest

from dollmaker.evaluate.tasks import REFERENCES, Runs
from dollmaker.study.gather import steps_of_runs

BUDGETS = {"full": {20: "full", 10: "full10"}}


def runs(init: str, tuning: str, *levels: float, images: int = 4) -> Runs:
    """Runs whose seeds have one score each, in all images and classes."""
    iou = np.broadcast_to(np.array(levels)[None, :, None], (images, len(levels), 2)).copy()
    return Runs(
        task="organs",
        init=init,
        tuning=tuning,
        n="5",
        n_images=5,
        classes=["a", "b"],
        images=[f"i{k}" for k in range(images)],
        patients=np.array([f"p{k // 2}" for k in range(images)]),
        seeds=list(range(len(levels))),
        iou=iou,
        dice=iou,
        present=np.ones((images, 2), bool),
    )


def two_starts(early: float) -> list[Runs]:
    """Both end at 0.8; after ten steps ImageNet's has 0.4."""
    return [
        runs(init, tuning, level)
        for init, first in (("imagenet", 0.4), ("doll", early))
        for tuning, level in (("full10", first), ("full", 0.8))
    ]


def rows(*found: Runs) -> dict[tuple[str, str | None], dict[str, Any]]:
    table = steps_of_runs("unet", found, BUDGETS, 200, 0, REFERENCES)
    return {(row["init"], row["reference"]): row for row in table.iter_rows(named=True)}


def test_straight_lines_between_whole_runs() -> None:
    found = rows(
        runs("random", "full10", 0.1, 0.1),
        runs("random", "full", 0.2, 0.2),
        runs("imagenet", "full10", 0.4, 0.4),
        runs("imagenet", "full", 0.8, 0.8),
        runs("doll", "full10", 0.7, 0.7),
        runs("doll", "full", 0.75, 0.75),
    )
    # The goal is 0.95 * 0.8 = 0.76: doll never gets there, though it leads after ten steps.
    assert found["imagenet", "random"]["steps"] == pytest.approx(10 + 10 * 0.36 / 0.4)
    assert found["doll", "imagenet"]["steps"] is None
    assert found["doll", "imagenet"]["ratio"] is found["doll", "imagenet"]["low"] is None
    # A reference that never gets there counts with all its steps.
    against = found["imagenet", "random"]
    assert [against[key] for key in ("ratio", "low", "high")] == pytest.approx([19 / 20] * 3)
    assert found["imagenet", "imagenet"]["ratio"] is None
    assert found["doll", "random"]["miou"] == pytest.approx([0.7, 0.75])
    assert found["doll", "random"]["budgets"] == [10, 20]


def test_the_interval_draws_seeds() -> None:
    found = rows(
        runs("imagenet", "full10", 0.4, 0.6),
        runs("imagenet", "full", 0.8, 0.8),
        runs("doll", "full10", 0.78, 0.4),
        runs("doll", "full", 0.8, 0.8),
    )["doll", "imagenet"]
    first = 10 / 19  # both draws of the first seed: nothing was measured before step ten
    second = 19 / (10 + 10 * 0.16 / 0.2)  # of the second
    assert (found["low"], found["high"]) == pytest.approx((first, second))
    mean = (10 + 10 * (0.76 - 0.59) / (0.8 - 0.59)) / (10 + 10 * 0.26 / 0.3)
    assert found["ratio"] == pytest.approx(mean)


def test_patients_are_drawn_and_what_is_unknown_does_not_count() -> None:
    parts = two_starts(0.7)
    for part in parts:
        part.iou[0, :, 1] = np.nan
    parts[2].iou[2:] = 0.3  # the second patient
    found = rows(*parts)["doll", "imagenet"]
    # Class a has images of 0.7, 0.7, 0.3, 0.3, class b 0.7, 0.3, 0.3.
    mean = np.mean([0.5, 1.3 / 3])
    steps = 10 + 10 * (0.76 - mean) / (0.8 - mean)
    assert found["steps"] == pytest.approx(steps)
    low, high = ((10 + 10 * (0.76 - m) / (0.8 - m)) / 19 for m in (0.7, 0.3))
    assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_one_patient_has_no_interval_and_an_unknown_draw_does_not_count() -> None:
    parts = two_starts(0.6)
    for part in parts:
        part.iou[2:] = np.nan  # nothing is known of the second patient
    found = rows(*parts)["doll", "imagenet"]
    assert [found[key] for key in ("ratio", "low", "high")] == pytest.approx([18 / 19] * 3)
    for part in parts:
        part.patients[:] = "p0"
    found = rows(*parts)["doll", "imagenet"]
    assert found["ratio"] == pytest.approx(18 / 19)
    assert found["low"] is found["high"] is None


def test_without_references_or_budgets() -> None:
    both = runs("doll", "full10", 0.4), runs("doll", "full", 0.8)
    assert [key[1] for key in rows(*both)] == [None]
    assert steps_of_runs("unet", both, {}, 10, 0, REFERENCES).is_empty()
