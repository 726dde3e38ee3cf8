"""Each benchmark runs by itself and measures what it says. No time is judged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.shared import missing

from dollmaker.binarize.steps import STEPS

FOLDER = Path(__file__).parents[2] / "benchmarks"


def run(name: str, words: str, folder: Path) -> tuple[dict[str, Any], str]:
    """The numbers of a benchmark and what it prints."""
    file = folder / "b.json"
    command = [sys.executable, str(FOLDER / f"{name}.py"), *words.split(), "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    numbers: dict[str, Any] = json.loads(file.read_text())
    return numbers, done.stdout


def test_release(tmp_path: Path) -> None:
    found, printed = run("release", "--size 48 --pairs 40", tmp_path)
    assert {"labels", "release", "verify, 1 processes"} <= set(found["seconds"])
    assert found["images_per_second"] > 0 and found["bytes"] > 10_000
    assert "40 pairs, masks of 48 px" in printed


@pytest.mark.slow
def test_rehearsal(tmp_path: Path) -> None:
    words = f"--permille 1 --size 32 --shards 2 --cores 1 --folder {tmp_path / 'work'}"
    found, printed = run("rehearsal", words, tmp_path)
    assert {rule: row["jobs"] for rule, row in found["rules"].items()} == {
        "make_masks": 2, "collect_labels": 1, "build_release": 1, "verify_release": 1,
    }  # fmt: skip
    assert found["pairs"] == 435 and found["images_per_second"] > 0
    assert "224 images, 435 pairs, masks of 32 px" in printed


@pytest.mark.slow
def test_binarize(tmp_path: Path) -> None:
    words = "--size 32 --images 1 --rounds 1 --grids 6 18"
    found, printed = run("binarize", words, tmp_path)
    assert set(found["masks_per_second"]) == set(STEPS)
    assert all(speed > 0 for speed in found["masks_per_second"].values())
    assert set(found["cuts_per_second"]) == {"6x6", "18x18"} and "\n18x18 " in printed


@pytest.mark.slow
def test_attribute(tmp_path: Path) -> None:
    words = "--architecture timm:test_resnet --size 32 --findings 2 --images 2"
    words += " --nodes 4 --reference 16 --rounds 1 --device cpu"
    found, printed = run("attribute", words, tmp_path)
    assert all(value > 0 for value in found["seconds_per_image"].values())
    assert found["relative_difference"] < 1e-5
    assert 0 < found["fidelity_captum"] <= 1 and 0 < found["fidelity_adaptive"] <= 1
    assert "(c) dollmaker, same nodes" in printed


@pytest.mark.slow
def test_gallery(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(f"the gallery is not measured in a browser: {reason}")
    found, _ = run("gallery", "--size 32 --images 400 --rounds 1", tmp_path)
    assert found["first_tiles"] >= 30 and found["first_tiles_ms"] > 0
    assert 0 < found["frame_ms_median"] <= found["frame_ms_p95"] <= found["frame_ms_longest"]


@pytest.mark.slow
def test_startup(tmp_path: Path) -> None:
    found, printed = run("startup", "--size 32 --images 40 --rounds 1", tmp_path)
    assert {"import torch", "classify", "adapt", "release"} <= set(found["stages"])
    assert all(s["cpu"] > 0 for s in found["stages"].values()) and "s of cores" in printed


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "release.py"), "--pairs", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "0 is not a positive number" in done.stderr
