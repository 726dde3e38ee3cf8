"""Polygons that pycocotools turns into the very masks."""

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco

from dollmaker.release.source import outline


def painted(polygons: list[list[int]], width: int, height: int) -> npt.NDArray[np.bool_]:
    code = coco.merge(coco.frPyObjects(polygons, height, width))
    return np.asarray(coco.decode(code), bool)


def check(mask: npt.NDArray[np.bool_], left: int = 0, top: int = 0) -> list[list[int]]:
    """``mask`` is (rows, columns), a part of a picture."""
    polygons = outline(mask.T, left, top)
    whole = np.pad(mask, ((top, 1), (left, 1)))
    np.testing.assert_array_equal(painted(polygons, *whole.shape[::-1]), whole)
    return polygons


def test_a_square_and_a_ring() -> None:
    square = np.zeros((4, 5), bool)
    square[1:3, 2:4] = True
    assert check(square, 1, 4) == [[3, 5, 5, 5, 5, 7, 3, 7]]
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    (polygon,) = check(ring)
    assert len(polygon) == 2 * (4 + 1 + 4 + 1)


def test_rings_inside_rings() -> None:
    mask = np.zeros((13, 13), bool)
    for k in range(6):
        mask[k : 13 - k, k : 13 - k] = k % 2 == 0
    assert len(check(mask)) == 3
    two = np.ones((3, 9), bool)
    two[1, 1] = two[1, 3] = two[1, 6] = False
    assert len(check(two)) == 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.6, 0.9, 1])
def test_noise(share: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        mask = rng.random(rng.integers(1, 25, 2)) < share
        if mask.any():
            check(mask, *rng.integers(0, 5, 2).tolist())


def test_nothing_is_no_polygon() -> None:
    assert outline(np.zeros((3, 3), bool)) == []
