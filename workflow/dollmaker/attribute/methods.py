"""Attribution methods by name, with one signature, and those that need no more than a gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dollmaker.attribute import attention, cams, cutters, deep_lift, occlusion, rectifiers
from dollmaker.attribute.passes import Question, input_gradients
from dollmaker.config.masks import MapsConfig


@dataclass(frozen=True, kw_only=True)
class Method:
    """An attribution method.

    Attributes:
        call: ``call(question, **options)`` to signed float32 maps (P, C or 1, H, W) in the order of
            the pairs; what they say outside the pictures is to be cut off.
        options: Options of a recipe that it takes.
        baselines: Whether it takes a ``baseline``, (B or 1, C, H, W); the maps of several are
            averaged.
    """

    call: Callable[..., Tensor]
    options: tuple[str, ...] = ()
    baselines: bool = False


def saliency(asked: Question) -> Tensor:
    """The signed gradient of the logit by the pixels (Simonyan et al. 2014 take its magnitude).

    Returns:
        float32 (P, C, H, W), in logits per unit of input.
    """
    return input_gradients(asked, asked.network)


def input_x_gradient(asked: Question) -> Tensor:
    """Gradient times input (Shrikumar et al. 2016), float32 (P, C, H, W), in logits.

    If the network were linear around the image, this would be the contribution of each pixel
    against an input of zeros, which the normalisation of the network defines.
    """
    return input_gradients(asked, asked.network) * asked.images[asked.rows].float()


#: Options of the cuts of a network's features.
_CUTS = ("side", "tau", "centred", "part", "block")

#: All methods but integrated gradients, which :mod:`refine` drives.
METHODS: dict[str, Method] = {
    "saliency": Method(call=saliency),
    "input_x_gradient": Method(call=input_x_gradient),
    "guided_backprop": Method(call=rectifiers.guided_backprop),
    "deconvolution": Method(call=rectifiers.deconvolution),
    "deep_lift": Method(call=deep_lift.deep_lift, baselines=True),
    "occlusion": Method(call=occlusion.occlusion, options=("window", "stride"), baselines=True),
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
