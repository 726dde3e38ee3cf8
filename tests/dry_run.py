"""What Snakemake plans for a configuration, without running it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: The smallest configuration.
MICRO = (ROOT / "tests/micro.yaml").read_text(encoding="utf-8")


def planned(folder: Path, settings: str, *words: str) -> str:
    """The output of a dry run of the Snakefile in a folder, with the text of a configuration."""
    (folder / "c.yaml").write_text(settings, encoding="utf-8")
    words = (*words, "--dry-run", "--configfile", "c.yaml", "--cores", "2")
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
