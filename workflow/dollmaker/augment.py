"""Augmentation of an image and its mask, with torchvision.transforms.v2."""

from typing import Literal

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

Kind = Literal["none", "geometric", "flip"]


def make_transform(kind: Kind) -> v2.Transform:
    """The random transform of a configured ``augment``.

    ``geometric`` shifts, scales and rotates a little and varies brightness and contrast, as
    positioning and exposure do; ``flip`` also mirrors left to right, which chest films do not.
    Pixels that come from beyond the square are 0 in images and in masks: nothing is to be seen
    there. Were they ignored, little would be taught of the rim of the image, and networks draw
    there. The bars of a letterbox, which are ignored (:mod:`dollmaker.outside`), move with it.
    """
    if kind == "none":
        return v2.Identity()
    steps: list[v2.Transform] = [
        v2.RandomAffine(
            degrees=7,
            translate=(0.05, 0.05),
            scale=(0.92, 1.08),
            interpolation=v2.InterpolationMode.BILINEAR,
            fill=0,
        ),
        v2.ColorJitter(brightness=0.15, contrast=0.15),
    ]
    if kind == "flip":
        steps.append(v2.RandomHorizontalFlip())
    return v2.Compose(steps)


def augment(
    transform: v2.Transform,
    image: Tensor,
    masks: Tensor | None,
    *,
    seed: int,
    epoch: int,
    index: int,
) -> tuple[Tensor, Tensor | None]:
    """Transform one image and its masks alike.

    The random numbers depend on (seed, epoch, index) alone: neither batches nor workers nor a
    resumed run change them.

    Args:
        transform: From :func:`make_transform`.
        image: uint8 (C, H, W).
        masks: uint8 (K, H, W), or ``None``.
        seed: Seed of the run.
        epoch: Epoch, from 0.
        index: Index of the image in the data set.
    """
    if isinstance(transform, v2.Identity):
        return image, masks
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash((seed, epoch, index)) % 2**63)
        if masks is None:
            return transform(tv_tensors.Image(image)).as_subclass(Tensor), None
        moved = transform(tv_tensors.Image(image), tv_tensors.Mask(masks))
    return moved[0].as_subclass(Tensor), moved[1].as_subclass(Tensor)
