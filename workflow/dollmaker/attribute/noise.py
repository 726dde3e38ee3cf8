"""SmoothGrad (Smilkov et al. 2017) and its relatives: attributions averaged over noisy copies."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from dollmaker.networks.frames import WHOLE, Frames
from dollmaker.runtime.errors import ConfigError, unknown

#: How the attributions of the copies become one: mean, mean of squares, variance.
KINDS = ("smoothgrad", "smoothgrad_sq", "vargrad")


def noisy_copies(
    images: Tensor,
    ids: Sequence[str],
    *,
    seed: int,
    samples: int,
    stdev: float,
    frames: Frames = WHOLE,
) -> list[Tensor]:
    """Copies of images with Gaussian noise on the pictures.

    The noise of a copy depends on (seed, image, copy) alone: it is the same for all findings,
    members, batches, shards and devices.

    Args:
        images: float (B, C, H, W), prepared for the network.
        ids: Their image ids.
        seed: The configured seed.
        samples: Number of copies.
        stdev: Standard deviation as a share of each picture's range (largest - smallest value).
        frames: Where the pictures lie; the copies are the images outside.

    Returns:
        One tensor (B, C, H, W) per copy.
    """
    picture = frames.inside(images.shape[2:], images.device)[:, None]
    highest = images.where(picture, -torch.inf).amax((1, 2, 3), keepdim=True)
    lowest = images.where(picture, torch.inf).amin((1, 2, 3), keepdim=True)
    width = highest - lowest
    copies = []
    for sample in range(samples):
        rows = [_noise(images.shape[1:], f"{seed}/{name}/{sample}") for name in ids]
        noisy = images + stdev * width * torch.stack(rows).to(images)
        copies.append(noisy.where(picture, images))
    return copies


def combine(attributions: Tensor, kind: str) -> Tensor:
    """Attributions of the copies (P, S, C, H, W) to one (P, C, H, W).

    Raises:
        ConfigError: If there is no such kind.
    """
    if kind == "smoothgrad":
        return attributions.mean(1)
    if kind == "smoothgrad_sq":
        return (attributions**2).mean(1)
    if kind == "vargrad":
        return attributions.var(1, correction=0)
    raise ConfigError(unknown("kind of noise", kind, KINDS))


def _noise(shape: torch.Size, key: str) -> Tensor:
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))
