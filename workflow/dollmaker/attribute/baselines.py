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

    def stretched(here: Tensor) -> Tensor:
        size = [here.shape[2], here.shape[3]]
        resized: Tensor = functional.resize(picture, size, antialias=True)
        return resized[None]

    return _each(images, frames, stretched)


def make_baseline(name: str, images: Tensor, channel_mean: Tensor, frames: Frames) -> Tensor:
    """One of :data:`BASELINES` for each image, in the stored pixel range.

    Images are float (B, C, H, W) in 0..255, B at least 1, and so are baselines; (1, C, H, W) where
    it is the same for all images, because pictures fill their squares. Outside the pictures the
    baseline is the image. ``channel_mean`` is that of the training images, (C,), 0..255.
    """
    make = BASELINES[name]
    if frames.boxes is None:
        return make(images[:1] if name in _SHARED else images, channel_mean)
    return _each(images, frames, lambda here: make(here, channel_mean))


def _each(images: Tensor, frames: Frames, make: Callable[[Tensor], Tensor]) -> Tensor:
    """Images with their pictures, one by one (1, C, h, w), changed."""
    whole = images.clone()
    for row in range(len(images)):
        where = frames.cells(row, images.shape[2:])
        inside(whole[row], where)[...] = make(inside(images[row : row + 1], where))[0]
    return whole


def _mean(pictures: Tensor, channel_mean: Tensor) -> Tensor:
    return channel_mean.to(pictures).view(1, -1, 1, 1).expand_as(pictures)


def _median(pictures: Tensor, pixels: Tensor) -> Tensor:
    """Pictures of the median of some of their pixels, (B, C, N)."""
    return pixels.median(-1).values[..., None, None].expand_as(pictures)


def _ring(pictures: Tensor) -> Tensor:
    """The outermost pixels, (B, C, N): mostly what there is where nothing is shown."""
    sides = (pictures[..., 0, :], pictures[..., -1, :])
    ends = (pictures[..., 1:-1, 0], pictures[..., 1:-1, -1])
    return torch.cat([*sides, *ends], -1)


def _blur(pictures: Tensor, _: Tensor) -> Tensor:
    """Blurred by a 16th of the long side; edges are reflected, narrow sides within their length."""
    height, width = pictures.shape[2:]
    sigma = max(height, width) / 16
    reach = int(2 * sigma)
    kernel = [2 * min(reach, side - 1) + 1 for side in (width, height)]
    blurred: Tensor = functional.gaussian_blur(pictures, kernel, [sigma, sigma])
    return blurred


#: Name -> its images, from pictures (B, C, h, w) and the mean of each channel: flat ones (``mean``
#: is the data set's, ``border`` and ``median`` are the picture's), and the picture without details.
BASELINES: dict[str, Baseline] = {
    "black": lambda pictures, _: torch.zeros_like(pictures),
    "white": lambda pictures, _: torch.full_like(pictures, 255),
    "mean": _mean,
    "border": lambda pictures, _: _median(pictures, _ring(pictures)),
    "median": lambda pictures, _: _median(pictures, pictures.flatten(2)),
    "blur": _blur,
}
