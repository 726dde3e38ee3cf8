"""Masks, maps and outlines over pictures."""

import matplotlib as mpl
import numpy as np
import pytest
from scipy import ndimage

from dollmaker.pictures.overlay import MASK, Panel, colour_map, heat, outline, panel_shape, tint
from dollmaker.pixels.geometry import unfit_map


def test_panels_keep_the_shape_of_the_source() -> None:
    assert panel_shape(400, 200, 100) == (50, 100)
    assert panel_shape(200, 400, 100) == (100, 50)
    assert panel_shape(4000, 1, 100) == (1, 100)


def test_tint_paints_masks_and_ignored_pixels() -> None:
    ground = np.zeros((20, 20, 3), np.uint8)
    codes = np.zeros((20, 20), np.uint8)
    codes[5:15, 5:15], codes[0, 0] = 1, 255
    painted = tint(ground, {MASK: codes})
    assert tuple(painted[5, 5]) == MASK  # the edge
    assert tuple(painted[10, 10]) == tuple(int(c * 0.45) for c in MASK)
    assert len(set(painted[0, 0])) == 1 and painted[0, 0, 0] > 0  # grey
    assert not painted[18, 18].any() and not ground.any()


@pytest.mark.parametrize("thickness", [1, 3])
def test_outlines_are_the_inner_edge(thickness: int) -> None:
    mask = np.random.default_rng(0).random((40, 30)) < 0.97
    mask[-1] = True  # the border of the picture is an edge, too
    drawn = outline(np.zeros((40, 30, 3), np.uint8), mask, (1, 2, 3), thickness=thickness)
    core = ndimage.binary_erosion(mask, iterations=thickness)
    np.testing.assert_array_equal(drawn.any(-1), mask & ~core)


def test_heat_of_an_empty_map_leaves_the_image() -> None:
    ground = np.full((8, 8, 3), 100, np.uint8)
    plain = heat(ground, np.zeros((4, 4), np.float32))
    assert (plain == 90).all()
    signed = np.zeros((8, 8), np.float32)
    signed[0, 0], signed[7, 7] = 1, -1
    hot = heat(ground, signed)
    assert tuple(hot[0, 0]) != tuple(hot[7, 7])


def test_colours_are_those_of_matplotlib() -> None:
    values = np.linspace(0, 1, 1001)
    theirs = mpl.colormaps["inferno"](values)[:, :3] * 255
    np.testing.assert_allclose(colour_map("inferno", values), theirs)


def test_a_crop_is_shown_where_it_lies() -> None:
    """A source of 60 x 20 in a panel of 30 x 10: the window is the middle 20 columns."""
    panel = Panel.of(60, 20, "crop", size=16, side=30)
    assert (panel.shape, panel.shown) == ((10, 30), (10, 0, 20, 10))
    drawn = panel.image(np.full((1, 16, 16), 9, np.uint8))
    assert drawn.shape == (10, 30, 3) and (drawn[:, 10:20] == 9).all() and drawn.sum() == 2700


@pytest.mark.parametrize("fit", ["letterbox", "resize"])
def test_a_panel_shows_the_source(fit: str) -> None:
    """What the square holds of a source lies in the panel where the source has it."""
    square = np.zeros((1, 32, 32), np.float32)
    square[0, 14:18, 8:16] = 255
    panel = Panel.of(64, 32, fit, size=32, side=64)  # type: ignore[arg-type]
    whole = unfit_map(square[0], 64, 32, fit)  # type: ignore[arg-type]
    np.testing.assert_allclose(panel.image(square)[..., 0], whole, atol=1.5)
