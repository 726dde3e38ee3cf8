"""Snakemake in this very process, which has loaded the libraries already."""

import io
import signal
import subprocess
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from snakemake.cli import main

from dollmaker.store import sums

ROOT = Path(__file__).parents[1]

#: The smallest configuration.
MICRO = (ROOT / "tests/micro.yaml").read_text(encoding="utf-8")


def snakemake(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Call Snakemake in a folder, as a new process would; ``-s`` is the Snakefile by default."""
    words = words if "-s" in words else ("-s", str(ROOT / "Snakefile"), *words)
    out, err, on_term = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    sums._content.cache_clear()
    with chdir(folder), redirect_stdout(out), redirect_stderr(err):
        with pytest.raises(SystemExit) as ended:
            main(list(words))
    signal.signal(signal.SIGTERM, on_term)  # Snakemake has set its own
    code, told = ended.value.code or 0, ""
    if isinstance(code, str):  # what a process prints as it ends
        code, told = 1, f"{code}\n"
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue() + told)


def planned(folder: Path, settings: str, *words: str) -> str:
    """The output of a dry run of the Snakefile in a folder, with the text of a configuration."""
    (folder / "c.yaml").write_text(settings, encoding="utf-8")
    done = snakemake(folder, *words, "--dry-run", "--configfile", "c.yaml", "--cores", "2")
    text = done.stdout + done.stderr
    assert done.returncode == 0, text[-3000:]
    return text
