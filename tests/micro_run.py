"""The smallest run of the workflow, by Snakemake in a process of its own, as a user calls it."""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: The configuration, and what calls Snakemake with it.
MICRO = ROOT / "tests/micro.yaml"
COMMAND = [
    *(sys.executable, "-m", "snakemake", "--configfile", str(MICRO)),
    *("-s", str(ROOT / "Snakefile"), "--cores", "2"),
]


def snakemake(folder: Path, *words: str) -> str:
    """Run it in a folder to a good end, and return what it said."""
    done = subprocess.run(
        [*COMMAND, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def finish_once(folder: Path) -> Path:
    """A finished run in a folder, made by the first of the processes that ask for it."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "results/micro/report.html").exists():
            snakemake(folder)
    return folder


def copied(finished: Path, folder: Path) -> Path:
    """A finished run that may be changed, with what Snakemake remembers of it; its results."""
    for name in ("results", ".snakemake"):
        shutil.copytree(finished / name, folder / name)
    return folder / "results/micro"
