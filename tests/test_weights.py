"""Local weights: safetensors only, and fitted to what wraps the network."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dollmaker import devices
from dollmaker.errors import ModelError
from dollmaker.weights import freeze_batch_norm, load_weights, read_weights


def network(channels: int, outputs: int = 4) -> nn.Sequential:
    layers = [nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, outputs))


def test_pickles_and_absent_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        read_weights(tmp_path / "a.safetensors")
    torch.save(network(3).state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="not a safetensors file"):
        read_weights(tmp_path / "a.safetensors")


def test_a_grey_network_gives_what_the_colour_network_gives_for_grey(tmp_path: Path) -> None:
    colour = network(3).eval()
    save_file(colour.state_dict(), tmp_path / "w.safetensors")
    grey = network(1).eval()
    load_weights(grey, read_weights(tmp_path / "w.safetensors"), source="w")
    x = torch.randn(2, 1, 9, 9)
    torch.testing.assert_close(grey(x), colour(x.expand(-1, 3, -1, -1)))
    back = network(3).eval()
    load_weights(back, grey.state_dict(), source="w")
    torch.testing.assert_close(back(x.expand(-1, 3, -1, -1)), grey(x))


def test_prefixes_of_wrappers_do_not_matter() -> None:
    plain, wrapped = network(1), nn.ModuleDict({"model": network(1)})
    load_weights(wrapped, plain.state_dict(), source="w")
    torch.testing.assert_close(wrapped["model"][0].weight, plain[0].weight)


def test_weights_of_another_network_are_refused_unless_it_is_the_head() -> None:
    with pytest.raises(ModelError, match=r"2 of 9 tensors.*'5\.weight'"):
        load_weights(network(1, 7), network(1).state_dict(), source="file w")
    load_weights(network(1, 7), network(1).state_dict(), optional=("5",), source="w")


def test_frozen_batch_norm_does_not_move() -> None:
    net = network(1).train()
    freeze_batch_norm(net)
    before = net[1].running_mean.clone()
    net(torch.randn(4, 1, 9, 9) + 5).sum().backward()
    assert torch.equal(net[1].running_mean, before)
    assert net[1].weight.grad is None
    assert net[0].weight.grad is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="no GPU is usable"):
        devices.choose("cuda")
    assert devices.choose("auto").type == "cpu"
