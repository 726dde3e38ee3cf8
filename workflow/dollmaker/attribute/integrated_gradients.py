"""Integrated Gradients (Sundararajan et al. 2017): our own kernel.

All findings of an image share the forward pass over its path; each costs one backward pass. An
image's nodes always lie in one forward pass (or, when there are more nodes than a pass holds, in
the same pieces), and every pass has the same number of rows: so the map of an image does not
depend on its neighbours, and shards and batches change nothing.

Shapes: B images, P pairs (image, finding), N nodes, C channels, H x W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Network = Callable[[Tensor], Tensor]
Pairs = Sequence[tuple[int, int]]

_EPS = 1e-6


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
        total = self.maps.double().sum((1, 2, 3))
        wanted = self.difference.double()
        return ((total - wanted).abs() / wanted.abs().clamp(min=_EPS)).float()


def gauss_legendre(nodes: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Nodes and weights of the Gauss-Legendre rule on [0, 1]; exact for degree 2 nodes - 1."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    return (places + 1) / 2, weights / 2


def integrated_gradients(
    network: Network, images: Tensor, baselines: Tensor, pairs: Pairs, *, nodes: int, chunk: int
) -> Attribution:
    """Explain pairs of images and outputs.

    Args:
        network: float (R, C, H, W) to logits (R, K); evaluation mode, parameters frozen.
        images: float (B, C, H, W).
        baselines: Where the paths start, float (B, C, H, W) or (1, C, H, W).
        pairs: (image, output) numbers, any order.
        nodes: Nodes of the quadrature.
        chunk: Rows (image x node) a forward pass holds.

    Returns:
        Maps in the order of ``pairs``.
    """
    baselines = baselines.expand_as(images)
    slots = _slots(pairs, len(images))
    order = sorted(range(len(images)), key=lambda image: -len(slots[image]))
    maps = torch.zeros((len(pairs), *images.shape[1:]), dtype=torch.float32, device=images.device)
    group = max(1, chunk // nodes)
    for start in range(0, len(images), group):
        members = [image for image in order[start : start + group] if slots[image]]
        if members:
            padded = members + members[-1:] * (group - len(members))
            gradients = _path_gradients(
                network,
                images[padded],
                baselines[padded],
                [slots[i] for i in members],
                nodes,
                chunk,
            )
            for place, image in enumerate(members):
                for k, (pair, _) in enumerate(slots[image]):
                    maps[pair] = gradients[place, k]
    maps *= torch.stack([images[i] - baselines[i] for i, _ in pairs]) if pairs else 1
    logits = _forward(network, images, chunk)
    start_logits = _forward(network, baselines, chunk)
    rows = [image for image, _ in pairs]
    outputs = [output for _, output in pairs]
    difference = logits[rows, outputs] - start_logits[rows, outputs]
    return Attribution(maps=maps, difference=difference, logits=logits)


def _slots(pairs: Pairs, images: int) -> list[list[tuple[int, int]]]:
    """For each image its (pair number, output)."""
    slots: list[list[tuple[int, int]]] = [[] for _ in range(images)]
    for number, (image, output) in enumerate(pairs):
        slots[image].append((number, output))
    return slots


def _path_gradients(
    network: Network,
    images: Tensor,
    baselines: Tensor,
    slots: list[list[tuple[int, int]]],
    nodes: int,
    chunk: int,
) -> Tensor:
    """Gradients averaged along the path: (G, S, C, H, W), G images with up to S findings."""
    places, weights = gauss_legendre(nodes)
    most = max(len(slot) for slot in slots)
    total = torch.zeros(
        (len(images), most, *images.shape[1:]), dtype=torch.float32, device=images.device
    )
    step = min(nodes, chunk)
    for first in range(0, nodes, step):
        alpha = torch.as_tensor(
            places[first : first + step], dtype=images.dtype, device=images.device
        )
        weight = torch.as_tensor(
            weights[first : first + step], dtype=torch.float32, device=images.device
        )
        path = baselines[:, None] + alpha[None, :, None, None, None] * (images - baselines)[:, None]
        rows = path.flatten(0, 1).contiguous().requires_grad_()
        logits = network(rows).view(len(images), len(alpha), -1)
        for k in range(most):
            wanted = [(place, slot[k][1]) for place, slot in enumerate(slots) if k < len(slot)]
            target = torch.stack([logits[place, :, output].sum() for place, output in wanted]).sum()
            (gradient,) = torch.autograd.grad(target, rows, retain_graph=k + 1 < most)
            per_node = gradient.float().view(len(images), len(alpha), *images.shape[1:])
            total[:, k] += torch.einsum("gnchw,n->gchw", per_node, weight)
    return total


def _forward(network: Network, images: Tensor, chunk: int) -> Tensor:
    """Logits (B, K) in passes of ``chunk`` rows, the last one padded."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), chunk):
            rows = images[start : start + chunk]
            padded = torch.cat([rows, rows[-1:].expand(chunk - len(rows), -1, -1, -1)])
            logits = network(padded)
            parts.append(logits[: len(rows)].float())
    return torch.cat(parts)
