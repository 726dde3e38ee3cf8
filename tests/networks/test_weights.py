"""Local weights: safetensors only, and fitted to what wraps the network."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dollmaker.networks.batch_norm import freeze_batch_norm
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.weights import (
    Normalisation,
    inflate,
    load_weights,
    read_normalisation,
    read_weights,
    to_bytes,
)
from dollmaker.runtime import devices
from dollmaker.runtime.errors import ModelError


def network(channels: int, outputs: int = 4) -> nn.Sequential:
    layers = [nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, outputs))


def test_pickles_and_absent_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        read_weights(tmp_path / "a.safetensors")
    torch.save(network(3).state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="not a safetensors file"):
        read_weights(tmp_path / "a.safetensors")


def test_a_grey_network_gives_what_the_colour_network_gives_for_grey(tmp_path: Path) -> None:
    colour = network(3).eval()
    save_file(colour.state_dict(), tmp_path / "w.safetensors")
    grey = network(1).eval()
    load_weights(grey, read_weights(tmp_path / "w.safetensors"), source="w")
    x = torch.randn(2, 1, 9, 9)
    torch.testing.assert_close(grey(x), colour(x.expand(-1, 3, -1, -1)))
    back = network(3).eval()
    load_weights(back, grey.state_dict(), source="w")
    torch.testing.assert_close(back(x.expand(-1, 3, -1, -1)), grey(x))


def test_prefixes_of_wrappers_do_not_matter() -> None:
    plain, wrapped = network(1), nn.ModuleDict({"model": network(1)})
    load_weights(wrapped, plain.state_dict(), source="w")
    torch.testing.assert_close(wrapped["model"][0].weight, plain[0].weight)


def test_weights_of_another_network_are_refused_unless_it_is_the_head() -> None:
    with pytest.raises(ModelError, match=r"2 of 9 tensors.*'5\.weight'"):
        load_weights(network(1, 7), network(1).state_dict(), source="file w")
    load_weights(network(1, 7), network(1).state_dict(), optional=("5",), source="w")


def test_frozen_batch_norm_does_not_move() -> None:
    net = network(1).train()
    freeze_batch_norm(net)
    before = net[1].running_mean.clone()
    net(torch.randn(4, 1, 9, 9) + 5).sum().backward()
    assert torch.equal(net[1].running_mean, before)
    assert net[1].weight.grad is None
    assert net[0].weight.grad is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="no GPU is usable"):
        devices.choose("cuda")
    assert devices.choose("auto").type == "cpu"


def dino(size: int = 224) -> dict[str, torch.Tensor]:
    """Weights in the layout of the published dino_deitsmall16 backbone, without a head."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "cls_token": (1, 1, 384),
        "pos_embed": (1, 1 + (size // 16) ** 2, 384),
        "patch_embed.proj.weight": (384, 3, 16, 16),
        "patch_embed.proj.bias": (384,),
    }
    for block in range(12):
        for name, shape in {
            "norm1.weight": (384,),
            "norm1.bias": (384,),
            "attn.qkv.weight": (1152, 384),
            "attn.qkv.bias": (1152,),
            "attn.proj.weight": (384, 384),
            "attn.proj.bias": (384,),
            "norm2.weight": (384,),
            "norm2.bias": (384,),
            "mlp.fc1.weight": (1536, 384),
            "mlp.fc1.bias": (1536,),
            "mlp.fc2.weight": (384, 1536),
            "mlp.fc2.bias": (384,),
        }.items():
            shapes[f"blocks.{block}.{name}"] = shape
    shapes |= {"norm.weight": (384,), "norm.bias": (384,)}
    return {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("prefix", "size", "channels"), [("", 224, 3), ("module.backbone.", 96, 1)]
)
def test_dinos_published_layout_loads_into_timms_vit(prefix: str, size: int, channels: int) -> None:
    state = dino()
    name = "timm:vit_small_patch16_224"
    network, _ = create_network(name, outputs=3, channels=channels, size=size)
    load_weights(
        network,
        {prefix + key: value for key, value in state.items()},
        optional=("head",),
        source="w",
    )
    own = network.state_dict()
    torch.testing.assert_close(own["blocks.11.attn.qkv.weight"], state["blocks.11.attn.qkv.weight"])
    torch.testing.assert_close(own["pos_embed"][:, 0], state["pos_embed"][:, 0])
    assert own["pos_embed"].shape[1] == 1 + (size // 16) ** 2
    assert network(torch.zeros(1, channels, size, size)).shape == (1, 3)
    del state["blocks.3.norm2.bias"]
    with pytest.raises(ModelError, match=r"blocks\.3\.norm2\.bias"):
        load_weights(network, state, optional=("head",), source="w")


def test_the_same_tensors_and_metadata_give_the_same_bytes(tmp_path: Path) -> None:
    state = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.ones(2, dtype=torch.int8)}
    names = {f"key{number}": str(number) for number in range(8)}
    data = to_bytes(state, {**names, "format": "pt"})
    assert data == to_bytes(state, dict(reversed({**names, "format": "pt"}.items())))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(header["__metadata__"]) == sorted([*names, "format"])
    (tmp_path / "x.safetensors").write_bytes(data)
    read = read_weights(tmp_path / "x.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


def test_a_file_tells_how_images_were_normalised(tmp_path: Path) -> None:
    file, state = tmp_path / "w.safetensors", {"a": torch.ones(1)}
    imagenet = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    file.write_bytes(to_bytes(state, imagenet.metadata()))
    assert read_normalisation(file) == imagenet
    file.write_bytes(to_bytes(state, {"format": "pt"}))
    assert read_normalisation(file) is None and read_normalisation(tmp_path / "absent") is None
    for mean, std in (
        ("0.5", "[0.5]"), ("[]", "[]"), ("[0.5]", "[0]"), ("[NaN]", "[1]"), ("[1, 2]", "[1]"),
        ("x", "[1]"), ("[[1]]", "[1]"), ("[" * 100_000, "[1]"), ("[1]", ""),
    ):  # fmt: skip
        file.write_bytes(to_bytes(state, {"mean": mean, "std": std}))
        with pytest.raises(ModelError, match=r"names a mean and a deviation that are none"):
            read_normalisation(file)


@pytest.mark.parametrize("given", [1, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_filters_see_a_repeated_image_as_before(given: int, channels: int) -> None:
    filters = torch.randn(6, given, 3, 3, generator=torch.Generator().manual_seed(0))
    new, grey = inflate(filters, channels), torch.randn(2, 1, 8, 8)
    assert new.shape == (6, channels, 3, 3)
    # The rule as it is said: the mean of the given filters, times given / channels.
    said = filters.mean(1) * given / channels
    torch.testing.assert_close(new, said[:, None].expand(-1, channels, -1, -1))
    before, after = (torch.conv2d(grey.expand(-1, f.shape[1], -1, -1), f) for f in (filters, new))
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-5)


def test_three_to_one_and_one_to_three_have_the_bits_that_they_had() -> None:
    filters = torch.randn(8, 3, 7, 7)
    assert torch.equal(inflate(filters, 1), filters.sum(1, keepdim=True))
    grey = filters[:, :1]
    assert torch.equal(inflate(grey, 3), grey.repeat(1, 3, 1, 1) / 3)


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "densenet121", "timm:test_resnet", "timm:test_vit", "timm:test_convnext"),
        *("timm:mobileone_s0", "timm:repvgg_a0"),  # several first convolutions side by side
    ],
)
def test_networks_see_a_repeated_image_as_before(name: str) -> None:
    size = 160 if "vit" in name else 64
    torch.manual_seed(0)
    three, four = (
        create_network(name, outputs=2, channels=c, size=size, tried=False)[0].eval()
        for c in (3, 4)
    )
    load_weights(four, three.state_dict(), source="w")
    grey = torch.rand(1, 1, size, size)
    with torch.no_grad():
        one, other = (net(grey.expand(-1, c, -1, -1)) for net, c in ((three, 3), (four, 4)))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_weights_of_another_width_are_not_taken_for_other_channels() -> None:
    wide = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    narrow = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(6, 8, 3))
    with pytest.raises(ModelError, match=r"first '1\.weight'"):
        load_weights(narrow, wide.state_dict(), source="w")
