"""The labels as training data: which pixels are a finding, background, or unknown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dollmaker.classify.labels import label_matrix
from dollmaker.config.networks import SegmentConfig
from dollmaker.networks.augment import augment, make_transform
from dollmaker.pixels import geometry
from dollmaker.pixels.masks import IGNORE, surround
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store.findings import ABSENT, BLANK, PRESENT
from dollmaker.store.shards import ImageShards, ShardSeries

Masks = npt.NDArray[np.uint8]

#: What a finding of an image is without its mask: all background, or unknown.
_EMPTY, _UNKNOWN, _MASK = 0, 1, 2

#: What is picture, in a mask of its own that is moved with the others.
_PICTURE = 1


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What is known of N images that teach something and K localized findings, without pixels."""

    index: pl.DataFrame
    findings: list[str]
    state: npt.NDArray[np.int8]  #: (N, K): all background, unknown, or a mask.
    #: (N, K) row of the mask in the shard of masks; -1 where there is none.
    row: npt.NDArray[np.int64]
    quality: npt.NDArray[np.float32]  #: (N, K) quality of the mask in 0..1; 1 where there is none.
    labels: npt.NDArray[np.float32]  #: (N, K) 1 present, 0 absent, NaN unknown.

    def __len__(self) -> int:
        return len(self.index)


def list_targets(
    index: pl.DataFrame,
    findings: Sequence[str],
    masks: Mapping[str, npt.NDArray[Any]],
    *,
    blank: Literal["zeros", "ignore"],
    source: str,
    everything: bool = False,
) -> Targets:
    """Join the labels of a split with its released masks.

    A positive finding is its kept mask, and unknown everywhere without one; an absent finding is
    background; one that was not mentioned is background or unknown as classifiers treat it; an
    uncertain one is unknown. Images count when the release looked at them (they have a row there)
    or when they are true negatives (no positive finding); those of which nothing is known do not.

    Of a split without a mask ``masks`` has no columns. ``blank`` is as ``classify.blank``;
    ``source`` names the masks in messages. With ``everything`` images of which nothing is known are
    kept: their structure teaches.

    Raises:
        ArtifactError: If the table lacks a column.
    """
    masks = masks or dict.fromkeys(("image_id", "finding", "quality"), np.array([]))
    for column in ("image_id", "finding", "quality"):
        if column not in masks:
            raise ArtifactError(f"{source} has no column {column!r}; make the labels again.")
    labels = label_matrix(index, findings)
    places = {image_id: i for i, image_id in enumerate(index["image_id"])}
    columns = {finding: k for k, finding in enumerate(findings)}
    row = np.full(labels.shape, -1, np.int64)
    quality = np.ones(labels.shape, np.float32)
    seen = np.zeros(len(index), bool)
    kept = masks.get("kept", np.ones(len(masks["image_id"]), bool))
    pairs = zip(masks["image_id"], masks["finding"], kept, masks["quality"], strict=True)
    for number, (image_id, finding, good, value) in enumerate(pairs):
        i, k = places.get(image_id), columns.get(finding)
        if i is None or k is None:
            continue
        seen[i] = True
        if good and labels[i, k] == PRESENT:
            row[i, k], quality[i, k] = number, value
    state = np.full(labels.shape, _UNKNOWN, np.int8)
    state[labels == ABSENT] = _EMPTY
    if blank == "zeros":
        state[labels == BLANK] = _EMPTY
    state[row >= 0] = _MASK
    use = (seen | ~(labels == PRESENT).any(1)) & (state != _UNKNOWN).any(1) | everything
    known = np.full(labels.shape, np.nan, np.float32)
    known[labels == PRESENT] = 1
    known[(labels == ABSENT) | ((labels == BLANK) & (blank == "zeros"))] = 0
    return Targets(
        index=index.filter(pl.Series(use, dtype=pl.Boolean)),
        findings=list(findings),
        state=state[use],
        row=row[use],
        quality=quality[use],
        labels=known[use],
    )


def read_mask(masks: ShardSeries, row: int, size: int) -> Masks:
    """One mask of a split, uint8 (size, size).

    Raises:
        ArtifactError: If it lies on another grid.
    """
    mask = masks.read("mask", row)
    if mask.shape != (size, size):
        raise ArtifactError(
            f"masks of {masks.paths[0].parent} are {mask.shape[-1]} pixels wide, images {size}; "
            "make the labels again."
        )
    return mask.astype(np.uint8, copy=False)


class PseudoLabelled(Dataset[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]):
    """Images with pseudo-masks and their weights, indexed by (epoch, index).

    Items are image (C, H, W) in levels, masks uint8 (K, H, W) with 255 = ignore, the weight of each
    mask (K,), the labels float32 (K,): 1, 0, NaN unknown, and what of the square is picture, bool
    (H, W). Outside the picture masks are :data:`dollmaker.pixels.masks.IGNORE`.
    """

    def __init__(
        self,
        targets: Targets,
        images: ImageShards,
        masks: ShardSeries,
        options: SegmentConfig,
        *,
        fit: geometry.Fit,
        seed: int,
    ) -> None:
        self._places = targets.index.select("shard", "row").rows()
        self._shapes = targets.index.select("width", "height").rows()
        self._targets, self._images, self._masks = targets, images, masks
        self._transform = make_transform(options.augment)
        self._quality_weight = options.quality_weight
        self._fit, self._seed = fit, seed

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        epoch, i = key
        image, masks = self.read(i)
        picture = np.full((1, *image.shape[1:]), _PICTURE, np.uint8)
        picture = surround(picture, self.where(i, image.shape[-1]))
        known = torch.from_numpy(np.concatenate([masks, picture]))
        moved, target = augment(
            self._transform, torch.from_numpy(image), known,
            seed=self._seed, epoch=epoch, index=i,
        )  # fmt: skip
        target = known if target is None else target
        quality = torch.from_numpy(self._targets.quality[i])
        weights = quality if self._quality_weight else torch.ones_like(quality)
        labels = torch.from_numpy(self._targets.labels[i])
        return moved, target[:-1], weights, labels, target[-1] == _PICTURE

    def where(self, i: int, size: int) -> geometry.Box:
        """Where the picture lies in its square."""
        width, height = self._shapes[i]
        return geometry.box(width, height, size, self._fit)

    def read(self, i: int) -> tuple[npt.NDArray[Any], Masks]:
        """Image (C, H, W) and masks (K, H, W), without augmentation."""
        image = self._images.read(*self._places[i])
        size = image.shape[-1]
        masks = np.zeros((len(self._targets.findings), size, size), np.uint8)
        for k, state in enumerate(self._targets.state[i]):
            if state == _UNKNOWN:
                masks[k] = IGNORE
            elif state == _MASK:
                masks[k] = read_mask(self._masks, int(self._targets.row[i, k]), size)
        return image, surround(masks, self.where(i, size))

    def batches(self, size: int) -> Iterator[tuple[npt.NDArray[Any], Masks]]:
        """Images (b, C, H, W) and masks (b, K, H, W) in order, without augmentation."""
        for start in range(0, len(self), size):
            items = [self.read(i) for i in range(start, min(start + size, len(self)))]
            yield np.stack([image for image, _ in items]), np.stack([mask for _, mask in items])
