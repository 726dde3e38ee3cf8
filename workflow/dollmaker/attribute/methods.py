"""Attribution methods by name, with one signature."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dollmaker.attribute import (
    attention,
    cams,
    cutters,
    deep_lift,
    gradients,
    occlusion,
    rectifiers,
)
from dollmaker.attribute.passes import Pairs
from dollmaker.networks.frames import WHOLE, Frames
from dollmaker.runtime.errors import ConfigError, unknown


@dataclass(frozen=True, kw_only=True)
class Method:
    """An attribution method.

    Attributes:
        call: ``call(network, images, pairs, chunk=rows, **options)`` to signed float32 maps
            (P, C or 1, H, W).
        options: Options of a recipe that it takes.
        baselines: Whether it takes ``baselines``; the maps of several are averaged.
        frames: Whether it takes ``frames``: what it does between places is of the pictures alone.
    """

    call: Callable[..., Tensor]
    options: tuple[str, ...] = ()
    baselines: bool = False
    frames: bool = False


#: Options of the cuts of a network's features.
_CUTS = ("side", "tau", "centred", "part", "block")

#: All methods but integrated gradients, which :mod:`refine` drives.
METHODS: dict[str, Method] = {
    "saliency": Method(call=gradients.saliency),
    "input_x_gradient": Method(call=gradients.input_x_gradient),
    "guided_backprop": Method(call=rectifiers.guided_backprop),
    "deconvolution": Method(call=rectifiers.deconvolution),
    "deep_lift": Method(call=deep_lift.deep_lift, baselines=True),
    "occlusion": Method(call=occlusion.occlusion, options=("window", "stride"), baselines=True),
    "grad_cam": Method(call=cams.grad_cam, options=("layer",), frames=True),
    "hires_cam": Method(call=cams.hires_cam, options=("layer",), frames=True),
    "layer_cam": Method(call=cams.layer_cam, options=("layer",), frames=True),
    "multi_layer_cam": Method(
        call=cams.multi_layer_cam, options=("layers", "upsample"), frames=True
    ),
    "attention_rollout": Method(call=attention.attention_rollout, frames=True),
    "tokencut": Method(call=cutters.tokencut, options=_CUTS, frames=True),
    "maskcut": Method(call=cutters.maskcut, options=(*_CUTS, "masks"), frames=True),
    "found": Method(call=cutters.found, options=_CUTS, frames=True),
}


def explain(
    name: str,
    network: nn.Module,
    images: Tensor,
    pairs: Pairs,
    *,
    chunk: int,
    baselines: Sequence[Tensor] = (),
    frames: Frames = WHOLE,
    options: Mapping[str, Any] | None = None,
) -> Tensor:
    """Explain pairs by one method.

    Args:
        name: A key of :data:`METHODS`.
        network: float (R, C, H, W) to logits (R, K); evaluation mode, parameters frozen.
        images: float32 (B, C, H, W), prepared for the network.
        pairs: (image, output) numbers.
        chunk: Rows of a pass.
        baselines: float32 (B or 1, C, H, W), for methods that compare with something.
        frames: Where the pictures lie in the images.
        options: Options of a recipe; the method takes those that it knows.

    Returns:
        Signed attributions, float32 (P, C or 1, H, W); what they say outside the pictures is to be
        cut off.
    """
    if name not in METHODS:
        raise ConfigError(unknown("attribution method", name, METHODS))
    method = METHODS[name]
    known = {key: (options or {})[key] for key in method.options if key in (options or {})}
    if method.frames:
        known["frames"] = frames
    if not method.baselines:
        return method.call(network, images, pairs, chunk=chunk, **known)
    maps = [
        method.call(network, images, pairs, chunk=chunk, baselines=baseline, **known)
        for baseline in baselines
    ]
    return torch.stack(maps).mean(0)
