"""Classifier networks by name: torchvision's, timm's and our own. Nothing is ever downloaded."""

from typing import Any

from torch import nn

from dollmaker.classify.micranet import MicraNet
from dollmaker.errors import ModelError


def create_network(
    architecture: str, *, outputs: int, channels: int, size: int
) -> tuple[nn.Module, str]:
    """Make an untrained classifier.

    Args:
        architecture: A torchvision or timm name, or ``micranet``; ``torchvision:NAME``,
            ``timm:NAME`` or ``dollmaker:NAME`` insists on one of them, a bare name is looked up
            here first, then in this order.
        outputs: Number of logits.
        channels: 1 or 3 input channels.
        size: Side of the input in pixels (transformers need to know).

    Returns:
        The network, and its full name with the library.

    Raises:
        ModelError: If neither library knows the name.
    """
    library, _, name = architecture.rpartition(":")
    if library not in ("", "timm", "torchvision", "dollmaker"):
        raise ModelError(
            f"unknown library {library!r} in {architecture!r}; use timm:, torchvision: or "
            "dollmaker:."
        )
    if library in ("", "dollmaker") and name == "micranet":
        return MicraNet(outputs=outputs, channels=channels), "dollmaker:micranet"
    if library in ("", "torchvision"):
        import torchvision

        if name in torchvision.models.list_models(module=torchvision.models):
            return _torchvision(name, outputs, channels, size), f"torchvision:{name}"
    if library in ("", "timm"):
        import timm

        if timm.is_model(name):
            return _timm(name, outputs, channels, size), f"timm:{name}"
    raise ModelError(_suggest(name))


def _torchvision(name: str, outputs: int, channels: int, size: int) -> nn.Module:
    import torchvision

    options: dict[str, Any] = {"image_size": size} if name.startswith("vit_") else {}
    network: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=outputs, **options
    )
    if channels != 3:
        _replace_first_convolution(network, channels)
    return network


def _timm(name: str, outputs: int, channels: int, size: int) -> nn.Module:
    import timm

    options: dict[str, Any] = {"num_classes": outputs, "in_chans": channels, "pretrained": False}
    known = timm.get_pretrained_cfg(name)
    if known is not None and known.fixed_input_size:
        options["img_size"] = size
    network: nn.Module = timm.create_model(name, **options)
    return network


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            parent = network.get_submodule(name.rpartition(".")[0])
            settings = {
                key: getattr(layer, key)
                for key in ("out_channels", "kernel_size", "stride", "padding", "dilation")
            }
            fresh = nn.Conv2d(channels, bias=layer.bias is not None, **settings)
            setattr(parent, name.rpartition(".")[2], fresh)
            return


def head_name(network: nn.Module, outputs: int) -> str:
    """Name of the last layer: the last linear or 1x1 convolution with that many outputs."""
    found = ""
    for name, layer in network.named_modules():
        width = getattr(layer, "out_features", getattr(layer, "out_channels", None))
        if isinstance(layer, nn.Linear | nn.Conv2d) and width == outputs:
            found = name
    if not found:
        raise ModelError(
            "the network has no last layer with one output per finding; use another one."
        )
    return found


def _suggest(name: str) -> str:
    import difflib

    import timm
    import torchvision

    known = [*torchvision.models.list_models(module=torchvision.models), *timm.list_models()]
    close = difflib.get_close_matches(name, known, n=5, cutoff=0.4)
    hint = ", ".join(close) if close else "resnet18, densenet121, mobilenet_v2"
    return f"unknown architecture {name!r}; did you mean one of: {hint}?"
