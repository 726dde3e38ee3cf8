"""The benchmark of the gallery: what it makes, and that it measures. No time is judged."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dollmaker.bench.browser import missing
from dollmaker.bench.gallery import pairs
from dollmaker.release.parts import SCHEMA
from dollmaker.runtime.cli import main
from dollmaker.runtime.errors import ConfigError
from dollmaker.store.rle import decode


def test_pairs_are_seeded_and_like_those_of_a_release() -> None:
    rows, pictures = pairs(30, 40)
    again, same = pairs(30, 40)
    assert rows.equals(again) and rows.schema == pl.Schema(SCHEMA)
    assert all((a == b).all() for a, b in zip(pictures, same, strict=True))
    assert rows["image_id"].n_unique() == 30 and rows["finding"].n_unique() > 5
    for row, picture in zip(rows.iter_rows(named=True), pictures, strict=True):
        mask = decode(row["counts"], *row["size"])
        assert mask.sum() == row["area"] and 0.05 < mask.mean() < 0.15
        assert picture.shape == (40, 40) and picture.dtype == np.uint8 and picture.std() > 10


def test_a_small_gallery_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if reason := missing():
        pytest.skip(f"the gallery is not measured in a browser: {reason}")
    words = "bench gallery --size 32 --images 400 --rounds 1 --json"
    assert main([*words.split(), str(tmp_path / "g.json")]) == 0
    found = json.loads((tmp_path / "g.json").read_text())
    assert found["pairs"] == 400 and found["bytes"] > found["bytes_index"] > 10_000
    assert found["first_tiles"] >= 30 and found["first_tiles_ms"] > 0
    assert found["scrolled_px"] > 1000
    assert 0 < found["frame_ms_median"] <= found["frame_ms_p95"] <= found["frame_ms_longest"]
    assert "gallery, 400 pairs, 32 px" in capsys.readouterr().out


def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dollmaker.bench import browser

    monkeypatch.setattr(browser.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="chromium and chromedriver not found on this machine;"):
        browser.start(tmp_path)
    assert main(["bench", "gallery", "--nodes", "3"]) == 1
    assert "bench gallery has no use for --nodes" in capsys.readouterr().err
