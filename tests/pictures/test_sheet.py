"""Tiles and words side by side."""

import io

import numpy as np
from PIL import Image

from dollmaker.pictures.overlay import captioned, sheet, strip, to_png

RED = np.full((10, 12, 3), (200, 0, 0), np.uint8)


def test_strips_are_small_pngs() -> None:
    picture = strip([np.zeros((10, 12, 3), np.uint8)] * 3)
    assert picture.shape == (10, 3 * 12 + 2 * 3, 3)
    with Image.open(io.BytesIO(to_png(picture))) as image:
        assert (image.size, image.mode) == ((42, 10), "P")
    with Image.open(io.BytesIO(to_png(RED, colours=None))) as image:
        np.testing.assert_array_equal(np.asarray(image), RED)


def count(picture: np.ndarray) -> int:
    """Pixels of red tiles."""
    return int((picture == RED[0, 0]).all(-1).sum())


def test_no_tile_is_covered_whatever_the_words() -> None:
    rows = [("one", [RED, RED]), ("a longer line of words\nin two", [RED]), ("", [])]
    for titles in ((), ("x", "a title that is wider than its tiles")):
        for beside in (False, True):
            drawn = sheet(rows, titles=titles, beside=beside)
            assert count(drawn) == 3 * RED[..., 0].size
            assert (drawn[:, -1] == 255).all() and (drawn == 0).all(-1).any()
    assert sheet([("", [RED, RED])]).shape[0] < sheet(rows).shape[0]
    assert count(sheet([("", [sheet(rows), RED])])) == 4 * RED[..., 0].size
    assert sheet([]).size > 0


def test_captions_are_below_the_picture() -> None:
    drawn = captioned(RED, [("Edema  quality 0.50", (0, 255, 0)), ("x", (0, 0, 255))])
    np.testing.assert_array_equal(drawn[:10, :12], RED)
    below = drawn[10:].astype(int)
    assert drawn.shape[1] > 100 and not drawn[:10, 12:].any()
    assert (below[..., 1] > 200).any() and (below[..., 2] > 200).any()
    np.testing.assert_array_equal(captioned(RED, []), RED)
