"""Attribution methods by name, with one signature, and those that need no more than passes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dollmaker.attribute import attention, cams, cutters, deep_lift, rectifiers
from dollmaker.attribute.passes import Question, input_gradients
from dollmaker.config.masks import MapsConfig
from dollmaker.runtime.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Method:
    """An attribution method."""

    #: ``call(question, **options)`` to signed float32 maps (P, C or 1, H, W) in the order of the
    #: pairs; what they say outside the pictures is to be cut off.
    call: Callable[..., Tensor]
    options: tuple[str, ...] = ()  #: Options of a recipe that it takes.
    #: Whether it takes a ``baseline``, (B or 1, C, H, W); the maps of several are averaged.
    baselines: bool = False


def saliency(asked: Question) -> Tensor:
    """The signed gradient of the logit by the pixels (Simonyan et al. 2014 take its magnitude).

    Maps are float32 (P, C, H, W), in logits per unit of input.
    """
    return input_gradients(asked, asked.network)


def input_x_gradient(asked: Question) -> Tensor:
    """Gradient times input (Shrikumar et al. 2016), float32 (P, C, H, W), in logits.

    If the network were linear around the image, this would be the contribution of each pixel
    against an input of zeros, which the normalisation of the network defines.
    """
    return input_gradients(asked, asked.network) * asked.images[asked.rows].float()


def occlusion(
    asked: Question, baseline: Tensor, *, window: float = 0.2, stride: float = 0.1
) -> Tensor:
    """Occlusion (Zeiler & Fergus 2014): how much a logit falls when a window is covered.

    Logit of the image minus logit with a window covered, averaged over the windows of a pixel.

    Side and distance of the square windows are in pixels if 1 or more, else shares of the image's
    side. They start at the upper left corner and are cut off at the other sides. What covers the
    images is the baseline, float (B or 1, C, H, W). It takes forward passes only, shared by all
    findings of an image. Maps are float32 (P, 1, H, W), in logits.

    Raises:
        ConfigError: If the windows leave gaps or are larger than the image.
    """
    device, size = asked.images.device, asked.images.shape[2:]
    rows, columns = (_cover(side, window, stride).to(device) for side in size)
    drops = _drops(asked, baseline, rows, columns)
    times = rows.sum(0)[:, None] * columns.sum(0)
    maps = asked.blank(1)
    for number, (image, output) in enumerate(asked.pairs):
        maps[number, 0] = (rows.T @ drops[image][:, :, output] @ columns) / times
    return maps


def _cover(side: int, window: float, stride: float) -> Tensor:
    """Which pixels of a side each window covers, float64 (windows, side), 0 or 1."""
    width, step = (
        round(length) if length >= 1 else max(1, round(length * side))
        for length in (window, stride)
    )
    if min(window, stride) <= 0 or not step <= width <= side:
        raise ConfigError(
            f"windows of {width} pixels at a distance of {step} do not cover an image of {side}; "
            "choose a window up to the image's side and a stride up to the window."
        )
    starts = torch.arange(1 + math.ceil((side - width) / step))[:, None] * step
    pixels = torch.arange(side)
    return ((pixels >= starts) & (pixels < starts + width)).double()


def _drops(asked: Question, baseline: Tensor, rows: Tensor, columns: Tensor) -> dict[int, Tensor]:
    """For each image, how much each window lowers the logits: float64 (windows, windows, K)."""
    images, chunk = asked.images, asked.chunk
    baselines = baseline.expand_as(images)
    shown = sorted(set(asked.rows))
    if not shown:
        return {}
    down, across = len(rows), len(columns)
    count = 1 + down * across  # place 0 of each image is the image itself
    total = len(shown) * count
    logits = []
    with torch.no_grad():
        for start in range(0, total, chunk):
            # The last place fills up the last pass.
            places = torch.arange(start, start + chunk).clamp(max=total - 1)
            numbers = torch.tensor(shown)[places // count]
            first = (places % count - 1).to(images.device)
            window = first.clamp(min=0)
            mask = rows[window // across][:, :, None] * columns[window % across][:, None, :]
            mask = (mask * (first >= 0)[:, None, None])[:, None].bool()
            covered = torch.where(mask, baselines[numbers], images[numbers])
            logits.append(asked.network(covered).double())
    said = torch.cat(logits)[:total].view(len(shown), count, -1)
    drops = (said[:, :1] - said[:, 1:]).view(len(shown), down, across, -1)
    return dict(zip(shown, drops, strict=True))


#: Options of the cuts of a network's features.
_CUTS = ("side", "tau", "centred", "part", "block")

#: All methods but integrated gradients, which :mod:`integrated_gradients` drives.
METHODS: dict[str, Method] = {
    "saliency": Method(call=saliency),
    "input_x_gradient": Method(call=input_x_gradient),
    "guided_backprop": Method(call=rectifiers.guided_backprop),
    "deconvolution": Method(call=rectifiers.deconvolution),
    "deep_lift": Method(call=deep_lift.deep_lift, baselines=True),
    "occlusion": Method(call=occlusion, options=("window", "stride"), baselines=True),
    "grad_cam": Method(call=cams.grad_cam, options=("layer",)),
    "hires_cam": Method(call=cams.hires_cam, options=("layer",)),
    "layer_cam": Method(call=cams.layer_cam, options=("layer",)),
    "multi_layer_cam": Method(call=cams.multi_layer_cam, options=("layers", "upsample")),
    "attention_rollout": Method(call=attention.attention_rollout),
    "tokencut": Method(call=cutters.tokencut, options=_CUTS),
    "maskcut": Method(call=cutters.maskcut, options=(*_CUTS, "masks")),
    "found": Method(call=cutters.found, options=_CUTS),
}


def explain(asked: Question, options: MapsConfig, baselines: Sequence[Tensor] = ()) -> Tensor:
    """Explain pairs by the method of a recipe, which takes the options that it knows."""
    method = METHODS[options.method]
    known: dict[str, Any] = {key: getattr(options, key) for key in method.options}
    if not method.baselines:
        return method.call(asked, **known)
    return torch.stack([method.call(asked, baseline=one, **known) for one in baselines]).mean(0)
