"""Insertion and deletion (Petsiuk et al. 2018): does the logit follow the map?"""

from collections.abc import Callable

import torch
from torch import Tensor

from dollmaker.pixels.geometry import Box, inside

#: Shares of the picture that are shown or hidden.
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0)


def insertion_deletion(
    logit: Callable[[Tensor], Tensor],
    image: Tensor,
    baseline: Tensor,
    relevance: Tensor,
    where: Box,
) -> tuple[float, float]:
    """Areas under the insertion and the deletion curve of one pair.

    In the order of the map, pixels of the picture are put on the baseline (insertion) or replaced
    by it (deletion); other pixels neither change nor count. The logit is scaled to 0 for the
    baseline and 1 for the image, clipped, and integrated over the share of pixels. Good maps have
    high insertion and low deletion; a random order gives about 0.5 for both if the logit grows
    evenly.

    Args:
        logit: float (R, C, H, W) in 0..255 to logits (R,).
        image: float (C, H, W) in 0..255.
        baseline: float (C, H, W) in 0..255.
        relevance: float (H, W).
        where: Where the picture lies; outside, image and baseline are alike.

    Returns:
        Insertion and deletion, 0..1; NaN where the image's logit is not above the baseline's.
    """
    part = inside(relevance, where)
    order = part.flatten().argsort(descending=True, stable=True)
    shown = torch.zeros(len(SHARES), len(order), dtype=torch.bool, device=image.device)
    for row, share in enumerate(SHARES):
        shown[row, order[: round(share * len(order))]] = True
    masks = torch.zeros(len(SHARES), 1, *relevance.shape, dtype=torch.bool, device=image.device)
    inside(masks, where)[...] = shown.view(len(SHARES), 1, *part.shape)
    rows = torch.cat([torch.where(masks, image, baseline), torch.where(masks, baseline, image)])
    values = logit(rows).double().cpu()
    low, high = values[0], values[len(SHARES) - 1]
    if not high > low:
        return float("nan"), float("nan")
    scaled = ((values - low) / (high - low)).clamp(0, 1).view(2, -1)
    areas = torch.trapezoid(scaled, torch.tensor(SHARES, dtype=torch.float64), dim=1)
    return float(areas[0]), float(areas[1])
