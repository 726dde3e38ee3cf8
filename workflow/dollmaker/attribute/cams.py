"""Class activation maps: what a layer's feature maps say for a finding.

A^k are the feature maps of a layer and G^k = d logit / d A^k:

- grad_cam (Selvaraju et al. 2017): ReLU(sum_k mean(G^k) A^k);
- hires_cam (Draelos & Carin 2020): ReLU(sum_k G^k o A^k), no pooling of the gradient;
- layer_cam (Jiang et al. 2021): ReLU(sum_k ReLU(G^k) o A^k);
- multi_layer_cam (MICRA-Net, Bilodeau et al. 2022): Grad-CAM at many layers, joined by principal
  components.

Maps are coarse, one channel, enlarged to the input's size.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dollmaker.attribute.layers import Call, as_maps, last, named, outputs_of, trace
from dollmaker.attribute.passes import Pass, Question, Round, backward, enlarge, share_passes
from dollmaker.pixels.geometry import inside
from dollmaker.runtime.errors import ModelError

Combine = Callable[[Tensor, Tensor], Tensor]
Score = Callable[[Tensor, Pass], tuple[Tensor, list[Round]]]
Upsample = Literal["nearest", "bilinear"]

_EVERY_LAYER_UP_TO = 16


def grad_cam(asked: Question, *, layer: str | None = None) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017): feature maps weighted by their mean gradients.

    ``layer`` is the name of a module, whose own output is taken; None the last feature map, as the
    rest of the network sees it (after a functional ReLU in place, as in DenseNet). Places outside
    the pictures are not enlarged into them. Maps are float32 (P, 1, H, W), not negative.

    Raises:
        ConfigError: If there is no such layer or it has no feature map.
        ModelError: If the network has no layer with a feature map.
    """
    return _cam(asked, layer, pooled)


def hires_cam(asked: Question, *, layer: str | None = None) -> Tensor:
    """HiResCAM (Draelos & Carin 2020): feature maps times their gradients; as :func:`grad_cam`."""
    return _cam(asked, layer, placewise)


def layer_cam(asked: Question, *, layer: str | None = None) -> Tensor:
    """LayerCAM (Jiang et al. 2021): HiResCAM with the positive gradients only."""
    return _cam(asked, layer, lambda a, g: placewise(a, g.relu()))


def multi_layer_cam(
    asked: Question, *, layers: Sequence[str] | None = None, upsample: Upsample = "nearest"
) -> Tensor:
    """Grad-CAM at several layers, joined as in MICRA-Net.

    The maps are scaled to [0, 1] and enlarged; only the deepest is rectified. The maps of the
    other layers are reduced to their first principal component over all pixels of the picture,
    whose sign is set so that its mean, weighted by the deepest map, is positive. The component is
    shifted to begin at 0, so that the map (P, 1, H, W) is not negative, and is 0 where the deepest
    map says nothing: our choice. Errors are those of :func:`grad_cam`.

    Layers are names of modules, any order. None: each convolution with what follows it up to the
    next one if these are at most 16 (MICRA-Net has 8), else the last feature map of each size: our
    choice. MICRA-Net enlarges by ``nearest``.
    """
    components = asked.blank(1)
    if not asked.pairs:
        return components
    size = tuple(asked.images.shape[2:])
    calls = trace(asked.network, asked.images)
    chosen = _blocks(calls) if layers is None else named(asked.network, calls, layers)
    maps = layer_maps(asked, chosen, pooled, exact=layers is not None)
    maps[-1] = maps[-1].relu()
    mode = "nearest-exact" if upsample == "nearest" else "bilinear"
    of_pairs = asked.frames.of(asked.rows)
    grids = [of_pairs.repeat_edges(grid[:, 0])[:, None] for grid in maps]
    enlarged = [nn.functional.interpolate(_scale(g), size=size, mode=mode) for g in grids]
    for number, values in enumerate(torch.cat(enlarged, 1)):
        where = of_pairs.cells(number, size)
        inside(components[number, 0], where)[...] = principal_component(inside(values, where))
    return components


def principal_component(maps: Tensor) -> Tensor:
    """First principal component of several maps, over all pixels.

    Maps are float (L, H, W) in [0, 1]. The last one, the deepest, only says what the sign of the
    component is, unless it is the only one. The component is float32 (H, W): 0 at its minimum, and
    everywhere if the deepest map is 0.
    """
    deepest = maps[-1].double()
    if not deepest.any():
        return torch.zeros_like(maps[-1], dtype=torch.float32)
    values = maps[: max(1, len(maps) - 1)].double().flatten(1)
    values = values - values.mean(1, keepdim=True)
    direction = torch.linalg.eigh((values @ values.T).cpu()).eigenvectors[:, -1]
    component: Tensor = (direction.to(values) @ values).reshape(deepest.shape)
    if (component * deepest).sum() < 0:
        component = -component
    return (component - component.min()).float()


def pooled(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM's sum over channels, (R, K, h, w) twice to (R, 1, h, w)."""
    return (gradients.mean((2, 3), keepdim=True) * activations).sum(1, keepdim=True)


def placewise(activations: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM's, likewise."""
    return (gradients * activations).sum(1, keepdim=True)


def _cam(asked: Question, layer: str | None, combine: Combine) -> Tensor:
    if not asked.pairs:
        return asked.blank(1)
    network, images = asked.network, asked.images
    calls = trace(network, images)
    chosen = [last(network, images, calls)] if layer is None else named(network, calls, [layer])
    (maps,) = layer_maps(asked, chosen, combine, exact=layer is not None)
    grids = asked.frames.of(asked.rows).repeat_edges(maps[:, 0].relu())
    return enlarge(grids[:, None], images.shape[2:])


def _scale(maps: Tensor) -> Tensor:
    """Each map (P, 1, h, w) to [0, 1]; a constant one to 0."""
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0)


def layer_maps(
    asked: Question,
    layers: Sequence[Call],
    combine: Combine,
    *,
    exact: bool,
    score: Score = lambda logits, one: (logits, one.rounds),
) -> list[Tensor]:
    """Maps of each layer at its own size, (P, 1, h, w), of at least one pair.

    ``combine`` makes maps (R, 1, h, w) of feature maps and gradients (R, K, h, w), ``exact`` is as
    of :func:`dollmaker.attribute.layers.outputs_of`. What is differentiated is the ``score``: from
    the logits of a pass to numbers (R, K), and the rounds that ask for them.
    """

    def of_layer(call: Call, *activations_and_gradients: Tensor) -> Tensor:
        return combine(*(as_maps(asked.network, t, call.layout) for t in activations_and_gradients))

    maps: list[Tensor] = []
    for one in share_passes(asked.pairs, asked.chunk):
        with torch.enable_grad(), outputs_of([c.module for c in layers], exact=exact) as outputs:
            scores, rounds = score(asked.network(asked.images[one.images]), one)
            tensors = [outputs[call.module] for call in layers]
            activations = [tensor.detach().float() for tensor in tensors]
            for wanted, gradients in backward(scores, tensors, rounds):
                found = list(map(of_layer, layers, activations, gradients))
                maps = maps or [f.new_zeros((len(asked.pairs), *f.shape[1:])) for f in found]
                for whole, values in zip(maps, found, strict=True):
                    whole[wanted.pairs] = values[wanted.rows]
    return maps


def _blocks(calls: Sequence[Call]) -> list[Call]:
    """The layers of MICRA-Net's maps in a network of any kind."""
    spatial = [call for call in calls if call.layout in ("maps", "channels_last")]
    starts = [k for k, call in enumerate(spatial) if isinstance(call.module, nn.Conv2d)]
    if not starts or "tokens" in [call.layout for call in calls]:
        raise ModelError(
            "multi_layer_cam chooses its layers in convolutional networks only; name the layers, "
            "or use another attribution method."
        )
    if len(starts) <= _EVERY_LAYER_UP_TO:  # each convolution with the layers that keep its shape
        blocks = []
        for start, stop in zip(starts, [*starts[1:], len(spatial)], strict=True):
            same = [c for c in spatial[start:stop] if c.output == spatial[start].output]
            blocks.append([c for c in same if not list(c.module.children())][-1])
        return blocks
    last_of: dict[tuple[int, ...], Call] = {}
    for call in spatial:
        grid = call.output[2:] if call.layout == "maps" else call.output[1:3]
        last_of.pop(grid, None)
        last_of[grid] = call
    return list(last_of.values())
