"""Which jobs the report plans."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _planned(folder: Path, settings: str) -> str:
    (folder / "c.yaml").write_text(settings)
    words = ["--dry-run", "--configfile", "c.yaml", "--cores", "2"]
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


def test_explanations_are_made_where_the_report_shall_show_them(tmp_path: Path) -> None:
    micro = (ROOT / "tests/micro.yaml").read_text()
    assert "explain_segmenter" not in _planned(tmp_path, micro)
    wished = micro.replace("gallery: 4", "gallery: 4, explained: true")
    assert "explain_segmenter" in _planned(tmp_path, wished)
