"""DeepLift against Captum where Captum is right, rules by hand, and its own completeness."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import DeepLift
from torch import Tensor, nn
from torch.nn import functional as F

from attribute.test_passes import PAIRS, check_manners, network, pictures, relative
from dollmaker.attribute.deep_lift import deep_lift
from dollmaker.attribute.passes import Question
from dollmaker.runtime.errors import ModelError


def differences(net: nn.Module, x: Tensor, start: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    change = net(x) - net(start.expand_as(x))
    return torch.stack([change[image, output] for image, output in pairs])


def plain() -> nn.Sequential:
    """Every function a module of its own, as Captum needs it."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ELU(),
        nn.Flatten(),
        nn.Linear(8 * 256, 16),
        nn.Sigmoid(),
        nn.Linear(16, 4),
    )


def pooled() -> nn.Sequential:
    """Max pooling without overlap or nonlinear neighbours: else Captum does not add up."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 256, 4)
    )


@pytest.mark.parametrize("make", [plain, pooled])
def test_plain_networks_get_captums_maps(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    net = make().double().eval().requires_grad_(False)
    x, start = pictures(5, 32).double(), pictures(5, 32, seed=2).double() * 0.3
    maps = deep_lift(Question(net, x, PAIRS, 6), baseline=start)
    for number, (image, output) in enumerate(PAIRS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle = DeepLift(copy.deepcopy(net))
            expected = oracle.attribute(x[[image]], start[[image]], target=output)[0]
        assert relative(maps[number], expected.detach().float()) < 1e-6


@pytest.mark.parametrize(
    "name",
    [
        "torchvision:resnet18", "torchvision:densenet121", "torchvision:mobilenet_v2",
        "torchvision:mobilenet_v3_large", "torchvision:efficientnet_b0", "timm:resnet18",
        "timm:densenet121", "timm:mobilenetv2_100", "timm:mobilenetv3_large_100",
        "timm:efficientnet_b0",
    ],
)  # fmt: skip
def test_contributions_add_up_in_real_networks(name: str) -> None:
    net, x, start = network(name, size=48), pictures(5, 48), pictures(5, 48, seed=2) * 0.3
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    maps = deep_lift(Question(net, x, PAIRS, 6), baseline=start)
    wanted = differences(net, x, start, PAIRS)
    assert float((maps.sum((1, 2, 3)) - wanted).abs().max() / wanted.abs().max()) < 1e-3
    # In double precision nothing hides behind rounding, even where the difference is small.
    few = [(0, 2), (1, 0), (0, 0)]
    net, x, black = net.double(), x[:2].double(), torch.zeros(1, 3, 48, 48).double()
    maps = deep_lift(Question(net, x, few, 6), baseline=black)
    wanted = differences(net, x, black, few)
    assert float(((maps.double().sum((1, 2, 3)) - wanted) / wanted).abs().max()) < 1e-4
    slopes = torch.autograd.grad(net(y := x[:1].requires_grad_())[0, 2], y)[0] * y.detach()
    assert relative(slopes[0].float(), maps[0]) > 0.01  # not just the gradient


def test_a_product_is_shared_out_by_the_means() -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x * 1.0
            x *= x.mean((2, 3), keepdim=True)  # in place, broadcast
            return x.sum((2, 3))

    x, start = pictures(1, 4), pictures(1, 4, seed=2)
    maps = deep_lift(Question(Gate(), x, [(0, 1)], 2), baseline=start)
    (a, b), (c, d) = ((t[0, 1], t[0, 1].mean()) for t in (x, start))
    expected = (a - c) * (b + d) / 2 + (b - d) / 16 * 0 + (a - c) / 16 * ((a + c) / 2).sum()
    torch.testing.assert_close(maps[0, 1], expected)
    assert not maps[0, 0].any()


def test_a_square_of_one_tensor() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x + 0.0
            return (x * x).sum((2, 3))

    x, start = pictures(1, 4), pictures(1, 4, seed=2)
    maps = deep_lift(Question(Square(), x, [(0, 1)], 2), baseline=start)
    torch.testing.assert_close(maps[0, 1], x[0, 1] ** 2 - start[0, 1] ** 2)


def test_max_pooling_by_hand() -> None:
    class Pool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(x + 0.0, (1, 2), stride=1).sum((2, 3))

    x, start = (torch.tensor([[[v]]]) for v in ([5.0, 1.0, 2.0, 7.0], [1.0, 4.0, 4.0, 7.0]))
    maps = deep_lift(Question(Pool(), x, [(0, 0)], 2), baseline=start)
    # Windows: 5 against 4 credits the 5; 2 against 4 (a tie, the first) the left 4; 7 and 7 nobody.
    assert maps[0, 0].tolist() == [[1.0, -2.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(3, 1, dilation=2),
        nn.AdaptiveMaxPool2d(1),
        nn.AdaptiveMaxPool2d((3, 2)),
        lambda x: torch.max_pool2d(x, 3, 2),
    ],
)
def test_overlapping_windows_of_every_kind_add_up(pool: Callable[[Tensor], Tensor]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)
            self.double().requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.relu(pool(self.conv(x)))).sum((2, 3))

    net, x, start = Net(), pictures(5, 13).double(), pictures(5, 13, seed=2).double()
    maps = deep_lift(Question(net, x, PAIRS, 4), baseline=start).double()
    wanted = differences(net, x, start, PAIRS)
    error = (maps.sum((1, 2, 3)) - wanted).abs() / maps.abs().sum((1, 2, 3))
    assert float(error.max()) < 1e-7


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.relu_(), F.relu6, F.silu, F.gelu, F.hardswish, F.hardsigmoid, torch.sigmoid,
        torch.tanh, F.softplus, F.mish, F.leaky_relu, lambda x: x.clamp(0, 1), nn.ReLU(True),
        nn.PReLU(3).requires_grad_(False), F.logsigmoid, nn.SiLU(True), nn.Sigmoid(),
    ],
)  # fmt: skip
def test_elementwise_functions_carry_the_whole_difference(
    function: Callable[[Tensor], Tensor],
) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x * 1.0).sum((2, 3))

    x, start = pictures(1, 8) * 3, pictures(1, 8, seed=2) * 3
    start[0, :, 0] = x[0, :, 0] + 1e-6  # so close that float32 differences would cancel
    start[0, :, 1] = x[0, :, 1]
    maps = deep_lift(Question(Net(), x, [(0, 2)], 2), baseline=start)
    rise = (function(x.clone()) - function(start.clone()))[0, 2]
    torch.testing.assert_close(maps[0, 2, 2:], rise[2:], rtol=1e-4, atol=1e-6)
    slope = torch.autograd.grad(function((y := x.requires_grad_()) * 1.0).sum(), y)[0][0, 2, 0]
    close = (x - start).detach()[0, 2, 0] * slope
    torch.testing.assert_close(maps[0, 2, 0], close, rtol=1e-3, atol=1e-9)
    assert not maps[0, 2, 1].any()


def test_where_nothing_changes_the_multiplier_is_the_derivative() -> None:
    class Net(nn.Module):
        """The first function's input is the same for both; the pixels before it differ."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(x.sum((2, 3)))

    x, start = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, -1.0]]]])
    maps = deep_lift(Question(Net(), x, [(0, 0)], 2), baseline=start)
    assert maps[0, 0, 0].tolist() == [-0.25, 0.25]


def test_tiny_activations_follow_the_same_rule() -> None:
    """As in networks with random weights; a rectifier does not care for the scale."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4, bias=False),
    ).requires_grad_(False)
    x, start = pictures(), pictures(seed=2) * 0.3
    maps = deep_lift(Question(net, x, PAIRS, 4), baseline=start)
    with torch.no_grad():
        net[0].weight.mul_(2.0**-40)
    tiny = deep_lift(Question(net, x, PAIRS, 4), baseline=start)
    torch.testing.assert_close(tiny * 2.0**40, maps)


def test_where_no_window_changes_max_pooling_hands_on_the_gradient() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = x.sum((2, 3), keepdim=True)  # the same for both, from other pixels
            return F.max_pool2d(torch.cat([total, total - 1], -1), (1, 2)).sum((2, 3))

    x, start = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, -1.0]]]])
    maps = deep_lift(Question(Net(), x, [(0, 0)], 2), baseline=start)
    assert maps[0, 0, 0].tolist() == [-1, 1]


def test_manners() -> None:
    check_manners(deep_lift, network("timm:test_resnet"), 3, baseline=pictures(seed=2) * 0.3)


class Rearranged(nn.Module):
    """Puts the images of a batch elsewhere than in the first dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x.transpose(0, 1)).transpose(0, 1).sum((2, 3))


class Stateful(nn.Module):
    """Says something else each time."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return (x * self.calls).sum((2, 3))


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + (2 * x).detach().relu()).sum((2, 3))


REFUSED: dict[str, Any] = {
    "no rule for Softmax": lambda x: x.softmax(1).sum((2, 3)),
    "no rule for NativeLayerNorm": lambda x: F.layer_norm(x, x.shape[1:]).sum((2, 3)),
    "no rule for NativeGroupNorm": lambda x: F.group_norm(x, 1).sum((2, 3)),
    "no rule for batch normalisation in training": lambda x: F.instance_norm(x)[:, :, 0, 0],
    "no rule for Bmm": lambda x: (x @ x.transpose(-1, -2)).sum((2, 3)),
    "no rule for Div": lambda x: (x / (x.mean((2, 3), keepdim=True))).sum((2, 3)),
    "no rule for Pow": lambda x: (x**3).sum((2, 3)),
    "no rule for Exp": lambda x: x.exp().sum((2, 3)),
    "no rule for Amax": lambda x: x.amax((2, 3)),
    "rearranged": Rearranged(),
    "do not add up": Detached(),
    "changes the logits": Stateful(),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_has_no_rule_is_refused(reason: str) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = REFUSED[reason](x * 1.0)
            return result

    with pytest.raises(ModelError, match=f"{reason}.*use another attribution method.$"):
        deep_lift(Question(Net(), pictures(2, 8), [(0, 1)], 2), baseline=torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:convnext_atto"])
def test_transformers_and_their_like_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="deep_lift has no rule for NativeLayerNorm"):
        deep_lift(Question(network(name), pictures(), PAIRS, 4), baseline=torch.zeros(1, 3, 64, 64))
