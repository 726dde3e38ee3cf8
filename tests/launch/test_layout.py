"""What ``dollmaker init`` lays out is what the repository holds, and Snakemake plans it."""

from pathlib import Path

import pytest

from dollmaker.launch.layout import home, init
from dollmaker.runtime.cli import main
from dollmaker.runtime.errors import DataError
from snakemake_here import ROOT, snakemake


def test_the_layout_runs_outside_the_repository(tmp_path: Path) -> None:
    assert home() == ROOT
    folder = tmp_path / "new/run"
    assert main(["init", str(folder)]) == 0
    copied = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    rules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "workflow/rules").iterdir()}
    assert copied >= rules | {"config.yaml", "workflow/profiles/default/config.yaml"}
    assert all((ROOT / name).read_bytes() == (folder / name).read_bytes() for name in copied)
    assert not any(name.endswith(".py") for name in copied)
    done = snakemake(folder, "-s", "Snakefile", "-n", "--cores", "2")
    assert done.returncode == 0 and "build_release" in done.stdout + done.stderr
    with pytest.raises(DataError, match="exists already"):
        init(folder)
