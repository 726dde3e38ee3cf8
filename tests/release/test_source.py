"""Masks at the size of the source, by arithmetic and by painting."""

import numpy as np
import pytest

from dollmaker import rle
from dollmaker.geometry import Fit, unfit_mask
from dollmaker.release.source import to_source


@pytest.mark.parametrize("fit", ["letterbox", "resize"])
def test_codes_are_those_of_the_painted_mask(fit: Fit) -> None:
    rng = np.random.default_rng(0)
    for size in (1, 5, 24, 50):
        masks = [rng.random((size, size)) < share for share in (0, 0.02, 0.5, 0.97, 1) * 6]
        sizes = [(int(w), int(h)) for w, h in rng.integers(1, 130, (len(masks), 2))]
        for mask, (width, height), found in zip(
            masks, sizes, to_source(masks, sizes, fit), strict=True
        ):
            painted = unfit_mask(mask, width, height, fit) == 1
            assert found.counts == rle.encode(painted)
            assert found.area == painted.sum()
            ys, xs = np.nonzero(painted)
            box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1] if len(xs) else [0] * 4
            assert found.box == box


def test_no_masks_are_no_codes() -> None:
    assert to_source([], [], "resize") == []
