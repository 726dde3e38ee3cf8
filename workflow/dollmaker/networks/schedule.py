"""The learning rate over a run: one cycle (Smith and Topin 2019), for any number of steps."""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

_WARM_UP = 0.2
_FIRST = 1 / 25


def one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> LambdaLR:
    """Warm up over a fifth of the steps, then anneal to nearly zero, both as a cosine.

    The groups' learning rates are the peaks. ``torch.optim.lr_scheduler.OneCycleLR`` divides by
    zero when the warm-up is a single step, and refuses to be stepped after the end.
    """
    return LambdaLR(optimizer, lambda step: factor(step, steps))


def factor(step: int, steps: int) -> float:
    """The rate at a step (from 0) as a share of the peak."""
    warm = max(1, round(_WARM_UP * steps))
    if step < warm:
        return 1 - (1 - _FIRST) * (1 + math.cos(math.pi * step / warm)) / 2
    return (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm)))) / 2
