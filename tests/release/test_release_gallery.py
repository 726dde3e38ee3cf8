"""The gallery of a release shows what may be shown, and other recipes beside the released one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image
from small_release import build

from dollmaker.release.labels import read_pairs
from dollmaker.release.parts import SPLITS, read_rows
from dollmaker.store.tables import read_index


def facts(gallery: Path) -> dict[str, Any]:
    """What ``data/pairs.js`` hands to the page."""
    text = (gallery / "data/pairs.js").read_text()
    start, end = text.index("{"), text.rindex("}") + 1
    found: dict[str, Any] = json.loads(text[start:end])
    return found


def test_without_leave_no_pixel_of_the_source_is_in_it(made: Path) -> None:
    gallery = made / "gallery"
    assert (gallery / "index.html").is_file()
    assert not (gallery / "sheets").exists()
    assert "<script>alert" not in (gallery / "index.html").read_text()
    assert facts(gallery)["pictures"] == {"image": None, "relevance": None}
    listed = (made / "SHA256SUMS").read_text()
    assert "gallery/index.html" in listed and "gallery/data/pairs.js" in listed


def test_released_maps_are_shown(tmp_path: Path) -> None:
    gallery = build(tmp_path / "x", relevance=True) / "gallery"
    sheets = sorted(path.name for path in (gallery / "sheets").iterdir())
    assert sheets and all(name.startswith("relevance") for name in sheets)
    assert np.asarray(Image.open(gallery / "sheets" / sheets[0])).max() > 60


def test_other_recipes_are_beside_it(tmp_path: Path) -> None:
    release = build(tmp_path / "x", 2, other="band")
    index, _ = read_index(tmp_path / "x/index.parquet")
    table = pl.concat([read_rows(release, split) for split in SPLITS]).drop("iou_bound")
    pairs = read_pairs(index, sorted((tmp_path / "x/band").glob("*.h5")))
    keys = ["image_id", "finding"]
    assert pairs.sort(keys).equals(table.sort(keys))
    assert pairs.schema == table.schema
    assert facts(release / "gallery")["recipes"] == ["band"]
