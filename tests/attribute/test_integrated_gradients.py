"""The kernel against Captum, closed forms, and itself in other batches."""

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from attribute.whole_paths import integrated_gradients
from dollmaker.attribute.integrated_gradients import fixed, nested
from dollmaker.networks.classifiers import create_network

PAIRS = [(0, 2), (1, 0), (0, 0), (2, 3), (1, 1), (1, 2), (3, 0)]


def network(name: str, channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    net, _ = create_network(name, outputs=4, channels=channels, size=64, tried=False)
    return net.eval().requires_grad_(False)


def inputs(seed: int = 1, channels: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(4, channels, 64, 64), torch.randn(4, channels, 64, 64) * 0.1


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        *(("torchvision:resnet18", 3), ("timm:test_vit", 3), ("torchvision:densenet121", 3)),
        *(("torchvision:resnet18", 4), ("timm:test_vit", 2)),
    ],
)
def test_same_nodes_as_captum_give_the_same_maps(name: str, channels: int) -> None:
    net = network(name, channels)
    x, start = inputs(channels=channels)
    ours = integrated_gradients(net, x, start, PAIRS, fixed(7), 16)
    oracle = IntegratedGradients(net)
    for number, (image, output) in enumerate(PAIRS):
        theirs, delta = oracle.attribute(
            x[[image]], start[[image]], target=output, n_steps=7, method="gausslegendre",
            return_convergence_delta=True,
        )  # fmt: skip
        assert relative(ours.maps[number], theirs[0]) < 1e-5
        difference = float(net(x[[image]])[0, output] - net(start[[image]])[0, output])
        assert float(ours.difference[number]) == pytest.approx(difference, abs=1e-5)
        error = abs(float(delta)) / abs(difference)
        assert float(ours.completeness()[number]) == pytest.approx(error, abs=2e-4)


def test_a_linear_network_is_explained_exactly_by_one_node() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).requires_grad_(False)
    x, start = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    result = integrated_gradients(net, x, start, [(1, 2)], fixed(1), 4)
    expected = (x[1] - start[1]) * net[1].weight[2].view(3, 4, 4)
    torch.testing.assert_close(result.maps[0], expected)
    assert float(result.completeness()[0]) < 1e-5


def test_a_polynomial_is_explained_exactly_by_enough_nodes() -> None:
    def cubic(x: Tensor) -> Tensor:
        return (x**3).flatten(1).sum(1, keepdim=True)

    x = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    result = integrated_gradients(cubic, x, torch.zeros_like(x), [(0, 0)], fixed(2), 4)
    torch.testing.assert_close(result.maps[0], (x[0] ** 3).float())  # integral of 3 a^2 x^2 * x


def test_the_rule_integrates_polynomials_of_degree_two_n_minus_one() -> None:
    for nodes in (1, 2, 5, 16):
        (level,) = fixed(nodes)
        for degree in range(2 * nodes):
            assert (level.weights * level.places**degree).sum() == pytest.approx(1 / (degree + 1))


def test_nested_levels_are_the_midpoint_and_trapezoid_rules() -> None:
    levels = nested(3, 25)
    assert [len(level.places) for level in levels] == [3, 4, 6, 12]
    total, seen = 0.0, np.array([])
    for number, level in enumerate(levels):
        total = level.keep * total + (level.weights * level.places**3).sum()
        assert not set(np.round(level.places, 9)) & set(np.round(seen, 9))
        seen = np.concatenate([seen, level.places])
        if number:
            grid = np.linspace(0, 1, 3 * 2**number + 1)
            assert total == pytest.approx(np.trapezoid(grid**3, grid))
            np.testing.assert_allclose(np.sort(seen), grid, atol=1e-12)
    assert total == pytest.approx(1 / 4, abs=1e-3)


@pytest.mark.parametrize("chunk", [3, 8, 64])
def test_chunks_change_nothing(chunk: int) -> None:
    net = network("timm:test_resnet")
    x, start = inputs()
    one = integrated_gradients(net, x, start, PAIRS, fixed(8), 16)
    other = integrated_gradients(net, x, start, PAIRS, fixed(8), chunk)
    assert relative(other.maps, one.maps) < 1e-5


def test_neighbours_change_no_bit() -> None:
    net = network("timm:test_resnet")
    x, start = inputs()
    together = integrated_gradients(net, x, start, PAIRS, fixed(4), 8)
    for number, (image, output) in enumerate(PAIRS):
        alone = integrated_gradients(net, x[[image]], start[[image]], [(0, output)], fixed(4), 8)
        assert torch.equal(alone.maps[0], together.maps[number])


def test_more_nodes_make_the_map_complete() -> None:
    net = network("timm:test_resnet")
    x, start = inputs()
    errors = [
        np.median(integrated_gradients(net, x, start, PAIRS, fixed(n), 32).completeness())
        for n in (2, 64)
    ]
    assert errors[1] < 0.02 < errors[0]


def test_nothing_to_explain_is_fine() -> None:
    x, start = inputs()
    assert (
        len(integrated_gradients(network("timm:test_resnet"), x, start, [], fixed(2), 4).maps) == 0
    )
