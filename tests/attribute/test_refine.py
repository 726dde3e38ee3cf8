"""Adaptive nodes: the same numbers as fixed rules, certificates that are true, no neighbours."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribute.test_frozen import lively
from attribute.whole_paths import integrated_gradients
from dollmaker.attribute import consensus
from dollmaker.attribute.committee import noisy_copies
from dollmaker.attribute.consensus import Consensus
from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.integrated_gradients import (
    Level,
    Paths,
    Refined,
    Stop,
    contributions,
    fixed,
    nested,
    refine,
)
from dollmaker.attribute.passes import Chunk, Pairs, fitting_rows, row_bytes
from dollmaker.config.masks import NoiseConfig
from dollmaker.networks.classifiers import create_network
from dollmaker.runtime.errors import ModelError

PAIRS = [(0, 2), (1, 0), (0, 0), (2, 3), (1, 1), (1, 2), (3, 0)]


def network(seed: int = 0) -> FrozenNetwork:
    torch.manual_seed(seed)
    net, _ = create_network("timm:test_resnet", outputs=4, channels=3, size=48, tried=False)
    return FrozenNetwork(lively(net), torch.randn(1, 3, 48, 48))


def images() -> Tensor:
    return torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(3))


def summary(members: list[Tensor], _: Pairs) -> Consensus:
    maps = [member.mean(1).abs().sum(1) for member in members]
    return consensus.agree([consensus.smooth(one, 1.0) for one in maps])


def run(
    nets: list[FrozenNetwork],
    x: Tensor,
    pairs: list[tuple[int, int]],
    stop: Stop,
    chunk: int = 16,
    most: int = 41,
) -> Refined:
    origin = torch.zeros_like(x[:1])
    committee = [
        Paths(network=net, chunk=Chunk(chunk), images=[x], baselines=[origin]) for net in nets
    ]
    return refine(committee, pairs, nested(5, most), stop, summary)


def trapezoid(nodes: int) -> Level:
    weights = np.full(nodes, 1 / (nodes - 1))
    weights[[0, -1]] /= 2
    return Level(keep=0, places=np.linspace(0, 1, nodes), weights=weights)


def test_a_map_is_that_of_the_trapezoid_rule_it_stopped_at() -> None:
    net, x = network(), images()
    result = run([net], x, PAIRS, Stop(criterion="completeness", target=0.05), most=100)
    assert len(set(result.nodes.tolist()) & {11, 21, 41, 81}) > 1  # not all stop together
    origin = torch.zeros_like(x[:1])
    for number, (pair, nodes) in enumerate(zip(PAIRS, result.nodes.tolist(), strict=True)):
        rule = trapezoid(nodes)
        wanted = contributions(net, x, origin, [pair], rule, 16)
        found = result.consensus.maps[number] * result.consensus.scale[number]
        expected = consensus.smooth(wanted.abs().sum(1), 1.0)[0]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        difference = float(net(x[[pair[0]]])[0, pair[1]] - net(origin)[0, pair[1]])
        error = abs(float(wanted.sum()) - difference) / abs(difference)
        assert float(result.completeness[number]) == pytest.approx(error, abs=1e-3)


def test_the_certificate_is_true() -> None:
    x = images()
    for criterion, target in (("completeness", 0.03), ("convergence", 0.9995)):
        stop = Stop(criterion=criterion, target=target)
        result = run([network()], x, PAIRS, stop, most=200)
        value = getattr(result, criterion)
        met = value <= target if criterion == "completeness" else value >= target
        assert torch.equal(result.met, met)
        assert (result.nodes[~result.met] == 161).all()
        assert result.met.any()
    impossible = run([network()], x, PAIRS, Stop(criterion="completeness", target=1e-9), most=21)
    assert not impossible.met.any()
    assert (impossible.nodes == 21).all()


def test_neighbours_chunks_and_order_change_no_bit() -> None:
    nets, x = [network(0), network(1)], images()
    stop = Stop(criterion="convergence", target=0.9995)
    together = run(nets, x, PAIRS, stop)
    for number, (image, output) in enumerate(PAIRS):
        alone = run(nets, x[[image]], [(0, output)], stop)
        assert torch.equal(alone.consensus.maps[0], together.consensus.maps[number])
        assert int(alone.nodes[0]) == int(together.nodes[number])
    for chunk in (3, 64):
        other = run(nets, x, PAIRS, stop, chunk=chunk)
        assert torch.equal(other.nodes, together.nodes)
        difference = other.consensus.maps - together.consensus.maps
        assert float(difference.norm() / together.consensus.maps.norm()) < 1e-5


def test_easy_maps_finish_early_and_hard_ones_go_on() -> None:
    class Mixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(1)
            return torch.stack([flat.sum(1), torch.sin(9 * flat).sum(1)], 1)

    x = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0)) + 0.5
    net = FrozenNetwork(Mixed(), x)
    stop = Stop(criterion="completeness", target=1e-4)
    result = run([net], x, [(0, 0), (0, 1)], stop, most=400)
    assert result.nodes.tolist()[0] == 5
    assert result.nodes.tolist()[1] > 41
    assert result.met.all()


def test_several_baselines_are_averaged_and_the_worst_counts() -> None:
    net, x = network(), images()
    black, white = torch.full_like(x[:1], -1.0), torch.ones_like(x[:1])
    paths = Paths(network=net, chunk=Chunk(16), images=[x], baselines=[black, white])
    levels = nested(8, 8)
    result = refine([paths], PAIRS, levels, Stop(criterion="none", target=0), summary)
    parts = [
        integrated_gradients(net, x, b, PAIRS, fixed(8, "midpoint"), 16) for b in (black, white)
    ]
    mean = (parts[0].maps + parts[1].maps) / 2
    found = result.consensus.maps * result.consensus.scale[:, None, None]
    torch.testing.assert_close(
        found, consensus.smooth(mean.abs().sum(1), 1.0), rtol=1e-4, atol=1e-6
    )
    worst = torch.maximum(parts[0].completeness(), parts[1].completeness())
    torch.testing.assert_close(result.completeness, worst, rtol=1e-3, atol=1e-4)
    assert torch.isnan(result.convergence).all()


def test_noise_belongs_to_the_image_alone() -> None:
    x = images()
    together = noisy_copies(x, list("abcd"), NoiseConfig(samples=2, stdev=0.2), 7)
    alone = noisy_copies(x[[2]], ["c"], NoiseConfig(samples=2, stdev=0.2), 7)
    assert torch.equal(alone[1][0], together[1][2])
    assert not torch.equal(together[0], together[1])
    other = noisy_copies(x, list("abcd"), NoiseConfig(samples=1, stdev=0.2), 8)
    assert not torch.equal(other[0], together[0])
    width = float(x[0].max() - x[0].min())
    assert float((together[0][0] - x[0]).std()) == pytest.approx(0.2 * width, rel=0.05)


def test_kinds_of_noise_by_hand() -> None:
    maps = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1, 1)
    kinds = get_args(consensus.Kind)
    values = [float(consensus.combine(maps, kind)) for kind in kinds]
    assert values == pytest.approx([3.0, 41 / 3, 14 / 3])


def test_memory_is_measured_and_halved() -> None:
    net = network()
    small, large = torch.randn(1, 3, 48, 48), torch.randn(1, 3, 96, 96)
    assert 3 < row_bytes(net.forward, large) / row_bytes(net.forward, small) < 5
    assert fitting_rows(net.forward, small) in (4, 8, 16, 32)
    tried = []

    def work(rows: int) -> str:
        tried.append(rows)
        if rows > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    chunk = Chunk(16)
    assert chunk.run(work) == "done"
    assert tried == [16, 8, 4, 2]
    assert chunk.rows == 2  # remembered

    def never(rows: int) -> None:
        raise MemoryError

    with pytest.raises(ModelError, match="one image does not fit into memory"):
        chunk.run(never)

    def broken(rows: int) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        chunk.run(broken)
