"""CheXpert at its full size: the plan of jobs, without an image."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dollmaker.store.findings import CHEXPERT

ROOT = Path(__file__).parents[2]
TRAIN, VALID = 223_414, 234


def write_chexpert(root: Path) -> None:
    """train.csv and valid.csv as released, every label blank or one of CheXpert's."""
    folder = root / "CheXpert-v1.0-small"
    folder.mkdir(parents=True)
    head = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT]
    values = ("1.0", "", "-1.0", "0.0")
    for name, rows in (("train", TRAIN), ("valid", VALID)):
        with (folder / f"{name}.csv").open("w") as handle:
            handle.write(",".join(head) + "\n")
            for n in range(rows):
                path = f"CheXpert-v1.0-small/{name}/patient{n // 3:05d}/study1/view{n % 3 + 1}"
                labels = ",".join(values[(n + k) % 4] for k in range(14))
                view = "Frontal" if n % 7 else "Lateral"
                handle.write(f"{path}_{view.lower()}.jpg,Male,50,{view},AP,{labels}\n")


@pytest.mark.slow
def test_the_full_chexpert_is_planned_in_few_jobs(tmp_path: Path) -> None:
    write_chexpert(tmp_path / "data")
    started = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "-n", "--quiet"),
            *("rules", "--cores", "8", "--config", f"data_root={tmp_path / 'data'}"),
            *("--configfile", str(ROOT / "workflow/configs/chexpert.yaml")),
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(f"{time.monotonic() - started:.1f} s")
    assert done.returncode == 0, done.stderr[-3000:]
    (total,) = set(re.findall(r"^total\s+(\d+)", done.stdout + done.stderr, re.MULTILINE))
    print(total, "jobs")
    assert 100 < int(total) < 3000
