"""Which jobs the report plans."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _planned(folder: Path) -> str:
    words = ["--dry-run", "--configfile", str(ROOT / "tests/micro.yaml"), "--cores", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout + done.stderr
    assert done.returncode == 0, text[-3000:]
    return text


def test_explanations_that_were_made_once_are_kept_current(tmp_path: Path) -> None:
    assert "explain_segmenter" not in _planned(tmp_path)
    (tmp_path / "results/micro/explained").mkdir(parents=True)
    assert "explain_segmenter" in _planned(tmp_path)
