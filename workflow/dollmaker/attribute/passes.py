"""Passes: which images share a forward pass, and the gradients of their findings.

All findings of an image share the forward pass; each costs one backward pass. Images with equal
numbers of findings lie together, so that no backward pass runs for a few rows only. Every pass
holds the same number of rows (the last one is padded with copies), so the map of a pair does not
depend on its neighbours, on the batch or on the order of the pairs.

Shapes: B images, P pairs (image, finding), R rows of a pass, K outputs, C channels, H x W pixels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Pairs = Sequence[tuple[int, int]]
Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Round:
    """One backward pass: at most one finding of each image of the pass.

    Attributes:
        rows: Rows of the pass.
        pairs: Pair numbers, one for each row.
        outputs: Outputs of the network, one for each row.
    """

    rows: list[int]
    pairs: list[int]
    outputs: list[int]


@dataclass(frozen=True, kw_only=True)
class Pass:
    """The images of one forward pass.

    Attributes:
        images: Image number of each of the R rows; the last image fills up the pass.
        rounds: One for each backward pass.
    """

    images: list[int]
    rounds: list[Round]


def share_passes(pairs: Pairs, rows: int) -> list[Pass]:
    """Distribute the images that have pairs over passes of ``rows`` rows."""
    found: dict[int, list[tuple[int, int]]] = {}
    for number, (image, output) in enumerate(pairs):
        found.setdefault(image, []).append((number, output))
    order = sorted(found, key=lambda image: (-len(found[image]), image))
    passes = []
    for start in range(0, len(order), rows):
        members = order[start : start + rows]
        rounds = []
        for k in range(len(found[members[0]])):
            wanted = [(r, *found[i][k]) for r, i in enumerate(members) if k < len(found[i])]
            places, numbers, outputs = map(list, zip(*wanted, strict=True))
            rounds.append(Round(rows=places, pairs=numbers, outputs=outputs))
        padding = members[-1:] * (rows - len(members))
        passes.append(Pass(images=members + padding, rounds=rounds))
    return passes


def backward(
    logits: Tensor, inputs: Sequence[Tensor], rounds: Sequence[Round]
) -> Iterator[tuple[Round, list[Tensor]]]:
    """Gradients of the wanted logits, one backward pass for each round.

    Args:
        logits: float (R, K) with a graph back to the inputs.
        inputs: Tensors (R, ...) to differentiate by.
        rounds: Rounds of the pass.

    Yields:
        The round, and one float32 gradient for each input; zero where an input has no influence.
    """
    for number, wanted in enumerate(rounds):
        if not logits.requires_grad:  # no input has an influence
            yield wanted, [torch.zeros_like(tensor, dtype=torch.float32) for tensor in inputs]
            continue
        seed = torch.zeros_like(logits)
        seed[wanted.rows, wanted.outputs] = 1
        gradients = torch.autograd.grad(
            logits, inputs, seed, retain_graph=number + 1 < len(rounds), materialize_grads=True
        )
        yield wanted, [gradient.float() for gradient in gradients]


def input_gradients(forward: Forward, images: Tensor, pairs: Pairs, *, chunk: int) -> Tensor:
    """Gradients of the pairs' logits by the pixels.

    Args:
        forward: float (R, C, H, W) to logits (R, K).
        images: float (B, C, H, W).
        pairs: (image, output) numbers, any order.
        chunk: Rows of a forward pass.

    Returns:
        float32 (P, C, H, W), in the order of ``pairs``.
    """
    maps = torch.zeros((len(pairs), *images.shape[1:]), dtype=torch.float32, device=images.device)
    with torch.enable_grad():
        for one in share_passes(pairs, chunk):
            rows = images[one.images].detach().requires_grad_()
            logits = forward(rows)
            for wanted, (gradient,) in backward(logits, [rows], one.rounds):
                maps[wanted.pairs] = gradient[wanted.rows]
    return maps


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bring maps (P, 1, h, w) to the input's size (P, 1, H, W), bilinear, corners not aligned."""
    if not len(maps):
        return maps.new_zeros((0, 1, *size))
    return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def count_prefix_tokens(network: nn.Module, tokens: int) -> int | None:
    """Number of tokens before the patches (class, distillation, registers) of a transformer.

    timm says it (``num_prefix_tokens``); for other networks it is the smallest number, up to 8,
    that leaves a square of patches.

    Args:
        network: The transformer.
        tokens: All its tokens.

    Returns:
        The number, or None if the patches are no square.
    """
    known = [getattr(part, "num_prefix_tokens", None) for part in network.modules()]
    stated = [number for number in known if isinstance(number, int)]
    for prefix in stated[:1] or range(9):
        side = math.isqrt(max(tokens - prefix, 0))
        if side > 1 and side * side == tokens - prefix:
            return prefix
    return None
