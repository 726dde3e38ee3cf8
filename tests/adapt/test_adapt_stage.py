"""The stage: its files, resuming, the choice of a rate, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from dollmaker.adapt import stage, train
from dollmaker.adapt.starts import Inputs
from dollmaker.adapt.tasks import read_task
from dollmaker.config.settings import resolved
from dollmaker.networks.inputs import Input
from dollmaker.pixels.masks import IGNORE
from dollmaker.runtime.cli import main
from dollmaker.runtime.errors import DataError
from dollmaker.store import provenance, tables
from dollmaker.store.tables import read_header


def test_a_start_that_saw_the_test_images_is_refused(config: dict[str, Any], starts: Path) -> None:
    config["adapt"].update(n=[3], seeds=1)
    task = read_task("squares", resolved(config), starts)
    index = pl.DataFrame(
        {
            "image_id": [f"x{i}" for i in range(24)],
            "patient_id": task.patients,
            "split": "train",
        }
    )
    tables.write(
        index, starts / "index.parquet", {**provenance.header("prepare", {}), "findings": []}
    )
    with pytest.raises(DataError, match=r"set tasks\.squares\.valid and test to null"):
        run(config, starts, "doll", "doll", index=starts / "index.parquet")
    assert run(config, starts, "out", "random", index=starts / "index.parquet").is_dir()
    alike = index.with_columns(patient_id="image_id", hash=pl.Series(task.hashes))
    tables.write(
        alike, starts / "index.parquet", {**provenance.header("prepare", {}), "findings": []}
    )
    with pytest.raises(DataError, match=r"looks like 'x\d+' .* adapt\.allow_alike to true"):
        run(config, starts, "doll", "doll", index=starts / "index.parquet")
    config["adapt"]["allow_alike"] = True
    assert run(config, starts, "doll", "doll", index=starts / "index.parquet").is_dir()


def test_look_alikes_of_training_and_test_images_are_told(
    config: dict[str, Any], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config["adapt"].update(n=[3], seeds=1)
    task = read_task("squares", resolved(config), root)
    train_row, test_row = (int(task.rows(split)[0]) for split in ("train", "test"))
    images = root / "task" / "images"
    with Image.open(images / f"case{train_row:02d}.png") as picture:
        picture.resize((96, 80)).resize((48, 40)).save(images / f"case{test_row:02d}.png")
    run(config, root, "out")
    told = f"test image 'case{test_row:02d}' looks like the training image 'case{train_row:02d}'"
    assert told in capsys.readouterr().err


def run(
    config: dict[str, Any],
    root: Path,
    output: str,
    init: Any = "random",
    index: Path | None = None,
) -> Path:
    stage.adapt(
        resolved(config),
        "squares",
        init,
        "full",
        Inputs(data_root=root, weights_root=root, segmenter=root / "segmenter", index=index),
        root / output,
    )
    return root / output


def test_files(config: dict[str, Any], root: Path) -> None:
    config["adapt"]["n"] = [3, 1000]
    folder = run(config, root, "out")
    assert {path.name for path in folder.iterdir()} == {
        "curve.parquet",
        "scores.parquet",
        "baselines.parquet",
        "runs.json",
        "examples.npz",
        "adapter",
    }
    assert not list(root.glob(".out*"))
    task = read_task("squares", resolved(config), root)
    curve = pl.read_parquet(folder / "curve.parquet")
    assert curve["step"].to_list() == [2, 4] * 4
    assert curve["epoch"][0] == pytest.approx(2 * 4 / 3)
    table = pl.read_parquet(folder / "scores.parquet")
    assert len(table) == 2 * 2 * len(task.rows("test")) * 2
    assert table["n"].unique(maintain_order=True).to_list() == ["3", "1000"]
    described = json.loads((folder / "runs.json").read_text())
    assert described["header"] == read_header(folder / "scores.parquet")
    assert [entry["n_images"] for entry in described["runs"]] == [3, 3] + [
        len(task.rows("train"))
    ] * 2
    for entry in described["runs"]:
        mine = table.filter(pl.col("n") == entry["n"], pl.col("seed") == entry["seed"])
        per_class = mine.fill_nan(None).group_by("class").agg(pl.col("iou").mean())["iou"]
        assert entry["test_miou"] == pytest.approx(per_class.mean())
        assert entry["optimizer_mb"] > 2 * 4 * entry["trainable"] / 1e6
    with np.load(folder / "examples.npz", allow_pickle=False) as examples:
        truth, predicted = examples["truth"], examples["prediction_3"]
        bars = [*range(2), *range(29, 32)]  # of 48 x 40 in 32 x 32
        assert not truth[:, :, bars].any() and not predicted[:, :, bars].any()
        first = list(task.image_ids).index(str(examples["image_id"][0]))
        shown = task.masks[first][:, 2:29]
        np.testing.assert_array_equal(truth[0][:, 2:29], shown)
        assert list(examples["classes"]) == ["bright", "dark"]
        assert examples["image"].shape[1:] == (1, 32, 32)
        assert "prediction_1000" in examples
    assert table["present"].all()
    baselines = pl.read_parquet(folder / "baselines.parquet")
    assert baselines["baseline"].unique(maintain_order=True).to_list() == [
        "empty", "centre", "intensity", "whole",
    ]  # fmt: skip
    assert (baselines.filter(baseline="empty")["iou"] == 0).all()
    whole = baselines.filter(pl.col("baseline") == "whole", pl.col("class") == "bright")
    assert whole["iou"].to_list() == pytest.approx([14 * 14 / (48 * 40 - 5)] * len(whole))


def test_killed_job_goes_on_with_its_run(
    config: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(config, root, "whole")
    calls: list[int] = []
    original = train.make_batch

    def counted(*arguments: Any, **more: Any) -> Any:
        calls.append(more["step"])
        if len(calls) == 7:  # in the middle of the second of four runs
            raise KeyboardInterrupt
        return original(*arguments, **more)

    monkeypatch.setattr(train, "make_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        run(config, root, "broken")
    assert not (root / "broken").exists()
    del calls[:]
    monkeypatch.setattr(
        train, "make_batch", lambda *a, **m: (calls.append(0), original(*a, **m))[1]
    )
    broken = run(config, root, "broken")
    assert len(calls) == 3 * 4
    for name in ("curve.parquet", "scores.parquet", "examples.npz"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    for file in (whole / "adapter").iterdir():
        assert file.read_bytes() == (broken / "adapter" / file.name).read_bytes(), file.name


def test_of_several_rates_validation_chooses_for_each_n(
    config: dict[str, Any],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rates = [1e-5, 0.01, 10.0]
    config["adapt"].update(steps=6, evaluations=1, learning_rate=0.01)
    alone = {}
    for rate in rates:
        config["adapt"]["learning_rate"] = rate
        alone[rate] = run(config, root, f"alone{rate}")
    ends = {rate: pl.read_parquet(alone[rate] / "curve.parquet") for rate in rates}
    capsys.readouterr()
    config["adapt"]["learning_rate"] = rates
    original, trained = stage.train_run, []
    monkeypatch.setattr(
        stage, "train_run", lambda *a, **m: (trained.append(0), original(*a, **m))[1]
    )
    folder = run(config, root, "chosen")
    seen = [line for line in capsys.readouterr().err.splitlines() if "learning_rate" in line]
    assert ["valid_miou" in line for line in seen] == [True] * 12
    assert len(trained) == 2 * 3 * 2
    results = json.loads((folder / "runs.json").read_text())
    described = results["runs"]
    assert [entry["learning_rate"] for entry in results["tried"]] == sorted(rates * 2) * 2
    table = pl.read_parquet(folder / "scores.parquet")
    for n in ("3", "all"):
        best = max(rates, key=lambda rate: ends[rate].filter(n=n)["valid_miou"].fill_nan(-1).mean())
        assert [r["learning_rate"] for r in described if r["n"] == n] == [best, best]
        tried = [e["valid_miou"] for e in results["tried"] if e["n"] == n]
        assert tried == [end for rate in rates for end in ends[rate].filter(n=n)["valid_miou"]]
        expected = pl.read_parquet(alone[best] / "scores.parquet").filter(n=n)
        assert table.filter(n=n).equals(expected)
    description = json.loads((folder / "adapter" / "adapter.json").read_text())
    assert description["learning_rate"] == best
    kept = [place / "adapter" / "adapter.safetensors" for place in (folder, alone[best])]
    assert kept[0].read_bytes() == kept[1].read_bytes()


def test_a_job_that_is_killed_between_two_rates_goes_on(
    config: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config["adapt"].update(n=["all"], learning_rate=[0.01, 1e-5, 0.001])
    whole = run(config, root, "whole")
    original, trained = stage.train_run, []

    def counted(*arguments: Any, **more: Any) -> Any:
        trained.append(0)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **more)

    monkeypatch.setattr(stage, "train_run", counted)
    with pytest.raises(KeyboardInterrupt):
        run(config, root, "broken")
    broken = run(config, root, "broken")
    assert len(trained) == 3 + 4  # the third of six runs again
    for name in ("curve.parquet", "scores.parquet", "examples.npz", "adapter/adapter.safetensors"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name


@pytest.mark.parametrize(
    ("ends", "best"), [([0.1, 0.4, 0.4], 1), ([np.nan, 0.0], 1), ([np.nan], 0), ([0.3], 0)]
)
def test_the_highest_end_is_chosen_and_of_equals_the_first(ends: list[float], best: int) -> None:
    assert stage.choose(ends, "squares") == best


def test_nothing_to_choose_by_is_an_error() -> None:
    with pytest.raises(DataError, match="of the task squares, and no pixel"):
        stage.choose([np.nan, np.nan], "squares")


def test_the_curve_leaves_out_what_is_ignored(config: dict[str, Any], root: Path) -> None:
    class Everything(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(x), 2, 32, 32)

    task = read_task("squares", resolved(config), root)
    spec, rows = Input(channels=1, size=32), task.rows("valid")
    task.masks[rows[0], 1] = np.where(task.masks[rows[0], 1] == 1, 0, task.masks[rows[0], 1])
    found = train.on_squares(Everything(), spec, task, rows)
    iou, present = found
    assert present.tolist() == (task.masks[rows] == 1).any((2, 3)).tolist()
    assert not present[0, 1]
    for i, row in enumerate(rows):
        for k in (0, 1):
            known = task.masks[row, k][task.masks[row, k] != IGNORE]
            assert len(known) < 32 * 28  # 48 x 40 as 32 x 27, less what is ignored
            assert iou[i, k] == pytest.approx((known == 1).mean())


def test_the_mean_is_over_the_images_that_hold_the_class() -> None:
    """Drawing nothing on images without the class would otherwise hide what is drawn on others."""
    iou = np.array([[0.4, 1.0], [0.6, 0.0], [1.0, np.nan], [0.0, 1.0]])
    present = np.array([[True, False], [True, False], [False, False], [False, False]])
    assert train.mean_iou(iou, present) == pytest.approx((0.5 + 2 / 3) / 2)
    assert np.isnan(train.mean_iou(np.full((2, 1), np.nan), np.zeros((2, 1), bool)))


def test_learns(config: dict[str, Any], root: Path) -> None:
    config["adapt"].update(n=["all"], seeds=1, steps=60, batch_size=8, learning_rate=0.01)
    folder = run(config, root, "out")
    assert json.loads((folder / "runs.json").read_text())["runs"][0]["test_miou"] > 0.6


def test_command(config: dict[str, Any], starts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config["adapt"].update(n=[3], seeds=1)
    words = ["adapt", "--config", json.dumps(config), "--task", "squares", "--tuning", "adapter"]
    words += ["--data-root", str(starts), "--weights-root", str(starts)]
    words += ["--output", str(starts / "tasks" / "squares" / "doll-adapter")]
    assert main([*words, "--init", "doll"]) == 1
    assert "give --segmenter." in capsys.readouterr().err
    assert main([*words, "--init", "doll", "--segmenter", str(starts / "segmenter")]) == 0
    assert (starts / "tasks" / "squares" / "doll-adapter" / "runs.json").exists()
