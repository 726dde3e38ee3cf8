"""Where adapters go, what they change, and how large they are."""

import pytest
import torch
from torch import nn

from dollmaker.adapt.adapters import find_inserted, find_places, insert, widths
from dollmaker.adapt.tuning import Small, Tuned
from dollmaker.config.networks import SegmentConfig
from dollmaker.networks.segmenters import create
from dollmaker.runtime.errors import ModelError

NETWORKS = [
    ("Unet", "resnet18", {}, 5),
    ("Unet", "mobilenet_v2", {}, 5),
    ("FPN", "tu-regnetx_002", {}, 5),
    ("Unet", "mit_b0", {}, 4),
    ("Unet", "tu-convnext_atto", {}, 4),
    ("DPT", "tu-vit_tiny_patch16_224", {"img_size": 64}, 4),
]


def network(architecture: str, encoder: str, arguments: dict[str, object]) -> nn.Module:
    options = {"architecture": architecture, "encoder": encoder, "arguments": arguments}
    return create(SegmentConfig(**options), channels=1, classes=2, size=64, seed=0).eval()


@pytest.mark.parametrize(("architecture", "encoder", "arguments", "stages"), NETWORKS)
def test_start_without_effect_then_reach_every_stage(
    architecture: str, encoder: str, arguments: dict[str, object], stages: int
) -> None:
    model = network(architecture, encoder, arguments)
    names = list(model.state_dict())
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        before = model(x)
    tuned = Tuned(model, "adapter", Small(x=x[:1]), freeze_norm=True).eval()
    with torch.no_grad():
        assert torch.equal(tuned(x), before)
    assert len(tuned.adapters) == stages
    size = sum(p.numel() for p in model.get_submodule("encoder").parameters())
    added = sum(p.numel() for p in tuned.adapters.parameters())
    assert 0 < added < 0.05 * size
    assert tuned.encoder_share() == pytest.approx(added / size)
    assert list(model.state_dict()) == names
    for adapter in tuned.adapters:
        nn.init.constant_(adapter.up.bias, 0.5)
        with torch.no_grad():
            after = tuned(x)
        assert not torch.equal(after, before)
        before = after


def test_an_adapter_in_the_stream_is_seen_by_later_stages() -> None:
    encoder = network("Unet", "resnet18", {}).get_submodule("encoder")
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        before = encoder(x)
    adapters = insert(encoder, find_inserted(encoder, x, 0.125), 0)
    nn.init.normal_(adapters[2].up.weight)
    with torch.no_grad():
        after = encoder(x)
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [True, True, True, False, False, False]


def test_places_of_a_known_encoder() -> None:
    encoder = network("Unet", "resnet18", {}).get_submodule("encoder")
    places = find_places(encoder, torch.randn(1, 1, 64, 64))
    assert [place.module for place in places] == ["relu", "layer1", "layer2", "layer3", "layer4"]
    assert [place.channels for place in places] == [64, 64, 128, 256, 512]


def test_functional_output_has_no_place() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x, self.conv(x) * 2]

    with pytest.raises(ModelError, match=r"stage 1.*full or head"):
        find_places(Scaled(), torch.randn(1, 1, 8, 8))


def test_widths_narrow_until_they_fit() -> None:
    assert widths([64, 128], 0.125, 1e9) == [8, 16]
    channels, budget = [16, 24, 320], 3000
    chosen = widths(channels, 0.5, budget)
    cost = [2 * c * w + c + w for c, w in zip(channels, chosen, strict=True)]
    assert sum(cost) < budget and min(chosen) >= 1
    with pytest.raises(ModelError, match="adapters of one channel"):
        widths(channels, 0.5, 100)
