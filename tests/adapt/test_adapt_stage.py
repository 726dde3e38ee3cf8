"""Runs: what stays frozen, that starts share what is random, resuming, and the files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dollmaker.adapt import stage, train
from dollmaker.adapt.starts import Inputs, find_beginning, make_network
from dollmaker.adapt.tasks import read_task
from dollmaker.adapt.train import make_batch, train_run
from dollmaker.config.networks import SegmentConfig
from dollmaker.config.settings import resolved
from dollmaker.config.tuning import AdaptConfig
from dollmaker.networks import batch_norm as statistics
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import create
from dollmaker.pixels.masks import IGNORE
from dollmaker.runtime.cli import main
from dollmaker.runtime.errors import ArtifactError, DataError, ModelError
from dollmaker.segment.stage import save
from dollmaker.store import provenance, tables
from dollmaker.store.files import write_json
from dollmaker.store.tables import read_header


def beginning_of(config: dict[str, Any], init: str, root: Path) -> Any:
    return find_beginning(
        init,
        resolved(config),
        Inputs(
            data_root=root,
            weights_root=root,
            committee=root / "member0",
            segmenter=root / "segmenter",
        ),
    )


def case_of(config: dict[str, Any], root: Path, init: str, tuning: Any) -> stage.Case:
    full = resolved(config)
    return stage.Case(
        task=read_task("squares", full, root),
        init=init,
        tuning=tuning,
        beginning=beginning_of(config, init, root),
        network=full.segment,
        options=full.adapt,
    )


@pytest.fixture
def starts(config: dict[str, Any], root: Path) -> Path:
    """The root with a segmenter of three findings, a committee member and a weights file."""
    options = SegmentConfig(**config["segment"])
    model = create(options, channels=1, classes=3, size=32, seed=77)
    (root / "segmenter").mkdir()
    spec = Input(channels=1, size=32, mean=0.4, std=0.3)
    save(root / "segmenter", model, options, ["A", "B", "C"], spec, header={})
    encoder = create(options, channels=3, classes=1, size=32, seed=78).get_submodule("encoder")
    state = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(state, root / "imagenet.safetensors")
    (root / "member0").mkdir()
    save_file(state, root / "member0" / "model.safetensors")
    theirs = {"channels": 3, "size": 32, "mean": 0.2, "std": 0.1}
    write_json(root / "member0" / "model.json", {"architecture": "timm:x", "input": theirs})
    config["adapt"]["imagenet"] = "imagenet.safetensors"
    return root


def test_starts_differ_in_what_is_loaded_only(config: dict[str, Any], starts: Path) -> None:
    states, inputs = {}, {}
    for init in ("random", "imagenet", "classifier", "doll"):
        beginning = beginning_of(config, init, starts)
        states[init] = make_network(beginning, resolved(config).segment, ["a", "b"], 5).state_dict()
        inputs[init] = (beginning.input.mean, beginning.input.std)
    assert inputs["random"] == inputs["imagenet"] == ((0.5,), (0.5,))
    assert inputs["classifier"] == ((0.2,), (0.1,)) and inputs["doll"] == ((0.4,), (0.3,))
    segmenter = create(
        SegmentConfig(**config["segment"]), channels=1, classes=3, size=32, seed=77
    ).state_dict()
    for name, value in states["random"].items():
        part = name.split(".")[0]
        assert torch.equal(states["imagenet"][name], states["classifier"][name])
        if part != "encoder":
            assert torch.equal(states["imagenet"][name], value), name
        expected = value if part == "segmentation_head" else segmenter[name]
        assert torch.equal(states["doll"][name], expected), name
    first = "encoder.model.conv_stem.weight"
    assert not torch.equal(states["imagenet"][first], states["random"][first])


def test_segmenter_that_does_not_fit(config: dict[str, Any], starts: Path) -> None:
    with pytest.raises(ModelError, match="Unet with encoder tu-test_efficientnet"):
        beginning_of({**config, "segment": {**config["segment"], "encoder": "x"}}, "doll", starts)
    file = starts / "segmenter" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    with pytest.raises(ArtifactError, match="checksum"):
        beginning_of(config, "doll", starts)


@pytest.mark.parametrize(
    ("init", "tuning", "moves", "stays"),
    [
        ("doll", "full", ["encoder", "decoder", "segmentation_head", "adapters"], []),
        ("doll", "adapter", ["decoder", "segmentation_head", "adapters"], ["encoder"]),
        ("doll", "head", ["segmentation_head"], ["encoder", "decoder"]),
    ],
)
def test_frozen_parts_stay_bit_for_bit(
    config: dict[str, Any], starts: Path, init: Any, tuning: Any, moves: list[str], stays: list[str]
) -> None:
    case = case_of(config, starts, init, tuning)
    tuned = case.make_tuned(0)
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    train_run(tuned, case.beginning.input, case.task, case.task.choose(3, 0), case.options, 0)
    changed = {name for name, value in tuned.state_dict().items() if not before[name].equal(value)}
    for part in moves:
        own = [name for name in before if f".{part}." in f".{name}"]
        assert bool(own) == bool(part != "adapters" or tuning == "adapter")
        assert not own or changed & set(own), part
    for part in stays:
        own = {name for name in before if name.startswith(f"model.{part}.")}
        assert any("running_mean" in name for name in own) and not changed & own
    statistics = {name for name in before if "running_" in name and ".encoder." in name}
    assert not changed & statistics  # frozen in full tuning as well, as configured


def test_random_start_moves_its_batch_norm(config: dict[str, Any], starts: Path) -> None:
    case = case_of(config, starts, "random", "full")
    assert case.options.freeze_batch_norm
    tuned = case.make_tuned(0)
    norms = [m for m in tuned.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert norms and all(norm.training for norm in norms)
    assert tuned.encoder_share() == 1


def test_rounds_have_each_image_once(config: dict[str, Any], root: Path) -> None:
    task = read_task("squares", resolved(config), root)
    task.images[:] = np.arange(24)[:, None, None, None]
    chosen, options = task.choose(5, 0), AdaptConfig(augment="none", batch_size=3)
    seen = [
        int(image[0, 0, 0])
        for step in range(5)
        for image in make_batch(task, chosen, options, seed=1, step=step)[0]
    ]
    rounds = [seen[i : i + 5] for i in range(0, 15, 5)]
    assert all(sorted(each) == sorted(chosen.tolist()) for each in rounds)
    assert rounds[0] != rounds[1]


def tuned_by(config: dict[str, Any], root: Path, init: str, tuning: Any, norm: str) -> Any:
    """The network of a run of four steps, scored twice."""
    config = {**config, "adapt": {**config["adapt"], "norm": norm}}
    case = case_of(config, root, init, tuning)
    task, beginning, tuned = case.task, case.beginning, case.make_tuned(0)
    train_run(tuned, beginning.input, task, task.choose(3, 0), case.options, 0)
    return tuned, task, beginning


def test_statistics_are_those_of_the_few_images_and_weights_are_the_same(
    config: dict[str, Any], starts: Path
) -> None:
    stale, task, beginning = tuned_by(config, starts, "imagenet", "full", "frozen")
    fresh = tuned_by(config, starts, "imagenet", "full", "few")[0]
    for (name, one), two in zip(stale.named_parameters(), fresh.parameters(), strict=True):
        assert torch.equal(one, two), name
    few = torch.from_numpy(task.images[task.choose(3, 0)])
    statistics.recompute(stale, few, beginning.input.prepare)
    before, after = fresh.state_dict(), stale.state_dict()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)
    decoder = [n for n in before if ".decoder." in n and "running_var" in n]
    pool = tuned_by(config, starts, "imagenet", "full", "pool")[0].state_dict()
    assert decoder and not any(torch.equal(pool[name], before[name]) for name in decoder)
    assert all(torch.equal(pool[n], before[n]) for n in before if "running_" not in n)


def test_what_statistics_are_measured_on(config: dict[str, Any], root: Path) -> None:
    task = read_task("squares", resolved(config), root)
    few = train.to_measure(task, task.choose(3, 0), "few")
    assert few is not None and torch.equal(few, torch.from_numpy(task.images[task.choose(3, 0)]))
    pool = train.to_measure(task, task.choose(3, 0), "pool")
    assert pool is not None
    assert torch.equal(pool, torch.from_numpy(task.images[task.rows("train")]))
    assert train.to_measure(task, task.choose(3, 0), "frozen") is None
    many = np.tile(task.rows("train"), 100)
    most = train.to_measure(task, many, "few")
    assert most is not None and len(most) == statistics.MOST


@pytest.mark.parametrize("tuning", ["bias", "head"])
def test_a_random_decoder_is_measured_and_a_learned_one_is_left(
    config: dict[str, Any], starts: Path, tuning: Any
) -> None:
    for init, moves in (("imagenet", True), ("doll", False)):
        tuned, _, beginning = tuned_by(config, starts, init, tuning, "few")
        first = make_network(beginning, resolved(config).segment, ["a", "b"], 0).state_dict()
        after = {n.removeprefix("model."): value for n, value in tuned.state_dict().items()}
        for name in (name for name in first if "running_" in name):
            moved = moves and name.startswith("decoder.")
            assert torch.equal(first[name], after[name]) != moved, name
        assert not set(tuned.base_state()) & {n for n in first if n.startswith("decoder.")} or (
            init == "doll"
        )


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
