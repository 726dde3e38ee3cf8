"""The cheaper backward pass against ordinary automatic differentiation."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attribute.whole_paths import integrated_gradients
from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.integrated_gradients import fixed
from dollmaker.networks.classifiers import create_network


def lively(network: nn.Module) -> nn.Module:
    """Batch normalisations that do something."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(-1.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return network.eval().requires_grad_(False)


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return lively(create_network(name, outputs=3, channels=3, size=64, tried=False)[0])


def gradients(net: nn.Module, rows: Tensor, output: int) -> tuple[Tensor, Tensor]:
    """Ordinary logits and gradient."""
    rows = rows.clone().requires_grad_()
    logits = net(rows)
    return logits.detach(), torch.autograd.grad(logits[:, output].sum(), rows)[0]


def frozen_gradients(frozen: FrozenNetwork, rows: Tensor, output: int) -> tuple[Tensor, Tensor]:
    logits, leaf = frozen.forward(rows.clone())
    (gradient,) = torch.autograd.grad(logits[:, output].sum(), leaf)
    return logits.detach(), frozen.pull_back(gradient, rows)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("torchvision:resnet18", 20),
        ("torchvision:densenet121", 120),
        ("torchvision:mobilenet_v2", 52),
        ("timm:test_resnet", 15),
        ("timm:test_efficientnet", 1),
        ("timm:test_vit", 0),
    ],
)
def test_same_bits_forward_same_gradient_back(name: str, folded: int) -> None:
    net = network(name)
    rows = torch.randn(2, 3, 64, 64)
    frozen = FrozenNetwork(net, rows[:1])
    assert frozen.stem
    assert frozen.folded >= folded
    for output in (0, 2):
        wanted_logits, wanted = gradients(net, rows, output)
        logits, found = frozen_gradients(frozen, rows, output)
        assert torch.equal(logits, wanted_logits)
        assert relative(found, wanted) < 1e-5


class Shared(nn.Module):
    """A convolution that is used twice, and a normalisation whose input is also used elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        once = self.conv(x)
        twice = self.conv(functional.relu(once))
        return self.head((self.norm(twice) * torch.sigmoid(twice)).mean((2, 3)))


class Skip(nn.Module):
    """The input is used beside the first convolution: there is no stem."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return (functional.relu(self.norm(self.conv(x))) + x**2).mean((2, 3))


@pytest.mark.parametrize("kind", [Shared, Skip])
def test_what_is_shared_is_not_folded_away(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = lively(kind())
    rows = torch.randn(2, 3, 16, 16)
    frozen = FrozenNetwork(net, rows[:1])
    assert not frozen.stem
    wanted_logits, wanted = gradients(net, rows, 1)
    logits, found = frozen_gradients(frozen, rows, 1)
    assert torch.equal(logits, wanted_logits)
    assert relative(found, wanted) < 1e-5


def test_a_network_that_does_not_pass_the_check_is_explained_the_ordinary_way() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3)) + torch.rand(1)

    frozen = FrozenNetwork(Noisy().requires_grad_(False), torch.randn(1, 3, 8, 8))
    assert not frozen.stem
    assert frozen.folded == 0


def test_an_overwritten_stem_keeps_its_gradient() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 2)
    ).requires_grad_(False)
    rows = torch.randn(3, 3, 8, 8)
    frozen = FrozenNetwork(net, rows[:1])
    assert frozen.stem
    assert relative(frozen_gradients(frozen, rows, 1)[1], gradients(net, rows, 1)[1]) < 1e-6


def test_the_network_itself_is_left_alone() -> None:
    net = network("torchvision:resnet18")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = torch.randn(1, 3, 64, 64)
    integrated_gradients(net, x, torch.zeros_like(x), [(0, 1)], fixed(2), 2)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_bf16_is_near_and_float32_in_its_sums() -> None:
    net = network("timm:test_resnet")
    x = torch.randn(1, 3, 64, 64)
    frozen = FrozenNetwork(net, x, precision="bf16")
    exact = integrated_gradients(net, x, torch.zeros_like(x), [(0, 1)], fixed(16), 16)
    rough = integrated_gradients(frozen, x, torch.zeros_like(x), [(0, 1)], fixed(16), 16)
    assert rough.maps.dtype == torch.float32
    assert 1e-5 < relative(rough.maps, exact.maps) < 0.3


@pytest.mark.slow
def test_compiled_is_the_same() -> None:
    net = network("timm:test_resnet")
    x = torch.randn(2, 3, 64, 64)
    pairs = [(0, 0), (0, 2), (1, 1)]
    compiled = FrozenNetwork(net, x[:1], compiled=True)
    found = integrated_gradients(compiled, x, torch.zeros_like(x), pairs, fixed(4), 8)
    wanted = integrated_gradients(net, x, torch.zeros_like(x), pairs, fixed(4), 8)
    assert relative(found.maps, wanted.maps) < 1e-3
