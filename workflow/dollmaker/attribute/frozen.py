"""Frozen networks: the same forward pass, a cheaper backward pass.

Three savings, all exact (the forward pass keeps its bits, so that no rectifier flips):

- *Frozen parameters.* Convolutions keep no input, as no weight gradient is wanted.
- *Folded batch normalisation.* In evaluation mode it multiplies the gradient by one number per
  channel. Next to a convolution (or behind a rectifier before one) these numbers go into the
  weights of that convolution's backward pass.
- *The stem.* The first convolution is linear, so the gradients of all nodes of a path are averaged
  behind it and pass it once per map.

One forward pass and its autograd graph show which savings apply
(:mod:`dollmaker.attribute.frozen_calls`). The result is checked against automatic differentiation;
a network that fails is explained the ordinary way.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional

from dollmaker.attribute.frozen_calls import (
    CONVOLUTION,
    NORMALISATION,
    Call,
    Geometry,
    Shortcuts,
    call_of,
    find_shortcuts,
    geometry,
    memory_format,
    ours,
)
from dollmaker.attribute.rectifiers import Intercept

_TOLERANCE = 1e-3


class FrozenNetwork:
    """A network prepared for many gradients of its input.

    Args:
        network: float (R, C, H, W) to logits (R, K); evaluation mode, parameters frozen.
        example: One row of its input (1, C, H, W), on its device.
        precision: ``fp32``, ``tf32`` or ``bf16`` (autocast; sums stay in float32).
        compiled: Hand the network to torch.compile (minutes at the start; a compiler writes its own
            backward pass, so none of the savings above apply, nor does the forward pass keep its
            bits). Worth a try on a GPU.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        example: Tensor,
        *,
        precision: str = "fp32",
        compiled: bool = False,
    ) -> None:
        self.network = _compile(network) if compiled else network
        self.precision = "fp32"  # the check compares in full precision
        self._shortcuts = None if compiled else find_shortcuts(network, example)
        if not self._agrees(example):
            self._shortcuts = None
        self.precision = precision

    @property
    def folded(self) -> int:
        """Batch normalisations whose backward pass costs nothing."""
        return len(self._shortcuts.folded) if self._shortcuts else 0

    @property
    def stem(self) -> bool:
        """Whether gradients are taken behind a linear stem."""
        return self._shortcuts is not None and self._shortcuts.stem is not None

    def __call__(self, rows: Tensor) -> Tensor:
        """Logits float32 (R, K) without gradients."""
        with torch.no_grad(), self._autocast(rows):
            return self.network(rows).float()

    def forward(self, rows: Tensor) -> tuple[Tensor, GradientEdge]:
        """Logits, and by what to differentiate them: ``rows``, or what the stem made of them."""
        if self._shortcuts is None:
            leaf = rows.requires_grad_()
            with self._autocast(rows):
                return self.network(leaf), get_gradient_edge(leaf)
        mode = _Frozen(self._shortcuts)
        leaf = rows if self.stem else rows.requires_grad_()
        with torch.enable_grad(), self._autocast(rows), mode:
            logits = self.network(leaf)
        return logits, mode.leaf or get_gradient_edge(leaf)

    def pull_back(self, gradients: Tensor, rows: Tensor) -> Tensor:
        """Gradients by the leaf, float32 (N, ...), to gradients by the input (N, C, H, W).

        They may be sums over the rows of an image. Of the input any N rows tell the shape.
        """
        if not self._shortcuts or not self._shortcuts.stem:
            return gradients
        return _convolve_back(gradients, rows.shape, *self._shortcuts.stem)

    def _autocast(self, rows: Tensor) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(rows.device.type, torch.bfloat16)
        return nullcontext()

    def _agrees(self, example: Tensor) -> bool:
        """Whether logits and gradient of one row are those of automatic differentiation."""
        if self._shortcuts is None:
            return False
        try:
            row = example.detach().clone().requires_grad_()
            wanted_logits = self.network(row)
            (wanted,) = torch.autograd.grad(wanted_logits.sum(), row)
            logits, leaf = self.forward(example.detach().clone())
            (gradient,) = torch.autograd.grad(logits.sum(), leaf)
            found = self.pull_back(gradient, example)
        except RuntimeError:
            return False
        error = (found - wanted).norm() / wanted.norm().clamp(min=1e-30)
        return torch.equal(logits, wanted_logits) and bool(error < _TOLERANCE)


def _compile(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    import torch._functorch.config as settings

    settings.donated_buffer = False  # one forward pass serves several backward passes
    compiled: Callable[[Tensor], Tensor] = torch.compile(network)
    return compiled


class _Frozen(Intercept):
    """Takes the shortcuts during one forward pass."""

    def __init__(self, shortcuts: Shortcuts) -> None:
        super().__init__({torch.conv2d: self._convolve, functional.batch_norm: self._normalise})
        self.shortcuts = shortcuts
        self.leaf: GradientEdge | None = None

    def _convolve(self, *args: Any, **kwargs: Any) -> Tensor:
        call = call_of(CONVOLUTION, args, kwargs)
        if not ours(call):
            return torch.conv2d(*args, **kwargs)
        weight, where = call["weight"], geometry(call)
        if id(weight) == self.shortcuts.stem_weight:
            with torch.no_grad():
                output = torch.conv2d(call["input"], weight, call["bias"], *where)
            return self._begin(output) if self.shortcuts.leaf == id(weight) else output
        backward = self.shortcuts.backward.get(id(weight), weight)
        result: Tensor = _Convolution.apply(call["input"], weight, call["bias"], backward, where)
        return result

    def _normalise(self, *args: Any, **kwargs: Any) -> Tensor:
        call = call_of(NORMALISATION, args, kwargs)
        if not ours(call):
            return functional.batch_norm(*args, **kwargs)
        mean = id(call["running_mean"])
        if mean == self.shortcuts.leaf:
            with torch.no_grad():
                output = _normalise(call["input"], call)
            return self._begin(output)
        if mean not in self.shortcuts.folded and mean not in self.shortcuts.scales:
            return _normalise(call["input"], call)
        result: Tensor = _Normalisation.apply(call["input"], call, self.shortcuts.scales.get(mean))
        return result

    def _begin(self, output: Tensor) -> Tensor:
        """Begin the graph at an edge, because a rectifier may overwrite the tensor."""
        start: Tensor = _Start.apply(output.new_empty(0).requires_grad_(), output)
        self.leaf = get_gradient_edge(start)
        return start


def _normalise(x: Tensor, call: Call) -> Tensor:
    names = ("running_mean", "running_var", "weight", "bias", "eps")
    return functional.batch_norm(x, **{name: call[name] for name in names})


def _convolve_back(gradient: Tensor, shape: torch.Size, weight: Tensor, where: Geometry) -> Tensor:
    """The gradient by a convolution's input, of which it needs the shape, not the values."""
    like = torch.empty(
        shape, dtype=gradient.dtype, device=gradient.device, memory_format=memory_format(gradient)
    )
    *where_to, groups = where
    result: Tensor = torch.ops.aten.convolution_backward(
        *(gradient, like, weight.to(gradient.dtype), None),
        *(*where_to, False, [0, 0], groups, [True, False, False]),
    )[0]
    return result


class _Start(torch.autograd.Function):
    """The first node of a graph."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, gradient


class _Convolution(torch.autograd.Function):
    """A convolution with frozen weights, and possibly others in its backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Any, backward: Tensor, geometry: Any
    ) -> Tensor:
        ctx.weight, ctx.geometry, ctx.shape = backward, geometry, x.shape
        return torch.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        result = _convolve_back(gradient, ctx.shape, ctx.weight, ctx.geometry)
        return result, None, None, None, None


class _Normalisation(torch.autograd.Function):
    """Batch normalisation in evaluation mode: a factor per channel, or folded elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, scale: Tensor | None) -> Tensor:
        ctx.scale = scale
        return _normalise(x, call)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        if ctx.scale is None:
            return gradient, None, None
        return gradient * ctx.scale.to(gradient.dtype), None, None
