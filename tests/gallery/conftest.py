"""One browser for all tests, and galleries for it to look at."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from benchmarks.shared import missing, start

from dollmaker.gallery.page import Content, write_gallery
from gallery import chromium
from gallery.fake_pairs import FINDINGS, make_others, make_rows, picture, relevance


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium."""
    if reason := missing():
        pytest.skip(f"the gallery is not tested in a browser: {reason}; see make test-browser")
    driver = start(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def galleries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``full`` (pictures, maps, another recipe), ``plain`` (masks only) and ``bounded``.

    Of the last every second pair, the findings' second, has a bound: its quality less 0.25.
    """
    folder = tmp_path_factory.mktemp("galleries")
    rows = make_rows()
    plain = Content(title="Gallery <i>one</i>", version="1.2.3", source="made, CC0")
    shown = replace(plain, picture=picture, relevance=relevance, others=make_others(rows))
    write_gallery(rows, folder / "full", shown)
    write_gallery(rows, folder / "plain", plain)
    second = pl.col("finding") == FINDINGS[1]
    bounds = pl.when(second).then((pl.col("quality") - 0.25).clip(0).round(4)).alias("iou_bound")
    write_gallery(rows.with_columns(bounds), folder / "bounded", replace(plain, confidence=0.9))
    return folder


@pytest.fixture
def full(browser: Any, galleries: Path) -> Iterator["chromium.Page"]:
    """The gallery with everything; afterwards the console must have been silent."""
    page = chromium.Page(browser, galleries / "full")
    page.errors()
    yield page
    assert page.errors() == []


@pytest.fixture
def plain(browser: Any, galleries: Path) -> Iterator["chromium.Page"]:
    """The gallery without pictures."""
    page = chromium.Page(browser, galleries / "plain")
    page.errors()
    yield page
    assert page.errors() == []


@pytest.fixture
def bounded(browser: Any, galleries: Path) -> Iterator["chromium.Page"]:
    """The gallery with bounds of the IoU."""
    page = chromium.Page(browser, galleries / "bounded")
    page.errors()
    yield page
    assert page.errors() == []
