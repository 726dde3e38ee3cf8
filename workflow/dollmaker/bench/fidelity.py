"""How close a map is to the reference, as masks see it; and the cheapest nodes that suffice."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dollmaker.attribute import consensus
from dollmaker.attribute.consensus import Consensus
from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.integrated_gradients import contributions
from dollmaker.attribute.passes import Pairs
from dollmaker.attribute.quadrature import Level, fixed, nested, spent

#: Fidelity asked of the tuning images; a little more than the 0.95 that others must reach.
GOAL = 0.96

_SIGMA, _SHARE = 2.0, 0.2
_FIRST = (2, 3, 4, 5, 6)
_MOST = 129
_TARGETS = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.997, 0.998, 0.999, 0.9995, 0.9998)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Settings of the adaptive kernel.

    Attributes:
        first: Nodes of the first level.
        target: Cosine between refinements at which a map is done.
        most: Most nodes.
    """

    first: int
    target: float
    most: int = _MOST

    def summary(self, members: list[Tensor], _: Pairs) -> Consensus:
        """The one member's attributions (P, 1, C, H, W) as blurred magnitudes."""
        return consensus.agree([summarize(members[0][:, 0])])


def summarize(attributions: Tensor) -> Tensor:
    """Attributions (P, C, H, W) to blurred magnitudes (P, H, W)."""
    return consensus.smooth(consensus.reduce_channels(attributions, "abs"), _SIGMA)


def fidelity(maps: Tensor, reference: Tensor) -> float:
    """Mean IoU of the top-20 % masks of maps and reference maps (P, H, W)."""
    return float(_overlaps(maps, reference).mean())


def tune(
    network: FrozenNetwork,
    images: Tensor,
    baseline: Tensor,
    findings: int,
    *,
    reference: int,
    chunk: int,
) -> Tuned:
    """The settings with the fewest nodes whose mean fidelity reaches the goal on some images.

    Every ladder of nodes is climbed once to its end; when a map would have stopped for a given
    target is then only looked up.
    """
    pairs = [(image, output) for image in range(len(images)) for output in range(findings)]
    (level,) = fixed(reference, "midpoint")
    wanted = summarize(contributions(network, images, baseline, pairs, level, chunk))
    best, fewest = Tuned(first=_FIRST[-1], target=_TARGETS[-1]), float("inf")
    for first in _FIRST:
        levels = nested(first, _MOST // 2)
        nodes = [spent(levels[: number + 1]) for number in range(len(levels))]
        scores, cosines = _climb(network, images, baseline, pairs, levels, chunk, wanted)
        for target in _TARGETS:
            done = (cosines >= target).float()
            done[-1] = 1
            place = done.argmax(0)  # the first level that meets the target
            score = scores.gather(0, place[None])[0].mean()
            cost = torch.tensor(nodes, dtype=torch.float32)[place.cpu()].mean()
            if score >= GOAL and cost < fewest:
                best, fewest = Tuned(first=first, target=target), float(cost)
    return best


def _climb(
    network: FrozenNetwork,
    images: Tensor,
    baseline: Tensor,
    pairs: list[tuple[int, int]],
    levels: Sequence[Level],
    chunk: int,
    wanted: Tensor,
) -> tuple[Tensor, Tensor]:
    """Fidelity and convergence of every pair after each level, (L, P)."""
    total = torch.zeros((len(pairs), *images.shape[1:]), device=images.device)
    before: Tensor | None = None
    scores, cosines = [], []
    for level in levels:
        total *= level.keep
        total += contributions(network, images, baseline, pairs, level, chunk)
        maps = summarize(total)
        scores.append(_overlaps(maps, wanted))
        unknown = torch.full_like(scores[-1], -1)
        cosines.append(unknown if before is None else consensus.cosine(before, maps))
        before = maps
    return torch.stack(scores), torch.stack(cosines)


def _overlaps(maps: Tensor, reference: Tensor) -> Tensor:
    a, b = _top(maps), _top(reference)
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2)).clamp(min=1)


def _top(maps: Tensor) -> Tensor:
    """The top share of the pixels of each map, bool (P, H, W)."""
    flat = maps.flatten(1)
    kept = max(1, round(_SHARE * flat.shape[1]))
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask.scatter_(1, flat.topk(kept, dim=1).indices, True)
    return mask.view_as(maps)
