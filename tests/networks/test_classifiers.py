"""Classifiers that give more than logits, or that do not take the images."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from dollmaker.networks import classifiers
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.weights import load_weights
from dollmaker.runtime.errors import ModelError


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_heads_give_logits_and_load_files_that_have_them(name: str) -> None:
    network, full = create_network(name, outputs=3, channels=1, size=96)
    assert full == f"torchvision:{name}" and network.training
    logits = network(torch.zeros(2, 1, 96, 96))
    assert isinstance(logits, Tensor) and logits.shape == (2, 3)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, weights=None, init_weights=False)
    state = {key: torch.full(tensor.shape, 0.5) for key, tensor in theirs.state_dict().items()}
    assert any(key.startswith(("aux1", "AuxLogits")) for key in state)
    load_weights(network, state, optional=("fc",), source="file")
    assert next(network.parameters()).unique().tolist() == [1.5]  # three channels summed


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("torchvision:alexnet", 48, r"alexnet does not take images of 48 pixels .*, for .* to 224"),
        (
            "timm:test_vit",
            40,
            r"test_vit does not .* of 40 pixels: .* last 8 .* prepare.size to 32 or 48",
        ),
        ("torchvision:vit_b_16", 40, "vit_b_16 does not take images of 40 pixels"),
        ("timm:convnext_atto", 16, "convnext_atto does not take images of 16 pixels"),
    ],
)
def test_what_does_not_take_the_images_is_refused_by_name(name: str, size: int, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        create_network(name, outputs=2, channels=1, size=size)
    assert "\n" not in str(caught.value) and str(caught.value).count("; ") == 1


class Talkative(nn.Module):
    """Returns more than it is asked for while it is trained."""

    def __init__(self, wide: int = 0) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2 + wide)

    def forward(self, x: Tensor) -> Any:
        logits = self.head(x.mean((1, 2, 3))[:, None].expand(-1, 4))
        return (logits, logits) if self.training and self.head.out_features == 2 else logits


@pytest.mark.parametrize(("wide", "said"), [(0, "gives tuple for an"), (1, r"gives \(3,\) for")])
def test_anything_but_one_logit_per_output_is_refused(
    wide: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: Talkative(wide))
    with pytest.raises(ModelError, match=said):
        create_network("timm:test_resnet", outputs=2, channels=1, size=32)
    network, _ = create_network("timm:test_resnet", outputs=2, channels=1, size=32, tried=False)
    assert isinstance(network, Talkative)


def test_a_trial_changes_no_weights() -> None:
    states = []
    for tried in (True, False):
        torch.manual_seed(3)
        network, _ = create_network("timm:test_resnet", outputs=2, channels=1, size=32, tried=tried)
        states.append({**network.state_dict(), "random": torch.rand(1)})
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_libraries_are_asked_in_order() -> None:
    assert classifiers.find_architecture("resnet18") == ("torchvision", "resnet18")
    assert classifiers.find_architecture("timm:resnet18") == ("timm", "resnet18")
    assert classifiers.find_architecture("micranet") == ("dollmaker", "micranet")
