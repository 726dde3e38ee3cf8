"""Recipes that are compared in a finished run."""

import re
from pathlib import Path

import polars as pl
from PIL import Image

from micro_run import MICRO, copied, snakemake


def test_recipes_are_compared_by_name(finished: Path, tmp_path: Path) -> None:
    results = copied(finished, tmp_path)
    config = MICRO.read_text() + "compare: {recipes: [doll, tokencut, micranet]}\n"
    (tmp_path / "other.yaml").write_text(config)
    snakemake(tmp_path, "compare", "--configfile", "other.yaml")
    table = pl.read_parquet(results / "scores/recipes.parquet")
    own = {"doll", "band", "tokencut", "micranet"}
    assert set(table["recipe"]) == own | {"centre", "intensity", "whole"}
    assert set(table["rule"]) >= {"as published", "tuned", "few-shot", "evidence"}
    assert table.filter(recipe="micranet")["seconds"].min() > 0
    page = (results / "comparison/README.md").read_text()
    (verdict,) = re.findall(r"\| tokencut \|.*ignores the finding.*", page)
    assert "may ignore" not in verdict
    for name in ("scores.png", "masks.png"):
        assert Image.open(results / "comparison" / name).size[0] > 200
