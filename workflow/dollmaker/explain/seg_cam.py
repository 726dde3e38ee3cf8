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

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dollmaker.attribute.cams import layer_maps, placewise, pooled
from dollmaker.attribute.layers import Call, as_maps, hooked, named, trace
from dollmaker.attribute.passes import Pass, Question, Round, enlarge
from dollmaker.runtime.errors import ConfigError

Method = Literal["seg_grad_cam", "seg_hires_cam"]
PixelSet = Literal["image", "class", "truth", "point", "zero"]

METHODS: dict[Method, Callable[[Tensor, Tensor], Tensor]] = {
    "seg_grad_cam": pooled,
    "seg_hires_cam": placewise,
}

#: The deepest stage of the encoder.
DEEPEST = "encoder.-1"

_DEPTH = re.compile(r"(encoder|decoder)\.(-?\d+)")

#: Modules that change nothing in evaluation mode: no stages of a decoder.
_PASSIVE = (nn.Identity, nn.Dropout, nn.Dropout2d)


@dataclass(frozen=True, kw_only=True)
class Explained:
    """Maps of pairs."""

    maps: Tensor  #: float32 (P, H, W) in 0..1; all zero where nothing speaks for the class.
    scale: Tensor  #: float32 (P,), the maximum that a map was divided by; 0 of a zero map.


def explain_pixels(
    asked: Question,
    pixel_sets: Tensor,
    *,
    method: Method = "seg_hires_cam",
    layer: str = DEEPEST,
) -> Explained:
    """Explain why a network gives pixels their logits of a class.

    Of the question logits are (R, K, H, W) and pairs are numbers (image, class). ``pixel_sets`` are
    the pixels M of each pair, bool (P, H, W), see :func:`choose_pixels`; ``layer`` is the name of a
    module, or a depth, see :func:`find_layer`. All classes of an image share a forward pass and the
    map of a pair does not depend on the other pairs (see :mod:`dollmaker.attribute.passes`). No
    pixel outside the pictures is explained or has relevance.

    Raises:
        ConfigError: If there is no such layer, or it has no feature map.
    """
    images, pairs = asked.images, asked.pairs
    if not pairs:
        return Explained(maps=asked.blank(1)[:, 0], scale=images.new_zeros(0))
    mine = asked.frames.of(asked.rows)
    inside = mine.cut(pixel_sets)

    def score(logits: Tensor, one: Pass) -> tuple[Tensor, list[Round]]:
        """y^{c,M} of each row in each round, (R, rounds), and the rounds that ask for them."""
        columns, rounds = [], []
        for number, wanted in enumerate(one.rounds):
            weights = torch.zeros_like(logits)
            weights[wanted.rows, wanted.outputs] = inside[wanted.pairs].to(logits)
            columns.append((logits * weights).sum((1, 2, 3)))
            rounds.append(replace(wanted, outputs=[number] * len(wanted.rows)))
        return torch.stack(columns, 1), rounds

    call, exact = find_layer(asked.network, images, layer)
    (found,) = layer_maps(asked, [call], METHODS[method], exact=exact, score=score)
    grids = mine.repeat_edges(found[:, 0].relu())
    scale = grids.amax((1, 2))
    maps = grids / torch.where(scale > 0, scale, 1)[:, None, None]
    return Explained(maps=mine.cut(enlarge(maps[:, None], images.shape[2:])[:, 0]), scale=scale)


def choose_pixels(
    kind: PixelSet, predicted: Tensor, truth: Tensor, point: tuple[int, int] | None = None
) -> Tensor:
    """The pixels whose logits are explained, bool (P, H, W), as what is predicted and the truth.

    They are all of the ``image``, those predicted as the ``class``, those of the class in the
    ``truth``, one ``point``, x (column) and y (row) from 0, or ``zero``: none; its maps are zero.

    Raises:
        ConfigError: If the point is missing or outside of the image.
    """
    if kind == "class":
        return predicted
    if kind == "truth":
        return truth
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


def find_layer(network: nn.Module, images: Tensor, layer: str) -> tuple[Call, bool]:
    """The layer with this name or depth.

    ``encoder.K`` is the module that makes the K-th of the feature maps that the encoder hands to
    the decoder (0 the finest, -1 the deepest), the input itself and maps of a single place not
    counted. ``decoder.K`` is the K-th block of the decoder in the order of the forward pass. A
    module that really has such a name comes first. Of the images, prepared for the network, the
    first one is looked at.

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
    within = [call for call in calls if call.name.startswith(f"{part}.") and call.layout]
    if part == "encoder":
        stages = _encoder_stages(network, images, within)
    else:
        stages = _decoder_stages(names[part], within)
    if not -len(stages) <= place < len(stages):
        known = f"{part}.0 to {part}.{len(stages) - 1}" if stages else "the name of a module"
        raise ConfigError(
            f"unknown layer {layer!r}; the {part} has {len(stages)} stages with a feature map; use "
            f"{known}."
        )
    return stages[place], False


def _encoder_stages(network: nn.Module, images: Tensor, within: Sequence[Call]) -> list[Call]:
    """The last module that made each of the encoder's feature maps."""
    outputs: dict[nn.Module, Tensor] = {}
    features: list[Tensor] = []

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        outputs[module] = output

    def gather(_: nn.Module, __: Any, output: Any) -> None:
        # Plain vision transformers give (feature maps, class tokens).
        features.extend(output[0] if isinstance(output[0], list) else output)

    with (
        torch.no_grad(),
        hooked([call.module for call in within], keep),
        hooked([network.get_submodule("encoder")], gather),
    ):
        network(images[:1])
    stages = []
    for feature in features:
        same = [c for c in within if _same_memory(outputs[c.module], feature)]
        maps = [(c, as_maps(network, outputs[c.module], c.layout)) for c in within]
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


def _decoder_stages(decoder: nn.Module, within: Sequence[Call]) -> list[Call]:
    """The blocks: children of the decoder, and those in its lists of modules."""
    blocks: set[nn.Module] = set()
    for child in decoder.children():
        many = isinstance(child, nn.ModuleList | nn.ModuleDict)
        blocks.update(child.children() if many else [child])
    return [c for c in within if c.module in blocks and not isinstance(c.module, _PASSIVE)]
