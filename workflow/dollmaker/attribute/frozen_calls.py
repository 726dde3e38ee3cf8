"""What the backward pass of a frozen network may skip, found by watching one forward pass.

Calls are watched, not modules, so that functional and re-used layers are seen. A call is known by
the identity of its parameters, its neighbours by the autograd graph. See
:mod:`dollmaker.attribute.frozen`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.nn import functional

from dollmaker.attribute.rectifiers import Intercept, graph_nodes, operation

#: The arguments of a call by name.
Call = dict[str, Any]

#: Stride, padding, dilation and groups.
Geometry = tuple[Any, ...]

#: The arguments of ``torch.conv2d`` and of ``batch_norm``, in order, with their defaults.
CONVOLUTION: Call = {
    **{"input": None, "weight": None, "bias": None},
    **{"stride": 1, "padding": 0, "dilation": 1, "groups": 1},
}
NORMALISATION: Call = {
    **{"input": None, "running_mean": None, "running_var": None, "weight": None, "bias": None},
    **{"training": False, "momentum": 0.1, "eps": 1e-5},
}

_RECTIFIERS = ("Relu", "Hardtanh", "Silu", "Hardswish", "Gelu")


class Shortcuts:
    """The shortcuts at each call; calls are known by the identity of their parameters."""

    def __init__(self) -> None:
        self.backward: dict[int, Tensor] = {}  # weight -> weight of the backward pass
        self.folded: set[int] = set()  # running means of folded normalisations
        self.scales: dict[int, Tensor] = {}  # running mean -> factor per channel
        self.stem: tuple[Tensor, Geometry] | None = None
        self.stem_weight = 0  # the stem's convolution
        self.leaf = 0  # the call whose output is the leaf

    def fold(self, mean: int, weight: Tensor, scale: Tensor) -> None:
        """Put the factors of a normalisation into a convolution's backward pass."""
        folded = self.backward.get(id(weight), weight) * scale
        self.backward[id(weight)] = folded.contiguous(memory_format=memory_format(weight))
        self.folded.add(mean)


def find_shortcuts(network: Callable[[Tensor], Tensor], example: Tensor) -> Shortcuts | None:
    """Watch one forward pass; ``None`` if it fails or leaves no graph."""
    row = example.detach().clone().requires_grad_()
    watch = _Watch()
    try:
        with torch.enable_grad(), watch:
            logits = network(row)
    except RuntimeError:
        return None
    if logits.grad_fn is None:
        return None
    users = _users(logits)
    shortcuts = Shortcuts()
    first = [node for node in users if getattr(node, "variable", None) is row]
    stem = None
    if len(first) == 1 and len(users[first[0]]) == 1:
        stem = watch.convolutions.get(users[first[0]][0])
    if stem and not watch.once(stem):
        stem = None
    if stem:
        shortcuts.leaf = shortcuts.stem_weight = id(stem["weight"])
    for source, call, node in watch.normalisations:
        mean = id(call["running_mean"])
        if watch.uses[mean] > 1:
            continue
        scale = (call["running_var"].double() + call["eps"]).rsqrt()
        if call["weight"] is not None:
            scale = scale * call["weight"].double()
        scale = scale.to(example.dtype)
        before = watch.convolutions.get(source)
        if before and watch.once(before) and len(users.get(source, [])) == 1:
            shortcuts.fold(mean, before["weight"], scale.view(-1, 1, 1, 1))
            if stem and before["weight"] is stem["weight"]:
                shortcuts.leaf = mean
            continue
        after = watch.convolutions.get(_through_rectifier(node, users))
        if after and watch.once(after) and after["groups"] == 1:
            shortcuts.fold(mean, after["weight"], scale.view(1, -1, 1, 1))
            continue
        shortcuts.scales[mean] = scale.view(1, -1, 1, 1)
    if stem:
        weight: Tensor = stem["weight"]
        shortcuts.stem = shortcuts.backward.get(id(weight), weight), geometry(stem)
    return shortcuts


def _through_rectifier(node: Node, users: dict[Node, list[Node]]) -> Node | None:
    """The node after a node and an elementwise rectifier, if each is used only once.

    A rectifier multiplies gradients element by element, so factors per channel pass through it.
    """
    following = users.get(node, [])
    if len(following) != 1 or operation(following[0]) not in _RECTIFIERS:
        return None
    after = users.get(following[0], [])
    return after[0] if len(after) == 1 else None


def memory_format(tensor: Tensor) -> torch.memory_format:
    """How a tensor (A, B, H, W) lies in memory: channels last, or contiguous."""
    last = tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _users(output: Tensor) -> dict[Node, list[Node]]:
    """For each node of an autograd graph the nodes that use its output."""
    users: dict[Node, list[Node]] = {}
    for node in graph_nodes(output):
        for source, _ in node.next_functions:
            if source is not None:
                users.setdefault(source, []).append(node)
    return users


def call_of(defaults: Call, args: Sequence[Any], kwargs: Call) -> Call:
    """The arguments of a call by name, with the defaults of torch for those that it leaves out."""
    return {**defaults, **dict(zip(defaults, args, strict=False)), **kwargs}


def geometry(call: Call) -> Geometry:
    """Stride, padding, dilation and groups of a convolution as autograd wants them."""
    return (*(two(call[name]) for name in ("stride", "padding", "dilation")), call["groups"])


def two(value: Any) -> list[int]:
    """A number for both sides of an image, or the two."""
    return [value, value] if isinstance(value, int) else [int(v) for v in value]


def ours(call: Call) -> bool:
    """Whether this module knows how to make a call cheaper."""
    if "running_mean" in call:
        return not call["training"] and call["running_mean"] is not None and call["input"].ndim == 4
    return call["input"].ndim == 4 and not isinstance(call["padding"], str)


class _Watch(Intercept):
    """Notes convolutions and normalisations of one forward pass."""

    def __init__(self) -> None:
        super().__init__({torch.conv2d: self._convolve, functional.batch_norm: self._normalise})
        self.convolutions: dict[Node | None, Call] = {}
        self.normalisations: list[tuple[Node, Call, Node]] = []
        self.uses: dict[int, int] = {}

    def once(self, call: Call) -> bool:
        """Whether a convolution's weight is used in one call only."""
        return self.uses[id(call["weight"])] == 1

    def _convolve(self, *args: Any, **kwargs: Any) -> Tensor:
        output = torch.conv2d(*args, **kwargs)
        call = call_of(CONVOLUTION, args, kwargs)
        self._count(call["weight"])
        if ours(call):
            self.convolutions[output.grad_fn] = call
        return output

    def _normalise(self, *args: Any, **kwargs: Any) -> Tensor:
        output = functional.batch_norm(*args, **kwargs)
        call = call_of(NORMALISATION, args, kwargs)
        self._count(call["running_mean"])
        if ours(call):
            assert output.grad_fn is not None  # the watched row asks for gradients
            self.normalisations.append((call["input"].grad_fn, call, output.grad_fn))
        return output

    def _count(self, parameter: Tensor | None) -> None:
        self.uses[id(parameter)] = self.uses.get(id(parameter), 0) + 1
