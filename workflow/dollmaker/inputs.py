"""From stored images to what a network expects."""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a network expects: ``(x / 255 - mean) / std``.

    Attributes:
        channels: 1 or 3.
        size: Side in pixels.
        mean: Subtracted from images in [0, 1].
        std: Images are divided by it.

    Raises:
        ValueError: If no network can expect that.
    """

    channels: int
    size: int
    mean: float = 0.5
    std: float = 0.5

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or type(self.size) is not int or not 1 <= self.size <= 8192:
            raise ValueError(f"{self.channels} channels of {self.size} pixels")
        if not (math.isfinite(float(self.mean)) and 0 < float(self.std) < math.inf):
            raise ValueError(f"mean {self.mean}, std {self.std}")

    def prepare(self, images: Tensor) -> Tensor:
        """Stored images, uint8 (B, C, H, W), to float32 (B, channels, size, size)."""
        x = adapt_images(images, **asdict(self))
        return x.contiguous(memory_format=torch.channels_last)


def adapt_images(images: Tensor, *, channels: int, size: int, mean: float, std: float) -> Tensor:
    """From stored images to a network's input.

    Args:
        images: uint8 (B, C, H, W).
        channels: Channels of the network: grey is repeated, colour is averaged as needed.
        size: Side of the network's input; images are resized when they differ.
        mean: Mean that is subtracted from images in [0, 1].
        std: Deviation to divide by.

    Returns:
        float32 (B, channels, size, size).
    """
    x = images.to(torch.float32) / 255
    if x.shape[1] != channels:
        x = x.mean(1, keepdim=True) if channels == 1 else x.expand(-1, channels, -1, -1)
    if x.shape[-1] != size:
        x = nn.functional.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    return (x - mean) / std
