"""Baselines: the images from which Integrated Gradients starts. They decide what is found."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from dollmaker.errors import ConfigError, unknown

#: Baselines that are the same for all images.
SHARED = frozenset({"black", "white", "mean"})

Baseline = Callable[[Tensor, Tensor], Tensor]


def make_baseline(name: str, images: Tensor, channel_mean: Tensor) -> Tensor:
    """The baseline of each image, in the stored pixel range.

    Args:
        name: ``black``, ``white``, ``mean`` (of the data set), ``median`` (of the image) or
            ``blur`` (the image without its details).
        images: float (B, C, H, W) in 0..255.
        channel_mean: Mean of each channel over the training images, (C,), 0..255.

    Returns:
        float (B, C, H, W) in 0..255.
    """
    if name not in BASELINES:
        raise ConfigError(unknown("baseline", name, BASELINES))
    return BASELINES[name](images, channel_mean)


def _black(images: Tensor, _: Tensor) -> Tensor:
    return torch.zeros_like(images)


def _white(images: Tensor, _: Tensor) -> Tensor:
    return torch.full_like(images, 255)


def _mean(images: Tensor, channel_mean: Tensor) -> Tensor:
    return channel_mean.to(images).view(1, -1, 1, 1).expand_as(images)


def _median(images: Tensor, _: Tensor) -> Tensor:
    return images.flatten(2).median(-1).values[..., None, None].expand_as(images)


def _blur(images: Tensor, _: Tensor) -> Tensor:
    sigma = images.shape[-1] / 16
    kernel = 2 * int(2 * sigma) + 1
    blurred: Tensor = functional.gaussian_blur(images, [kernel, kernel], [sigma, sigma])
    return blurred


BASELINES: dict[str, Baseline] = {
    "black": _black,
    "white": _white,
    "mean": _mean,
    "median": _median,
    "blur": _blur,
}
