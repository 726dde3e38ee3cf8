"""Integrated gradients of one network, all levels, with what makes them complete."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.integrated_gradients import (
    Level,
    completeness_error,
    contributions,
    differences,
    forward,
)
from dollmaker.attribute.passes import Pairs


@dataclass(frozen=True)
class Attribution:
    """Maps (P, C, H, W), F(x) - F(baseline) of each pair (P,), and F(x) of every output (B, K)."""

    maps: Tensor
    difference: Tensor
    logits: Tensor

    def completeness(self) -> Tensor:
        return completeness_error(self.maps.double().sum((1, 2, 3)), self.difference)


def integrated_gradients(
    network: FrozenNetwork | Callable[[Tensor], Tensor],
    images: Tensor,
    baselines: Tensor,
    pairs: Pairs,
    levels: Sequence[Level],
    chunk: int,
) -> Attribution:
    if not isinstance(network, FrozenNetwork):
        network = FrozenNetwork(network, images[:1])
    maps = torch.zeros((len(pairs), *images.shape[1:]))
    for level in levels:
        maps = level.keep * maps + contributions(network, images, baselines, pairs, level, chunk)
    logits, start = (forward(network, x, chunk) for x in (images, baselines))
    return Attribution(maps, differences(logits, start, pairs), logits)
