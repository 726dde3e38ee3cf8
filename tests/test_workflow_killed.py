"""A run that is killed on the way and made in other shards, and recipes that are compared in it."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from micro_run import COMMAND, MICRO, snakemake

#: Three shards, where the run that it is compared with has two.
OTHER = MICRO.read_text().replace("shards: 2", "shards: 3")
WORDS = ("--configfile", "other.yaml")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed in its training and has gone on to the release."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "other.yaml").write_text(OTHER)
    words = ["results/micro/release.verified", *WORDS]
    log = folder / "results/micro/logs/train_member-a.log"
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while not (log.exists() and "epoch 1/" in log.read_text()):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "results/micro/committee/a").exists()
    snakemake(folder, "--unlock", *WORDS)
    snakemake(folder, *words)
    text = log.read_text()
    assert "epoch 2/" in text or "epoch 3/" in text
    return folder


def test_killed_and_in_other_shards_the_release_has_the_same_bytes(
    killed: Path, finished: Path
) -> None:
    again = killed / "results/micro/release/SHA256SUMS"
    assert again.read_text() == (finished / "results/micro/release/SHA256SUMS").read_text()


def test_recipes_are_compared_by_name(killed: Path, tmp_path: Path) -> None:
    shutil.copytree(killed / "results", tmp_path / "results")
    config = OTHER + "compare: {recipes: [doll, tokencut, micranet]}\n"
    (tmp_path / "other.yaml").write_text(config)
    snakemake(tmp_path, "compare", *WORDS)
    results = tmp_path / "results/micro"
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
