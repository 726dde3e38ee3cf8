"""How many rows a forward pass may hold: measured, and halved when memory runs out."""

import sys
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.runtime.errors import ModelError

Result = TypeVar("Result")

#: Share of the free memory of a GPU that the rows of a pass may take.
_SHARE = 0.6
#: Bytes that the rows of a pass may take on a CPU: more costs page faults.
_CPU_BYTES = 1 << 27
_CPU_ROWS, _GPU_ROWS = (8, 32), (8, 1024)


def row_bytes(network: FrozenNetwork, example: Tensor) -> int:
    """Bytes that autograd keeps for one row, measured on one pass.

    Args:
        network: The network.
        example: One row (1, C, H, W).
    """
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        graph = network.forward(example.clone())
    del graph
    return max(sum(kept.values()), example.numel() * 4)


def fitting_rows(network: FrozenNetwork, example: Tensor) -> int:
    """Rows of a pass that fit the device: a power of two.

    Half as much again is reserved for temporaries and gradients.
    """
    bytes_per_row = 1.5 * row_bytes(network, example)
    if example.device.type == "cuda":
        budget, (least, most) = _SHARE * torch.cuda.mem_get_info(example.device)[0], _GPU_ROWS
    else:
        budget, (least, most) = _CPU_BYTES, _CPU_ROWS
    rows = least
    while rows * 2 <= most and rows * 2 * bytes_per_row <= budget:
        rows *= 2
    return rows


class Chunk:
    """The rows of a pass; halved for good when they do not fit.

    Args:
        rows: Where to start.
    """

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
                if not _out_of_memory(error):
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


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "allocate memory" in str(error)
