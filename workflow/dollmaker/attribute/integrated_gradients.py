"""Integrated Gradients (Sundararajan et al. 2017): our own kernel.

All findings of an image share the forward pass over its path; each costs one backward pass. The
nodes of an image lie in one forward pass, or in equal pieces if they do not fit, and all passes of
a level have the same number of rows, the last one padded. So the map of an image does not depend on
its neighbours, shards or batches.

A quadrature rule on [0, 1], the nodes along a path and their weights, is a list of levels. The
first is an estimate by itself; each later one scales the total so far by ``keep`` and adds its own
nodes, so that every gradient is used again.

Adaptive nodes refine the maps of a committee until each meets its target. Every level about doubles
the nodes. After each the consensus is formed; pairs that meet the target leave, and the others fill
the passes of the next.

Shapes: B images, P pairs (image, output), N nodes, C channels, H x W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dollmaker.attribute.consensus import Consensus, cosine
from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.passes import Chunk, Pairs, Round, share_passes

Rule = Literal["gauss_legendre", "midpoint"]
Floats = npt.NDArray[np.float64]

#: Differences of logits under this count as this in relative errors.
EPS = 1e-6

#: Rows of a pass without gradients.
_FORWARD_ROWS = {"cpu": 4, "cuda": 64}
#: Most images of a pass with gradients: more would leave more rows to fill up in the last one.
_IMAGES = {"cpu": 4, "cuda": 32}


@dataclass(frozen=True, kw_only=True)
class Level:
    """One refinement."""

    keep: float  #: Factor of the total of the levels before.
    places: Floats  #: New nodes in [0, 1], (n,).
    weights: Floats  #: Their weights, (n,); with ``keep`` times the earlier weights they sum to 1.


def fixed(nodes: int, rule: Rule = "gauss_legendre") -> list[Level]:
    """One level of so many nodes; Gauss and Legendre's are exact to degree 2 nodes - 1."""
    if rule == "midpoint":
        return [_midpoint(nodes)]
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return [Level(keep=0.0, places=(places + 1) / 2, weights=weights / 2)]


def nested(first: int, most: int) -> list[Level]:
    """Levels that about double the nodes: the midpoint rule, then trapezoid rules.

    The midpoint rule of n nodes and the trapezoid rule of n intervals share no node, and their mean
    is the trapezoid rule of 2 n intervals; each later level halves the intervals. So 5 nodes of the
    first level become 11, 21, 41, ...; no level passes ``most`` nodes in total.
    """
    levels, spent, cells = [_midpoint(first)], first, first
    new = Level(
        keep=0.5,
        places=np.linspace(0, 1, cells + 1),
        weights=np.array([0.25, *[0.5] * (cells - 1), 0.25]) / cells,
    )
    while spent + len(new.places) <= most:
        levels.append(new)
        spent += len(new.places)
        cells *= 2
        middle = _midpoint(cells)
        new = Level(keep=0.5, places=middle.places, weights=middle.weights / 2)
    return levels


def _midpoint(nodes: int) -> Level:
    places = (np.arange(nodes) + 0.5) / nodes
    return Level(keep=0.0, places=places, weights=np.full(nodes, 1 / nodes))


def completeness_error(total: Tensor, difference: Tensor) -> Tensor:
    """|total - difference| / |difference|, float32."""
    wanted = difference.double()
    return ((total - wanted).abs() / wanted.abs().clamp(min=EPS)).float()


def contributions(
    network: FrozenNetwork,
    images: Tensor,
    baselines: Tensor,
    pairs: Pairs,
    level: Level,
    chunk: int,
) -> Tensor:
    """What one level of nodes adds to the maps (P, C, H, W): gradients times (x - baseline)."""
    maps = images.new_zeros((len(pairs), *images.shape[1:]), dtype=torch.float32)
    baselines = baselines.expand_as(images)
    group = max(1, min(chunk // len(level.places), _IMAGES[images.device.type]))
    for one in share_passes(pairs, group):
        x, origin = images[one.images], baselines[one.images]
        gradients = _path_gradients(network, x, origin, one.rounds, level, chunk)
        for wanted, gradient in zip(one.rounds, gradients, strict=True):
            maps[wanted.pairs] = (gradient * (x - origin))[wanted.rows].float()
    return maps


def differences(logits: Tensor, start: Tensor, pairs: Pairs) -> Tensor:
    """F(x) - F(baseline) of each pair, (P,), from logits (B, K) and (B or 1, K)."""
    chosen = [image for image, _ in pairs], [output for _, output in pairs]
    return logits[chosen] - start.expand_as(logits)[chosen]


def forward(network: FrozenNetwork, images: Tensor, chunk: int) -> Tensor:
    """Logits float32 (B, K) in passes of one size (at most ``chunk`` rows), the last one padded."""
    parts = []
    rows = min(chunk, _FORWARD_ROWS[images.device.type])
    for start in range(0, len(images), rows):
        some = images[start : start + rows]
        padded = torch.cat([some, some[-1:].expand(rows - len(some), -1, -1, -1)])
        parts.append(network(padded)[: len(some)])
    return torch.cat(parts)


def _path_gradients(
    network: FrozenNetwork,
    images: Tensor,
    baselines: Tensor,
    rounds: Sequence[Round],
    level: Level,
    chunk: int,
) -> list[Tensor]:
    """Gradients summed along the paths of G images: for each round float32 (G, C, H, W)."""
    nodes = len(level.places)
    totals: list[Tensor] = []
    step = -(-nodes // -(-nodes // chunk))  # equal pieces that fit
    for first in range(0, nodes, step):
        piece = slice(first, first + step)
        alpha = torch.as_tensor(level.places[piece], dtype=images.dtype, device=images.device)
        weight = torch.as_tensor(level.weights[piece], dtype=torch.float32, device=images.device)
        path = baselines[:, None] + alpha[None, :, None, None, None] * (images - baselines)[:, None]
        rows = path.flatten(0, 1).contiguous()
        logits, leaf = network.forward(rows)
        logits = logits.view(len(images), len(alpha), -1)
        for k, wanted in enumerate(rounds):
            target = logits[wanted.rows, :, wanted.outputs].float().sum()
            (gradient,) = torch.autograd.grad(target, leaf, retain_graph=k + 1 < len(rounds))
            part = _weigh(gradient, weight, len(images))
            if first == 0:
                totals.append(part)
            else:
                totals[k] += part
    return [network.pull_back(total, images) for total in totals]


def _weigh(gradient: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Weighted sum over the nodes of each image: (G x N, ...) to float32 (G, ...)."""
    if gradient.ndim == 4 and not gradient.is_contiguous():
        last = gradient.permute(0, 2, 3, 1)  # channels last, as it lies in memory
        return _weigh(last.contiguous(), weight, groups).permute(0, 3, 1, 2)
    rows = gradient.float().view(groups, len(weight), -1)
    return (weight @ rows).view(groups, *gradient.shape[1:])


# --- adaptive nodes -------------------------------------------------------------------------------

#: Members' attributions (P, S, C, H, W) of some pairs to their consensus; S copies, or copies and
#: baselines where these are kept apart.
Summary = Callable[[list[Tensor], Pairs], Consensus]


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When a map is good enough."""

    #: ``completeness`` (relative error of the worst member, at most ``target``) or ``convergence``
    #: (cosine between successive refinements of the consensus, at least ``target``); ``none`` asks
    #: for nothing.
    criterion: Literal["completeness", "convergence", "none"] = "none"
    target: float = 0.0

    def met(self, completeness: Tensor, convergence: Tensor) -> Tensor:
        """Which pairs meet the target, bool (P,); an unknown convergence (NaN) does not."""
        if self.criterion == "completeness":
            return completeness <= self.target
        if self.criterion == "convergence":
            return convergence >= self.target
        return torch.ones_like(completeness, dtype=torch.bool)


@dataclass(frozen=True, kw_only=True)
class Paths:
    """The paths of a member: from baselines to the images, or to noisy copies of them."""

    network: FrozenNetwork  #: The member.
    chunk: Chunk  #: Rows of its passes.
    images: Sequence[Tensor]  #: One tensor (B, C, H, W) per copy.
    #: (B, C, H, W) each or, where they are the same for all images, (1, C, H, W).
    baselines: Sequence[Tensor]
    #: Keep what is brighter in the image than in the baseline, baselines apart.
    brighter: bool = False


@dataclass(frozen=True, kw_only=True)
class Refined:
    """Maps of P pairs with their certificates."""

    consensus: Consensus  #: The committee's maps.
    #: Relative error of completeness of the worst member, copy and baseline, (P,).
    completeness: Tensor
    convergence: Tensor  #: Cosine between the last two refinements, (P,); NaN after one level.
    nodes: Tensor  #: Nodes of each path, int32 (P,).
    met: Tensor  #: Whether the target was met, bool (P,).


class _State:
    """One member's running sums for all pairs."""

    def __init__(self, paths: Paths, pairs: Pairs) -> None:
        self.paths = paths
        starts = [self._logits(_once(baseline)) for baseline in paths.baselines]
        ends = [self._logits(images) for images in paths.images]
        wanted = [torch.stack([differences(end, start, pairs) for start in starts]) for end in ends]
        #: F(x) - F(baseline) of each copy and baseline, (S, N, P), and the sums of the maps.
        self.wanted = torch.stack(wanted)
        self.sums = torch.zeros_like(self.wanted, dtype=torch.float64)
        x = paths.images[0]
        apart = len(paths.baselines) if paths.brighter else 1
        shape = (len(pairs), len(paths.images) * apart, *x.shape[1:])
        self.maps = torch.zeros(shape, dtype=torch.float32, device=x.device)

    def _logits(self, x: Tensor) -> Tensor:
        return self.paths.chunk.run(lambda rows: forward(self.paths.network, x, rows))

    def add(self, level: Level, pairs: Pairs, active: Tensor) -> None:
        """Add a level to the maps of some pairs."""
        self.maps[active] *= level.keep
        self.sums[:, :, active] *= level.keep
        paths = self.paths
        rows = [image for image, _ in pairs]
        for s, images in enumerate(paths.images):
            for n, baseline in enumerate(paths.baselines):
                add = partial(contributions, paths.network, images, baseline, pairs, level)
                new = paths.chunk.run(add)
                self.sums[s, n, active] += new.double().sum((1, 2, 3))
                if paths.brighter:
                    lit = (images > baseline)[rows]
                    self.maps[active, s * len(paths.baselines) + n] += new * lit
                else:
                    self.maps[active, s] += new / len(paths.baselines)

    def completeness(self, active: Tensor) -> Tensor:
        """Relative error of the worst copy and baseline."""
        errors = completeness_error(self.sums[:, :, active], self.wanted[:, :, active])
        return errors.amax((0, 1))


def refine(
    committee: Sequence[Paths],
    pairs: Pairs,
    levels: Sequence[Level],
    stop: Stop,
    summary: Summary,
) -> Refined:
    """Explain pairs by all members, level by level, until each pair meets its target.

    There is at least one pair, (image, output), and one level; ``summary`` goes from members'
    attributions to the consensus.
    """
    device = committee[0].images[0].device
    states = [_State(paths, pairs) for paths in committee]
    active = torch.arange(len(pairs), device=device)
    nodes = torch.zeros(len(pairs), dtype=torch.int32, device=device)
    completeness = torch.full((len(pairs),), torch.nan, device=device)
    convergence, met = completeness.clone(), torch.zeros_like(completeness, dtype=torch.bool)
    result: Consensus | None = None
    for level in levels:
        chosen = [pairs[i] for i in active.tolist()]
        for state in states:
            state.add(level, chosen, active)
        nodes[active] += len(level.places)
        found = summary([state.maps[active] for state in states], chosen)
        completeness[active] = torch.stack([s.completeness(active) for s in states]).amax(0)
        if result is None:
            result = found
        else:
            convergence[active] = cosine(result.maps[active], found.maps)
            result.maps[active], result.scale[active] = found.maps, found.scale
            result.agreement[active] = found.agreement
        met[active] = stop.met(completeness[active], convergence[active])
        active = active[~met[active]]
        if not len(active):
            break
    assert result is not None  # there is at least one level
    return Refined(
        consensus=result, completeness=completeness, convergence=convergence, nodes=nodes, met=met
    )


def _once(baselines: Tensor) -> Tensor:
    """The first baseline if all are alike (black ones beside black bars), else all."""
    first = baselines[:1]
    return first if torch.equal(baselines, first.expand_as(baselines)) else baselines
