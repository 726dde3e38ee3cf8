"""Transformers at another side than their own: what they are shown, where their places lie."""

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from dollmaker.attribute.committee import Committee, Setup
from dollmaker.attribute.features import Look, features, seen_at
from dollmaker.config import settings as configuration
from dollmaker.networks.frames import Frames
from dollmaker.networks.inputs import Input
from dollmaker.networks.member import Member
from dollmaker.networks.positions import at_side
from dollmaker.runtime.errors import ModelError


def vit(size: int, name: str = "test_vit", channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(name, img_size=size, num_classes=2, in_chans=channels)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("size", "side", "seen"), [(64, None, 64), (64, 96, 96), (64, "published", 480)]
)
def test_a_side_is_its_own_a_number_or_the_published_one(size: int, side: Any, seen: int) -> None:
    assert seen_at(vit(size), side) == seen
    assert seen_at(timm.create_model("test_resnet"), side) is None


def test_dinov2s_published_grid_is_34_across() -> None:
    with torch.device("meta"):
        network = timm.create_model("vit_small_patch14_dinov2", img_size=224)
    assert seen_at(network, "published") == 34 * 14


def test_features_at_a_side_are_those_of_the_network_made_for_it() -> None:
    network, images = vit(64), torch.randn(3, 3, 48, 48)
    given = features(network, images, Look(side=96))
    assert given.grid == (6, 6)
    shown = nn.functional.interpolate(images, size=96, mode="bilinear")
    expected = features(at_side(network, 96), shown)
    torch.testing.assert_close(given.values, expected.values)
    alone = features(network, images[1:2], Look(side=96))
    assert torch.equal(alone.values[0], given.values[1])  # whatever its neighbours


def test_keys_come_without_class_and_register_tokens() -> None:
    network = vit(56, "vit_small_patch14_reg4_dinov2")
    images = torch.randn(2, 3, 56, 56)
    given = features(network, images)
    assert given.grid == (4, 4) and given.attention.shape == (2, 6, 16)
    tokens: list[Tensor] = []
    last = network.get_submodule("blocks")[-1]  # type: ignore[index]
    handle = last.norm1.register_forward_hook(lambda m, i, o: tokens.append(o))
    network(images)
    handle.remove()
    assert tokens[0].shape[1] == 1 + 4 + 16
    weight, bias = last.attn.qkv.weight, last.attn.qkv.bias
    keys = tokens[0] @ weight[384:768].T + bias[384:768]
    torch.testing.assert_close(given.values, keys[:, 5:], rtol=1e-4, atol=1e-5)


def test_what_is_around_a_picture_does_not_blend_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from dollmaker.attribute import features as module

    seen: list[Tensor] = []
    whole = module._tokens
    monkeypatch.setattr(
        module, "_tokens", lambda n, b, x, p: (seen.append(x), whole(n, b, x, p))[1]
    )
    images = torch.full((1, 3, 48, 48), -2.0)
    images[:, :, 10:31] = 1.0  # a wide picture between two bars
    features(vit(64), images, Look(side=96), frames=Frames(((0, 10, 48, 31),), 48))
    shown = seen[0][0, 0]
    assert (shown[20:62] == 1).all() and set(shown.unique().tolist()) == {-2.0, 1.0} | set(
        shown[:20].unique().tolist()
    ) | set(shown[62:].unique().tolist())
    features(vit(64), images, Look(side=96))
    assert not (seen[1][0, 0, 20:62] == 1).all()  # without frames it does


def test_sides_that_do_not_fit_are_refused() -> None:
    images = torch.zeros(1, 3, 64, 64)
    with pytest.raises(
        ModelError, match=r"side is 100: .* last 4 of 100 .*; set side to 96 or 112"
    ):
        features(vit(64), images, Look(side=100))
    other = vit(64, "beit_base_patch16_224")
    with pytest.raises(ModelError, match="takes images of one side only; remove side"):
        features(other, images, Look(side=96))
    assert features(other, images, Look(side="published")).grid == (4, 4)


def committee(side: Any, method: str, stored: int = 48, own: int = 32) -> Committee:
    member = Member(
        name="m",
        network=vit(own, channels=1),
        findings=["a", "b"],
        input=Input(channels=1, size=own),
        sha256="",
    )
    recipe = {
        "attribute": {"method": method, "side": side, "centred": True, "smoothing": 0},
        "binarize": [{"gate": {}}, {"at": {"level": 0.5}}],
    }
    config = configuration.resolved(
        {"dataset": "x", "source": {"kind": "phantoms"}, "recipes": {"doll": recipe}}
    )
    return Committee(
        [member],
        config.maps("doll"),
        Setup(channel_mean=torch.tensor([100.0]), size=stored, chunk=4),
    )


@pytest.mark.parametrize("method", ["tokencut", "maskcut", "found"])
@pytest.mark.parametrize("side", [None, 96])
def test_maps_have_the_stored_size_and_do_not_depend_on_batches(method: str, side: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 1, 48, 48), generator=generator).to(torch.uint8)
    images[:, :, 12:30, 8:24] //= 4
    experts = committee(side, method)
    names, frames = list("abcde"), Frames(((0, 8, 48, 40),) * 5, 48)
    pairs = [(0, 0), (2, 1), (3, 0), (4, 1)]
    maps = experts.explain(images, names, pairs, frames).consensus.maps
    assert maps.shape == (4, 48, 48) and not maps[:, :8].any() and not maps[:, 40:].any()
    for number, (row, output) in enumerate(pairs):
        one = frames.of([row])
        alone = experts.explain(images[row : row + 1], [names[row]], [(0, output)], one)
        assert torch.equal(alone.consensus.maps[0], maps[number])


def test_a_side_is_reached_in_one_step_from_the_stored_image() -> None:
    """Not by way of the network's own size, where detail would be lost."""
    experts = committee(96, "tokencut", stored=96, own=32)
    images = torch.randint(0, 256, (1, 1, 96, 96)).to(torch.uint8)
    member = experts.members[0]
    shown = experts._seen(member, images)
    assert torch.equal(shown, replace(member.input, size=96).prepare(images))
    assert committee(None, "tokencut")._seen(member, images[..., :48, :48]).shape[-1] == 32
    assert committee(96, "saliency")._seen(member, images[..., :48, :48]).shape[-1] == 32
