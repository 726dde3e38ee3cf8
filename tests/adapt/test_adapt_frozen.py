"""Runs: that starts share what is random, what stays frozen, and statistics of batch norm."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dollmaker.adapt import stage, train
from dollmaker.adapt.starts import Inputs, find_beginning, make_network
from dollmaker.adapt.tasks import read_task
from dollmaker.adapt.train import make_batch, train_run
from dollmaker.config.networks import SegmentConfig
from dollmaker.config.settings import resolved
from dollmaker.config.tuning import AdaptConfig
from dollmaker.networks import batch_norm as statistics
from dollmaker.networks.segmenters import create
from dollmaker.runtime.errors import ArtifactError, ModelError


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
