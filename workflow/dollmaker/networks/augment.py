"""Augmentation of an image and its mask, with torchvision.transforms.v2."""

from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

Kind = Literal["none", "geometric", "flip"]


class _Exposure(v2.ColorJitter):  # type: ignore[misc]
    """Brightness and contrast of images of any number of channels.

    torchvision knows one and three channels. Other images are laid out as one grey image, so that
    contrast is around the mean of all channels and the channels keep their ratios.
    """

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Transform one input, as v2 calls it."""
        if not isinstance(inpt, tv_tensors.Image) or inpt.shape[-3] in (1, 3):
            return super().transform(inpt, params)
        grey = tv_tensors.Image(inpt.reshape(1, -1, inpt.shape[-1]))
        return tv_tensors.wrap(super().transform(grey, params).reshape(inpt.shape), like=inpt)


def make_transform(kind: Kind) -> v2.Transform:
    """The random transform of a configured ``augment``.

    ``geometric`` shifts, scales and rotates a little and varies brightness and contrast, as
    positioning and exposure do. ``flip`` also mirrors left to right, which chest films never are.

    Pixels from beyond the square are 0 in images and masks, so that networks learn that nothing is
    there. The ignored bars of a letterbox move with the image
    (:func:`dollmaker.pixels.masks.surround`).
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
        _Exposure(brightness=0.15, contrast=0.15),
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
    """Transform one image (C, H, W), uint8 or float32 in 0..255, and its masks (K, H, W) alike.

    The random numbers depend on the seed of the run, the epoch and the index of the image alone:
    neither batches nor workers nor a resumed run change them.
    """
    if isinstance(transform, v2.Identity):
        return image, masks
    deep = image.is_floating_point()  # torchvision takes floats in 0..1
    given = [tv_tensors.Image(image / 255 if deep else image)]
    given += [] if masks is None else [tv_tensors.Mask(masks)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash((seed, epoch, index)) % 2**63)
        moved = transform(given)
    shown, *targets = (one.as_subclass(Tensor) for one in moved)
    return shown * 255 if deep else shown, targets[0] if targets else None
