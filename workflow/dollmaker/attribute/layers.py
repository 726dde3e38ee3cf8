"""Layers with feature maps: which ones a network has, and their outputs in a forward pass.

Feature maps are (R, K, h, w), or (R, h, w, K), or tokens of a transformer (R, N, K) whose patches
form a square.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dollmaker.runtime.errors import ConfigError, ModelError


@dataclass(frozen=True)
class Call:
    """The last call of a module in a forward pass."""

    name: str  #: The module's.
    module: nn.Module  #: The module.
    output: tuple[int, ...]  #: Shape of its output.
    layout: str  #: How feature maps lie in it: ``maps``, ``channels_last``, ``tokens``, or nothing.


@contextmanager
def hooked(modules: Iterable[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    """Call a hook after each of these modules, ``hook(module, inputs, output)``."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def outputs_of(modules: Sequence[nn.Module], *, exact: bool) -> Iterator[dict[nn.Module, Tensor]]:
    """Catch modules' outputs, which keep their graph to the logits.

    With ``exact`` they stay as they were when the network goes on to change them in place.
    """
    caught: dict[nn.Module, Tensor] = {}

    def catch(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        # The graph begins here: layers before it keep nothing for the backward pass.
        start = output if output.requires_grad else output.detach().requires_grad_()
        passed = start.clone()
        caught[module] = start if exact else passed
        return passed

    with hooked(modules, catch):
        yield caught


def trace(network: nn.Module, images: Tensor) -> list[Call]:
    """The modules in the order in which they finish, found with one row."""
    calls: dict[nn.Module, Call] = {}
    names = {module: name for name, module in network.named_modules() if name}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        calls.pop(module, None)
        shape = tuple(output.shape) if isinstance(output, Tensor) else ()
        layout = _layout(network, shape, images.shape[2:])
        calls[module] = Call(names[module], module, shape, layout)

    with torch.no_grad(), hooked(names, note):
        network(images[:1])
    return list(calls.values())


def _layout(network: nn.Module, shape: Sequence[int], size: Sequence[int]) -> str:
    """How feature maps lie in an output of this shape, or nothing if it has none."""
    if len(shape) == 4 and _has_shape(shape[2:], size):
        return "maps"
    if len(shape) == 4 and _has_shape(shape[1:3], size):
        return "channels_last"
    square = len(shape) == 3 and size[0] == size[1]
    if square and count_prefix_tokens(network, shape[1]) is not None:
        return "tokens"
    return ""


def _has_shape(grid: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a grid can be a feature map: several places, of the proportions of the input."""
    (h, w), (height, width) = grid, size
    return h * w > 1 and h <= height and w <= width and abs(h * width - w * height) < width


def as_maps(network: nn.Module, output: Tensor, layout: str) -> Tensor:
    """Feature maps (R, K, h, w) from an output of any layout."""
    if layout == "maps":
        return output
    if layout == "channels_last":
        return output.permute(0, 3, 1, 2)
    prefix = count_prefix_tokens(network, output.shape[1])
    patches = output[:, prefix:].transpose(1, 2)
    side = round(patches.shape[2] ** 0.5)
    return patches.reshape(*patches.shape[:2], side, side)


def count_prefix_tokens(network: nn.Module, tokens: int) -> int | None:
    """Number of tokens before the patches (class, distillation, registers) of a transformer.

    timm says it (``num_prefix_tokens``); for other networks it is the smallest number, up to 8,
    that leaves a square of patches. ``None`` if the patches are no square.
    """
    known = [getattr(part, "num_prefix_tokens", None) for part in network.modules()]
    stated = [number for number in known if isinstance(number, int)]
    for prefix in stated[:1] or range(9):
        side = math.isqrt(max(tokens - prefix, 0))
        if side > 1 and side * side == tokens - prefix:
            return prefix
    return None


def last(network: nn.Module, images: Tensor, calls: Sequence[Call]) -> Call:
    """The last layer with a feature map.

    Of a transformer: the last layer normalisation whose patches still influence the logits; behind
    the last attention of many only the class token does.
    """
    spatial = [call for call in calls if call.layout]
    if not spatial:
        raise ModelError(
            "no layer of this network has a feature map; use an attribution method that explains "
            "pixels."
        )
    if spatial[-1].layout != "tokens":
        return spatial[-1]
    norms = [c for c in spatial if c.layout == "tokens" and "Norm" in type(c.module).__name__]
    with torch.enable_grad(), outputs_of([c.module for c in norms], exact=True) as outputs:
        logits = network(images[:1])
        tensors = [outputs[call.module] for call in norms]
        gradients = torch.autograd.grad(logits.square().sum(), tensors, materialize_grads=True)
    live = [
        call
        for call, gradient in zip(norms, gradients, strict=True)
        if as_maps(network, gradient, call.layout).any()
    ]
    if not live:
        raise ModelError(
            "no normalisation of patches has a say in this transformer's logits; name the layer."
        )
    return live[-1]


def named(network: nn.Module, calls: Sequence[Call], names: Sequence[str]) -> list[Call]:
    """The calls of these modules, in the order of the forward pass."""
    known = [name for name, _ in network.named_modules() if name]
    called = {call.name: call for call in calls}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, list(called), n=5, cutoff=0.3)
            hint = ", ".join(near or [call.name for call in calls if call.layout][-5:])
            raise ConfigError(f"unknown layer {name!r}; did you mean one of: {hint}?")
        if name not in called or not called[name].layout:
            usable = ", ".join([call.name for call in calls if call.layout][-5:])
            raise ConfigError(
                f"layer {name!r} has no feature map; use one that has, such as: {usable}."
            )
    return [call for call in calls if call.name in names]


def last_map(network: nn.Module, images: Tensor) -> Tensor:
    """The last feature map of images (R, C, H, W), float32 (R, K, h, w)."""
    layer = last(network, images, trace(network, images))
    with torch.no_grad(), outputs_of([layer.module], exact=False) as outputs:
        network(images)
    return as_maps(network, outputs[layer.module].detach().float(), layer.layout)
