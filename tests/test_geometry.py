"""Into the square and back."""

import numpy as np
import pytest
from PIL import Image

from dollmaker.geometry import Fit, box, fit_image, fit_mask, unfit_map, unfit_mask


def test_letterbox_keeps_the_aspect_ratio_and_centres() -> None:
    assert box(200, 100, 50, "letterbox") == (0, 12, 50, 37)
    assert box(200, 100, 50, "resize") == (0, 0, 50, 50)
    image = fit_image(Image.new("L", (200, 100), 255), 50, "letterbox")
    rows = np.asarray(image)[:, 25]
    assert (rows[12:37] == 255).all()
    assert rows[:12].sum() == rows[37:].sum() == 0


@pytest.mark.parametrize("fit", ["letterbox", "resize"])
@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (75, 75)])
def test_a_mask_comes_back_to_its_place(shape: tuple[int, int], fit: Fit) -> None:
    height, width = shape
    y, x = np.mgrid[:height, :width]
    mask = ((y - 0.4 * height) ** 2 + (x - 0.6 * width) ** 2 < 15**2).astype(np.uint8)
    back = unfit_mask(fit_mask(mask, 128, fit), width, height, fit)
    assert back.shape == mask.shape
    overlap = (mask & back).sum() / (mask | back).sum()
    assert overlap > 0.93
    soft = unfit_map(fit_mask(mask, 128, fit).astype(np.float32), width, height, fit)
    assert np.abs(soft - mask).mean() < 0.03
