"""Baselines: the images from which Integrated Gradients starts.

A baseline equals the image outside the picture, so that attributions are 0 in the bars of a
letterbox and still sum to the difference of the logits.

Images of the data set as baselines, which relevance is averaged over, are those of expected
gradients (Erion et al. 2021). That they are images without the finding is our choice.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from dollmaker.networks.frames import Frames
from dollmaker.pixels.geometry import inside

#: Baselines that are the same for all pictures.
_SHARED = frozenset({"black", "white", "mean"})

Baseline = Callable[[Tensor, Tensor], Tensor]

#: The baselines that are images without any finding, and how many of them there are.
NEGATIVES, COUNT = "negatives", 6


def put_negative(picture: Tensor, images: Tensor, frames: Frames) -> Tensor:
    """A negative (C, h, w) in the place of each image's picture, stretched to its size.

    Shapes are those of :func:`make_baseline`.
    """
    if frames.boxes is None and picture.shape[1:] == images.shape[2:]:
        return picture[None]
    whole = images.clone()
    for row in range(len(images)):
        where = frames.cells(row, images.shape[2:])
        here = inside(whole[row], where)
        size = [here.shape[1], here.shape[2]]
        here[...] = functional.resize(picture, size, antialias=True)
    return whole


def make_baseline(name: str, images: Tensor, channel_mean: Tensor, frames: Frames) -> Tensor:
    """The baseline of each image, in the stored pixel range.

    Args:
        name: ``black``, ``white``, ``mean`` (of the data set), ``border`` or ``median`` (of the
            picture), or ``blur`` (the picture without its details).
        images: float (B, C, H, W) in 0..255, B at least 1.
        channel_mean: Mean of each channel over the training images, (C,), 0..255.
        frames: Where the pictures lie; outside, the baseline is the image.

    Returns:
        float (B, C, H, W) in 0..255; (1, C, H, W) where it is the same for all images, because
        pictures fill their squares.
    """
    make = BASELINES[name]
    if frames.boxes is None:
        return make(images[:1] if name in _SHARED else images, channel_mean)
    whole = images.clone()
    for row in range(len(images)):
        where = frames.cells(row, images.shape[2:])
        inside(whole[row], where)[...] = make(inside(images[row : row + 1], where), channel_mean)[0]
    return whole


def _black(pictures: Tensor, _: Tensor) -> Tensor:
    return torch.zeros_like(pictures)


def _white(pictures: Tensor, _: Tensor) -> Tensor:
    return torch.full_like(pictures, 255)


def _mean(pictures: Tensor, channel_mean: Tensor) -> Tensor:
    return channel_mean.to(pictures).view(1, -1, 1, 1).expand_as(pictures)


def _median(pictures: Tensor, _: Tensor) -> Tensor:
    return pictures.flatten(2).median(-1).values[..., None, None].expand_as(pictures)


def _border(pictures: Tensor, _: Tensor) -> Tensor:
    """The median of the outermost pixels: mostly what there is where nothing is shown."""
    sides = (pictures[..., 0, :], pictures[..., -1, :])
    ends = (pictures[..., 1:-1, 0], pictures[..., 1:-1, -1])
    ring = torch.cat([*sides, *ends], -1)
    return ring.median(-1).values[..., None, None].expand_as(pictures)


def _blur(pictures: Tensor, _: Tensor) -> Tensor:
    """Blurred by a 16th of the long side; edges are reflected, narrow sides within their length."""
    height, width = pictures.shape[2:]
    sigma = max(height, width) / 16
    reach = int(2 * sigma)
    kernel = [2 * min(reach, side - 1) + 1 for side in (width, height)]
    blurred: Tensor = functional.gaussian_blur(pictures, kernel, [sigma, sigma])
    return blurred


BASELINES: dict[str, Baseline] = {
    "black": _black,
    "white": _white,
    "mean": _mean,
    "border": _border,
    "median": _median,
    "blur": _blur,
}
