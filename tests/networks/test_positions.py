"""Positions on other grids: the published rules written out, and networks at other sides."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import resample_abs_pos_embed

from dollmaker.networks import positions
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.positions import Rule, at_side, interpolate, keep, own_side, rule_of
from dollmaker.networks.weights import load_weights, read_weights

ROOT = Path(__file__).parents[2]
WEIGHTS = "dinov2_vits14.safetensors"
DINOV2 = Rule(antialias=False, offset=0.1)


def cubic(x: float) -> float:
    """Keys' kernel with a = -0.75, as torch has it."""
    x, a = abs(x), -0.75
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def official(before: int, side: int) -> np.ndarray:
    """What each new place takes of the old ones along an axis, (side, before).

    interpolate_pos_encoding of facebookresearch/dinov2: the factor is (side + 0.1) / before; place
    i lies at (i + 0.5) / factor - 0.5, four neighbours count, and the border's repeat.
    """
    factor = (side + 0.1) / before
    table = np.zeros((side, before))
    for i in range(side):
        x = (i + 0.5) / factor - 0.5
        for neighbour in range(math.floor(x) - 1, math.floor(x) + 3):
            table[i, min(max(neighbour, 0), before - 1)] += cubic(x - neighbour)
    return table


def place_of_weights() -> Path:
    folders = [
        os.environ.get("DOLLMAKER_WEIGHTS", ""),
        ROOT / "weights",
        ROOT.parent / "shared/weights",
    ]
    for folder in folders:
        if folder and (Path(folder) / WEIGHTS).exists():
            return Path(folder) / WEIGHTS
    pytest.skip(f"no {WEIGHTS} in DOLLMAKER_WEIGHTS or weights/: it is not at hand")


@pytest.mark.parametrize("side", [1, 7, 16, 34, 36, 38, 64])
def test_dinov2s_rule_is_the_published_one(side: int) -> None:
    table = torch.randn(1, 1 + 37 * 37, 5, generator=torch.Generator().manual_seed(side))
    found = interpolate(table, side, prefix=1, rule=DINOV2)
    grid = table[0, 1:].double().numpy().reshape(37, 37, 5)
    axis = official(37, side)
    expected = np.einsum("yi,xj,ijd->yxd", axis, axis, grid).reshape(-1, 5)
    torch.testing.assert_close(found[:, :1], table[:, :1], rtol=0, atol=0)
    np.testing.assert_allclose(found[0, 1:].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("side", [3, 16, 37, 40])
def test_the_other_rule_is_timms(prefix: int, side: int) -> None:
    table = torch.randn(1, prefix + 37 * 37, 4, generator=torch.Generator().manual_seed(0))
    theirs = resample_abs_pos_embed(table, [side, side], num_prefix_tokens=prefix)
    assert torch.equal(interpolate(table, side, prefix=prefix, rule=Rule()), theirs)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("timm:vit_small_patch14_dinov2", DINOV2),
        ("timm:vit_small_patch14_reg4_dinov2", Rule()),
        ("timm:vit_small_patch16_224", Rule()),
        ("mobilenet_v2", Rule()),
    ],
)
def test_the_architecture_says_whose_rule_it_is(name: str, rule: Rule) -> None:
    with torch.device("meta"):
        network, _ = create_network(name, outputs=1, channels=3, size=224, tried=False)
    assert rule_of(network) == rule
    assert rule_of(torch.nn.Sequential(network)) == rule


@pytest.mark.parametrize("size", [224, 476, 518])
def test_published_weights_get_positions_as_published(size: int) -> None:
    state = read_weights(place_of_weights())
    name = "timm:vit_small_patch14_dinov2"
    network, _ = create_network(name, outputs=1, channels=3, size=size, tried=False)
    load_weights(network, state, optional=("head",), source="w")
    found = network.get_parameter("pos_embed").detach()
    table, side = state["pos_embed"].double().numpy()[0], size // 14
    grid, axis = table[1:].reshape(37, 37, -1), official(37, side)
    expected = np.einsum("yi,xj,ijd->yxd", axis, axis, grid, optimize=True)
    if side == 37:
        expected = grid  # as it is: no interpolation by 37.1 / 37
    np.testing.assert_array_equal(found[0, 0].numpy(), table[0])
    error = np.abs(found[0, 1:].numpy() - expected.reshape(side * side, -1)).max()
    assert error < 2e-3 * np.abs(table).max()  # the file has 16 bits


def small(name: str, size: int) -> torch.nn.Module:
    torch.manual_seed(0)
    network, _ = create_network(name, outputs=2, channels=3, size=size, tried=False)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_vit2", "timm:vit_tiny_patch16_224"])
def test_a_network_at_another_side_is_that_network_made_for_it(name: str) -> None:
    published = small(name, 160)
    state = published.state_dict()
    network = small(name, 64)
    load_weights(network, state, source="w")
    keep(network, state)
    assert own_side(network) == 64 and positions.KEPT not in network.state_dict()
    x = torch.randn(2, 3, 160, 160)
    twin = at_side(network, 160)
    torch.testing.assert_close(twin(x), published(x))
    assert own_side(network) == 64 and at_side(network, 64) is network
    shared = {id(p) for p in network.parameters()}
    assert sum(id(p) not in shared for p in twin.parameters()) == 1  # the positions
    without = at_side(small(name, 64), 160)  # nothing kept: from its own grid, twice interpolated
    assert without(x).shape == (2, 2)


def test_networks_of_other_kinds_have_no_side_of_their_own() -> None:
    for name in ("timm:test_resnet", "mobilenet_v2"):
        network = small(name, 64)
        keep(network, network.state_dict())
        assert own_side(network) is None and not hasattr(network, positions.KEPT)


def test_what_is_no_square_of_patches_does_not_fit() -> None:
    square, odd = torch.zeros(1, 17, 4), torch.zeros(1, 12, 4)
    assert positions.fit(odd, square, Rule()) is None
    assert positions.fit(square, torch.zeros(1, 17, 5), Rule()) is None
    assert positions.fit(square[0], square, Rule()) is None
