"""Pixel losses of independent findings (multi-label), with pixels that are ignored.

Shapes: B images, K findings or classes, H x W pixels. Targets are 1 (finding), 0 (background)
and 255 (ignore).
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from dollmaker.pixels.masks import IGNORE
from dollmaker.runtime import parallel

Kind = Literal["bce_dice", "focal"]

_GAMMA = 2.0


def pixel_loss(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    kind: Kind = "bce_dice",
    background_weight: float = 1.0,
) -> Tensor:
    """The loss of a batch, a scalar; 0 with a gradient of 0 when no pixel counts.

    ``bce_dice`` is cross-entropy plus soft Dice (Milletari et al. 2016). Dice is undefined for
    empty targets: it is averaged over the other masks, and cross-entropy teaches absence. ``focal``
    is the focal loss with gamma 2 (Lin et al. 2017).

    Logits (B, K, H, W) may be of any float type; the loss is computed in float32. ``weights`` are
    of each mask (B, K), e.g. its quality; ``background_weight`` is that of background pixels in the
    cross-entropy or focal loss (0.1 in Li et al., arXiv 2207.03335).
    """
    # Flat, contiguous, each large product made once: with many findings the loss is expensive.
    x = logits.float().contiguous().flatten(2)
    labels = targets.flatten(2)
    truth, known = (labels == 1).float(), (labels != IGNORE).float()
    mask_weights = x.new_ones(x.shape[:2]) if weights is None else weights.float()
    pixels = torch.lerp(known * background_weight, known, truth) * mask_weights[..., None]
    total = parallel.share(pixels.sum(), 1e-6)
    if kind == "focal":
        entropy = binary_cross_entropy_with_logits(x, truth, reduction="none")
        # 1 - p of the right answer is sigmoid of minus its logit; exact for large logits.
        wrong = torch.sigmoid(torch.where(truth == 1, -x, x))
        return (entropy * wrong**_GAMMA * pixels).sum() / total
    entropy = binary_cross_entropy_with_logits(x, truth, weight=pixels, reduction="sum")
    return entropy / total + _dice(x, truth, known, mask_weights)


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of labels (B, K), 1 or 0; NaN is unknown and does not count."""
    known = ~labels.isnan()
    return binary_cross_entropy_with_logits(
        logits, labels.nan_to_num(), weight=known.float(), reduction="sum"
    ) / parallel.share(known.sum(), 1)


def cluster_loss(logits: Tensor, clusters: Tensor, picture: Tensor) -> Tensor:
    """Cross-entropy of the cluster of each pixel, int64 (B, H, W), mean over those of the picture.

    Logits are (B, C, H, W) of C clusters. Bars and what augmentation moved in are no picture.
    """
    targets = clusters.masked_fill(~picture, -1)
    total = cross_entropy(logits.float(), targets, ignore_index=-1, reduction="sum")
    return total / parallel.share(picture.sum(), 1)


def _dice(x: Tensor, truth: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """1 - soft Dice of each mask, averaged over the masks that are not empty."""
    area = truth.sum(-1)
    present = area > 0
    # Most masks are empty: take the sigmoid of the others only.
    probability, true = torch.sigmoid(x[present]), truth[present]
    overlap = (probability * true).sum(-1)
    total = (probability * known[present]).sum(-1) + area[present]
    used = weights[present]
    return ((1 - 2 * overlap / total) * used).sum() / parallel.share(used.sum(), 1e-6)
