"""Masks at the size of the source, by arithmetic and by painting."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco
from scipy import ndimage

from dollmaker.pixels.geometry import Fit, level_set, source_mask, unfit_mask
from dollmaker.release.source import SourceMask, to_source
from dollmaker.store import rle

FITS: tuple[Fit, ...] = ("letterbox", "resize", "crop")


def check(found: SourceMask, painted: npt.NDArray[np.bool_]) -> None:
    assert found.counts == rle.encode(painted)
    assert found.area == painted.sum()
    ys, xs = np.nonzero(painted)
    box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1] if len(xs) else [0] * 4
    assert found.box == box
    if found.area:
        code = coco.merge(coco.frPyObjects(found.polygons, *painted.shape))
        assert code["counts"].decode() == found.counts
    else:
        assert found.polygons == []


def random_sizes(rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    return [(int(w), int(h)) for w, h in rng.integers(1, 130, (count, 2))]


@pytest.mark.parametrize("fit", FITS)
def test_codes_are_those_of_the_painted_mask(fit: Fit) -> None:
    rng = np.random.default_rng(0)
    for size in (1, 5, 24, 50):
        masks = [rng.random((size, size)) < share for share in (0, 0.02, 0.5, 0.97, 1) * 6]
        sizes = random_sizes(rng, len(masks))
        found = to_source(masks, sizes, fit, polygons=True)
        for mask, (width, height), mine in zip(masks, sizes, found, strict=True):
            check(mine, unfit_mask(mask, width, height, fit) == 1)


def random_levels(rng: np.random.Generator, size: int, kind: str) -> npt.NDArray[np.int8]:
    """Noise, few numbers (so that many places are exactly 0), or smooth hills."""
    if kind == "noise":
        values = rng.integers(-127, 128, (size, size))
    elif kind == "few":
        values = rng.choice([-2, -1, 1, 3], (size, size))
    else:
        hills: Any = ndimage.gaussian_filter(rng.normal(size=(size, size)), size / 12)
        cut = float(np.quantile(hills, rng.uniform(0, 1)))
        return level_set(hills > cut, hills, cut)
    return np.where(values == 0, -1, values).astype(np.int8)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("kind", ["noise", "few", "smooth"])
def test_codes_are_those_of_the_painted_level_set(fit: Fit, kind: str) -> None:
    rng = np.random.default_rng(1)
    for size in (1, 5, 24, 50):
        levels = [random_levels(rng, size, kind) for _ in range(20)]
        levels += [np.full((size, size), sign, np.int8) for sign in (-127, 127)]
        sizes = [*random_sizes(rng, len(levels) - 2), (size, size), (3 * size, 7 * size)]
        found = to_source(levels, sizes, fit, polygons=True)
        for square, (width, height), mine in zip(levels, sizes, found, strict=True):
            check(mine, source_mask(square, width, height, fit))


def test_a_large_radiograph() -> None:
    square = random_levels(np.random.default_rng(2), 320, "smooth")
    (found,) = to_source([square], [(2800, 3400)], "letterbox")
    assert found.counts == rle.encode(source_mask(square, 2800, 3400, "letterbox"))


def test_no_masks_are_no_codes() -> None:
    assert to_source([], [], "resize") == []
