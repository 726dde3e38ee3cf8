"""The encoder alone: it loads strictly into timm and torchvision and computes the same."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from segmentation_models_pytorch.encoders import get_encoder
from torch import nn

from dollmaker.config.networks import SegmentConfig
from dollmaker.config.settings import resolved
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import create
from dollmaker.networks.weights import Normalisation, load_weights, read_normalisation
from dollmaker.runtime.errors import ModelError
from dollmaker.segment import export, stage
from dollmaker.segment.export import export_encoder


def segmenter(
    folder: Path, encoder: str, channels: int = 1, size: int = 32, architecture: str = "Unet"
) -> nn.Module:
    """A segmenter with statistics of its own, written as the stage does."""
    narrow = {"decoder_intermediate_channels": [8] * 4, "decoder_fusion_channels": 8}
    arguments = narrow if architecture == "DPT" else {}
    options = SegmentConfig(architecture=architecture, encoder=encoder, arguments=arguments)
    model = create(options, channels=channels, classes=2, size=size, seed=3)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith("running_mean"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 10)
    folder.mkdir()
    spec = Input(channels=channels, size=size, mean=0.4, std=0.2)
    stage.save(folder, model, options, ["A", "B"], spec)
    loaded: nn.Module = smp.from_pretrained(folder).eval()
    return loaded


def test_into_timm(tmp_path: Path) -> None:
    encoder = segmenter(tmp_path / "s", "tu-test_resnet").get_submodule("encoder")
    file = tmp_path / "encoder.safetensors"
    missing = export_encoder(tmp_path / "s", file)
    assert sorted(missing) == ["fc.bias", "fc.weight"]
    plain = timm.create_model("test_resnet", in_chans=1, num_classes=0).eval()
    plain.load_state_dict(load_file(file), strict=True)
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(plain.forward_features(x), encoder(x)[-1])
    with safe_open(file, "pt") as handle:
        assert handle.metadata()["library"] == "timm"
        assert handle.metadata()["channels"] == "1"
    assert read_normalisation(file) == Normalisation(mean=(0.4,), std=(0.2,))


@pytest.mark.parametrize(
    ("name", "head", "channels"),
    [
        ("resnet18", "fc", 1),
        ("resnet18", "fc", 3),
        ("mobilenet_v2", "classifier", 1),
        ("densenet121", "classifier", 1),
    ],
)
def test_into_torchvision(tmp_path: Path, name: str, head: str, channels: int) -> None:
    encoder = segmenter(tmp_path / "s", name, channels).get_submodule("encoder")
    file = tmp_path / "encoder.safetensors"
    missing = export_encoder(str(tmp_path / "s"), str(file))
    assert missing and all(key.startswith(f"{head}.") for key in missing)
    plain = torchvision.models.get_model(name, weights=None)
    setattr(plain, head, nn.Identity())
    plain.load_state_dict(load_file(file), strict=True)
    seen: list[torch.Tensor] = []
    last = plain.layer4 if name == "resnet18" else plain.features
    last.register_forward_hook(lambda _, __, y: seen.append(y.clone()))  # relu follows in place
    x = torch.randn(2, channels, 64, 64)
    with torch.no_grad():
        plain.eval()(x.expand(-1, 3, -1, -1))
        expected = encoder(x)[-1]
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("tu-densenet121", "classifier"),
        ("tu-tresnet_m", "head"),
        ("tu-legacy_xception", "fc"),
        ("tu-darknet53", "head"),
        ("tu-cspresnet50", "head"),
        ("tu-nf_resnet50", "head"),
    ],
)
def test_names_of_timm_with_underscores(name: str, head: str, tmp_path: Path) -> None:
    encoder = get_encoder(name, in_channels=1, weights=None)
    own = encoder.state_dict()
    plain = timm.create_model(name.removeprefix("tu-"), in_chans=1)
    renamed = export._rename(own, list(plain.state_dict()), name)
    found = plain.load_state_dict(renamed, strict=False)
    assert not found.unexpected_keys
    assert {key.split(".")[0] for key in found.missing_keys} == {head}
    # And back, as the start of an encoder.
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
    load_weights(encoder, renamed, source="test")
    assert all(torch.equal(tensor, own[key]) for key, tensor in encoder.state_dict().items())


def test_tensors_without_counterpart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter(tmp_path / "s", "tu-test_resnet")
    monkeypatch.setattr(export, "_timm", lambda name: (["stem.weight"], ()))
    with pytest.raises(ModelError, match="none of timm's test_resnet; use the whole segmenter"):
        export_encoder(tmp_path / "s", tmp_path / "e.safetensors")
    stage._export(tmp_path / "s")
    assert not list(tmp_path.glob("**/e*.safetensors"))
    assert "encoder.safetensors is left out: tensor" in capsys.readouterr().err


def test_a_vision_transformer(tmp_path: Path) -> None:
    segmenter(tmp_path / "s", "tu-test_vit", size=64, architecture="DPT")
    missing = export_encoder(tmp_path / "s", tmp_path / "e.safetensors")
    assert sorted(missing) == ["head.bias", "head.weight"]
    with safe_open(tmp_path / "e.safetensors", "pt") as handle:
        metadata = handle.metadata()
    assert (metadata["channels"], metadata["architecture"]) == ("1", "test_vit")
    size = int(metadata["img_size"])
    plain = timm.create_model("test_vit", in_chans=1, num_classes=0, img_size=size)
    plain.load_state_dict(load_file(tmp_path / "e.safetensors"), strict=True)


@pytest.mark.parametrize("name", ["tu-convnext_atto", "tu-mobilenetv3_small_050"])
def test_flattened_names_of_timm(tmp_path: Path, name: str) -> None:
    segmenter(tmp_path / "s", name)
    missing = export_encoder(tmp_path / "s", tmp_path / "e.safetensors")
    plain = timm.create_model(name.removeprefix("tu-"), in_chans=1)
    found = plain.load_state_dict(load_file(tmp_path / "e.safetensors"), strict=False)
    assert not found.unexpected_keys
    assert found.missing_keys == missing
    assert {key.split(".")[0] for key in missing} <= {
        "head",
        "conv_head",
        "classifier",
        "norm_head",
    }


def test_other_encoders_keep_their_names(tmp_path: Path) -> None:
    encoder = segmenter(tmp_path / "s", "mit_b0", 3).get_submodule("encoder")
    assert export_encoder(tmp_path / "s", tmp_path / "e.safetensors") == []
    assert load_file(tmp_path / "e.safetensors").keys() == encoder.state_dict().keys()


def test_a_folder_without_segmenter(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no segmenter"):
        export_encoder(tmp_path, tmp_path / "e.safetensors")


def test_the_stage_writes_it(config: dict[str, Any], world: Path) -> None:
    config["segment"].update(epochs=1, encoder="tu-test_resnet", arguments={})
    inputs = stage.Inputs(
        index=world / "index.parquet",
        images=world / "images",
        labels=world / "labels",
        weights_root=world,
    )
    stage.train_segmenter(resolved(config), inputs, world / "out")
    alone = load_file(world / "out" / "encoder.safetensors")
    whole = load_file(world / "out" / "model.safetensors")
    for name, tensor in alone.items():
        assert torch.equal(tensor, whole[f"encoder.model.{name}"]), name


def test_the_package_stays_cheap() -> None:
    code = "import sys, dollmaker as d; assert 'torch' not in sys.modules; d.load_adapter"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
