"""Class activation maps of segmentation networks: what a layer says for a set of pixels.

The score is y^{c,M}, the sum of the class-c logit over the pixels in M; A^k are the feature maps of
a layer and G^k = d y^{c,M} / d A^k:

- seg_grad_cam (Vinogradova et al. 2020): ReLU(sum_k mean(G^k) A^k);
- seg_hires_cam (Seg-HiRes-Grad CAM, Rheude et al. 2024): ReLU(sum_k G^k o A^k), no pooling of the
  gradient.

Maps are divided by their maximum in the picture, then enlarged to the image's size; outside the
picture they are 0.

Shapes: B images, P pairs (image, class), R rows of a pass, K classes, H x W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from dollmaker.attribute.layers import as_maps, outputs_of
from dollmaker.attribute.passes import Pairs, Pass, Round, backward, enlarge, share_passes
from dollmaker.explain.depth import DEEPEST, find_layer
from dollmaker.networks.frames import WHOLE, Frames
from dollmaker.runtime.errors import ConfigError, unknown

Method = Literal["seg_grad_cam", "seg_hires_cam"]
PixelSet = Literal["image", "class", "truth", "point", "zero"]

METHODS: tuple[Method, ...] = ("seg_grad_cam", "seg_hires_cam")
PIXEL_SETS: tuple[PixelSet, ...] = ("image", "class", "truth", "point", "zero")


@dataclass(frozen=True, kw_only=True)
class Explained:
    """Maps of pairs.

    Attributes:
        maps: float32 (P, H, W) in 0..1; all zero where nothing speaks for the class.
        scale: float32 (P,), the maximum that a map was divided by; 0 of a zero map.
    """

    maps: Tensor
    scale: Tensor


def explain_pixels(
    network: nn.Module,
    images: Tensor,
    pairs: Pairs,
    pixel_sets: Tensor,
    *,
    method: Method = "seg_hires_cam",
    layer: str = DEEPEST,
    chunk: int = 8,
    frames: Frames = WHOLE,
) -> Explained:
    """Explain why a network gives pixels their logits of a class.

    All classes of an image share a forward pass and the map of a pair does not depend on the other
    pairs (see :mod:`dollmaker.attribute.passes`).

    Args:
        network: float (R, C, H, W) to logits (R, K, H, W); evaluation mode, parameters frozen.
        images: float (B, C, H, W), prepared for the network.
        pairs: P numbers (image, class), any order.
        pixel_sets: bool (P, H, W), the pixels M of each pair, see :func:`choose_pixels`.
        method: ``seg_grad_cam`` or ``seg_hires_cam``.
        layer: Name of a module, or a depth: ``encoder.-1``, ``decoder.0`` (see
            :func:`dollmaker.explain.depth.find_layer`).
        chunk: Rows of a forward pass.
        frames: Where the pictures lie in the images: no other pixel is explained or has relevance.

    Returns:
        Maps and their scales, in the order of ``pairs``.

    Raises:
        ConfigError: If there is no such method or layer, or the layer has no feature map.
    """
    if method not in _COMBINE:
        raise ConfigError(unknown("method", method, _COMBINE))
    if not pairs:
        return Explained(maps=images.new_zeros((0, *images.shape[2:])), scale=images.new_zeros(0))
    combine = _COMBINE[method]
    mine = frames.of([image for image, _ in pairs])
    pixel_sets = mine.cut(pixel_sets)
    call, exact = find_layer(network, images, layer)
    found: Tensor | None = None
    for one in share_passes(pairs, chunk):
        with torch.enable_grad(), outputs_of([call.module], exact=exact) as outputs:
            logits = network(images[one.images])
            tensor = outputs[call.module]
            scores, rounds = _scores(logits, one, pairs, pixel_sets)
            activations = as_maps(network, tensor.detach().float(), call.layout)
            for wanted, (gradient,) in backward(scores, [tensor], rounds):
                values = combine(activations, as_maps(network, gradient, call.layout)).relu()
                if found is None:
                    found = values.new_zeros((len(pairs), *values.shape[1:]))
                found[wanted.pairs] = values[wanted.rows]
    assert found is not None  # there are pairs, so there was a pass
    grids = mine.repeat_edges(found[:, 0])
    scale = grids.amax((1, 2))
    maps = grids / torch.where(scale > 0, scale, 1)[:, None, None]
    return Explained(maps=mine.cut(enlarge(maps[:, None], images.shape[2:])[:, 0]), scale=scale)


def choose_pixels(
    kind: PixelSet, predicted: Tensor, truth: Tensor, point: tuple[int, int] | None = None
) -> Tensor:
    """The pixels whose logits are explained.

    Args:
        kind: ``image`` (all), ``class`` (predicted as the class), ``truth`` (of the class in the
            mask), ``point`` (one pixel) or ``zero`` (none; its maps are zero).
        predicted: bool (P, H, W), sigmoid of the logit > 0.5.
        truth: bool (P, H, W).
        point: x (column) and y (row), from 0; for ``point``.

    Returns:
        bool (P, H, W).

    Raises:
        ConfigError: If the kind is unknown, or the point is missing or outside of the image.
    """
    if kind == "class":
        return predicted
    if kind == "truth":
        return truth
    if kind not in PIXEL_SETS:
        raise ConfigError(unknown("pixel set", kind, PIXEL_SETS))
    pixels = torch.full_like(predicted, kind == "image")
    if kind == "point":
        height, width = predicted.shape[1:]
        if point is None:
            raise ConfigError("the pixel set point needs a point; give --point X,Y.")
        x, y = point
        if not (0 <= x < width and 0 <= y < height):
            raise ConfigError(
                f"point {x},{y} is outside of the image; use x in 0..{width - 1} and "
                f"y in 0..{height - 1}."
            )
        pixels[:, y, x] = True
    return pixels


def _scores(
    logits: Tensor, one: Pass, pairs: Pairs, pixel_sets: Tensor
) -> tuple[Tensor, list[Round]]:
    """y^{c,M} of each row in each round, (R, rounds), and the rounds that ask for them."""
    columns, rounds = [], []
    for number, wanted in enumerate(one.rounds):
        weights = torch.zeros_like(logits)
        classes = [pairs[pair][1] for pair in wanted.pairs]
        weights[wanted.rows, classes] = pixel_sets[wanted.pairs].to(logits)
        columns.append((logits * weights).sum((1, 2, 3)))
        rounds.append(replace(wanted, outputs=[number] * len(wanted.rows)))
    return torch.stack(columns, 1), rounds


def _pooled(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.mean((2, 3), keepdim=True) * activations).sum(1, keepdim=True)


def _placewise(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients * activations).sum(1, keepdim=True)


_COMBINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "seg_grad_cam": _pooled,
    "seg_hires_cam": _placewise,
}
