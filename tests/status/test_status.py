"""The state of a run, from its files alone."""

import json
import os
import re
from pathlib import Path

import polars as pl
import pytest

from dollmaker.runtime import cli
from dollmaker.runtime.errors import DataError
from dollmaker.status.run import RULES, SILENT, read_run, render, write_plan
from dollmaker.store import provenance, tables

NOW = 1_800_000_000.0


def job(folder: Path, name: str, text: str, *, log: float, done: float | None = None) -> None:
    """A job that last spoke ``log`` seconds ago and was done ``done`` seconds ago."""
    for kind in ("logs", "benchmarks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    (folder / "logs" / f"{name}.log").write_text(text)
    os.utime(folder / "logs" / f"{name}.log", (NOW - log, NOW - log))
    if done is not None:
        (folder / "benchmarks" / f"{name}.tsv").write_text("s\n1\n")
        os.utime(folder / "benchmarks" / f"{name}.tsv", (NOW - done, NOW - done))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight shards: all decoded, three explained, one under way, one failed, one killed."""
    results = tmp_path / "results/x"
    plan = pl.DataFrame({"image_id": [f"i{n}" for n in range(80)]})
    tables.write(
        plan, results / "prepare/listing.parquet", provenance.header("prepare", {"shards": 8})
    )
    (results / "quarantine.csv").write_text('image_id,path,reason\na,a.png,"two\nlines"\n')
    for n in range(8):
        job(results, f"decode_images-000{n}", "", log=9000, done=9000)
    for n in range(3):
        job(results, f"explain_images-doll-000{n}", "ok", log=1200 - 600 * n, done=1200 - 600 * n)
    planned = [f"logs/explain_images-doll-000{n}.log" for n in range(8)]
    write_plan(results, [*planned, "logs/build_index.log", "logs/audit_images.tsv"])
    os.utime(results / "plan.json", (NOW - 9500, NOW - 9500))
    line = "attribute doll 0003: 4/10 images, 9.9 maps/s, 5 nodes/map, 99 MB, 7 s left\n"
    job(results, "explain_images-doll-0003", line, log=3)
    trouble = "one\n\ntwo \x1b[31m\ndollmaker: error: shard 7 is damaged; delete it.\n"
    job(results, "explain_images-doll-0004", trouble, log=60, done=5000)
    job(results, "explain_images-doll-0005", "4/10 images", log=SILENT + 9)
    job(results, "train_member-a", "classify a epoch 3/9\n", log=7)
    stopped = "dollmaker: stopped by SIGTERM; what was finished is kept\n"
    job(results, "train_member-b", stopped, log=7)
    return results


def test_every_job_has_its_state(folder: Path) -> None:
    run = read_run(folder, NOW)
    states = {job.name: job.state for stage in run.stages for job in stage.jobs}
    assert states["explain_images-doll-0002"] == "done"
    assert states["explain_images-doll-0003"] == "running"
    assert states["explain_images-doll-0004"] == "failed", "an old success does not count"
    assert states["explain_images-doll-0005"] == "silent"
    assert states["train_member-a"] == "running"
    assert states["train_member-b"] == "stopped"
    assert (run.images, run.shards, run.quarantined) == (80, 8, 1)
    assert not run.finished


def test_every_rule_that_runs_is_shown() -> None:
    files = (Path(__file__).parents[2] / "workflow/rules").glob("*.smk")
    texts = "".join(file.read_text() for file in files)
    rules = set(re.findall(r"^rule (\w+):", texts, re.MULTILINE))
    assert set(RULES) == rules - {"compare", "study", "explain"}, "those are targets only"
    assert len(RULES) == len(set(RULES))


def test_rate_and_time_left_follow_from_what_is_done(folder: Path) -> None:
    stages = {stage.rule: stage for stage in read_run(folder, NOW).stages}
    explain = stages["explain_images"]
    assert (explain.count("done"), explain.total) == (3, 8)
    assert explain.per_hour == pytest.approx(6)  # one in ten minutes
    assert explain.seconds_left == pytest.approx(5 * 600)
    assert stages["decode_images"].total == 8
    assert list(stages) == ["decode_images", "build_index", "train_member", "explain_images"]
    assert (stages["build_index"].count("done"), stages["build_index"].total) == (0, 1)


def test_what_is_planned_again_waits(folder: Path) -> None:
    write_plan(folder, ["logs/decode_images-0000.log", "logs/write_report.log"])
    os.utime(folder / "plan.json", (NOW - 1000, NOW - 1000))
    stages = {stage.rule: stage for stage in read_run(folder, NOW).stages}
    assert (stages["decode_images"].count("done"), stages["decode_images"].total) == (7, 8)
    assert (stages["write_report"].count("done"), stages["write_report"].total) == (0, 1)


def test_the_page_shows_it(folder: Path) -> None:
    (folder / "images").mkdir()
    (folder / "images/0001.h5.damaged").touch()
    text = render(read_run(folder, NOW), 2)
    assert "80 images in 8 shards, 1 in quarantine" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("explain_images "))
    assert row == ["explain_images", "3", "8", "1", "2", "6.0", "50", "min", "00", "s"]
    assert "train_member-a: classify a epoch 3/9" in text
    failed = text.split("\nfailed\n")[1]
    assert "explain_images-doll-0004" in failed and "shard 7 is damaged" in failed
    assert "one" not in failed.split("stopped")[0].splitlines()[1:]
    assert "\x1b" not in text, "a log may not drive the terminal"
    assert "0001.h5.damaged" in text
    assert text.endswith("not finished")


def test_a_finished_run_ends_the_watch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job(tmp_path, "write_report", "", log=5, done=5)
    assert cli.main(["status", str(tmp_path), "--watch", "--every", "0.1"]) == 0
    assert "finished: see report.html" in capsys.readouterr().out


def test_other_folders_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="no results folder"):
        read_run(tmp_path, NOW)
    assert cli.main(["status", str(tmp_path)]) == 1
    assert "give results/" in capsys.readouterr().err


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    assert "not listed yet" in render(read_run(tmp_path, NOW), 3)
    assert json.dumps([stage.rule for stage in read_run(tmp_path, NOW).stages]) == "[]"
