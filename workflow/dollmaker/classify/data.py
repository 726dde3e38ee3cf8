"""Images and labels for training a classifier."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dollmaker.config.networks import ClassifyConfig
from dollmaker.networks.augment import Kind, augment, make_transform
from dollmaker.store.findings import ABSENT, BLANK, PRESENT, UNCERTAIN
from dollmaker.store.shards import ImageShards

Floats = npt.NDArray[np.float32]


def label_matrix(index: pl.DataFrame, findings: Sequence[str]) -> npt.NDArray[np.int8]:
    """Labels (N, K): 1, 0, -1, and ``BLANK`` where the index has null."""
    return index.select(pl.col(list(findings)).fill_null(BLANK)).to_numpy().astype(np.int8)


def targets(
    labels: npt.NDArray[np.int8], findings: Sequence[str], options: ClassifyConfig, seed: int
) -> tuple[Floats, Floats]:
    """Training targets in 0..1 and loss weights (0 or 1), both (N, K), of labels (N, K).

    Policies as in Irvin et al. 2019 (ignore, zeros, ones) and Pham et al. 2019 (smooth-ones:
    uniform in 0.55..0.85, drawn once per label).
    """
    values = (labels == PRESENT).astype(np.float32)
    weights = np.isin(labels, (PRESENT, ABSENT)).astype(np.float32)
    if options.blank == "zeros":
        weights[labels == BLANK] = 1
    smooth = np.random.default_rng(seed).uniform(0.55, 0.85, labels.shape).astype(np.float32)
    for k, finding in enumerate(findings):
        policy = options.uncertain.get(finding, options.uncertain.get("default", "ignore"))
        rows = labels[:, k] == UNCERTAIN
        if policy != "ignore":
            weights[rows, k] = 1
        if policy == "ones":
            values[rows, k] = 1
        elif policy == "smooth-ones":
            values[rows, k] = smooth[rows, k]
    return values, weights


class LabelledImages(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Images of an index with targets and weights, indexed by (epoch, index)."""

    def __init__(
        self,
        index: pl.DataFrame,
        images: ImageShards,
        values: Floats,
        weights: Floats,
        *,
        kind: Kind,
        seed: int,
    ) -> None:
        self._places = index.select("shard", "row").rows()
        self._images, self._seed = images, seed
        self._values, self._weights = torch.from_numpy(values), torch.from_numpy(weights)
        self._transform = make_transform(kind)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        epoch, i = key
        image = torch.from_numpy(self._images.read(*self._places[i]))
        image, _ = augment(self._transform, image, None, seed=self._seed, epoch=epoch, index=i)
        return image, self._values[i], self._weights[i]
