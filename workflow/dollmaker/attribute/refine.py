"""Adaptive nodes: refine the maps of a committee until each meets its target.

Every level about doubles the nodes and uses all earlier gradients again. After each level the
consensus is formed; pairs that meet the target leave, and the others fill the passes of the next.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from dollmaker.attribute.consensus import Consensus, cosine
from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.integrated_gradients import (
    Level,
    completeness_error,
    contributions,
    differences,
    forward,
)
from dollmaker.attribute.passes import Chunk, Pairs

#: Members' attributions (P, S, C, H, W) of some pairs to their consensus; S copies, or copies and
#: baselines where these are kept apart.
Summary = Callable[[list[Tensor], Pairs], Consensus]


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When a map is good enough.

    Attributes:
        criterion: ``completeness`` (relative error of the worst member, at most ``target``) or
            ``convergence`` (cosine between successive refinements of the consensus, at least
            ``target``); ``none`` asks for nothing.
    """

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
    """The paths of a member: from baselines to the images, or to noisy copies of them.

    Attributes:
        network: The member.
        chunk: Rows of its passes.
        images: One tensor (B, C, H, W) per copy.
        baselines: (B, C, H, W) each or, where they are the same for all images, (1, C, H, W).
        brighter: Keep what is brighter in the image than in the baseline, baselines apart.
    """

    network: FrozenNetwork
    chunk: Chunk
    images: Sequence[Tensor]
    baselines: Sequence[Tensor]
    brighter: bool = False


@dataclass(frozen=True, kw_only=True)
class Refined:
    """Maps of P pairs with their certificates.

    Attributes:
        consensus: The committee's maps.
        completeness: Relative error of completeness of the worst member, copy and baseline, (P,).
        convergence: Cosine between the last two refinements, (P,); NaN after one level.
        nodes: Nodes of each path, int32 (P,).
        met: Whether the target was met, bool (P,).
    """

    consensus: Consensus
    completeness: Tensor
    convergence: Tensor
    nodes: Tensor
    met: Tensor


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
    return (
        baselines[:1] if torch.equal(baselines, baselines[:1].expand_as(baselines)) else baselines
    )
