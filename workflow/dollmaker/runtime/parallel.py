"""Several processes that train one network together, one a device (data parallel).

Every process runs the same command. The first makes the files; the others only train, and end
where the training ends. Outside of a parallel training there is one process: the first.
"""

import os

import torch
from torch import Tensor
from torch import distributed as dist


def rank() -> int:
    """Number of this process; 0 is the first."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


def share(total: Tensor, least: float) -> Tensor:
    """What a process divides its part of a sum by, so that gradients are those of one process.

    Gradients are averaged over the processes. With d the sum of ``total`` over P processes, a part
    divided by d / P and averaged is the part of the sum divided by d. ``total`` is this process's
    part of the divisor, a scalar without gradient; the divisor is at least ``least``.
    """
    whole, processes = _sum(total)
    return whole.clamp(min=least) / processes


def mean(value: Tensor) -> Tensor:
    """Mean of a scalar over the processes."""
    whole, processes = _sum(value)
    return whole / processes


def _sum(value: Tensor) -> tuple[Tensor, int]:
    """The sum of a scalar over the processes, and their number."""
    if not _together():
        return value.detach(), 1
    value = value.detach().clone()
    dist.all_reduce(value)
    return value, dist.get_world_size()


def agree(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set in any process."""
    return flag if not _together() else bool(mean(torch.tensor(float(flag), device=device)) > 0)


def of_the_first(value: float, device: torch.device) -> float:
    """The number that the first process has."""
    if not _together():
        return value
    number = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(number, src=0)
    return float(number)
