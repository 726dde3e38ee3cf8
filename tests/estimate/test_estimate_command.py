"""The command: on the micro configuration, by finished jobs, without images, on wrong input."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dollmaker.runtime import cli
from dollmaker.store.files import read_json

MICRO = Path(__file__).parents[1] / "micro.yaml"
HEAD = "s\th:m:s\tmax_rss\tmax_vms\n"


def micro(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = yaml.safe_load(MICRO.read_text())
    small = {"kind": "phantoms", "phantoms": {"images": 20, "size": 32, "task_images": 12}}
    return {**given, "device": "cpu", "source": small, "attribute": {}, **changes}


def test_every_stage_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["estimate", "--images", "8", "--devices", "2", "4", "--json", "out/e.json", "--config"]
    assert cli.main([*words, json.dumps(micro())]) == 0
    shown = capsys.readouterr()
    found = read_json(tmp_path / "out/e.json")
    assert found["unknown"] == {}
    tried = {row["rule"] for row in found["rules"] if row["by"] == "trial"}
    assert tried == {
        *("decode_images", "train_member", "explain_images", "explain_sample", "make_masks"),
        *("collect_labels", "pretrain_segmenter", "adapt_segmenter"),
    }
    for row in found["rules"]:
        if row["seconds"]:
            low, middle, high = row["seconds"]
            assert 0 < low < middle < high
    one, two, four = (found["seconds"][n][1] for n in ("1", "2", "4"))
    assert one > two >= four > 0 and found["gpu_seconds"][1] < one
    assert "unknown" in shown.out and "evaluate" in shown.out and "disk: images" in shown.out
    assert "estimate: segment" in shown.err and "estimate:" not in shown.out
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]  # nothing else is left


def test_finished_jobs_stand_for_their_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/micro/benchmarks"
    folder.mkdir(parents=True)
    for name, seconds, memory in (
        ("explain_images-doll-0000", 100, "900"),
        ("evaluate", 40, "NA"),
        ("make_masks-doll-more-0000", 7, "1"),  # of another recipe
        ("make_masks-band-0001", 6, "5"),
    ):
        (folder / f"{name}.tsv").write_text(f"{HEAD}{seconds}\t0:00\t{memory}\t1\n")
    words = ["estimate", "--images", "0", "--json", "e.json", "--config", json.dumps(micro())]
    assert cli.main(words) == 0
    rows = {(r["rule"], r["part"]): r for r in read_json(tmp_path / "e.json")["rules"]}
    known = {key: row for key, row in rows.items() if row["seconds"]}
    assert {key: (row["seconds"], row["memory_mb"]) for key, row in known.items()} == {
        ("explain_images", "doll"): ([80, 100, 125], 900),
        ("evaluate", ""): ([32, 40, 50], None),
        ("make_masks", "band"): (pytest.approx([4.8, 6, 7.5]), 5),
    }
    shown = capsys.readouterr().out
    assert "1 finished" in shown and "900 MB" in shown
    # Two shards of 100 s, evaluate, two of masks.
    assert "rule by rule, 1 at a time: 4.2 min" in shown
    assert "prepare.shards" not in shown  # one is enough for so few minutes


def test_a_table_is_enough_to_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["../../outside.png", *(f"i{number}.png" for number in range(39))]
    rows = "".join(f"{name},{'xy'[k % 2]}\n" for k, name in enumerate(names))
    (tmp_path / "t.csv").write_text("file,class\n" + rows)
    table = {"file": "t.csv", "images": ".", "image_column": "file", "label_column": "class"}
    given = micro(
        source={"kind": "table", "table": table}, data_root=str(tmp_path), tasks={}, truth=None,
        attribute={"min_probability": 0.5},
    )  # fmt: skip
    words = ["estimate", "--config", json.dumps(given)]
    assert cli.main([*words, "--images", "0"]) == 0
    shown = capsys.readouterr().out
    assert "40 pairs to explain (at most 80)" in shown
    assert "adapt" not in shown
    # There are no images at all: nothing can be tried, which is an error.
    assert cli.main([*words, "--json", "e.json"]) == 1
    shown = capsys.readouterr()
    assert not shown.out and not (tmp_path / "e.json").exists()
    said = shown.err.splitlines()[-1]
    assert said.startswith("dollmaker: error: no stage could be tried (decode: none of the images")
    assert "segment: it needs labels" in said and "give --images 0" in said


def test_a_stage_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = micro(tasks={}, weights_root="nowhere")
    given["classify"]["members"] = {"a": {"architecture": "resnet18", "weights": "w.safetensors"}}
    assert cli.main(["estimate", "--images", "8", "--config", json.dumps(given)]) == 0
    shown = capsys.readouterr().out
    assert "train a could not be tried: weights file nowhere/w.safetensors does not exist" in shown
    assert "segment could not be tried: it needs labels" in shown
    assert "decode could not" not in shown


@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        ({}, ["--devices", "0"], "--devices has a number under 1"),
        ({}, ["--images", "3"], "--images is 3; give 8 or more"),
        ({"epochs": 3}, [], "unknown key 'epochs'"),
        ({"source": {"kind": "chexpert"}, "data_root": "nowhere"}, [], "set data_root"),
        ({"source": {"kind": "chexpert"}}, ["--data-root", "other"], "data folder other does not"),
        ({"attribute": {"findings": ["Oedema"]}}, [], "unknown finding 'Oedema'"),
    ],
)
def test_mistakes_are_one_sentence(
    changes: dict[str, Any],
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = json.dumps(micro(tasks={}, **changes))
    assert cli.main(["estimate", "--config", given, *words]) == 1
    shown = capsys.readouterr()
    last = shown.err.splitlines()[-1]
    assert last.startswith("dollmaker: error: ") and said in last
    assert "Traceback" not in shown.err and not shown.out
