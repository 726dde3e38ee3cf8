"""The same forward pass, a cheaper backward pass: networks that are explained, not trained.

Three savings, all exact (the forward pass keeps its bits, so that no rectifier flips):

- *Frozen parameters.* Convolutions keep no input for a weight gradient that nobody asks for.
- *Batch normalisation folded into the backward pass.* In evaluation mode it multiplies the
  gradient by one number per channel; where it follows a convolution, or goes through a rectifier
  into one, these numbers go into the weights that the convolution's backward pass uses.
- *The stem.* The first convolution is linear, so the gradients of all nodes of a path are averaged
  behind it and go through it once for a map, not once for a node.

What is cheaper for a network is found by looking at one forward pass and its autograd graph;
functional and re-used layers are seen, because calls are watched, not modules. The result is
checked against ordinary automatic differentiation; a network that does not pass is explained the
ordinary way.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_Function = Any
_TOLERANCE = 1e-3
_RECTIFIERS = ("ReluBackward", "HardtanhBackward", "SiluBackward", "HardswishBackward", "GeluB")


class FrozenNetwork:
    """A network prepared for many gradients of its input.

    Args:
        network: float (R, C, H, W) to logits (R, K); evaluation mode, parameters frozen.
        example: One row of its input (1, C, H, W), on its device.
        precision: ``fp32``, ``tf32`` or ``bf16`` (autocast; sums stay in float32).
        compiled: Hand the network to torch.compile (minutes at the start; a compiler writes its own
            backward pass, so none of the savings above apply, nor does the forward pass keep its
            bits). Worth a try on a GPU.

    Attributes:
        folded: Batch normalisations whose backward pass costs nothing.
        stem: Whether gradients are taken behind a linear stem.
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
        self.precision = precision
        self._plan = None if compiled else _make_plan(network, example)
        if self._plan and not self._agrees(example):
            self._plan = None
        self.folded = len(self._plan.folded) if self._plan else 0
        self.stem = self._plan is not None and self._plan.stem is not None

    def __call__(self, rows: Tensor) -> Tensor:
        """Logits float32 (R, K) without gradients."""
        with torch.no_grad(), self._autocast(rows):
            return self.network(rows).float()

    def forward(self, rows: Tensor) -> tuple[Tensor, GradientEdge]:
        """Logits, and by what to differentiate them: ``rows``, or what the stem made of them."""
        if self._plan is None:
            leaf = rows.requires_grad_()
            with self._autocast(rows):
                return self.network(leaf), get_gradient_edge(leaf)
        mode = _Frozen(self._plan)
        leaf = rows if self.stem else rows.requires_grad_()
        with torch.enable_grad(), self._autocast(rows), mode:
            logits = self.network(leaf)
        return logits, mode.leaf or get_gradient_edge(leaf)

    def pull_back(self, gradients: Tensor, rows: Tensor) -> Tensor:
        """From gradients by the leaf, float32 (N, ...), to gradients by the input (N, C, H, W).

        Args:
            gradients: Any linear combination of gradients of rows of one image.
            rows: Any N rows of the input, for their shape.
        """
        if not self._plan or not self._plan.stem:
            return gradients
        weight, arguments = self._plan.stem
        return _convolve_back(gradients, rows.shape, weight, *arguments)

    def _autocast(self, rows: Tensor) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(rows.device.type, torch.bfloat16)
        return nullcontext()

    def _agrees(self, example: Tensor) -> bool:
        """Whether logits and gradient of one row are those of automatic differentiation."""
        precision, self.precision, self.stem = self.precision, "fp32", bool(self._plan.stem)  # type: ignore[union-attr]
        try:
            row = example.detach().clone().requires_grad_()
            wanted_logits = self.network(row)
            (wanted,) = torch.autograd.grad(wanted_logits.sum(), row)
            logits, leaf = self.forward(example.detach().clone())
            (gradient,) = torch.autograd.grad(logits.sum(), leaf)
            found = self.pull_back(gradient, example)
        except RuntimeError:
            return False
        finally:
            self.precision = precision
        error = (found - wanted).norm() / wanted.norm().clamp(min=1e-30)
        return torch.equal(logits, wanted_logits) and bool(error < _TOLERANCE)


def _compile(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    import torch._functorch.config as settings

    settings.donated_buffer = False  # one forward pass serves several backward passes
    compiled: Callable[[Tensor], Tensor] = torch.compile(network)
    return compiled


class _Plan:
    """What to do at which call; calls are known by the identity of their parameters."""

    def __init__(self) -> None:
        self.backward: dict[int, Tensor] = {}  # weight -> weight of the backward pass
        self.folded: set[int] = set()  # running means of folded normalisations
        self.scales: dict[int, Tensor] = {}  # running mean -> factor per channel
        self.stem: tuple[Tensor, tuple[Any, ...]] | None = None
        self.stem_weight = 0  # the stem's convolution
        self.leaf = 0  # the call whose output is the leaf

    def fold(self, mean: int, weight: Tensor, scale: Tensor) -> None:
        """Put the factors of a normalisation into a convolution's backward pass."""
        folded = self.backward.get(id(weight), weight) * scale
        self.backward[id(weight)] = folded.contiguous(memory_format=_format(weight))
        self.folded.add(mean)


def _make_plan(network: Callable[[Tensor], Tensor], example: Tensor) -> _Plan | None:
    """Watch one forward pass; ``None`` if nothing can be said about the network."""
    row = example.detach().clone().requires_grad_()
    watch = _Watch()
    try:
        with torch.enable_grad(), watch:
            logits = network(row)
    except RuntimeError:
        return None
    if logits.grad_fn is None:
        return None
    users = _users(logits.grad_fn)
    plan = _Plan()
    first = [node for node in users if getattr(node, "variable", None) is row]
    stem = None
    if len(first) == 1 and len(users[first[0]]) == 1:
        stem = watch.convolutions.get(users[first[0]][0])
    if stem and not watch.once(stem):
        stem = None
    if stem:
        plan.leaf = plan.stem_weight = id(stem["weight"])
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
            plan.fold(mean, before["weight"], scale.view(-1, 1, 1, 1))
            if stem and before["weight"] is stem["weight"]:
                plan.leaf = mean
            continue
        after = watch.convolutions.get(_through_rectifier(node, users))
        if after and watch.once(after) and after["groups"] == 1:
            plan.fold(mean, after["weight"], scale.view(1, -1, 1, 1))
            continue
        plan.scales[mean] = scale.view(1, -1, 1, 1)
    if stem:
        plan.stem = (plan.backward.get(id(stem["weight"]), stem["weight"]), _geometry(stem))
    return plan


def _through_rectifier(
    node: _Function, users: dict[_Function, list[_Function]]
) -> _Function | None:
    """The only user of the only user of a node, if that is an elementwise rectifier.

    A rectifier's backward pass multiplies element by element, so factors per channel pass it.
    """
    for name in (None, _RECTIFIERS):
        if name and not node.name().startswith(name):
            return None
        following = users.get(node, [])
        if len(following) != 1:
            return None
        node = following[0]
    return node


def _format(weight: Tensor) -> torch.memory_format:
    last = weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _users(root: _Function) -> dict[_Function, list[_Function]]:
    """For each node of an autograd graph the nodes that use its output."""
    users: dict[_Function, list[_Function]] = {}
    seen, stack = {root}, [root]
    while stack:
        node = stack.pop()
        for source, _ in node.next_functions:
            if source is not None:
                users.setdefault(source, []).append(node)
                if source not in seen:
                    seen.add(source)
                    stack.append(source)
    return users


def _convolution_call(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> dict[str, Any]:
    return dict(locals())


def _normalisation_call(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> dict[str, Any]:
    return dict(locals())


def _geometry(call: dict[str, Any]) -> tuple[Any, ...]:
    """Stride, padding, dilation and groups of a convolution as autograd wants them."""
    stride, dilation = _two(call["stride"]), _two(call["dilation"])
    return stride, _two(call["padding"]), dilation, call["groups"]


def _two(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else [int(v) for v in value]


def _ours(call: dict[str, Any]) -> bool:
    """Whether a call is one that this module knows how to make cheaper."""
    if "running_mean" in call:
        return not call["training"] and call["running_mean"] is not None and call["input"].ndim == 4
    return call["input"].ndim == 4 and not isinstance(call["padding"], str)


class _Watch(TorchFunctionMode):
    """Notes convolutions and normalisations of one forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions: dict[_Function, dict[str, Any]] = {}
        self.normalisations: list[tuple[_Function, dict[str, Any], _Function]] = []
        self.uses: dict[int, int] = {}

    def once(self, call: dict[str, Any]) -> bool:
        """Whether a convolution's weight is used in one call only."""
        return self.uses[id(call["weight"])] == 1

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        if function in (torch.conv2d, functional.batch_norm):
            convolution = function is torch.conv2d
            call = (_convolution_call if convolution else _normalisation_call)(*args, **kwargs)
            key = id(call["weight"] if convolution else call["running_mean"])
            self.uses[key] = self.uses.get(key, 0) + 1
            if _ours(call):
                if convolution:
                    self.convolutions[output.grad_fn] = call
                else:
                    self.normalisations.append((call["input"].grad_fn, call, output.grad_fn))
        return output


class _Frozen(TorchFunctionMode):
    """Carries out a plan during one forward pass."""

    def __init__(self, plan: _Plan) -> None:
        super().__init__()
        self.plan = plan
        self.leaf: GradientEdge | None = None

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.conv2d:
            call = _convolution_call(*args, **kwargs)
            if _ours(call):
                return self._convolve(call)
        elif function is functional.batch_norm:
            call = _normalisation_call(*args, **kwargs)
            if _ours(call):
                return self._normalise(call)
        return function(*args, **kwargs)

    def _convolve(self, call: dict[str, Any]) -> Tensor:
        weight, geometry = call["weight"], _geometry(call)
        if id(weight) == self.plan.stem_weight:
            with torch.no_grad():
                output = torch.conv2d(call["input"], weight, call["bias"], *geometry)
            return self._begin(output) if self.plan.leaf == id(weight) else output
        backward = self.plan.backward.get(id(weight), weight)
        result: Tensor = _Convolution.apply(call["input"], weight, call["bias"], backward, geometry)
        return result

    def _normalise(self, call: dict[str, Any]) -> Tensor:
        mean = id(call["running_mean"])
        if mean == self.plan.leaf:
            with torch.no_grad():
                output = _normalise(call["input"], call)
            return self._begin(output)
        if mean not in self.plan.folded and mean not in self.plan.scales:
            return _normalise(call["input"], call)
        result: Tensor = _Normalisation.apply(call["input"], call, self.plan.scales.get(mean))
        return result

    def _begin(self, output: Tensor) -> Tensor:
        """Begin the graph here; an edge, because a rectifier may overwrite the tensor."""
        start: Tensor = _Start.apply(output.new_empty(0).requires_grad_(), output)
        self.leaf = get_gradient_edge(start)
        return start


def _normalise(x: Tensor, call: dict[str, Any]) -> Tensor:
    return functional.batch_norm(
        x,
        call["running_mean"],
        call["running_var"],
        call["weight"],
        call["bias"],
        eps=call["eps"],
    )


def _convolve_back(
    gradient: Tensor,
    shape: torch.Size,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """The gradient by a convolution's input.

    The input itself is not needed, only its shape and, for the result, its memory format.
    """
    like = torch.empty(
        shape, dtype=gradient.dtype, device=gradient.device, memory_format=_format(gradient)
    )
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient,
        like,
        weight.to(gradient.dtype),
        None,
        stride,
        padding,
        dilation,
        False,
        [0, 0],
        groups,
        [True, False, False],
    )[0]
    return result


class _Start(torch.autograd.Function):
    """The first node of a graph."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, x: Tensor) -> Tensor:
        """The values of ``x``."""
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Never asked for."""
        return None, gradient


class _Convolution(torch.autograd.Function):
    """A convolution with frozen weights, and possibly others in its backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Any, backward: Tensor, geometry: Any
    ) -> Tensor:
        """Convolve."""
        ctx.weight, ctx.geometry, ctx.shape = backward, geometry, x.shape
        return torch.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Gradient by the input only."""
        result = _convolve_back(gradient, ctx.shape, ctx.weight, *ctx.geometry)
        return result, None, None, None, None


class _Normalisation(torch.autograd.Function):
    """Batch normalisation in evaluation mode: a factor per channel, or folded elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: dict[str, Any], scale: Tensor | None) -> Tensor:
        """Normalise."""
        ctx.scale = scale
        return _normalise(x, call)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Scale the gradient."""
        if ctx.scale is None:
            return gradient, None, None
        return gradient * ctx.scale.to(gradient.dtype), None, None
