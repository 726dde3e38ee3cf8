"""From members' attributions to one relevance map per pair."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dollmaker.attribute.passes import enlarge

#: How many sigmas of the blur the side of a map has, where a recipe names none (our choice).
SIDES = 64

Reduction = Literal["abs", "positive", "signed"]
Kind = Literal["smoothgrad", "smoothgrad_sq", "vargrad"]


@dataclass(frozen=True, kw_only=True)
class Consensus:
    """The committee's maps of P pairs."""

    maps: Tensor  #: float32 (P, H, W), divided by the largest magnitude of each; 0 where all is 0.
    scale: Tensor  #: That magnitude, in logits per pixel, (P,).
    agreement: Tensor  #: Mean cosine of the members to the consensus, (P,); 1 for a single member.


def combine(attributions: Tensor, kind: Kind) -> Tensor:
    """Attributions of the copies (P, S, C, H, W) to their mean, mean of squares or variance."""
    if kind == "vargrad":
        return attributions.var(1, correction=0)
    return (attributions if kind == "smoothgrad" else attributions**2).mean(1)


def reduce_channels(attributions: Tensor, reduction: Reduction) -> Tensor:
    """Signed attributions (P, C, H, W) to maps (P, H, W).

    ``abs`` sums magnitudes (as PSSL does), ``positive`` what speaks for the finding.
    """
    if reduction == "abs":
        return attributions.abs().sum(1)
    return (attributions.clamp(min=0) if reduction == "positive" else attributions).sum(1)


def resize(maps: Tensor, size: int) -> Tensor:
    """Maps (P, h, w) to (P, size, size), bilinear."""
    return maps if maps.shape[-1] == size else enlarge(maps[:, None], (size, size))[:, 0]


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of each map (P, H, W); sigma in pixels, 0 leaves them as they are.

    The kernel reaches four sigma and edges repeat, as in scipy. It is a sum of shifted maps, whose
    bits do not depend on the number of maps.
    """
    if sigma == 0 or not maps.numel():
        return maps
    reach = int(4 * sigma + 0.5)
    places = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    taps = (kernel / kernel.sum()).tolist()
    for axis in (1, 2):
        length = maps.shape[axis]
        where = torch.arange(-reach, length + reach, device=maps.device).clamp(0, length - 1)
        wide = maps.index_select(axis, where)
        maps = torch.zeros_like(maps)
        for shift, tap in enumerate(taps):
            maps.add_(wide.narrow(axis, shift, length), alpha=tap)
    return maps


def agree(members: Sequence[Tensor]) -> Consensus:
    """Average the members, each a map tensor (P, H, W), with equal votes.

    Maps are brought to unit length first, so that a member with large logits does not outvote the
    others; the mean length is multiplied back, so that the consensus of one member is its map.
    (PSSL averages; the equal lengths are our choice.)
    """
    stack = torch.stack(list(members)).double()
    lengths = (stack**2).sum((2, 3), keepdim=True).sqrt()
    units = _divide(stack, lengths)
    mean = units.mean(0)
    norm = (mean**2).sum((1, 2), keepdim=True).sqrt()
    cosines = (units * _divide(mean, norm)).sum((2, 3))
    maps, scale = _to_one(mean * lengths.mean(0))
    return Consensus(maps=maps, scale=scale.float(), agreement=cosines.mean(0).float())


def fuse(consensus: Consensus, weights: Tensor) -> Consensus:
    """Multiply maps place by place with weights (P, H, W) in [0, 1] (ExplainSeg's fusion)."""
    maps, largest = _to_one(consensus.maps.double() * weights.double())
    return replace(consensus, maps=maps, scale=(consensus.scale.double() * largest).float())


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine between maps (P, H, W), pair by pair, float32 (P,); 0 where one is 0."""
    a, b = a.double().flatten(1), b.double().flatten(1)
    lengths = (a**2).sum(1).sqrt() * (b**2).sum(1).sqrt()
    return _divide((a * b).sum(1), lengths).float()


def _to_one(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Maps over the largest magnitude of each, float32, and these magnitudes, (P,)."""
    largest = maps.abs().amax((1, 2)) if len(maps) else maps.new_zeros(0)
    return _divide(maps, largest[:, None, None]).float(), largest


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """The quotient a / b, and 0 where b is 0."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1), 0)
