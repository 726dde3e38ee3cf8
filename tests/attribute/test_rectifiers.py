"""Guided backpropagation and deconvolution against rules written by hand, Captum and torch.fx.

The reference for real networks shares nothing with the module: torch.fx rewrites a copy of the
network so that every activation is its own module, which carries the rule as a gradient hook.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from captum.attr import Deconvolution, GuidedBackprop
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from attribute.test_passes import PAIRS, check_manners, network, pictures, relative
from dollmaker.attribute.passes import Question
from dollmaker.attribute.rectifiers import deconvolution, guided_backprop
from dollmaker.runtime.errors import ModelError

METHODS = {"guided": guided_backprop, "deconvolution": deconvolution}
RECTIFIER_MODULES = nn.ReLU | nn.ReLU6 | nn.SiLU | nn.Hardswish | nn.GELU
RECTIFIER_FUNCTIONS = {F.relu: nn.ReLU, torch.relu: nn.ReLU, F.silu: nn.SiLU, F.relu6: nn.ReLU6}


class Ruled(nn.Module):
    """A rectifier that carries the rule as a hook."""

    def __init__(self, function: Callable[[Tensor], Tensor], rule: str) -> None:
        super().__init__()
        self.function, self.rule = function, rule

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(x)
        if self.rule == "deconvolution":
            y = x + (y - x).detach()
        if y.requires_grad:
            y.register_hook(lambda gradient: gradient.clamp(min=0))
        return y


def rewrite(net: nn.Module, make: Callable[[Callable[[Tensor], Tensor]], nn.Module]) -> nn.Module:
    """A copy of the network with one module for each call of a rectifier."""

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, name: str) -> bool:
            return isinstance(m, RECTIFIER_MODULES) or super().is_leaf_module(m, name)

    net = copy.deepcopy(net)
    tracer = Tracer()
    graph = tracer.trace(net)
    traced = fx.GraphModule(net, graph)
    count = 0
    for node in list(graph.nodes):
        function: Callable[[Tensor], Tensor] | None = None
        if node.op == "call_module":
            part = traced.get_submodule(node.target)
            if isinstance(part, RECTIFIER_MODULES):
                function = copy.deepcopy(part)
                if hasattr(function, "inplace"):
                    function.inplace = False
        elif node.op == "call_function" and node.target in RECTIFIER_FUNCTIONS:
            function = RECTIFIER_FUNCTIONS[node.target]()
        if function is not None:
            traced.add_submodule(f"rectifier_{count}", make(function))
            with graph.inserting_before(node):
                fresh = graph.call_module(f"rectifier_{count}", (node.args[0],))
            node.replace_all_uses_with(fresh)
            graph.erase_node(node)
            count += 1
    assert count > 5
    traced.recompile()
    return traced.eval()


def gradient(net: nn.Module, x: Tensor, output: int) -> Tensor:
    one = x[None].clone().requires_grad_()
    return torch.autograd.grad(net(one)[0, output], one)[0][0]


def plain(seed: int = 0) -> nn.Sequential:
    """A network for which Captum is right: every ReLU is a module of its own."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 256, 16),
        nn.ReLU(),
        nn.Linear(16, 4),
    )
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(guided_backprop, GuidedBackprop), (deconvolution, Deconvolution)]
)
def test_plain_networks_get_captums_maps(ours: Any, theirs: Any) -> None:
    net, x = plain(), pictures(5, 32)
    maps = ours(Question(net, x, PAIRS, 3))
    oracle = theirs(copy.deepcopy(net))
    for number, (image, output) in enumerate(PAIRS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = oracle.attribute(x[[image]].requires_grad_(), target=output)[0]
        assert relative(maps[number], expected) < 1e-5
        assert relative(gradient(net, x[image], output), expected) > 0.1  # the rule does something


@pytest.mark.parametrize("rule", METHODS)
def test_two_convolutions_by_hand(rule: str) -> None:
    torch.manual_seed(0)
    one, two = torch.randn(4, 3, 3, 3).double(), torch.randn(2, 4, 3, 3).double()

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(F.conv2d(x, one, padding=1), inplace=True)
            return torch.relu_(F.conv2d(x, two, padding=1)).sum((2, 3))

    x = pictures(2, 8).double()
    maps = METHODS[rule](Question(Net(), x, [(1, 1), (0, 0)], 2))
    for number, (image, output) in enumerate([(1, 1), (0, 0)]):
        first = F.conv2d(x[[image]], one, padding=1)
        second = F.conv2d(first.clamp(min=0), two, padding=1)
        back = torch.zeros_like(second)
        back[0, output] = 1
        if rule == "guided":
            back[second <= 0] = 0
        back = F.conv_transpose2d(back, two, padding=1).clamp(min=0)
        if rule == "guided":
            back[first <= 0] = 0
        expected = F.conv_transpose2d(back, one, padding=1)
        torch.testing.assert_close(maps[number], expected[0].float())


class Reused(nn.Module):
    """One in-place ReLU for all, and functions and methods in between, as networks have it."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers, self.relu = layers, nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.layers)
        x = self.relu(parts[1](parts[0](x)))
        x = parts[4](parts[3](x))
        F.relu(x, inplace=True)  # only the change in place is used
        return parts[9](parts[7](x.flatten(1)).clamp(min=0))


@pytest.mark.parametrize("method", METHODS.values())
def test_it_does_not_matter_how_a_relu_is_called(method: Any) -> None:
    x = pictures(5, 32)
    expected = method(Question(plain(), x, PAIRS, 4))
    assert relative(method(Question(Reused(plain()), x, PAIRS, 4)), expected) < 1e-6


SPELLINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "Tensor.relu": (lambda x: x.relu(), F.relu),
    "Tensor.relu_": (lambda x: x.relu_(), F.relu),
    "torch.relu": (torch.relu, F.relu),
    "F.relu_": (F.relu_, F.relu),
    "view in place": (lambda x: torch.cat([x[:, :4].relu_(), F.relu(x[:, 4:])], 1), F.relu),
    "clamp": (lambda x: x.clamp(min=0), F.relu),
    "clamp_": (lambda x: x.clamp_(0), F.relu),
    "clamp_min": (lambda x: torch.clamp_min(x, 0.0), F.relu),
    "clamp to six": (lambda x: torch.clamp(x, 0, 6), F.relu6),
    "threshold": (lambda x: F.threshold(x, 0.0, 0.0), F.relu),
    "relu6": (nn.ReLU6(inplace=True), F.relu6),
    "hardtanh": (lambda x: F.hardtanh_(x, 0.0, 6.0), F.relu6),
    "silu": (nn.SiLU(inplace=True), lambda x: x * torch.sigmoid(x)),
    "hardswish": (nn.Hardswish(), lambda x: x * (x + 3).clamp(0, 6) / 6),
    "gelu": (nn.GELU(), lambda x: x * torch.special.ndtr(x)),
    "gelu tanh": (nn.GELU("tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "leaky": (nn.LeakyReLU(0.2, inplace=True), lambda x: torch.where(x > 0, x, 0.2 * x)),
    "prelu": (nn.PReLU(8, 0.3).requires_grad_(False), lambda x: torch.where(x > 0, x, 0.3 * x)),
    "rrelu": (nn.RReLU(0.1, 0.3).eval(), lambda x: torch.where(x > 0, x, 0.2 * x)),
    "elu": (nn.ELU(), lambda x: torch.where(x > 0, x, x.exp() - 1)),
    "selu": (nn.SELU(inplace=True), F.selu),
    "celu": (nn.CELU(0.5), lambda x: F.celu(x, 0.5)),
    "mish": (nn.Mish(), lambda x: x * x.exp().log1p().tanh()),
    "softplus": (nn.Softplus(2.0), lambda x: (2 * x).exp().log1p() / 2),
}


@pytest.mark.parametrize("rule", METHODS)
@pytest.mark.parametrize("name", SPELLINGS)
def test_every_rectifier_however_it_is_called(name: str, rule: str) -> None:
    called, function = SPELLINGS[name]
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    class Net(nn.Module):
        def __init__(self, rectifier: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.first, self.last = first.double(), last.double()
            self.rectifier = rectifier
            self.double().requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.rectifier(self.first(x))).sum((2, 3))

    x = pictures(5, 12).double() * 3
    maps = METHODS[rule](Question(Net(called), x, PAIRS, 4))
    reference = Net(Ruled(function, rule))
    for number, (image, output) in enumerate(PAIRS):
        assert relative(maps[number], gradient(reference, x[image], output).float()) < 1e-6


#: Pairs of images and outputs of the real networks.
FEW = [(0, 2), (1, 0), (0, 1)]


class Real(NamedTuple):
    """A real network, images, and its gradients of each pair as they are without a rule."""

    net: nn.Module
    x: Tensor
    slopes: list[Tensor]


@pytest.fixture(
    scope="module",
    params=[
        "torchvision:resnet18", "torchvision:densenet121", "torchvision:mobilenet_v2",
        "torchvision:mobilenet_v3_small", "torchvision:efficientnet_b0", "timm:resnet18",
        "timm:densenet121", "timm:mobilenetv3_small_100", "timm:efficientnet_b0",
    ],
)  # fmt: skip
def real(request: pytest.FixtureRequest) -> Real:
    net, x = network(request.param, size=48).double(), pictures(2, 48).double()
    return Real(net, x, [gradient(net, x[image], output) for image, output in FEW])


@pytest.mark.parametrize("rule", METHODS)
def test_real_networks_against_torch_fx(real: Real, rule: str) -> None:
    net, x, slopes = real
    maps = METHODS[rule](Question(net, x, FEW, 2))
    reference = rewrite(net, lambda function: Ruled(function, rule))
    for number, (image, output) in enumerate(FEW):
        expected = gradient(reference, x[image], output).float()
        assert relative(maps[number], expected) < 1e-5
        assert relative(slopes[number].float(), expected) > 0.1


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:densenet121"])
def test_captum_agrees_once_every_relu_is_a_module(name: str) -> None:
    net, x = network(name, size=48), pictures(5, 48)
    maps = guided_backprop(Question(net, x, [(1, 3)], 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = GuidedBackprop(rewrite(net, lambda function: nn.ReLU()))
        expected = oracle.attribute(x[[1]].requires_grad_(), target=3)[0]
        naive = GuidedBackprop(copy.deepcopy(net)).attribute(x[[1]].clone().requires_grad_(), 3)[0]
    assert relative(maps[0], expected) < 1e-5
    if "densenet" in name:  # whose F.relu Captum misses without a word
        assert relative(naive, expected) > 0.01


def test_gates_keep_their_gradient() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.conv(x))
            gate = torch.sigmoid(-y.mean((2, 3), keepdim=True))
            return (y * gate).mean((2, 3))

    net = Gated()
    x = pictures(1, 12)
    y = F.relu(net.conv(x)).requires_grad_()
    back = torch.autograd.grad(
        (y * torch.sigmoid(-y.mean((2, 3), keepdim=True))).mean((2, 3))[0, 1], y
    )
    expected = F.conv_transpose2d(back[0].clamp(min=0) * (y > 0), net.conv.weight)
    assert relative(guided_backprop(Question(net, x, [(0, 1)], 1)), expected) < 1e-5


def test_without_max_pooling_deconvolution_ignores_the_image() -> None:
    for name, same in (("torchvision:mobilenet_v2", True), ("torchvision:resnet18", False)):
        one, other = deconvolution(Question(network(name), pictures(), [(0, 1), (1, 1)], 2))
        assert (relative(one, other) < 1e-5) == same


@pytest.mark.parametrize("method", METHODS.values())
@pytest.mark.parametrize(
    ("name", "tolerance"),
    # Untrained and ill-conditioned: float32 gradients of any kind are off by some 1e-4.
    [("timm:test_resnet", 1e-5), ("torchvision:mobilenet_v3_small", 2e-4)],
)
def test_manners(method: Any, name: str, tolerance: float) -> None:
    check_manners(method, network(name), 3, tolerance=tolerance)


class OwnReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (ctx.saved_tensors[0] > 0)


def scripted(x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but networks out there have it
        function = torch.jit.script(F.relu)
    result: Tensor = function(x)
    return result


class Stateful(nn.Module):
    """Says something else each time."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return F.relu(x) * self.calls


REFUSED = {
    "OwnReLU": OwnReLU.apply,
    "Relu": scripted,
    "Maximum": lambda x: torch.maximum(x, torch.zeros(1)),
    "Where": lambda x: torch.where(x > 0, x, 0.0),
    "Checkpoint": lambda x: checkpoint(F.relu, x, use_reentrant=True) + 0 * x,
    "an activation written as a product": lambda x: x * torch.sigmoid(1.7 * x),
    "changes the logits": Stateful(),
    "has none": torch.tanh,
}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reason", REFUSED)
def test_networks_that_would_be_silently_wrong_are_refused(reason: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            x = REFUSED[reason](self.conv(x))
            return (x if reason == "has none" else F.relu(x - 0.1)).mean((2, 3))

    for method in METHODS.values():
        with pytest.raises(ModelError, match=f"{reason}.*use another attribution method.$"):
            method(Question(Net(), pictures(2, 8), [(0, 1)], 2))


def test_a_memory_saving_activation_of_timm_is_refused() -> None:
    from timm.layers.activations_me import HardSwishMe

    net = nn.Sequential(nn.Conv2d(3, 4, 3), HardSwishMe(), nn.ReLU(), nn.Flatten())
    with pytest.raises(ModelError, match="cannot replace HardSwishAutoFn"):
        guided_backprop(Question(net.requires_grad_(False), pictures(1, 8), [(0, 1)], 1))
