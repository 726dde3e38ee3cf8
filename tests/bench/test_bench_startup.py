"""The benchmark of starts: every stage is there, and it stops where the work begins."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dollmaker.bench.begin import BEGUN
from dollmaker.bench.startup import STEPS
from dollmaker.runtime.cli import main


def begin(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dollmaker.bench.begin", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_command_ends_where_its_work_begins(tmp_path: Path) -> None:
    words = ["phantom", "--images", "4", "--size", "48", "--output", str(tmp_path / "p")]
    done = begin("dollmaker.phantoms.dataset:write_dataset", *words)
    assert done.returncode == 0 and BEGUN not in done.stdout  # the package's name was not replaced
    assert (tmp_path / "p").is_dir()
    done = begin("dollmaker.phantoms:write_dataset", *words[:-1], str(tmp_path / "q"))
    assert (done.returncode, done.stdout.strip()) == (0, BEGUN)
    assert not (tmp_path / "q").exists()


def test_work_that_has_another_name_is_an_error() -> None:
    done = begin("dollmaker.phantoms:gone", "phantom")
    assert done.returncode and "gone" in done.stderr


@pytest.mark.slow
def test_every_stage_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "bench startup --size 32 --images 40 --rounds 1 --json"
    assert main([*words.split(), str(tmp_path / "b.json")]) == 0
    stages = json.loads((tmp_path / "b.json").read_text())["stages"]
    measured = {step.words.split()[0] for step in STEPS if step.work}
    assert set(stages) == {"import torch", *measured}
    assert all(s["cpu"] > 0 and s["shard"] == pytest.approx(20 * s["cpu"]) for s in stages.values())
    assert "s of cores" in capsys.readouterr().out
