"""Integrated Gradients (Sundararajan et al. 2017): our own kernel.

All findings of an image share the forward pass over its path; each costs one backward pass. The
nodes of an image lie in one forward pass, or in equal pieces if they do not fit, and all passes of
a level have the same number of rows, the last one padded. So the map of an image does not depend on
its neighbours, shards or batches.

A quadrature rule on [0, 1], the nodes along a path and their weights, is a list of levels. The
first is an estimate by itself; each later one scales the total so far by ``keep`` and adds its own
nodes, so that every gradient is used again.

Shapes: B images, P pairs (image, output), N nodes, C channels, H x W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.passes import Pairs, Round, share_passes

Network = Callable[[Tensor], Tensor]
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
    """One refinement.

    Attributes:
        keep: Factor of the total of the levels before.
        places: New nodes in [0, 1], (n,).
        weights: Their weights, (n,); with ``keep`` times the earlier weights they sum to 1.
    """

    keep: float
    places: Floats
    weights: Floats


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
    return Level(
        keep=0.0,
        places=(np.arange(nodes) + 0.5) / nodes,
        weights=np.full(nodes, 1 / nodes),
    )


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Maps of P pairs.

    Attributes:
        maps: float32 (P, C, H, W); sums to about ``difference`` per pair.
        difference: F(x) - F(baseline), float32 (P,).
        logits: F(x) of every output, float32 (B, K).
    """

    maps: Tensor
    difference: Tensor
    logits: Tensor

    def completeness(self) -> Tensor:
        """Relative error of completeness per pair: |sum - difference| / |difference|, (P,)."""
        return completeness_error(self.maps.double().sum((1, 2, 3)), self.difference)


def completeness_error(total: Tensor, difference: Tensor) -> Tensor:
    """|total - difference| / |difference|, float32."""
    wanted = difference.double()
    return ((total - wanted).abs() / wanted.abs().clamp(min=EPS)).float()


def integrated_gradients(
    network: FrozenNetwork | Network,
    images: Tensor,
    baselines: Tensor,
    pairs: Pairs,
    levels: Sequence[Level],
    chunk: int,
) -> Attribution:
    """Explain pairs of images and outputs with the nodes of some levels.

    Args:
        network: float (R, C, H, W) to logits (R, K); evaluation mode, parameters frozen.
        images: float (B, C, H, W).
        baselines: Where the paths start, float (B, C, H, W) or (1, C, H, W).
        pairs: (image, output) numbers, any order, which is that of the maps.
        levels: Of :func:`fixed` or :func:`nested`.
        chunk: Rows (image x node) a forward pass holds.
    """
    if not isinstance(network, FrozenNetwork):
        network = FrozenNetwork(network, images[:1])
    maps = torch.zeros((len(pairs), *images.shape[1:]), dtype=torch.float32, device=images.device)
    for level in levels:
        maps = level.keep * maps + contributions(network, images, baselines, pairs, level, chunk)
    logits = forward(network, images, chunk)
    start = forward(network, baselines, chunk)
    return Attribution(maps=maps, difference=differences(logits, start, pairs), logits=logits)


def contributions(
    network: FrozenNetwork,
    images: Tensor,
    baselines: Tensor,
    pairs: Pairs,
    level: Level,
    chunk: int,
) -> Tensor:
    """What one level of nodes adds to the maps (P, C, H, W): gradients times (x - baseline)."""
    maps = torch.zeros((len(pairs), *images.shape[1:]), dtype=torch.float32, device=images.device)
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
    rows = [image for image, _ in pairs]
    outputs = [output for _, output in pairs]
    return logits[rows, outputs] - start.expand_as(logits)[rows, outputs]


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
