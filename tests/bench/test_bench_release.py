"""The benchmark of releases: every step is there. No time is judged."""

import json
from pathlib import Path

import pytest

from dollmaker.runtime.cli import main


def test_every_step_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "bench release --size 48 --pairs 40 --json"
    assert main([*words.split(), str(tmp_path / "b.json")]) == 0
    found = json.loads((tmp_path / "b.json").read_text())
    assert {"labels", "release", "verify, 1 processes"} <= set(found["seconds"])
    assert found["images_per_second"] > 0 and found["bytes"] > 10_000
    printed = capsys.readouterr().out
    assert "40 pairs, masks of 48 px" in printed and "images/s" in printed
    assert main([*words.split(), str(tmp_path / "b.json"), "--nodes", "3"]) == 1
    assert "bench release has no use for --nodes" in capsys.readouterr().err
