"""Every threshold's mask of a pair, scored at the size of the source."""

import numpy as np
import pytest

from dollmaker.evaluate.masks import at_levels, shown_only
from dollmaker.measures.scores import iou
from dollmaker.pixels.geometry import Fit, source_map, source_mask


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_levels_score_the_masks_that_they_draw(fit: Fit) -> None:
    """A level under the map's minimum draws all that is shown, and nothing beside it."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 1, (16, 16)).astype(np.float32)
    truth = rng.uniform(size=(30, 48)) > 0.7
    levels = np.array([0.9, 0.05, 0.5])
    drawn = shown_only(source_map(values, 48, 30, fit), 48, 30, fit)
    found, _, areas = at_levels(drawn, levels, truth)
    for level, overlap, area in zip(levels, found, areas, strict=True):
        mask = source_mask(values - np.float32(level), 48, 30, fit)
        assert overlap == pytest.approx(float(iou(mask, truth)))
        assert area == pytest.approx(mask.mean())
    assert areas[1] == (1 if fit == "resize" else 30 / 48)
