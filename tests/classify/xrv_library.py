"""torchxrayvision's own networks with random weights, loaded the way it loads its downloads."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dollmaker.config import xrv


def library() -> Any:
    """The library; the test is skipped where it is not installed."""
    return pytest.importorskip("torchxrayvision", reason="pip install torchxrayvision to compare")


def own_network(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A network as the library makes it for its trained weights, with operating points.

    Args:
        name: Such as ``densenet121-res224-chex``.
        folder: Where the weights file is put that the library would download.
        monkeypatch: Shows it that file.
    """
    torch.manual_seed(5)  # the weights, before they are made lively
    models = library().models
    file = folder / "theirs.pt"
    if xrv.NETWORKS[name].architecture == "densenet121":
        torch.save(lively(models.DenseNet()), file)  # it pickles whole networks
        kind = models.DenseNet
    else:
        import torchvision

        plain = torchvision.models.resnet50(num_classes=18)
        plain.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        torch.save(lively(plain).state_dict(), file)
        kind = models.ResNet
    monkeypatch.setattr(models, "get_weights", lambda *_, **__: str(file))
    network: nn.Module = kind(weights=name)
    return network.eval().requires_grad_(False)


def lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and statistics that leave logits of a useful size for pixels in [-1024, 1024].

    Rectifiers that are mostly open or mostly shut make a network that nodes can follow.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.2, 0.6, generator=generator)
                module.bias.normal_(0, 1, generator=generator)
                module.momentum = 1.0
            elif isinstance(module, nn.Linear):
                module.bias.normal_(0, 0.5, generator=generator)
        network.train()(pictures(32, seed + 1))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1
    return network.eval()


def pictures(count: int, seed: int, size: int = 64) -> torch.Tensor:
    """Smooth random pictures in the library's range, float32 (count, 1, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, size // 8, size // 8, generator=generator) * 2048 - 1024
    return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")


def logits(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the library computes before sigmoid and operating points."""
    points, network.op_threshs = network.op_threshs, None
    found: torch.Tensor = network(x)
    network.op_threshs = points
    return found
