"""The choice of pictures, and masks as they are scored."""

import numpy as np
import polars as pl

from dollmaker.report import pictures


def _pairs() -> pl.DataFrame:
    rows = [("easy", f"i{n}", 0.9 - 0.01 * n) for n in range(10)]
    rows += [("hard", f"i{n}", 0.3 - 0.01 * n) for n in range(10)]
    return pl.DataFrame(rows, schema=["finding", "image_id", "iou"], orient="row")


def test_best_and_worst_are_spread_over_findings() -> None:
    best, worst = pictures.choose(_pairs(), "iou", 8)
    for chosen in (best, worst):
        assert sorted(row["finding"] for row in chosen) == ["easy"] * 2 + ["hard"] * 2
    assert [row["iou"] for row in best] == sorted((row["iou"] for row in best), reverse=True)
    assert [row["iou"] for row in worst] == sorted(row["iou"] for row in worst)
    assert best[0]["iou"] == 0.9
    assert round(worst[0]["iou"], 2) == 0.21


def test_few_pairs_are_shown_once() -> None:
    best, worst = pictures.choose(_pairs()[:3], "iou", 24)
    shown = [(row["image_id"], row["finding"]) for row in best + worst]
    assert len(shown) == len(set(shown)) == 3


def test_unknown_scores_are_not_shown() -> None:
    pairs = pl.DataFrame(
        {"finding": ["a", "a"], "image_id": ["x", "y"], "iou": [float("nan"), None]}
    )
    assert pictures.choose(pairs, "iou", 4) == ([], [])


def test_masks_are_shown_as_they_are_scored() -> None:
    """An edge at 0.4 between two pixels lies at the same place of the large picture."""
    values = np.tile(np.array([0.0, 0.0, 1.0, 1.0], np.float32), (4, 1))
    mask = (values > 0.4).astype(np.uint8)
    mask[0, 0] = 255
    codes = pictures._codes(mask, values, 0.4, (40, 40, "resize"))
    # Pixels' centres are 10 apart: the map crosses 0.4 at 15 + 0.4 * 10 = 19.
    assert (codes[20] == (np.arange(40) >= 19)).all()
    assert (codes[:10, :10] == 255).all() and set(np.unique(codes)) == {0, 1, 255}
