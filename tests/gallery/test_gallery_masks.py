"""The page's own reading of masks, against the package's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dollmaker.gallery import page
from dollmaker.store.rle import encode

CODE = (Path(page.__file__).parent / "templates/masks.js").read_text()


@pytest.fixture
def ask(browser: Any) -> Any:
    """Runs an expression after the script of masks."""
    browser.get("about:blank")
    return lambda expression, *words: browser.execute_script(CODE + f"return {expression};", *words)


def masks() -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    found = [rng.random((h, w)) < p for h, w, p in [(9, 7, 0.5), (20, 31, 0.3), (40, 40, 0.9)]]
    found += [np.ones((5, 6), bool), np.eye(6, dtype=bool), np.zeros((3, 4), bool)]
    large = np.zeros((300, 300), bool)
    large[40:250, 3:] = True
    return [*found, large]


def test_runs_are_decoded_as_the_package_does(ask: Any) -> None:
    for mask in masks():
        height, width = mask.shape
        pixels = ask(
            "[...decodeMask(arguments[0], arguments[1], arguments[2]).pixels]",
            encode(mask),
            height,
            width,
        )
        assert pixels == mask.T.ravel().astype(int).tolist()


def test_an_outline_holds_exactly_the_pixels_of_the_mask(ask: Any) -> None:
    script = """(() => {
      const mask = decodeMask(arguments[0], arguments[1], arguments[2]);
      const path = new Path2D();
      for (const loop of outlines(mask)) {
        path.moveTo(loop[0], loop[1]);
        for (let k = 2; k < loop.length; k += 2) path.lineTo(loop[k], loop[k + 1]);
        path.closePath();
      }
      const pen = document.createElement("canvas").getContext("2d");
      const found = [];
      for (let y = 0; y < mask.height; y += 1) {
        for (let x = 0; x < mask.width; x += 1) {
          found.push(Number(pen.isPointInPath(path, x + 0.5, y + 0.5, "evenodd")));
        }
      }
      return found;
    }).apply(null, arguments)"""
    for mask in masks()[:-1]:
        inside = ask(script, encode(mask), *mask.shape)
        assert inside == mask.astype(int).ravel().tolist()


@pytest.mark.parametrize("code", ["", "0", "o", "oooooooo", "\x7f", "é", "XX4", "<<<<"])
def test_a_damaged_code_is_no_mask(ask: Any, code: str) -> None:
    assert ask("decodeMask(arguments[0], 10, 10)", code) is None
