"""From stored images to what a network expects."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

#: One number for every channel, or one for each.
Numbers = float | Sequence[float]

#: Channels that a network may have.
MOST_CHANNELS = 1000


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a network expects: ``(x / 255 - mean) / std``, channel by channel.

    Raises:
        ValueError: If no network can expect that.
    """

    channels: int  #: At least 1.
    size: int  #: Side in pixels.
    #: Subtracted from images in [0, 1], one number per channel; see :func:`per_channel`.
    mean: Numbers = 0.5
    std: Numbers = 0.5  #: Images are divided by it, one number per channel.

    def __post_init__(self) -> None:
        whole = type(self.channels) is type(self.size) is int
        if not whole or not 1 <= self.channels <= MOST_CHANNELS or not 1 <= self.size <= 8192:
            raise ValueError(f"{self.channels} channels of {self.size} pixels")
        mean, std = (per_channel(numbers, self.channels) for numbers in (self.mean, self.std))
        if not all(map(math.isfinite, mean)) or not all(0 < one < math.inf for one in std):
            raise ValueError(f"mean {self.mean}, std {self.std}")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)

    def prepare(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in levels to float32 (B, channels, size, size)."""
        x = adapt_images(images, **asdict(self))
        return x.contiguous(memory_format=torch.channels_last)


def per_channel(numbers: Numbers, channels: int) -> tuple[float, ...]:
    """A mean or a deviation for each channel of a network.

    As many numbers as channels stay as they are; otherwise every channel gets their mean, as its
    filters get the sum over channels (:func:`dollmaker.networks.weights.inflate`).

    Raises:
        ValueError: If there is none.
        TypeError: If they are no numbers.
    """
    given = [float(one) for one in numbers] if isinstance(numbers, Sequence) else [float(numbers)]
    if not given:
        raise ValueError("no number")
    if len(given) == channels:
        return tuple(given)
    if len(set(given)) == 1:
        return (given[0],) * channels
    return (math.fsum(given) / len(given),) * channels


def adapt_images(
    images: Tensor, *, channels: int, size: int, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """From images (B, C, H, W) in levels to a network's input, float32 (B, channels, size, size).

    Levels are 0..255, uint8 or float32 (:mod:`dollmaker.store.depth`). One channel is repeated,
    several are averaged to one; images of another size are resized. ``mean`` and ``std`` are of
    each channel of images in [0, 1].

    Raises:
        ValueError: If several channels are to be another number of several.
    """
    x = images.to(torch.float32) / 255
    if x.shape[1] != channels and 1 not in (x.shape[1], channels):
        raise ValueError(f"images of {x.shape[1]} channels for a network of {channels}")
    if x.shape[1] != channels:
        x = x.mean(1, keepdim=True) if channels == 1 else x.expand(-1, channels, -1, -1)
    if x.shape[-1] != size:
        x = nn.functional.interpolate(x, size=(size, size), mode="bilinear", antialias=True)
    return (x - _spread(mean, x)) / _spread(std, x)


def _spread(numbers: Sequence[float], x: Tensor) -> Tensor | float:
    """Numbers of the channels beside images (B, C, H, W); one number where all are the same."""
    if len(set(numbers)) == 1:
        return numbers[0]
    return x.new_tensor(numbers)[:, None, None]
