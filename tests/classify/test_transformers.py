"""Transformers as members: mean and deviation without metadata, positions as they were trained."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from classify.test_classify import make_config, make_dataset, train
from dollmaker.classify import stage
from dollmaker.config import ready
from dollmaker.config.whole import Config
from dollmaker.networks import positions
from dollmaker.networks.classifiers import create_network, published_normalisation
from dollmaker.networks.inputs import Input
from dollmaker.networks.member import load_member
from dollmaker.networks.weights import Normalisation
from dollmaker.runtime.errors import ModelError

IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
VIT = {"architecture": "timm:vit_small_patch14_dinov2", "weights": "own.safetensors"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("timm:vit_small_patch14_dinov2", IMAGENET),
        ("vit_small_patch14_dinov2", IMAGENET),
        ("timm:vit_small_patch16_224.dino", IMAGENET),
        ("timm:vit_small_patch16_224", Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3)),
        ("timm:resnet18", None),
        ("torchvision:mobilenet_v2", None),
        ("mobilenet_v2", None),
        ("torchvision:vit_b_16", None),
    ],
)
def test_only_timms_transformers_say_their_mean_and_deviation(
    name: str, expected: Normalisation | None
) -> None:
    found = published_normalisation(name)
    assert (found and found[0]) == expected


def test_a_tag_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ModelError, match=r"Invalid pretrained tag .*; correct its tag"):
        published_normalisation("timm:vit_small_patch14_dinov2.nope")


def trained(folder: Path, size: int, **member: Any) -> tuple[Any, Path]:
    """What model.json says of a member that starts from ``own.safetensors``, and its folder."""
    mine = {**VIT, "input": {"size": size, "channels": 3}, **member}
    made = train(make_config(members={"a": mine}, calibrate="none"), folder, "a")
    return json.loads((made / "model.json").read_text()), made


def put_weights(folder: Path, architecture: str, size: int, **said: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    start, _ = create_network(architecture, outputs=9, channels=3, size=size, tried=False)
    save_file(start.state_dict(), folder / "own.safetensors", metadata=said or None)
    return start.state_dict()


def test_a_member_says_where_its_mean_and_deviation_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dataset(tmp_path)
    put_weights(tmp_path, VIT["architecture"], 28)
    told, _ = trained(tmp_path, 28, epochs=0)
    assert tuple(told["input"]["mean"]) == IMAGENET.mean
    assert tuple(told["input"]["std"]) == IMAGENET.std
    assert told["normalisation"] == "timm:vit_small_patch14_dinov2"
    assert "own.safetensors names no mean and deviation; those of timm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("member", "classify", "said", "mean"),
    [
        ({"mean": 0.5, "std": 0.4}, {}, {}, [0.5] * 3),
        ({"std": 0.4}, {"mean": 0.7}, {}, [0.7] * 3),
        ({"std": 0.4}, {}, {}, list(IMAGENET.mean)),
        ({}, {}, {"mean": "[0.1]", "std": "[0.2]"}, [0.1] * 3),
        ({"weights": None}, {}, {}, [0.5] * 3),
    ],
)
def test_what_is_configured_and_what_the_file_says_come_first(
    tmp_path: Path,
    member: dict[str, Any],
    classify: dict[str, Any],
    said: dict[str, str],
    mean: list[float],
) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "own.safetensors", metadata=said or None)
    config = make_config(members={"a": {**VIT, "input": {"size": 28}, **member}}, **classify)
    whole = Config.model_validate(config)
    options = whole.classify
    mine = options.members["a"]
    file = tmp_path / "own.safetensors" if mine.weights else None
    own, _ = stage._normalisation("a", mine, options, file)
    found = ready.input_options(whole, mine, vars(own) if own else {})
    assert Input(**{**found, "channels": 3}).mean == tuple(mean)


def test_positions_are_kept_as_they_were_trained_unless_training_moves_them(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    state = put_weights(tmp_path, "timm:test_vit", 64)
    told, folder = trained(tmp_path, 32, architecture="timm:test_vit", linear_probe=True, epochs=1)
    assert "normalisation" not in told and told["input"]["mean"] == [0.5] * 3
    network = load_member(folder, torch.device("cpu")).network
    assert torch.equal(network.get_buffer(positions.KEPT), state["pos_embed"])
    twin = positions.at_side(network, 64)
    assert torch.equal(twin.get_parameter("pos_embed"), state["pos_embed"])
    _, folder = trained(tmp_path, 32, architecture="timm:test_vit", epochs=1, learning_rate=1e-5)
    assert not hasattr(load_member(folder, torch.device("cpu")).network, positions.KEPT)
