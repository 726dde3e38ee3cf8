"""Networks tried without numbers: right about shapes, and without a trace on the network."""

import copy

import pytest
import torch
from torch import Tensor, nn

from dollmaker.networks import dry_run


class Twice(nn.Module):
    """One layer under two names, as networks with shared parts have it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1))
        self.second = self.first
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if x.shape[-1] % 4:
            raise ValueError("sides must be multiples of 4\nand so on")
        return self.second(nn.functional.dropout(self.first(x)))


class ByValue(nn.Module):
    """Looks at numbers, which a trial without them cannot."""

    def __init__(self, parameters: int = 1) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1).expand(parameters))

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum().item() == 0 else x[:, :0]


@pytest.mark.parametrize("side", [8, 9])
def test_a_trial_leaves_no_trace(side: int) -> None:
    network = Twice()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    if side % 4:
        with pytest.raises(ValueError, match="multiples of 4"):
            dry_run.forward(network, (2, 1, side, side))
    else:
        assert dry_run.forward(network, (2, 1, side, side)).shape == (2, 1, side, side)
    assert torch.equal(torch.get_rng_state(), state) and network.calls == 0
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert network.second is network.first and all(p.requires_grad for p in network.parameters())


def test_numbers_are_used_where_there_is_no_other_way() -> None:
    assert dry_run.forward(ByValue(), (1, 1, 4, 4)).device.type == "cpu"
    large = ByValue(200_000_000)  # one number, expanded
    assert dry_run.forward(large, (1, 1, 4, 4)) is None
    with torch.device("meta"):
        nowhere = nn.Sequential(ByValue())
    with pytest.raises(RuntimeError, match="meta"):
        dry_run.forward(nowhere, (1, 1, 4, 4))


@pytest.mark.parametrize(("side", "fails"), [(1, True), (2, False)])
def test_what_needs_two_images_is_told_from_what_fails(side: int, fails: bool) -> None:
    network = nn.BatchNorm2d(3)
    assert dry_run.fails_on_one(network, (1, 3, side, side)) is fails
    assert not dry_run.fails_on_one(copy.deepcopy(network).eval(), (1, 3, side, side))
    assert not dry_run.fails_on_one(network, (1, 4, 2, 2))
