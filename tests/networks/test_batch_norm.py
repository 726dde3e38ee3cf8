"""Statistics of batch normalisation: measured as by hand, and nothing else changes."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dollmaker.networks import batch_norm as statistics
from dollmaker.networks.batch_norm import freeze_batch_norm


def network() -> nn.Sequential:
    """Two normalised layers, as if trained, with a dropout between them."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(5, 4, 3),
        nn.BatchNorm2d(4, eps=0.01, momentum=0.2),
    )
    for layer in (model[1], model[5]):
        nn.init.uniform_(layer.weight, 0.5, 2)
        nn.init.normal_(layer.bias)
        nn.init.normal_(layer.running_mean)
        layer.num_batches_tracked.fill_(7)
    return model


def stored(count: int) -> Tensor:
    rng = np.random.default_rng(count)
    return torch.from_numpy(rng.integers(0, 256, (count, 2, 9, 9)).astype(np.uint8))


def prepare(images: Tensor) -> Tensor:
    return images.float() / 100 - 1


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def moments(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of each channel."""
    values = maps.double().transpose(0, 1).flatten(1)
    return values.mean(1), values.var(1, correction=1)


def by_hand(model: nn.Sequential, images: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Moments of what both layers see, each batch normalised with its own before the second."""
    with torch.no_grad():
        first = model[0](prepare(images))
        seen = []
        for maps in first.split(size):
            mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3), correction=0)
            norm = (maps - mean[:, None, None]) / (variance + model[1].eps).sqrt()[:, None, None]
            scaled = norm * model[1].weight[:, None, None] + model[1].bias[:, None, None]
            seen.append(model[4](scaled.clamp(min=0)))
    return [moments(first), moments(torch.cat(seen))]


@pytest.mark.parametrize(("images", "most"), [(6, 32), (6, 3), (6, 2), (9, 3), (2, 1)])
def test_mean_and_variance_are_those_by_hand(
    images: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = network(), stored(images)
    batches = partial(statistics.equal_batches, most=most)
    monkeypatch.setattr(statistics, "equal_batches", batches)
    statistics.recompute(model, data, prepare)
    for layer, (mean, variance) in zip(
        (model[1], model[5]), by_hand(model, data, most), strict=True
    ):
        torch.testing.assert_close(layer.running_mean.double(), mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(layer.running_var.double(), variance, rtol=1e-5, atol=1e-5)


def test_what_was_there_before_plays_no_part() -> None:
    one, other = network(), network()
    other[1].running_var.fill_(1e6)
    for _ in range(2):
        statistics.recompute(one, stored(4), prepare)
    statistics.recompute(other, stored(4), prepare)
    assert all(torch.equal(value, one.state_dict()[k]) for k, value in other.state_dict().items())


def test_nothing_but_statistics_changes() -> None:
    model = network()
    before, momenta = copy_of(model), [model[1].momentum, model[5].momentum]
    numbers = torch.random.get_rng_state()
    statistics.recompute(model, stored(4), prepare)
    changed = {k for k, value in model.state_dict().items() if not torch.equal(value, before[k])}
    assert changed == {f"{n}.running_{what}" for n in (1, 5) for what in ("mean", "var")}
    assert [model[1].momentum, model[5].momentum] == momenta
    assert torch.equal(torch.random.get_rng_state(), numbers)
    assert not any(layer.training for layer in model.modules())
    assert not model[1]._forward_hooks


def test_frozen_layers_are_left() -> None:
    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()

        def train(self, mode: bool = True) -> "Owner":
            super().train(mode)
            freeze_batch_norm(self.model[1])
            return self

    owner = Owner()
    before = copy_of(owner.model)
    statistics.recompute(owner.model, stored(4), prepare, owner=owner)
    after = owner.model.state_dict()
    assert torch.equal(after["1.running_mean"], before["1.running_mean"])
    assert torch.equal(after["1.running_var"], before["1.running_var"])
    with torch.no_grad():  # the frozen layer normalises as in evaluation
        seen = owner.model[:5](prepare(stored(4)))
    torch.testing.assert_close(after["5.running_mean"].double(), moments(seen)[0])


def test_networks_without_such_layers_see_no_image() -> None:
    def refuse(_: Tensor) -> Tensor:
        raise AssertionError("an image was passed")

    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.LayerNorm(7))
    model.append(nn.BatchNorm2d(4, track_running_stats=False))
    before = copy_of(model)
    statistics.recompute(model, stored(3), refuse)
    assert all(torch.equal(value, before[k]) for k, value in model.state_dict().items())
    assert not model.training


def test_a_single_value_says_nothing_of_a_variance() -> None:
    class Pooled(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            x = self[0](x)
            return self[1](x.mean((2, 3), keepdim=True)) + x

    model = Pooled(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    data = stored(1)
    statistics.recompute(model, data, prepare)
    torch.testing.assert_close(model[0].running_mean.double(), moments(prepare(data))[0])
    assert torch.equal(model[1].running_var, torch.ones(2))
    statistics.recompute(model, stored(2), prepare)
    assert not torch.equal(model[1].running_var, torch.ones(2))


@pytest.mark.parametrize(
    ("images", "sizes"), [(1, [1]), (32, [32]), (33, [16, 16]), (73, [24] * 3), (128, [32] * 4)]
)
def test_batches_are_of_one_size(images: int, sizes: list[int]) -> None:
    data = torch.arange(images)
    batches = list(statistics.equal_batches(data))
    assert [len(batch) for batch in batches] == sizes
    assert torch.equal(torch.cat(batches), data[: sum(sizes)])
