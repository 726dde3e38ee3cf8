"""The choice and the drawing of pictures."""

import io

import numpy as np
import polars as pl
from PIL import Image

from dollmaker.report import gallery


def _pairs() -> pl.DataFrame:
    rows = [("easy", f"i{n}", 0.9 - 0.01 * n) for n in range(10)]
    rows += [("hard", f"i{n}", 0.3 - 0.01 * n) for n in range(10)]
    return pl.DataFrame(rows, schema=["finding", "image_id", "iou"], orient="row")


def test_best_and_worst_are_spread_over_findings() -> None:
    best, worst = gallery.choose(_pairs(), "iou", 8)
    for chosen in (best, worst):
        assert sorted(row["finding"] for row in chosen) == ["easy"] * 2 + ["hard"] * 2
    assert [row["iou"] for row in best] == sorted((row["iou"] for row in best), reverse=True)
    assert [row["iou"] for row in worst] == sorted(row["iou"] for row in worst)
    assert best[0]["iou"] == 0.9
    assert round(worst[0]["iou"], 2) == 0.21


def test_few_pairs_are_shown_once() -> None:
    best, worst = gallery.choose(_pairs()[:3], "iou", 24)
    shown = [(row["image_id"], row["finding"]) for row in best + worst]
    assert len(shown) == len(set(shown)) == 3


def test_unknown_scores_are_not_shown() -> None:
    pairs = pl.DataFrame(
        {"finding": ["a", "a"], "image_id": ["x", "y"], "iou": [float("nan"), None]}
    )
    assert gallery.choose(pairs, "iou", 4) == ([], [])


def test_panels_keep_the_shape_of_the_source() -> None:
    assert gallery.panel_shape(400, 200, 100) == (50, 100)
    assert gallery.panel_shape(200, 400, 100) == (100, 50)


def test_tint_paints_masks_and_ignored_pixels() -> None:
    ground = np.zeros((20, 20, 3), np.uint8)
    codes = np.zeros((20, 20), np.uint8)
    codes[5:15, 5:15], codes[0, 0] = 1, 255
    painted = gallery.tint(ground, {gallery.MASK_COLOUR: codes})
    assert tuple(painted[5, 5]) == gallery.MASK_COLOUR  # the edge
    assert tuple(painted[10, 10]) == tuple(int(c * 0.45) for c in gallery.MASK_COLOUR)
    assert len(set(painted[0, 0])) == 1 and painted[0, 0, 0] > 0  # grey
    assert not painted[18, 18].any() and not ground.any()


def test_heat_of_an_empty_map_leaves_the_image() -> None:
    ground = np.full((8, 8, 3), 100, np.uint8)
    plain = gallery.heat(ground, np.zeros((4, 4), np.float32))
    assert (plain == 90).all()
    signed = np.zeros((8, 8), np.float32)
    signed[0, 0], signed[7, 7] = 1, -1
    hot = gallery.heat(ground, signed)
    assert tuple(hot[0, 0]) != tuple(hot[7, 7])


def test_strips_are_small_pngs() -> None:
    picture = gallery.strip([np.zeros((10, 12, 3), np.uint8)] * 3)
    assert picture.shape == (10, 3 * 12 + 2 * 3, 3)
    with Image.open(io.BytesIO(gallery.to_png(picture))) as image:
        assert image.size == (42, 10)


def test_a_crop_is_shown_where_it_lies() -> None:
    """A source of 60 x 20 in a panel of 30 x 10: the window is the middle 20 columns."""
    shown = gallery._scaled_box((20, 0, 40, 20), (10, 30), 20, 60)
    assert shown == (10, 0, 20, 10)
    panel = gallery._placed(np.full((10, 10, 3), 9, np.uint8), shown, (10, 30))
    assert panel.shape == (10, 30, 3) and (panel[:, 10:20] == 9).all() and panel.sum() == 2700


def test_masks_are_shown_as_they_are_scored() -> None:
    """An edge at 0.4 between two pixels lies at the same place of the large picture."""
    values = np.tile(np.array([0.0, 0.0, 1.0, 1.0], np.float32), (4, 1))
    mask = (values > 0.4).astype(np.uint8)
    mask[0, 0] = 255
    codes = gallery._codes(mask, values, 0.4, (40, 40, "resize"))
    # Pixels' centres are 10 apart: the map crosses 0.4 at 15 + 0.4 * 10 = 19.
    assert (codes[20] == (np.arange(40) >= 19)).all()
    assert (codes[:10, :10] == 255).all() and set(np.unique(codes)) == {0, 1, 255}
