"""SmoothGrad (Smilkov et al. 2017) and its relatives: attributions averaged over noisy copies."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dollmaker.config.masks import NoiseConfig
from dollmaker.networks.frames import WHOLE, Frames

Kind = Literal["smoothgrad", "smoothgrad_sq", "vargrad"]


def noisy_copies(
    images: Tensor, ids: Sequence[str], spread: NoiseConfig, seed: int, frames: Frames = WHOLE
) -> list[Tensor]:
    """Copies of images (B, C, H, W), prepared for the network, with Gaussian noise on the pictures.

    The noise of a copy depends on (seed, image, copy) alone: it is the same for all findings,
    members, batches, shards and devices. Its deviation is a share of each picture's range.
    """
    picture = frames.inside(images.shape[2:], images.device)[:, None]
    highest = images.where(picture, -torch.inf).amax((1, 2, 3), keepdim=True)
    lowest = images.where(picture, torch.inf).amin((1, 2, 3), keepdim=True)
    width = highest - lowest
    copies = []
    for sample in range(spread.samples):
        rows = [_noise(images.shape[1:], f"{seed}/{name}/{sample}") for name in ids]
        noisy = images + spread.stdev * width * torch.stack(rows).to(images)
        copies.append(noisy.where(picture, images))
    return copies


def combine(attributions: Tensor, kind: Kind) -> Tensor:
    """Attributions of the copies (P, S, C, H, W) to their mean, mean of squares or variance."""
    if kind == "vargrad":
        return attributions.var(1, correction=0)
    return (attributions if kind == "smoothgrad" else attributions**2).mean(1)


def _noise(shape: torch.Size, key: str) -> Tensor:
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))
