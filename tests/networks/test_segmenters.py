"""Networks by name, their starting weights, and what is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import mobilenet_v2

from dollmaker.config.networks import SegmentConfig
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import create, find_start
from dollmaker.runtime.errors import ModelError
from dollmaker.store.files import write_json
from segment.segment_network import NETWORK

OPTIONS = SegmentConfig(**NETWORK)


@pytest.mark.parametrize(
    ("architecture", "encoder", "arguments"),
    [
        ("Unet", "mobilenet_v2", {}),
        ("UnetPlusPlus", "resnet18", {"decoder_channels": [32, 16, 16, 8, 8]}),
        ("PSPNet", "resnet18", {}),
        ("deeplabv3plus", "tu-regnetx_002", {}),
        ("FPN", "tu-mobilenetv3_small_050", {}),
    ],
)
def test_forward_and_backward(
    architecture: str, encoder: str, arguments: dict[str, object]
) -> None:
    options = SegmentConfig(architecture=architecture, encoder=encoder, arguments=arguments)
    model = create(options, channels=1, classes=5, size=64, seed=0)
    out = model(torch.randn(2, 1, 64, 64))
    assert out.shape == (2, 5, 64, 64)
    out.square().mean().backward()
    head = [p for name, p in model.named_parameters() if name.startswith("segmentation_head")]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head)


def test_seed_decides_the_weights_and_leaves_the_global_generator() -> None:
    before = torch.get_rng_state()
    models = [
        create(OPTIONS, channels=1, classes=2, size=32, seed=s).state_dict() for s in (1, 1, 2)
    ]
    assert torch.equal(before, torch.get_rng_state())
    name = "decoder.blocks.0.conv1.0.weight"
    assert torch.equal(models[0][name], models[1][name])
    assert not torch.equal(models[0][name], models[2][name])


@pytest.mark.parametrize(
    ("change", "size", "words"),
    [
        ({"architecture": "Vnet"}, 32, "unknown architecture 'Vnet'; use one of: Unet"),
        ({"encoder": "mobilenetv2"}, 32, "did you mean .*mobilenet_v2"),
        ({"encoder": "regnetx_002"}, 32, "tu-regnetx_002"),
        ({"encoder": "tu-hf-hub:someone/net"}, 32, "unknown encoder"),
        ({"arguments": {"depth_charge": 1}}, 32, "correct segment.arguments"),
        ({"arguments": {"classes": 1}}, 32, "may not hold 'classes'"),
        ({"arguments": {"activation": "sigmoid"}}, 32, "may not hold 'activation'"),
        ({"architecture": "Linknet", "arguments": {}}, 40, "multiple of 32"),
    ],
)
def test_refused_with_a_remedy(change: dict[str, object], size: int, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        create(SegmentConfig(**{**NETWORK, **change}), channels=1, classes=2, size=size, seed=0)


def test_member_starts_the_encoder(tmp_path: Path) -> None:
    classifier = mobilenet_v2(num_classes=4).eval()
    folder = tmp_path / "member0"
    folder.mkdir()
    save_file(classifier.state_dict(), folder / "model.safetensors")
    spec = {"channels": 3, "size": 64, "mean": 0.4, "std": 0.2}
    write_json(folder / "model.json", {"architecture": "torchvision:mobilenet_v2", "input": spec})
    options = SegmentConfig(encoder="mobilenet_v2", init="member0")
    start = find_start(options, [folder], tmp_path, channels=1, size=64)
    assert start.input == Input(channels=1, size=64, mean=0.4, std=0.2)
    model = create(options, channels=1, classes=2, size=64, seed=0)
    start.load(model.get_submodule("encoder"))
    model.eval()
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        features = model.get_submodule("encoder")(grey)
        expected = classifier.features(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(features[-1], expected, rtol=1e-3, atol=1e-4)
    other = create(SegmentConfig(encoder="resnet18"), channels=1, classes=2, size=64, seed=0)
    with pytest.raises(ModelError, match=r"member0 .torchvision:mobilenet_v2. does not fit"):
        start.load(other.get_submodule("encoder"))


def test_file_starts_the_encoder(tmp_path: Path) -> None:
    source = create(OPTIONS, channels=1, classes=2, size=32, seed=5).get_submodule("encoder")
    state = {name: tensor.contiguous() for name, tensor in source.state_dict().items()}
    save_file(state, tmp_path / "net.safetensors")
    own = SegmentConfig(init="net.safetensors")
    start = find_start(own, [], tmp_path, channels=1, size=32)
    target = create(OPTIONS, channels=1, classes=2, size=32, seed=6).get_submodule("encoder")
    start.load(target)
    assert all(torch.equal(v, target.state_dict()[k]) for k, v in source.state_dict().items())
    assert start.input == Input(channels=1, size=32)  # it names no mean: pixels in [-1, 1]
    mean = {"mean": "[0.2, 0.4, 0.6]", "std": "[0.1, 0.1, 0.4]"}
    named = tmp_path / "timm--test_resnet.r160_in1k.safetensors"
    save_file(state, named, metadata=mean)
    published = SegmentConfig(init="timm:test_resnet.r160_in1k")
    start = find_start(published, [], tmp_path, channels=3, size=32)
    assert start.input.mean == (0.2, 0.4, 0.6) and start.input.std == (0.1, 0.1, 0.4)
    start = find_start(published, [], tmp_path, channels=1, size=32)
    assert start.input.mean == (pytest.approx(0.4),) and start.input.std == (pytest.approx(0.2),)
    with pytest.raises(ModelError, match="no committee member and no file"):
        find_start(SegmentConfig(init="missing"), [], tmp_path, channels=1, size=32)
