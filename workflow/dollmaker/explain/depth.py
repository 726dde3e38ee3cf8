"""Layers of a segmentation network by depth: stages of its encoder and of its decoder."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dollmaker.attribute.layers import Call, as_maps, named, trace
from dollmaker.runtime.errors import ConfigError

#: The deepest stage of the encoder.
DEEPEST = "encoder.-1"

_DEPTH = re.compile(r"(encoder|decoder)\.(-?\d+)")

#: Modules that change nothing in evaluation mode: no stages of a decoder.
_PASSIVE = (nn.Identity, nn.Dropout, nn.Dropout2d)


def find_layer(network: nn.Module, images: Tensor, layer: str) -> tuple[Call, bool]:
    """The layer with this name or depth.

    ``encoder.K`` is the module that makes the K-th of the feature maps that the encoder hands to
    the decoder (0 the finest, -1 the deepest), the input itself and maps of a single place not
    counted. ``decoder.K`` is the K-th block of the decoder in the order of the forward pass. A
    module that really has such a name comes first.

    Args:
        network: A network of segmentation-models-pytorch, or any other if ``layer`` is a name.
        images: float (B, C, H, W), prepared for the network; the first one is looked at.
        layer: The name or depth.

    Returns:
        The call, and whether its own output is meant (of a name) or what the rest of the network
        makes of it in place (of a depth).

    Raises:
        ConfigError: If there is no such layer or it has no feature map.
    """
    calls = trace(network, images)
    depth = _DEPTH.fullmatch(layer)
    names = dict(network.named_modules())
    if depth is None or layer in names or depth[1] not in names:
        return named(network, calls, [layer])[0], True
    part, place = depth[1], int(depth[2])
    inside = [call for call in calls if call.name.startswith(f"{part}.") and call.layout]
    if part == "encoder":
        stages = _encoder_stages(network, images, inside)
    else:
        stages = _decoder_stages(names[part], inside)
    if not -len(stages) <= place < len(stages):
        known = f"{part}.0 to {part}.{len(stages) - 1}" if stages else "the name of a module"
        raise ConfigError(f"unknown layer {layer!r}; the {part} has {len(stages)} stages with a "
                          f"feature map; use {known}.")  # fmt: skip
    return stages[place], False


def _encoder_stages(network: nn.Module, images: Tensor, inside: Sequence[Call]) -> list[Call]:
    """The last module that made each of the encoder's feature maps."""
    outputs: dict[nn.Module, Tensor] = {}
    features: list[Tensor] = []

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        outputs[module] = output

    def gather(_: nn.Module, __: Any, output: Any) -> None:
        # Plain vision transformers give (feature maps, class tokens).
        features.extend(output[0] if isinstance(output[0], list) else output)

    handles = [call.module.register_forward_hook(keep) for call in inside]
    handles.append(network.get_submodule("encoder").register_forward_hook(gather))
    try:
        with torch.no_grad():
            network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    stages = []
    for feature in features:
        same = [c for c in inside if _same_memory(outputs[c.module], feature)]
        maps = [(c, as_maps(network, outputs[c.module], c.layout)) for c in inside]
        # A map that was copied on its way out (tokens are) is known by its values, one that was
        # padded or activated by its shape.
        equal = [c for c, found in maps if torch.equal(found, feature)]
        alike = same or equal or [c for c, found in maps if found.shape == feature.shape]
        is_input = feature.shape[1:] == images.shape[1:]
        if alike and not is_input:
            stages.append(alike[-1])
    return stages


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.numel() == b.numel()


def _decoder_stages(decoder: nn.Module, inside: Sequence[Call]) -> list[Call]:
    """The blocks: children of the decoder, and those in its lists of modules."""
    blocks: set[nn.Module] = set()
    for child in decoder.children():
        many = isinstance(child, nn.ModuleList | nn.ModuleDict)
        blocks.update(child.children() if many else [child])
    return [c for c in inside if c.module in blocks and not isinstance(c.module, _PASSIVE)]
