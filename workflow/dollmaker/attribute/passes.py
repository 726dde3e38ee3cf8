"""Passes: what a method is asked, which images share a forward pass, and how many fit into one.

All findings of an image share the forward pass; each costs one backward pass. Images with equal
numbers of findings lie together, so that no backward pass runs for a few rows only. Every pass
holds the same number of rows (the last one is padded with copies), so the map of a pair does not
depend on its neighbours, on the batch or on the order of the pairs.

Shapes: B images, P pairs (image, finding), R rows of a pass, K outputs, C channels, H x W pixels.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from dollmaker.networks.frames import WHOLE, Frames
from dollmaker.runtime.errors import ModelError

Pairs = Sequence[tuple[int, int]]
Forward = Callable[[Tensor], Tensor]
Result = TypeVar("Result")

#: Share of the free memory of a GPU that the rows of a pass may take.
_SHARE = 0.6
#: Bytes that the rows of a pass may take on a CPU: more costs page faults.
_CPU_BYTES = 1 << 27
_CPU_ROWS, _GPU_ROWS = (8, 32), (8, 1024)


@dataclass(frozen=True)
class Question:
    """What a method is asked."""

    network: nn.Module  #: float (R, C, H, W) to logits (R, K); evaluation mode, parameters frozen.
    images: Tensor  #: float (B, C, H, W), prepared for the network.
    pairs: Pairs  #: (image, output) numbers, any order.
    chunk: int  #: Rows of a forward pass.
    frames: Frames = WHOLE  #: Where the pictures lie in the images.

    @property
    def rows(self) -> list[int]:
        """The image of each pair."""
        return [image for image, _ in self.pairs]

    def blank(self, channels: int | None = None) -> Tensor:
        """Maps of zeros, float32 (P, channels or C, H, W)."""
        _, own, *size = self.images.shape
        count = own if channels is None else channels
        return self.images.new_zeros((len(self.pairs), count, *size), dtype=torch.float32)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One backward pass: at most one finding of each image of the pass."""

    rows: list[int]  #: Rows of the pass.
    pairs: list[int]  #: Pair numbers, one for each row.
    outputs: list[int]  #: Outputs of the network, one for each row.


@dataclass(frozen=True, kw_only=True)
class Pass:
    """The images of one forward pass."""

    images: list[int]  #: Image number of each of the R rows; the last image fills up the pass.
    rounds: list[Round]  #: One for each backward pass.


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
    """Gradients of the wanted logits (R, K) by tensors (R, ...), one backward pass for each round.

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


def input_gradients(asked: Question, forward: Forward) -> Tensor:
    """Gradients of the pairs' logits by the pixels, float32 (P, C, H, W).

    ``forward`` is the network, or what computes the same logits with other gradients.
    """
    maps = asked.blank()
    with torch.enable_grad():
        for one in share_passes(asked.pairs, asked.chunk):
            rows = asked.images[one.images].detach().requires_grad_()
            for wanted, (gradient,) in backward(forward(rows), [rows], one.rounds):
                maps[wanted.pairs] = gradient[wanted.rows]
    return maps


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Bring maps (P, 1, h, w) to the input's size (P, 1, H, W), bilinear, corners not aligned."""
    if not len(maps):
        return maps.new_zeros((0, 1, *size))
    return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def row_bytes(forward: Callable[[Tensor], Any], example: Tensor) -> int:
    """Bytes that autograd keeps for a row (1, C, H, W), measured on one pass."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        graph = forward(example.clone())
    del graph
    return max(sum(kept.values()), example.numel() * 4)


def fitting_rows(forward: Callable[[Tensor], Any], example: Tensor) -> int:
    """Rows of a pass that fit the device: a power of two.

    Half as much again is reserved for temporaries and gradients.
    """
    bytes_per_row = 1.5 * row_bytes(forward, example)
    if example.device.type == "cuda":
        budget, (least, most) = _SHARE * torch.cuda.mem_get_info(example.device)[0], _GPU_ROWS
    else:
        budget, (least, most) = _CPU_BYTES, _CPU_ROWS
    rows = least
    while rows * 2 <= most and rows * 2 * bytes_per_row <= budget:
        rows *= 2
    return rows


class Chunk:
    """The rows of a pass; halved for good when they do not fit."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def run(self, work: Callable[[int], Result]) -> Result:
        """Call ``work(rows)``, again with half as many rows while memory runs out.

        Raises:
            ModelError: If not even one row fits.
        """
        while True:
            try:
                return work(self.rows)
            except (MemoryError, RuntimeError) as error:
                lacking = isinstance(error, MemoryError | torch.OutOfMemoryError)
                if not lacking and "allocate memory" not in str(error):
                    raise
                if self.rows == 1:
                    raise ModelError(
                        "one image does not fit into memory; use a smaller prepare.size or a "
                        "device with more memory."
                    ) from None
            self.rows = (self.rows + 1) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            print(f"out of memory: going on with {self.rows} rows a pass", file=sys.stderr)
