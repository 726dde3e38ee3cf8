"""Polygons that pycocotools turns into the very masks."""

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco

from dollmaker.release.source import outline


def painted(polygons: list[list[int]], width: int, height: int) -> npt.NDArray[np.bool_]:
    code = coco.merge(coco.frPyObjects(polygons, height, width))
    return np.asarray(coco.decode(code), bool)


def check(mask: npt.NDArray[np.bool_], xs: list[int], ys: list[int]) -> list[list[int]]:
    """``mask`` is (rows, columns), blown up to the bounds."""
    polygons = outline(mask.T, np.array(xs), np.array(ys))
    large = np.repeat(np.repeat(mask, np.diff(ys), axis=0), np.diff(xs), axis=1)
    np.testing.assert_array_equal(painted(polygons, xs[-1], ys[-1]), large)
    return polygons


def test_a_square_and_a_ring() -> None:
    square = np.zeros((4, 5), bool)
    square[1:3, 2:4] = True
    assert check(square, [0, 2, 4, 6, 8, 10], [0, 1, 2, 3, 4]) == [[4, 1, 8, 1, 8, 3, 4, 3]]
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    (polygon,) = check(ring, list(range(6)), list(range(6)))
    assert len(polygon) == 2 * (4 + 1 + 4 + 1)


def test_rings_inside_rings() -> None:
    mask = np.zeros((13, 13), bool)
    for k in range(6):
        mask[k : 13 - k, k : 13 - k] = k % 2 == 0
    assert len(check(mask, list(range(14)), list(range(14)))) == 3
    two = np.ones((3, 9), bool)
    two[1, 1] = two[1, 3] = two[1, 6] = False
    assert len(check(two, list(range(10)), list(range(4)))) == 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.6, 0.9, 1])
def test_noise(share: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        mask = rng.random(rng.integers(1, 25, 2)) < share
        if mask.any():
            bounds = [np.cumsum([0, *rng.integers(1, 5, side)]).tolist() for side in mask.shape]
            check(mask, bounds[1], bounds[0])


def test_nothing_is_no_polygon() -> None:
    assert outline(np.zeros((3, 3), bool), np.arange(4), np.arange(4)) == []
