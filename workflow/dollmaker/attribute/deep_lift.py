"""DeepLift with the rescale rule (Shrikumar et al. 2017), for networks of any code.

The contributions of the pixels sum to F(x) - F(baseline). Image and baseline pass together; at
nonlinear operations the derivative is replaced by a multiplier that carries the difference of the
inputs to the difference of the outputs:

- elementwise functions: dout / din;
- products of two activations (squeeze and excitation, x * gate): with means over image and
  baseline, d(ab) = da * mean(b) + db * mean(a), which is exact;
- max pooling: a window that rises from baseline to image is credited to the image's maximum, one
  that falls to the baseline's. With p the place of the image's maximum and d the rise, x[p] - b[p]
  >= d, so the multiplier d / (x[p] - b[p]) lies in [0, 1].

All other operations must be linear: a network whose autograd graph has others (softmax, layer
normalisation, attention) is refused. The functions themselves are
replaced, so that calls by modules, functions and methods are all covered.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import Node
from torch.nn import functional

from dollmaker.attribute.frozen_calls import call_of, two
from dollmaker.attribute.passes import Question, backward, share_passes
from dollmaker.attribute.rectifiers import (
    RECTIFIERS,
    Elementwise,
    Intercept,
    check_same_logits,
    finish,
    graph_nodes,
    is_ours,
    operation,
    replace_elementwise,
)
from dollmaker.runtime.errors import ModelError

#: Values that differ by less, as a share of the larger, are taken as equal.
_TINY = 1e-10
_LINEAR = {
    "AccumulateGrad", "Add", "Sub", "Rsub", "Neg", "Sum", "Mean", "Cumsum", "Cat", "Stack", "Split",
    "SplitWithSizes", "Unbind", "Slice", "Select", "Index", "IndexSelect", "Gather", "View",
    "UnsafeView", "ReshapeAlias", "Unflatten", "Permute", "Transpose", "T", "Squeeze", "Unsqueeze",
    "Expand", "Repeat", "Clone", "Copy", "CopySlices", "ToCopy", "Alias", "AsStrided", "Roll",
    "Flip", "ConstantPadNd", "ReflectionPad2D", "ReplicationPad2D", "AvgPool2D",
    "AdaptiveAvgPool2D", "MkldnnAdaptiveAvgPool2D", "UpsampleNearest2D", "UpsampleBilinear2D",
    "UpsampleBicubic2D", "PixelShuffle", "PixelUnshuffle", "Im2Col",
}  # fmt: skip
_LINEAR_IN_ONE = {"Mul", "Div", "Mm", "Bmm", "Addmm", "Linear", "Convolution", "Mv", "Dot"}
_POOLING = {
    "stride": None,
    "padding": 0,
    "dilation": 1,
    "ceil_mode": False,
    "return_indices": False,
}
_BATCH_NORM = {"NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"}


def deep_lift(asked: Question, baseline: Tensor) -> Tensor:
    """Contributions of the pixels to F(x) - F(baseline), by DeepLift's rescale rule.

    Half of the rows of a pass are for the baseline, (B or 1, C, H, W); at least 2 are used. Maps
    are float32 (P, C, H, W), in logits.

    Raises:
        ModelError: If the network has an operation for which there is no rule.
    """
    baselines, maps = baseline.expand_as(asked.images), asked.blank()
    with torch.enable_grad():
        if asked.pairs:
            _verify(asked.network, asked.images[:1], baselines[:1])
        for one in share_passes(asked.pairs, max(1, asked.chunk // 2)):
            x, start = asked.images[one.images].detach().requires_grad_(), baselines[one.images]
            logits = _forward(asked.network, x, start)
            for wanted, (multiplier,) in backward(logits, [x], one.rounds):
                maps[wanted.pairs] = (multiplier * (x - start).detach().float())[wanted.rows]
    return maps


def _forward(network: nn.Module, x: Tensor, start: Tensor) -> Tensor:
    """Logits of images and baselines, (2R, K), with multipliers instead of derivatives."""
    with Intercept(_REPLACEMENTS):
        logits: Tensor = network(torch.cat([x, start]))
    return logits


class _Rescale(torch.autograd.Function):
    """An elementwise function f: multiplier (f(x) - f(b)) / (x - b) for the rows of the images.

    The quotient is in double precision, so that close values do not cancel; where x = b it is the
    derivative.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Elementwise, in_place: bool) -> Tensor:
        a, b = _halves(x.double(), "an elementwise function")
        rise = a - b
        with torch.enable_grad():
            middle = ((a + b) / 2).requires_grad_()
            value = function(middle)
        (slope,) = torch.autograd.grad(value, middle, torch.ones_like(value))
        quotient = (function(a) - function(b)) / rise
        alike = rise.abs() <= _TINY * torch.maximum(a.abs(), b.abs())
        ctx.save_for_backward(torch.where(alike, slope, quotient).to(x.dtype))
        return finish(ctx, x, function(x), in_place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (multiplier,) = ctx.saved_tensors
        return _first_half(multiplier * gradient[: len(multiplier)]), None, None


class _Product(torch.autograd.Function):
    """A product of two activations."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, in_place: bool) -> Tensor:
        (a1, a2), (b1, b2) = _halves(a, "a product"), _halves(b, "a product")
        ctx.save_for_backward((a1 + a2) / 2, (b1 + b2) / 2)
        return finish(ctx, a, a * b, in_place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        a, b = ctx.saved_tensors
        upper = gradient[: len(a)]
        to_a, to_b = (upper * b).sum_to_size(a.shape), (upper * a).sum_to_size(b.shape)
        return _first_half(to_a), _first_half(to_b), None


class _MaxPool(torch.autograd.Function):
    """Max pooling; ``scatter`` brings values of the windows back to the places of the maxima."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        pool: Callable[[Tensor], tuple[Tensor, Tensor]],
        scatter: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> Tensor:
        y, places = pool(x)
        (a, b), (top_a, top_b), (p, q) = (_halves(t, "max pooling") for t in (x, y, places))
        rise = top_a - top_b
        # At p the image's value is top_a, at q the baseline's is top_b: no other look-up needed.
        rise_p, rise_q = top_a - _look_up(b, p), _look_up(a, q) - top_b
        # Nothing moved, neither window nor place: the ordinary gradient is the limit.
        still = ((rise == 0) & (rise_p == 0)).to(rise)
        up = torch.where(rise > 0, rise / rise_p, still)
        down = torch.where(rise < 0, rise / rise_q, 0)
        ctx.save_for_backward(a, p, q, up, down)
        ctx.scatter = scatter
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        a, p, q, up, down = ctx.saved_tensors
        upper = gradient[: len(a)]
        total = ctx.scatter(upper * up, a, p) + ctx.scatter(upper * down, a, q)
        return _first_half(total), None, None


def _halves(rows: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Rows of the images and of the baselines."""
    if len(rows) % 2:
        raise ModelError(
            f"deep_lift meets {what} after the images of a batch were rearranged; use another "
            "attribution method."
        )
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


def _first_half(gradient: Tensor) -> Tensor:
    """Keep the gradient of the images' rows; the baselines' rows have none."""
    return torch.cat([gradient, torch.zeros_like(gradient)])


def _look_up(maps: Tensor, places: Tensor) -> Tensor:
    return maps.flatten(2).gather(2, places.flatten(2)).view(places.shape)


def _multiply(in_place: bool, input: Any, other: Any) -> Any:
    if all(isinstance(factor, Tensor) and factor.requires_grad for factor in (input, other)):
        return _Product.apply(input, other, in_place)
    return input.mul_(other) if in_place else torch.mul(input, other)


def _max_pool(input: Tensor, kernel_size: Any, *args: Any, **kwargs: Any) -> Any:
    given = call_of(_POOLING, args, kwargs)
    if given.pop("return_indices"):
        return functional.max_pool2d(input, kernel_size, **given, return_indices=True)
    stride, *rest, rounded = given.values()
    geometry = (*map(two, (kernel_size, stride or kernel_size, *rest)), rounded)
    scatter = torch.ops.aten.max_pool2d_with_indices_backward
    return _MaxPool.apply(
        input,
        lambda rows: functional.max_pool2d(rows, *geometry, return_indices=True),
        lambda g, like, p: scatter(g, like, *geometry, p),
    )


def _adaptive_max_pool(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    if return_indices:
        return functional.adaptive_max_pool2d(input, output_size, True)
    return _MaxPool.apply(
        input,
        lambda rows: functional.adaptive_max_pool2d(rows, output_size, True),
        torch.ops.aten.adaptive_max_pool2d_backward,
    )


def _replacements() -> dict[Callable[..., Any], Callable[..., Any]]:
    table = replace_elementwise(
        (*RECTIFIERS, "sigmoid", "hardsigmoid", "tanh", "logsigmoid", "softsign"), _Rescale.apply
    )
    for home in (torch, Tensor):
        for name in ("mul", "multiply"):
            table[getattr(home, name)] = partial(_multiply, False)
            if hasattr(home, f"{name}_"):
                table[getattr(home, f"{name}_")] = partial(_multiply, True)
    table[functional.max_pool2d] = table[torch.max_pool2d] = _max_pool
    table[functional.adaptive_max_pool2d] = _adaptive_max_pool
    return table


_REPLACEMENTS = _replacements()


def _verify(network: nn.Module, image: Tensor, baseline: Tensor) -> None:
    """Refuse networks for which the rules would be silently wrong (two passes of two rows)."""
    x = image.detach().requires_grad_()
    logits = _forward(network, x, baseline)
    check_same_logits("deep_lift", network, torch.cat([image, baseline]), logits)
    strange = {name for node in graph_nodes(logits) if (name := _without_rule(node))}
    if strange:
        raise ModelError(
            f"deep_lift has no rule for {', '.join(sorted(strange))}, which this network uses; use "
            "another attribution method."
        )
    difference = (logits[0] - logits[1]).detach()
    output = int(difference.abs().argmax())
    (multiplier,) = torch.autograd.grad(logits[0, output], x, materialize_grads=True)
    parts = multiplier * (image - baseline)
    error = abs(float(parts.sum() - difference[output]))
    noise = 1e-4 * float(parts.abs().sum()) + 1e-5 * float(logits.detach().abs().max())
    if error > noise:
        raise ModelError(
            "deep_lift's contributions do not add up in this network, so it computes something "
            "that has no rule; use another attribution method."
        )


def _without_rule(node: Node) -> str:
    """Name of the operation at a node of the graph, if there is no rule for it."""
    name = operation(node)
    if any(is_ours(node, rule) for rule in (_Rescale, _Product, _MaxPool)) or name in _LINEAR:
        return ""
    if name in _BATCH_NORM:
        return (
            "batch normalisation in training mode" if getattr(node, "_saved_training", True) else ""
        )
    if name in _LINEAR_IN_ONE:
        factors = node.next_functions[1:] if name == "Addmm" else node.next_functions
        live = sum(edge[0] is not None for edge in factors[:2])
        divided = name == "Div" and factors[1:] and factors[1][0] is not None
        return name if live > 1 or divided else ""
    return name
