"""Attribution methods by name, with one signature."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dollmaker.attribute.baselines import make_baseline
from dollmaker.attribute.integrated_gradients import Pairs, integrated_gradients
from dollmaker.classify.member import Member
from dollmaker.errors import ConfigError, unknown


@dataclass(frozen=True, kw_only=True)
class Explained:
    """One member's maps.

    Attributes:
        attributions: float32 (P, C, H, W), signed.
        completeness: Relative error (P,); NaN for methods without completeness.
        nodes: Evaluations of the gradient spent on each pair.
    """

    attributions: npt.NDArray[np.float32]
    completeness: npt.NDArray[np.float32]
    nodes: int


Method = Callable[[Member, Tensor, Pairs, Tensor, int, dict[str, Any]], Explained]


def explain(
    member: Member,
    images: Tensor,
    pairs: Pairs,
    channel_mean: Tensor,
    chunk: int,
    options: dict[str, Any],
) -> Explained:
    """Explain pairs by the method that ``options`` names.

    Args:
        member: The classifier.
        images: uint8 (B, C, H, W) as stored.
        pairs: (image, output) numbers.
        channel_mean: Mean of each channel over the training images, (C,).
        chunk: Rows of a forward pass.
        options: Section ``attribute`` of a recipe.

    Raises:
        ConfigError: If there is no such method.
    """
    name = options["method"]
    if name not in METHODS:
        raise ConfigError(unknown("attribution method", name, METHODS))
    return METHODS[name](member, images, pairs, channel_mean, chunk, options)


def _integrated_gradients(
    member: Member,
    images: Tensor,
    pairs: Pairs,
    channel_mean: Tensor,
    chunk: int,
    options: dict[str, Any],
) -> Explained:
    """Averaged over the configured baselines; completeness is that of the worst of them."""
    x = member.prepare(images)
    total: Tensor | None = None
    worst: Tensor | None = None
    for name in options["baselines"]:
        start = member.prepare(make_baseline(name, images.float(), channel_mean))
        result = integrated_gradients(
            member.network, x, start, pairs, nodes=options["nodes"], chunk=chunk
        )
        error = result.completeness()
        total = result.maps if total is None else total + result.maps
        worst = error if worst is None else torch.maximum(worst, error)
    assert total is not None and worst is not None  # the schema demands a baseline
    return Explained(
        attributions=(total / len(options["baselines"])).cpu().numpy(),
        completeness=worst.cpu().numpy(),
        nodes=options["nodes"] * len(options["baselines"]),
    )


METHODS: dict[str, Method] = {"integrated_gradients": _integrated_gradients}
