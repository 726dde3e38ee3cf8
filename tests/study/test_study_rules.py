"""Which jobs `snakemake study` plans."""

from pathlib import Path

from snakemake_here import MICRO, planned

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
    text = planned(tmp_path, MICRO + STUDY, "study")
    jobs = [line.split() for line in text.splitlines()]
    assert ["pretrain_variant", "2"] in jobs and ["adapt_variant", "6"] in jobs
    assert "results/micro/study/default/organs/doll-long-short" in text
