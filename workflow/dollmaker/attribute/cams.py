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
from dollmaker.attribute.passes import Pairs, backward, enlarge, share_passes
from dollmaker.networks.frames import WHOLE, Frames
from dollmaker.pixels.geometry import inside
from dollmaker.runtime.errors import ModelError

Combine = Callable[[Tensor, Tensor], Tensor]
Upsample = Literal["nearest", "bilinear"]

_EVERY_LAYER_UP_TO = 16


def grad_cam(
    network: nn.Module,
    images: Tensor,
    pairs: Pairs,
    *,
    chunk: int,
    layer: str | None = None,
    frames: Frames = WHOLE,
) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017): feature maps weighted by their mean gradients.

    Args:
        network: float (R, C, H, W) to logits (R, K); evaluation mode, parameters frozen.
        images: float (B, C, H, W), prepared for the network.
        pairs: (image, output) numbers, any order.
        chunk: Rows of a forward pass.
        layer: Name of a module, whose own output is taken. None: the last feature map, as the
            rest of the network sees it (after a functional ReLU in place, as in DenseNet).
        frames: Where the pictures lie; places outside are not enlarged into them.

    Returns:
        float32 (P, 1, H, W), not negative, in the order of ``pairs``.

    Raises:
        ConfigError: If there is no such layer or it has no feature map.
        ModelError: If the network has no layer with a feature map.
    """
    return _cam(network, images, pairs, chunk, layer, frames, _grad_cam)


def hires_cam(
    network: nn.Module,
    images: Tensor,
    pairs: Pairs,
    *,
    chunk: int,
    layer: str | None = None,
    frames: Frames = WHOLE,
) -> Tensor:
    """HiResCAM (Draelos & Carin 2020): feature maps times their gradients, place by place.

    Arguments, result and errors are those of :func:`grad_cam`.
    """
    return _cam(
        network, images, pairs, chunk, layer, frames, lambda a, g: (g * a).sum(1, keepdim=True)
    )


def layer_cam(
    network: nn.Module,
    images: Tensor,
    pairs: Pairs,
    *,
    chunk: int,
    layer: str | None = None,
    frames: Frames = WHOLE,
) -> Tensor:
    """LayerCAM (Jiang et al. 2021): HiResCAM with the positive gradients only.

    Arguments, result and errors are those of :func:`grad_cam`.
    """
    return _cam(
        network,
        images,
        pairs,
        chunk,
        layer,
        frames,
        lambda a, g: (g.relu() * a).sum(1, keepdim=True),
    )


def multi_layer_cam(
    network: nn.Module,
    images: Tensor,
    pairs: Pairs,
    *,
    chunk: int,
    layers: Sequence[str] | None = None,
    upsample: Upsample = "nearest",
    frames: Frames = WHOLE,
) -> Tensor:
    """Grad-CAM at several layers, joined as in MICRA-Net.

    The maps are scaled to [0, 1] and enlarged; only the deepest is rectified. The maps of the
    other layers are reduced to their first principal component over all pixels of the picture,
    whose sign is set so that its mean, weighted by the deepest map, is positive. The component is
    shifted to begin at 0, so that the map is not negative, and is 0 where the deepest map says
    nothing: our choice.

    Args:
        network: float (R, C, H, W) to logits (R, K); evaluation mode, parameters frozen.
        images: float (B, C, H, W), prepared for the network.
        pairs: (image, output) numbers, any order.
        chunk: Rows of a forward pass.
        layers: Names of modules, any order. None: each convolution with what follows it up to the
            next one if these are at most 16 (MICRA-Net has 8), else the last feature map of each
            size: our choice.
        upsample: How the maps are enlarged: ``nearest``, as MICRA-Net does, or ``bilinear``.
        frames: Where the pictures lie; maps are scaled and their component is found inside.

    Returns:
        float32 (P, 1, H, W), not negative, in the order of ``pairs``.

    Raises:
        ConfigError: If there is no such layer or it has no feature map.
        ModelError: If the network has no layer with a feature map.
    """
    size = images.shape[2:]
    if not pairs:
        return enlarge(images.new_zeros((0, 1, 1, 1)), size)
    calls = trace(network, images)
    chosen = _blocks(network, calls) if layers is None else named(network, calls, layers)
    maps = _layer_maps(network, images, pairs, chunk, chosen, _grad_cam, exact=layers is not None)
    maps[-1] = maps[-1].relu()
    mode = "nearest-exact" if upsample == "nearest" else "bilinear"
    rows = [image for image, _ in pairs]
    grids = [frames.of(rows).repeat_edges(grid[:, 0])[:, None] for grid in maps]
    enlarged = [nn.functional.interpolate(_scale(g), size=tuple(size), mode=mode) for g in grids]
    components = enlarged[0].new_zeros((len(pairs), *size))
    for number, values in enumerate(torch.cat(enlarged, 1)):
        where = frames.cells(rows[number], size)
        inside(components[number], where)[...] = principal_component(inside(values, where))
    return components[:, None]


def principal_component(maps: Tensor) -> Tensor:
    """First principal component of several maps, over all pixels.

    Args:
        maps: float (L, H, W) in [0, 1], the last one the deepest. It only says what the sign of
            the component is, unless it is the only one.

    Returns:
        float32 (H, W): 0 at the component's minimum, and everywhere if the deepest map is 0.
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


def _cam(
    network: nn.Module,
    images: Tensor,
    pairs: Pairs,
    chunk: int,
    layer: str | None,
    frames: Frames,
    combine: Combine,
) -> Tensor:
    if not pairs:
        return enlarge(images.new_zeros((0, 1, 1, 1)), images.shape[2:])
    calls = trace(network, images)
    chosen = [last(network, images, calls)] if layer is None else named(network, calls, [layer])
    (maps,) = _layer_maps(network, images, pairs, chunk, chosen, combine, exact=layer is not None)
    of_pairs = frames.of([image for image, _ in pairs])
    return enlarge(of_pairs.repeat_edges(maps[:, 0].relu())[:, None], images.shape[2:])


def _grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    return (gradients.mean((2, 3), keepdim=True) * activations).sum(1, keepdim=True)


def _scale(maps: Tensor) -> Tensor:
    """Each map (P, 1, h, w) to [0, 1]; a constant one to 0."""
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low), 0)


def _layer_maps(
    network: nn.Module,
    images: Tensor,
    pairs: Pairs,
    chunk: int,
    layers: Sequence[Call],
    combine: Combine,
    *,
    exact: bool,
) -> list[Tensor]:
    """Maps of each layer at its own size, (P, 1, h, w)."""
    maps = [images.new_zeros((0,))] * len(layers)
    for one in share_passes(pairs, chunk):
        with torch.enable_grad(), outputs_of([c.module for c in layers], exact=exact) as outputs:
            logits = network(images[one.images])
            tensors = [outputs[call.module] for call in layers]
            for wanted, gradients in backward(logits, tensors, one.rounds):
                for k, (call, tensor) in enumerate(zip(layers, tensors, strict=True)):
                    a = as_maps(network, tensor.detach().float(), call.layout)
                    g = as_maps(network, gradients[k], call.layout)
                    values = combine(a, g)
                    if not len(maps[k]):
                        maps[k] = values.new_zeros((len(pairs), *values.shape[1:]))
                    maps[k][wanted.pairs] = values[wanted.rows]
    return maps


def _blocks(network: nn.Module, calls: Sequence[Call]) -> list[Call]:
    """The layers of MICRA-Net's maps in a network of any kind."""
    spatial = [call for call in calls if call.layout in ("maps", "channels_last")]
    starts = [k for k, call in enumerate(spatial) if isinstance(call.module, nn.Conv2d)]
    if not starts or "tokens" in [call.layout for call in calls]:
        raise ModelError(
            "multi_layer_cam chooses its layers in convolutional networks only; name the layers, "
            "or use another attribution method."
        )
    if len(starts) <= _EVERY_LAYER_UP_TO:
        return _conv_blocks(spatial, starts)
    last: dict[tuple[int, ...], Call] = {}
    for call in spatial:
        grid = call.output[2:] if call.layout == "maps" else call.output[1:3]
        last.pop(grid, None)
        last[grid] = call
    return list(last.values())


def _conv_blocks(spatial: Sequence[Call], starts: Sequence[int]) -> list[Call]:
    """Each convolution with the layers after it that keep its output's shape."""
    blocks = []
    for start, stop in zip(starts, [*starts[1:], len(spatial)], strict=True):
        same = [c for c in spatial[start:stop] if c.output == spatial[start].output]
        leaves = [c for c in same if not list(c.module.children())]
        blocks.append(leaves[-1])
    return blocks
