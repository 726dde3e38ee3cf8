"""The stage: it learns, resumes, and plain segmentation-models-pytorch reads what it writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file, save_file

from dollmaker.config.networks import SegmentConfig
from dollmaker.config.settings import resolved
from dollmaker.networks import batch_norm as statistics
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import create, predict
from dollmaker.runtime.cli import main
from dollmaker.runtime.errors import DataError
from dollmaker.runtime.stopping import Terminated
from dollmaker.segment import stage
from dollmaker.segment.train import Lessons, SegmenterTraining, pseudo_miou
from dollmaker.store.shards import ImageShards, Shard, create_shard
from faults.watch import stop_and_watch


def train(config: dict[str, Any], world: Path, output: str) -> Path:
    inputs = stage.Inputs(
        index=world / "index.parquet",
        images=world / "images",
        labels=world / "labels",
        weights_root=world / "weights",
    )
    stage.train_segmenter(resolved(config), inputs, world / output)
    return world / output


def test_learns_and_loads_in_plain_smp(config: dict[str, Any], world: Path) -> None:
    config["segment"].update(epochs=12, learning_rate=0.01, encoder_learning_rate=1.0)
    folder = train(config, world, "segmenter")
    description = json.loads((folder / "segmenter.json").read_text())
    assert description["findings"] == ["Bright", "Dark"]
    assert description["input"] == {"channels": 1, "size": 32, "mean": [0.5], "std": [0.5]}
    curve = description["curve"]
    assert [point["epoch"] for point in curve] == list(range(1, 13))
    assert curve[-1]["loss"] < curve[0]["loss"] / 2
    assert curve[-1]["valid_miou"] > 0.5
    assert not list(world.glob(".segmenter*"))

    model = smp.from_pretrained(folder).eval()
    images = np.stack([ImageShards(world / "images").read("0001", row) for row in (6, 7, 8)])
    with Shard(world / "labels" / "masks" / "valid-00000-of-00001.h5", "masks") as shard:
        truth = shard.read("mask")
    spec = Input(**description["input"])
    predicted = predict(model, torch.from_numpy(images), spec).numpy()
    overlap = (predicted[:, 0] & (truth == 1)).sum() / (predicted[:, 0] | (truth == 1)).sum()
    assert overlap == pytest.approx(curve[-1]["valid_miou"], abs=0.05)


def test_saved_network_has_the_same_output(
    config: dict[str, Any], world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    save = stage.save

    def spy(folder: Path, model: torch.nn.Module, *args: Any, **more: Any) -> None:
        images = ImageShards(world / "images")
        stored = torch.from_numpy(np.stack([images.read("0001", row) for row in (7, 8)]))
        x = Input(channels=1, size=32).prepare(stored)
        with torch.no_grad():
            seen["x"], seen["y"] = x, model.eval()(x)
        save(folder, model, *args, **more)

    monkeypatch.setattr(stage, "save", spy)
    config["segment"]["epochs"] = 1
    folder = train(config, world, "segmenter")
    with torch.no_grad():
        loaded = smp.from_pretrained(folder).eval()(seen["x"])
    torch.testing.assert_close(loaded, seen["y"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frozen", [False, True])
def test_saved_statistics_are_measured_on_training_images(
    config: dict[str, Any], world: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    encoder = create(SegmentConfig(**config["segment"]), channels=1, classes=1, size=32, seed=9)
    state = encoder.get_submodule("encoder").state_dict()
    (world / "weights").mkdir()
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()},
        world / "weights" / "w.safetensors",
    )
    config["segment"].update(init="w.safetensors", freeze_batch_norm=frozen, epochs=1)
    measured, original = [], stage._spread

    def spread(*words: Any) -> Any:
        measured.append(original(*words))
        return measured[-1]

    monkeypatch.setattr(stage, "_spread", spread)
    folder = train(config, world, "segmenter")
    saved = load_file(folder / "model.safetensors")
    model = smp.from_pretrained(folder)
    fixed = model.get_submodule("encoder") if frozen else torch.nn.Identity()
    own = model.train
    monkeypatch.setattr(model, "train", lambda *mode: (own(*mode), fixed.eval())[0])
    spec = Input(channels=1, size=32)
    statistics.recompute(model, measured[0][0], spec.prepare)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, saved[name], rtol=1e-4, atol=1e-4)
    still = [n for n in state if "running_" in n and torch.equal(saved[f"encoder.{n}"], state[n])]
    assert bool(still) == frozen
    shards = ImageShards(world / "images")
    train_images = [shards.read(f"{i // 10:04d}", i % 10) for i in range(16)]
    np.testing.assert_array_equal(measured[0][0].numpy(), np.stack(train_images))


def test_killed_run_resumes_to_the_same_weights(
    config: dict[str, Any], world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config, world, "whole")
    step = SegmenterTraining.training_step
    starts = []

    def dies(self: SegmenterTraining, batch: Any, number: int) -> Any:
        if self.current_epoch == 2 and number == 1:
            raise KeyboardInterrupt
        return step(self, batch, number)

    def counts(self: SegmenterTraining, batch: Any, number: int) -> Any:
        starts.append((self.current_epoch, number))
        return step(self, batch, number)

    monkeypatch.setattr(SegmenterTraining, "training_step", dies)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(config, world, "broken")
    assert not (world / "broken").exists()
    monkeypatch.setattr(SegmenterTraining, "training_step", counts)
    broken = train(config, world, "broken")
    assert starts[0] == (2, 0)
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (whole / "segmenter.json").read_bytes() == (broken / "segmenter.json").read_bytes()


def test_stopped_run_goes_on_inside_the_epoch(
    config: dict[str, Any], world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(config, world, "whole")
    seen = stop_and_watch(monkeypatch, SegmenterTraining, (1, 0))
    with pytest.raises(Terminated):
        train(config, world, "stopped")
    steps = len(seen)
    stopped = train(config, world, "stopped")
    assert seen[steps] == (1, 1)
    for name in ("model.safetensors", "segmenter.json"):
        assert (whole / name).read_bytes() == (stopped / name).read_bytes()


def test_frozen_batch_norm_stays(config: dict[str, Any], world: Path) -> None:
    config["segment"].update(freeze_batch_norm=True, epochs=2, init="start.safetensors")
    options, prepare = SegmentConfig(**config["segment"]), config["prepare"]
    before = stage.create(options, channels=1, classes=2, size=prepare["size"], seed=0).state_dict()
    own = {n: t.contiguous() for n, t in before.items() if n.startswith("encoder.")}
    start = {name.removeprefix("encoder."): tensor for name, tensor in own.items()}
    (world / "weights").mkdir()
    save_file(start, world / "weights/start.safetensors")
    after = load_file(train(config, world, "segmenter") / "model.safetensors")
    running = [name for name in after if name.endswith(("running_mean", "running_var"))]
    encoder = [name for name in running if name.startswith("encoder.")]
    assert encoder and all(torch.equal(before[name], after[name]) for name in encoder)
    decoder = [name for name in running if name.startswith("decoder.")]
    assert decoder and not any(torch.equal(before[name], after[name]) for name in decoder)
    assert not torch.equal(
        before["encoder.model.conv_stem.weight"], after["encoder.model.conv_stem.weight"]
    )


def test_a_random_encoder_learns_as_the_decoder_does(
    config: dict[str, Any], world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Watched(SegmenterTraining):
        def configure_optimizers(self) -> Any:
            found = super().configure_optimizers()
            seen.append([group["initial_lr"] for group in found["optimizer"].param_groups])
            return found

    monkeypatch.setattr(stage, "SegmenterTraining", Watched)
    config["segment"].update(freeze_batch_norm=True, epochs=1, encoder_learning_rate=0.1)
    options, prepare = SegmentConfig(**config["segment"]), config["prepare"]
    before = stage.create(options, channels=1, classes=2, size=prepare["size"], seed=0).state_dict()
    after = load_file(train(config, world, "segmenter") / "model.safetensors")
    assert seen[0][0] == seen[0][1]
    name = "encoder.model.bn1.running_mean"
    assert not torch.equal(before[name], after[name])  # it has seen nothing before


def test_encoder_has_its_own_rate(config: dict[str, Any]) -> None:
    options = SegmentConfig(**config["segment"])
    model = stage.create(options, channels=1, classes=2, size=32, seed=0)
    spec, lessons = Input(channels=1, size=32), Lessons(steps=10)
    module = SegmenterTraining(model, spec, options, lessons, lambda _: 0.0)
    optimizer = module.configure_optimizers()["optimizer"]
    encoder, rest = optimizer.param_groups
    assert encoder["initial_lr"] == pytest.approx(0.1 * rest["initial_lr"])
    own = {id(p) for p in model.get_submodule("encoder").parameters()}
    assert {id(p) for p in encoder["params"]} == own
    assert len(own) + len(rest["params"]) == len(list(model.parameters()))


def test_score_counts_pairs_with_a_mask_only() -> None:
    class Half(torch.nn.Module):
        """Predicts finding 0 in the left half, finding 1 everywhere."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = torch.full((len(x), 2, 4, 4), -1.0)
            out[:, 0, :, :2] = out[:, 1] = 1
            return out

    class Data:
        def batches(self, _: int) -> Any:
            masks = np.zeros((2, 2, 4, 4), np.uint8)
            masks[0, 0] = 1  # IoU 1/2
            masks[1, 0, :, :1] = 1  # IoU 1/2, but with the second column ignored: 1
            masks[1, 0, :, 1] = 255
            yield np.zeros((2, 1, 4, 4), np.uint8), masks

    spec = Input(channels=1, size=4)
    value = pseudo_miou(Half(), Data(), spec)  # type: ignore[arg-type]
    assert value == pytest.approx(0.75)


def test_labels_without_masks_is_refused(config: dict[str, Any], world: Path) -> None:
    path = world / "labels" / "masks" / "train-00000-of-00001.h5"
    path.unlink()
    with create_shard(path, "masks", {"format": 1}) as writer:
        none = np.array([], object)
        writer.append({"image_id": none, "finding": none, "quality": np.zeros(0)})
    with pytest.raises(DataError, match="no mask to train on"):
        train(config, world, "segmenter")


def test_command(config: dict[str, Any], world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config["segment"]["epochs"] = 1
    words = ["segment", "--config", json.dumps(config), "--weights-root", str(world)]
    for name in ("index.parquet", "images", "labels"):
        words += [f"--{name.removesuffix('.parquet')}", str(world / name)]
    assert main([*words, "--output", str(world / "out")]) == 0
    assert (world / "out" / "segmenter.json").exists()
    config["segment"]["encoder"] = "resnet19"
    words[2] = json.dumps(config)
    assert main([*words, "--output", str(world / "out2")]) == 1
    assert "did you mean resnet1" in capsys.readouterr().err
