"""Guided backpropagation and deconvolution: gradients with another rule at the rectifiers.

For a gradient g that arrives at y = f(x):

- guided backpropagation (Springenberg et al. 2015): 1[x > 0] * max(g, 0) for ReLU;
- deconvolution (Zeiler & Fergus 2014): max(g, 0).

For other rectifiers (ReLU6, leaky ReLU, ELU, SiLU, GELU, Hardswish, ...) we take f'(x) * max(g, 0)
and max(g, 0): our choice, equal to the published rules for ReLU. Gates and saturating functions
(sigmoid, hardsigmoid, tanh, softmax) keep their ordinary gradient, also our choice.

Hooks on ``nn.ReLU`` miss ``F.relu`` and fail for modules that are called twice. Here the calls
themselves are replaced during the forward pass, whoever makes them, and a network whose autograd
graph still has an ordinary rectifier is refused. A ReLU written as ``x * (x > 0)`` is not detected.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, once_differentiable
from torch.autograd.graph import Node
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dollmaker.attribute.passes import Question, input_gradients
from dollmaker.runtime.errors import ModelError

Elementwise = Callable[[Tensor], Tensor]
Apply = Callable[[Tensor, Elementwise, bool], Tensor]

RECTIFIERS = (
    "relu", "relu6", "hardtanh", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "silu",
    "gelu", "hardswish", "mish", "softplus", "threshold", "clamp", "clamp_min", "clip",
)  # fmt: skip
_CLAMPS = ("clamp", "clamp_min", "clip")
_UNSEEN = {
    "Relu", "Hardtanh", "LeakyRelu", "PreluKernel", "RreluWithNoise", "Elu", "Celu", "Silu", "Gelu",
    "Hardswish", "Mish", "Softplus", "Threshold", "Maximum", "Minimum", "Where",
    "DifferentiableGraph",
}  # fmt: skip
_ONE_BY_ONE = {
    "Sigmoid", "Hardsigmoid", "Tanh", "Clamp", "ClampMin", "ClampMax", "Exp", "Log1P", "Erf", "Pow",
    "Add", "Sub", "Rsub", "Mul", "Div", "Neg", "Copy", "Clone",
}  # fmt: skip


def guided_backprop(asked: Question) -> Tensor:
    """Guided backpropagation (Springenberg et al. 2015), float32 (P, C, H, W), signed.

    Raises:
        ModelError: If the network has no rectifier, or one that cannot be replaced.
    """
    return _explain("guided_backprop", asked, guided=True)


def deconvolution(asked: Question) -> Tensor:
    """Deconvolution (Zeiler & Fergus 2014); result and errors as of :func:`guided_backprop`.

    The image enters through max pooling and gates alone: a network without them (MobileNetV2) gives
    one map for all images of a size.
    """
    return _explain("deconvolution", asked, guided=False)


class Intercept(TorchFunctionMode):
    """While active, calls of torch functions go to their replacements, with the same arguments.

    Inside a replacement the functions are the ordinary ones.
    """

    def __init__(self, replacements: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self._replacements = replacements

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._replacements.get(func, func)(*args, **(kwargs or {}))


def replace_elementwise(
    names: Iterable[str], apply: Apply
) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Replacements, for :class:`Intercept`, for every way to call elementwise functions.

    Names are those of ``torch`` or ``torch.nn.functional``; clamps count only with a lower bound of
    0. ``apply`` is called with the input, the function (its other arguments filled in), and whether
    the input shall be overwritten.
    """
    replacements: dict[Callable[..., Any], Callable[..., Any]] = {}
    for name in names:
        for home in (torch._C._nn, torch, Tensor, functional):
            plain = getattr(home, name, None) or getattr(functional, name, None)
            for spelling in (name, f"{name}_"):
                function = getattr(home, spelling, None)
                if function is not None and plain is not None:
                    call = partial(_call, apply, function, plain, name in _CLAMPS, spelling != name)
                    replacements.setdefault(function, call)
    return replacements


def _call(
    apply: Apply,
    function: Callable[..., Any],
    plain: Callable[..., Any],
    clamp: bool,
    in_place: bool,
    *args: Any,
    **kwargs: Any,
) -> Any:
    if clamp:
        bound = kwargs.get("min", args[1] if len(args) > 1 else None)
        if not isinstance(bound, int | float) or bound != 0:
            return function(*args, **kwargs)
    in_place = kwargs.pop("inplace", False) or in_place
    x = args[0] if args else kwargs.pop("input")
    return apply(x, lambda z: plain(z, *(_like(z, a) for a in args[1:]), **kwargs), in_place)


def _like(x: Tensor, argument: Any) -> Any:
    return argument.to(x.dtype) if isinstance(argument, Tensor) else argument


class _Rectifier(torch.autograd.Function):
    """A rectifier: the ordinary forward pass, a backward pass by one of the rules."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Elementwise, in_place: bool, guided: bool) -> Tensor:
        with torch.enable_grad():
            z = x.detach().requires_grad_(guided)
            y = function(z)
        if guided:
            ctx.save_for_backward(*torch.autograd.grad(y, z, torch.ones_like(y)))
        return finish(ctx, x, y.detach(), in_place)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        risen = gradient.clamp(min=0)
        for slope in ctx.saved_tensors:  # guided backpropagation has one
            risen = slope * risen
        return risen, None, None, None


def finish(ctx: Any, x: Tensor, y: Tensor, in_place: bool) -> Tensor:
    """The output of an autograd function that may have to overwrite its input."""
    if not in_place:
        return y
    ctx.mark_dirty(x)
    return x.copy_(y)


def _explain(method: str, asked: Question, *, guided: bool) -> Tensor:
    replacements = replace_elementwise(RECTIFIERS, lambda *call: _Rectifier.apply(*call, guided))

    def forward(rows: Tensor) -> Tensor:
        with Intercept(replacements):
            logits: Tensor = asked.network(rows)
        return logits

    if asked.pairs:
        row = asked.images[:1]
        with torch.enable_grad():
            logits = forward(row.detach().requires_grad_())
        check_same_logits(method, asked.network, row, logits)
        _verify(method, logits)
    return input_gradients(asked, forward)


def _verify(method: str, logits: Tensor) -> None:
    """Refuse networks for which the rule would be silently wrong."""
    nodes = graph_nodes(logits)
    strange = {name for node in nodes if (name := _unseen(node))}
    if strange:
        raise ModelError(
            f"{method} cannot replace {', '.join(sorted(strange))} in this network; use another "
            "attribution method."
        )
    if not any(is_ours(node, _Rectifier) for node in nodes):
        raise ModelError(
            f"{method} is about rectifiers and this network has none; use another attribution "
            "method."
        )


def _unseen(node: Node) -> str:
    """Name of the rectifier at a node of the graph; empty if it is none."""
    name = operation(node)
    if isinstance(node, BackwardCFunction):
        return "" if is_ours(node, _Rectifier) else name
    if name.startswith("Clamp"):
        low = getattr(node, "_saved_min", None)
        return name if isinstance(low, Tensor) or low == 0 else ""
    if name == "Mul" and _is_hand_written(node):
        return "an activation written as a product"
    return name if name in _UNSEEN else ""


def _is_hand_written(node: Node) -> bool:
    """Whether a product is x * f(x) with an elementwise f, such as x * sigmoid(x)."""
    (a, _), (b, _) = edges = node.next_functions[:2]
    if a is None or b is None:
        return False
    for start, goal in ((a, edges[1]), (b, edges[0])):
        here: Node | None = start
        while here is not None:
            inputs = [edge for edge in here.next_functions if edge[0] is not None]
            unary = operation(here) in _ONE_BY_ONE or isinstance(here, BackwardCFunction)
            if unary and inputs == [goal]:
                return True
            here = inputs[0][0] if unary and len(inputs) == 1 else None
    return False


def check_same_logits(method: str, network: nn.Module, rows: Tensor, logits: Tensor) -> None:
    """Refuse a network whose logits (R, K) change when its functions are replaced.

    Raises:
        ModelError: If the network says something else by itself; ``method`` is for the message.
    """
    with torch.no_grad():
        ordinary = network(rows)
    size = float(ordinary.abs().nan_to_num(0, posinf=0).max())
    if not torch.allclose(logits.detach(), ordinary, rtol=0, atol=1e-4 * size, equal_nan=True):
        raise ModelError(
            f"{method} changes the logits of this network, which computes in an unusual way; use "
            "another attribution method."
        )


def graph_nodes(output: Tensor) -> list[Node]:
    """All nodes of the autograd graph of a tensor."""
    todo = [output.grad_fn]
    seen: dict[Node, None] = {}
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen[node] = None
            todo += [edge[0] for edge in node.next_functions]
    return list(seen)


def operation(node: Node) -> str:
    """Name of a node's operation: ``ReluBackward0`` is ``Relu``."""
    return re.sub(r"(Backwards?\d*)$", "", node.name().rpartition("::")[2])


def is_ours(node: Node, rule: type[torch.autograd.Function]) -> bool:
    """Whether a node stems from this autograd function."""
    return getattr(type(node), "_forward_cls", None) is rule
