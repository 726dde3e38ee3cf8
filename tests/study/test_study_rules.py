"""Which jobs `snakemake study` plans."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

STUDY = """
study:
  pretrainings:
    doll: {}
    doll-long: {segment: {epochs: 2}}
  inits: [random, doll, doll-long]
  tunings:
    bias: {learning_rate: [0.01, 0.1]}
    short: {tuning: full, steps: 1}
"""


def test_names_with_hyphens_and_tunings_of_ones_own_make_one_job_each(tmp_path: Path) -> None:
    micro = (ROOT / "tests/micro.yaml").read_text()
    (tmp_path / "c.yaml").write_text(micro + STUDY)
    words = ["study", "--dry-run", "--configfile", "c.yaml", "--cores", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    planned = [line.split() for line in (done.stdout + done.stderr).splitlines()]
    assert ["pretrain_variant", "2"] in planned and ["adapt_variant", "6"] in planned
    assert "results/micro/study/default/organs/doll-long-short" in done.stdout + done.stderr
