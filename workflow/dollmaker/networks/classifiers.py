"""Classifier networks by name, with random weights: torchvision, timm, torchxrayvision, our own."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from dollmaker.config import patch_sizes, xrv
from dollmaker.networks import dry_run
from dollmaker.networks.patch_heads import put_patch_head
from dollmaker.networks.weights import Normalisation
from dollmaker.runtime.errors import ModelError, first_line, unknown

#: Further arguments of torchvision's networks. Auxiliary heads would return more than logits in
#: training; weights files that have them still load.
_TORCHVISION: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}

_MICRANET_CHANNELS = (32, 64, 128, 256)


def create_network(
    architecture: str, *, outputs: int, channels: int, size: int, tried: bool = True
) -> tuple[nn.Module, str]:
    """Make an untrained classifier, in training mode; its full name with the library comes with it.

    ``architecture`` is a torchvision or timm name, or ``micranet``; ``torchvision:NAME``,
    ``timm:NAME`` or ``dollmaker:NAME`` insists on one of them, a bare name is looked up here first,
    then in this order. ``xrv:NAME`` is torchxrayvision's; ``mil:NAME`` is timm's with a head on
    every patch (:mod:`dollmaker.networks.patch_heads`). The network gives so many logits and sees
    images of this side in pixels; it is tried on one, unless it was trained on such.

    Raises:
        ModelError: If no library knows the name, or the network does not take such images or does
            not give one logit per output.
    """
    library, name = find_architecture(architecture)
    title = f"{library}:{name}"
    try:
        network = _MAKERS[library](name, outputs, channels, size)
        logits = dry_run.forward(network, (2, channels, size, size)) if tried else None
    except ModelError:
        raise
    except Exception as error:  # the libraries raise many types for what does not fit
        raise ModelError(_refusal(library, name, size, first_line(error))) from None
    if logits is not None and (not isinstance(logits, Tensor) or logits.shape != (2, outputs)):
        given = tuple(logits.shape[1:]) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(
            f"{title} gives {given} for an image in training, where {outputs} logits are wanted; "
            "name another architecture."
        )
    return network, title


def find_architecture(architecture: str) -> tuple[str, str]:
    """Library and name of an architecture; a ``ModelError`` if no library knows it."""
    library, _, name = architecture.rpartition(":")
    if library not in ("", *_MAKERS):
        raise ModelError(
            f"unknown library {library!r} in {architecture!r}; use timm:, torchvision:, mil:, xrv: "
            "or dollmaker:."
        )
    if library == "xrv":
        if name not in xrv.NETWORKS:
            raise ModelError(unknown("network of torchxrayvision", name, xrv.NETWORKS))
        return library, name
    if library in ("", "dollmaker") and name == "micranet":
        return "dollmaker", name
    if library in ("", "torchvision"):
        import torchvision

        if name in torchvision.models.list_models(module=torchvision.models):
            return "torchvision", name
    if library in ("", *OF_TIMM):
        import timm

        if timm.is_model(name):
            return library or "timm", name
    raise ModelError(_suggest(name))


def _torchvision(name: str, outputs: int, channels: int, size: int) -> nn.Module:
    import torchvision

    options = {"image_size": size} if name.startswith("vit_") else _TORCHVISION.get(name, {})
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
    _require_whole_patches(network, f"timm:{name}", size)
    return network


def _mil(name: str, outputs: int, channels: int, size: int) -> nn.Module:
    network = _timm(name, 0, channels, size)
    put_patch_head(network, outputs, f"mil:{name}")
    return network


#: Prefixes of timm's networks: as they are, and with a head on every patch.
OF_TIMM = ("timm", "mil")

#: Library -> what makes a network of a name, with so many outputs and channels, for a size.
_MAKERS: dict[str, Callable[[str, int, int, int], nn.Module]] = {
    "dollmaker": lambda _, outputs, channels, __: MicraNet(outputs=outputs, channels=channels),
    "torchvision": _torchvision,
    "timm": _timm,
    "mil": _mil,
    "xrv": lambda name, *shape: _torchvision(xrv.NETWORKS[name].architecture, *shape),
}


def _require_whole_patches(network: nn.Module, title: str, size: int) -> None:
    """Refuse a transformer that would not see the rim of an image of this size."""
    from timm.layers import PatchEmbed

    for layer in network.modules():
        if isinstance(layer, PatchEmbed) and not layer.dynamic_img_pad:
            side = layer.patch_size[0]
            if size % side:
                wrong = patch_sizes.complaint(size, side).format(key="prepare.size")
                raise ModelError(f"{title} does not take images of {size} pixels: {wrong}.")


def _refusal(library: str, name: str, size: int, reason: str) -> str:
    made_for = 224
    if library in OF_TIMM:
        import timm

        known = timm.get_pretrained_cfg(name)
        made_for = known.input_size[-1] if known is not None else made_for
    other = f", for instance to {made_for}," if made_for != size else ""
    return (
        f"{library}:{name} does not take images of {size} pixels ({reason}); set prepare.size"
        f"{other} or name another architecture."
    )


def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            keys = ("out_channels", "kernel_size", "stride", "padding", "dilation")
            settings = {key: getattr(layer, key) for key in keys}
            fresh = nn.Conv2d(channels, bias=layer.bias is not None, **settings)
            network.set_submodule(name, fresh)
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


def published_normalisation(architecture: str) -> tuple[Normalisation, str] | None:
    """Mean and deviation of the published weights of one of timm's transformers, and its name.

    They stand in where a weights file names none. ``None`` for other networks; timm's tag after
    the name (``.dino``) says whose weights.
    """
    library, name = find_architecture(architecture)
    if library not in OF_TIMM or patch_sizes.side_of(name) is None:
        return None
    import timm

    try:
        known = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ModelError(f"{architecture}: {first_line(error)}; correct its tag.") from None
    return known and (Normalisation(mean=tuple(known.mean), std=tuple(known.std)), f"timm:{name}")


def _suggest(name: str) -> str:
    import difflib

    import timm
    import torchvision

    known = [*torchvision.models.list_models(module=torchvision.models), *timm.list_models()]
    close = difflib.get_close_matches(name, sorted(set(known)), n=5, cutoff=0.4)
    hint = ", ".join(close) if close else "resnet18, densenet121, mobilenet_v2"
    return f"unknown architecture {name!r}; did you mean one of: {hint}?"


class MicraNet(nn.Module):
    """MICRA-Net's network (Bilodeau et al. 2022), written from its description.

    Four blocks of two 3x3 convolutions, then the maximum of each channel, dropout and a linear
    layer.
    """

    def __init__(self, *, outputs: int, channels: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = channels
        for number, width in enumerate(_MICRANET_CHANNELS, start=1):
            if number > 1:
                layers[f"pool{number}"] = nn.MaxPool2d(2)
            for place in (1, 2):
                layers[f"conv{number}_{place}"] = nn.Conv2d(inputs, width, 3, padding=1)
                layers[f"norm{number}_{place}"] = nn.BatchNorm2d(width)
                layers[f"relu{number}_{place}"] = nn.ReLU()
                inputs = width
        self.features = nn.Sequential(layers)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), sides at least 8, to logits (B, outputs)."""
        logits: Tensor = self.head(self.dropout(self.pool(self.features(x)).flatten(1)))
        return logits
