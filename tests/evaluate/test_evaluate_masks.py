"""Masks and maps at the size of the source, pair by pair."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy import ndimage

from dollmaker.evaluate.masks import RecipeShards, read_pair
from dollmaker.measures.scores import iou
from dollmaker.pixels.geometry import Fit, source_map
from dollmaker.store.provenance import header
from dollmaker.store.shards import Shard, create_shard


@pytest.fixture
def recipe(tmp_path: Path) -> RecipeShards:
    """One pair: a map over 24 x 24 and what is above its upper fifth."""
    hills = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(24, 24)), 2)
    values = (hills / hills.max()).astype(np.float16)[None]
    cut = np.float32(np.quantile(values, 0.8))
    pair = {"image_id": ["i"], "finding": ["Edema"]}
    with create_shard(tmp_path / "maps.h5", "relevance", header("attribute", {})) as writer:
        writer.append(pair, map=values)
    with create_shard(tmp_path / "masks.h5", "masks", header("binarize", {})) as writer:
        writer.append({**pair, "threshold": np.array([cut])}, mask=(values > cut).astype(np.uint8))
    masks, maps = Shard(tmp_path / "masks.h5", "masks"), Shard(tmp_path / "maps.h5", "relevance")
    scales = np.ones(1, np.float32)
    return RecipeShards(masks, maps, masks.table(), scales, {("i", "Edema"): 0}, frozenset("i"))


@pytest.mark.parametrize("fit", ["resize", "crop"])
def test_a_mask_is_the_enlarged_map_cut(recipe: RecipeShards, fit: Fit) -> None:
    width, height = 200, 150
    found = read_pair(recipe, 0, width, height, fit)
    size = (height, width) if fit == "resize" else (150, 150)
    square = torch.from_numpy(recipe.maps.read("map", 0).astype(np.float32))[None, None]
    large = torch.nn.functional.interpolate(square, size, mode="bilinear", align_corners=False)
    expected = np.zeros((height, width), bool)
    window = slice(None) if fit == "resize" else slice(25, 175)
    expected[:, window] = large[0, 0].numpy() > recipe.table["threshold"][0]
    assert iou(found.mask, expected) > 0.99
    np.testing.assert_allclose(found.values[:, window], large[0, 0], atol=1e-5)


def test_what_a_crop_does_not_show_ranks_last() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, (8, 8)).astype(np.float32)
    large = source_map(values, 8, 14, "crop")
    assert_array_equal(large[3:11], values)
    assert (large[:3] == values.min()).all() and (large[11:] == values.min()).all()
    assert_array_equal(source_map(values, 8, 8, "crop"), values)
