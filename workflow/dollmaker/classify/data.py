"""Images and labels for training a classifier."""

import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dollmaker.classify.labels import Floats
from dollmaker.networks.augment import Kind, augment, make_transform
from dollmaker.store.shards import ImageShards


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
