"""The workflow from end to end, killed on the way, and in other shards."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image

from dollmaker.evaluate.release import score_release
from dollmaker.evaluate.truth import Chexlocalize
from dollmaker.release.read import read_release
from dollmaker.release.verify import verify

ROOT = Path(__file__).parents[1]
COMMAND = [
    *(sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--cores", "2"),
    *("--configfile", str(ROOT / "tests/micro.yaml"), "--rerun-incomplete"),
]


def snakemake(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [*COMMAND, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    snakemake(folder)
    return folder


def test_every_stage_leaves_what_was_promised(finished: Path) -> None:
    results = finished / "results/micro"
    assert verify(results / "release") == []
    summary = json.loads((results / "summary.json").read_text())
    assert 0 <= summary["classifier"]["macro_auroc"] <= 1
    for recipe in ("doll", "band", "centre", "intensity", "whole"):
        for score in ("miou", "dice", "hit_rate"):
            assert 0 <= summary["masks"][recipe][score] <= 1
    assert 0 <= summary["tasks"]["organs"]["doll"]["adapter"]["2"]["miou"] <= 1
    assert set(summary["seconds"]) >= {"classify", "attribute", "segment", "adapt"}
    assert "<img" in (results / "report.html").read_text()
    assert (results / "release/models/segmenter/model.safetensors").is_file()
    card = (results / "release/README.md").read_text()
    assert "Against true masks of test images the mean IoU over findings is" in card
    smp.from_pretrained(results / "release/models/segmenter")(torch.zeros(1, 1, 32, 32))


def test_a_stranger_gets_the_scores_of_the_run(finished: Path) -> None:
    results = finished / "results/micro"
    findings = read_release(results / "release").findings
    truth = Chexlocalize([results / "phantoms/truth/valid.json"], findings)
    result = score_release(results / "release", truth, replicates=20, seed=0)
    assert result["scores"][0]["split"] == "test"
    ours = pl.read_parquet(results / "scores/masks.parquet").filter(recipe="doll", split="test")
    for theirs in result["scores"]:
        (row,) = ours.filter(slice=theirs["slice"], finding=theirs["finding"]).to_dicts()
        for name in ("n", "miou", "dice"):
            assert theirs[name] == pytest.approx(row[name])


def test_a_second_call_has_nothing_to_do(finished: Path) -> None:
    assert "Nothing to be done" in snakemake(finished)


def test_snakemakes_own_report_can_be_made(finished: Path) -> None:
    snakemake(finished, "--report", "report.zip")
    assert (finished / "report.zip").stat().st_size > 10_000


def test_recipes_are_compared_by_name(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "results", tmp_path / "results")
    config = (ROOT / "tests/micro.yaml").read_text()
    config += "compare: {recipes: [doll, explainseg-b, tokencut, micranet]}\n"
    (tmp_path / "compare.yaml").write_text(config)
    snakemake(tmp_path, "compare", "--configfile", "compare.yaml")
    results = tmp_path / "results/micro"
    table = pl.read_parquet(results / "scores/recipes.parquet")
    own = {"doll", "band", "explainseg-a", "explainseg-b", "tokencut", "micranet"}
    assert set(table["recipe"]) == own | {"centre", "intensity", "whole"}
    assert set(table["rule"]) >= {"as published", "oracle", "few-shot", "stability"}
    assert table.filter(recipe="micranet")["seconds"].min() > 0
    page = (results / "comparison/README.md").read_text()
    assert "| tokencut |" in page and "**ignores the finding**" in page
    for name in ("scores.png", "masks.png"):
        assert Image.open(results / "comparison" / name).size[0] > 200


def test_killed_and_in_other_shards_the_release_has_the_same_bytes(
    finished: Path, tmp_path: Path
) -> None:
    config = (ROOT / "tests/micro.yaml").read_text().replace("shards: 2", "shards: 3")
    (tmp_path / "other.yaml").write_text(config)
    words = ["results/micro/release.verified", "--configfile", "other.yaml"]
    command = [*COMMAND, *words]
    log = tmp_path / "results/micro/logs/train_member-a.log"
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while not (log.exists() and "epoch 1/" in log.read_text()):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "results/micro/committee/a").exists()
    snakemake(tmp_path, "--unlock", "--configfile", "other.yaml")
    snakemake(tmp_path, *words)
    again = tmp_path / "results/micro/release/SHA256SUMS"
    assert again.read_text() == (finished / "results/micro/release/SHA256SUMS").read_text()
    text = log.read_text()
    assert "epoch 2/" in text or "epoch 3/" in text
