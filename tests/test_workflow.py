"""The workflow from end to end, and what a finished run does when it is called again."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest
import segmentation_models_pytorch as smp
import torch

from dollmaker.evaluate.release import score_release
from dollmaker.pixels.truth import open_truth
from dollmaker.release.read import read_release
from dollmaker.release.verify import verify
from micro_run import COMMAND, MICRO, copied, snakemake

COSTLY = ("train_member", "explain_images", "explain_sample", "pretrain_segmenter")


def test_every_stage_leaves_what_was_promised(finished: Path) -> None:
    results = finished / "results/micro"
    assert verify(results / "release") == []
    summary = json.loads((results / "summary.json").read_text())
    assert 0 <= summary["classifier"]["macro_auroc"] <= 1
    for recipe in ("doll", "band", "segmenter", "mean-map", "centre", "intensity", "whole"):
        for score in ("miou", "dice", "hit_rate"):
            assert 0 <= summary["masks"][recipe][score] <= 1
    assert 0 <= summary["tasks"]["organs"]["doll"]["adapter"]["2"]["miou"] <= 1
    assert set(summary["seconds"]) >= {"classify", "attribute", "segment", "adapt"}
    assert "<img" in (results / "report.html").read_text()
    assert (results / "release/models/segmenter/model.safetensors").is_file()
    card = (results / "release/README.md").read_text()
    assert "## Scores against truth\n\nOf test images" in card
    smp.from_pretrained(results / "release/models/segmenter")(torch.zeros(1, 1, 32, 32))


def test_a_stranger_gets_the_scores_of_the_run(finished: Path) -> None:
    results = finished / "results/micro"
    findings = read_release(results / "release").findings
    truth = open_truth(results / "phantoms/truth/valid.json", findings, {}, None)
    result = score_release(results / "release", truth, replicates=20, seed=0, min_pairs=10)
    assert result["scores"][0]["split"] == "test"
    ours = pl.read_parquet(results / "scores/masks.parquet").filter(recipe="doll", split="test")
    for theirs in result["scores"]:
        (row,) = ours.filter(slice=theirs["slice"], finding=theirs["finding"]).to_dicts()
        for name in ("n", "miou", "dice"):
            assert theirs[name] == pytest.approx(row[name])


def test_a_second_call_has_nothing_to_do(finished: Path) -> None:
    said = snakemake(finished)
    assert "Nothing to be done" in said and "under the same version" not in said


def test_times_of_files_rerun_nothing(finished: Path, tmp_path: Path) -> None:
    results = copied(finished, tmp_path)
    for name in ("index.parquet", "images/0000.h5", "committee/a/model.json"):
        os.utime(results / name)
    for name in ("phantoms", "committee/a", "segmenter"):
        os.utime(results / name / ".snakemake_timestamp")
    os.utime(results / "masks/doll/0001.h5", (0, 0))
    assert "Nothing to be done" in snakemake(tmp_path, "--dry-run")


def test_a_change_of_the_configuration_reruns_its_stages_and_says_why(
    finished: Path, tmp_path: Path
) -> None:
    copied(finished, tmp_path)
    text = MICRO.read_text()
    (tmp_path / "c.yaml").write_text(text.replace("nodes: 2", "nodes: 3"))
    planned = snakemake(tmp_path, "--dry-run", "--configfile", "c.yaml")
    assert "explain_images" in planned and "make_masks" in planned
    assert planned.count("made with other settings (recipes), and will be replaced under the") == 1
    assert "train_member" not in planned and "decode_images" not in planned
    assert "reason: Updated input files: results/micro/config/attribute-" in planned
    (tmp_path / "c.yaml").write_text(text.replace("gallery: 4", "gallery: 5"))
    planned = snakemake(tmp_path, "--dry-run", "--configfile", "c.yaml")
    assert "write_report" in planned
    assert not any(f"rule {rule}" in planned for rule in COSTLY)


def test_a_damaged_shard_is_named_moved_and_made_anew(finished: Path, tmp_path: Path) -> None:
    results = copied(finished, tmp_path)
    shard, mask = results / "relevance/doll/0001.h5", results / "masks/doll/0001.h5"
    whole = [path.read_bytes() for path in (shard, mask)]
    data = bytearray(whole[0])
    for place in range(len(data) // 3, len(data), 997):
        data[place] ^= 4
    shard.write_bytes(bytes(data))
    mask.unlink()
    target = "results/micro/masks/doll/0001.h5"
    command = [*COMMAND, target]
    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    log = (results / "logs/make_masks-doll-0001.log").read_text()
    assert "relevance/doll/0001.h5 is damaged" in log and "moved to" in log
    assert (results / "relevance/doll/0001.h5.damaged").exists() and not shard.exists()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    assert [path.read_bytes() for path in (shard, mask)] == whole


def test_a_second_snakemake_on_the_folder_refuses(finished: Path, tmp_path: Path) -> None:
    copied(finished, tmp_path)
    first = subprocess.Popen(
        [*COMMAND, "--forcerun", "train_member"], cwd=tmp_path, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not list((tmp_path / ".snakemake/locks").glob("*")):
            assert first.poll() is None, "the run ended before a second could be started"
            time.sleep(0.02)
        second = subprocess.run(COMMAND, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert first.poll() is None
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert second.returncode == 1
    assert "lock" in second.stderr.lower()


def test_snakemakes_own_report_can_be_made(finished: Path) -> None:
    snakemake(finished, "--report", "report.zip")
    assert (finished / "report.zip").stat().st_size > 10_000
