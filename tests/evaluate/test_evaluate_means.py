"""Intervals of the means over pairs: whole patients are drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from dollmaker.evaluate.means import PAIRS, summarize

#: Four patients of 16 images that agree within a patient.
IOU = np.repeat([0.1, 0.3, 0.5, 0.9], 4)


def pairs(patients: Sequence[str]) -> pl.DataFrame:
    rows: list[dict[str, Any]] = [
        {
            "recipe": "doll", "target": "finding", "split": "test", "image_id": f"i{n:02d}",
            "patient_id": patient, "finding": "Edema", "label": 1, "probability": 0.5,
            "explained": True, "truth_area": 0.1, "mask_area": 0.1, "iou": float(iou),
            "dice": float(iou), "hit": 1.0, "auprc": float(iou), "quality": 1.0,
        }
        for n, (patient, iou) in enumerate(zip(patients, IOU, strict=True))
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=PAIRS, orient="row")


def width(patients: Sequence[str]) -> float:
    row = summarize(pairs(patients), ["Edema"], 2000, 0).row(0, named=True)
    assert row["miou"] == pytest.approx(np.mean(IOU))
    return float(row["miou_high"] - row["miou_low"])


def test_images_of_a_patient_are_drawn_together() -> None:
    alone = width([f"p{n}" for n in range(16)])
    together = width([f"p{n // 4}" for n in range(16)])
    # Four equal images of a patient tell as much as one: the interval is sqrt(4) times as wide.
    assert 1.7 < together / alone < 2.2


def test_one_patient_gives_no_interval() -> None:
    assert np.isnan(width(["p"] * 16))
