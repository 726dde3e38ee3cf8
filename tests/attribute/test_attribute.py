"""Baselines, consensus, selection, and the stage from images to relevance shards."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy import ndimage

from classify.test_classify import make_config, make_dataset, train
from dollmaker.attribute.baselines import BASELINES, make_baseline
from dollmaker.attribute.consensus import agree, cosine, reduce_channels, smooth
from dollmaker.attribute.selection import select_images, select_pairs
from dollmaker.attribute.stage import Inputs, explain_shard
from dollmaker.config.masks import AttributeConfig
from dollmaker.config.settings import resolved
from dollmaker.networks.frames import WHOLE
from dollmaker.runtime.errors import ConfigError
from dollmaker.store.shards import Shard


def test_baselines_are_what_their_names_say() -> None:
    images = torch.randint(0, 256, (2, 3, 32, 32)).float()
    mean = torch.tensor([10.0, 20.0, 30.0])
    made = {name: make_baseline(name, images, mean, WHOLE) for name in BASELINES}
    assert made["black"].abs().max() == 0
    assert (made["white"] == 255).all()
    assert made["mean"][0, :, 5, 7].tolist() == [10, 20, 30]
    assert made["median"][0, 1, 0, 0] == images[0, 1].median()
    ring = torch.ones(32, 32, dtype=torch.bool)
    ring[1:-1, 1:-1] = False
    assert made["border"][1, 2, 9, 9] == images[1, 2][ring].median()
    assert made["blur"].std() < 0.2 * images.std()
    assert made["blur"].mean() == pytest.approx(float(images.mean()), rel=0.05)


def test_the_border_is_black_around_a_brain_and_bright_around_a_cell() -> None:
    images = torch.stack([torch.zeros(3, 8, 9), torch.full((3, 8, 9), 230.0)])
    images[:, :, 2:6, 2:6] = 120
    made = make_baseline("border", images, torch.zeros(3), WHOLE)
    assert torch.equal(made, images[:, :, :1, :1].expand_as(images))


def test_reductions() -> None:
    attributions = torch.tensor([[[[1.0]], [[-3.0]]]])
    values = [
        float(reduce_channels(attributions, r)[0, 0, 0]) for r in ("abs", "positive", "signed")
    ]
    assert values == [4, 1, -2]


def test_smoothing_keeps_the_sum_and_does_not_mix_pairs() -> None:
    maps = torch.zeros(2, 41, 41)
    maps[0, 20, 20] = 1
    smoothed = smooth(maps, 2.0)
    assert smoothed[0].sum() == pytest.approx(1, rel=1e-3)
    assert smoothed[0, 20, 20] == pytest.approx(1 / (2 * np.pi * 4), rel=0.02)
    assert smoothed[1].max() == 0


def test_smoothing_is_scipys() -> None:
    maps = torch.rand(3, 30, 20, generator=torch.Generator().manual_seed(0))
    wanted = ndimage.gaussian_filter(maps.numpy(), 2.5, axes=(1, 2), mode="nearest")
    np.testing.assert_allclose(smooth(maps, 2.5).numpy(), wanted, rtol=1e-5)
    assert torch.equal(smooth(maps[1:2], 2.5)[0], smooth(maps, 2.5)[1])


def test_a_consensus_of_one_is_the_map_and_votes_are_equal() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(3, 8, 8, generator=generator)
    alone = agree([one])
    torch.testing.assert_close(alone.maps * alone.scale[:, None, None], one)
    torch.testing.assert_close(alone.agreement, torch.ones(3))
    other = torch.rand(3, 8, 8, generator=generator)
    loud = agree([one, 1000 * other])
    torch.testing.assert_close(loud.maps, agree([one, other]).maps)
    assert loud.maps.amax((1, 2)).tolist() == pytest.approx([1, 1, 1])


def test_agreement_is_the_mean_cosine() -> None:
    a, b = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    assert float(agree([a, b]).agreement[0]) == pytest.approx(np.sqrt(0.5), rel=1e-6)
    assert float(agree([torch.zeros_like(a)]).agreement[0]) == 0


def test_cosine_by_hand() -> None:
    a = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]])
    b = torch.tensor([[[4.0, 3.0]], [[1.0, 0.0]]])
    assert cosine(a, b).tolist() == pytest.approx([24 / 25, 0])


def test_selection_is_spread_and_knows_only_the_index() -> None:
    index = pl.DataFrame(
        {
            "split": ["train"] * 90 + ["test"] * 10,
            "shard": ["0"] * 100,
            "row": range(100),
            "A": pl.Series([1, 0, None] * 33 + [1], dtype=pl.Int8),
            "mask": ["m.png" if row in (3, 4, 96) else None for row in range(100)],
        }
    )
    options = AttributeConfig(splits=["train", "test"], max_images=5)
    chosen = select_images(index, ["A"], options)
    assert chosen["row"].to_list() == [0, 21, 42, 66, 87, 90, 93, 96, 99]
    true = select_images(index, ["A"], options.model_copy(update={"with_truth": True}))
    assert true["row"].to_list() == [3, 96]  # row 4 has a mask, but not the finding
    labels = np.array([[1, 0, -1, -2]], np.int8)
    probabilities = np.array([[0.1, 0.9, 0.6, 0.2]], np.float32)
    assert select_pairs(labels, probabilities, None).tolist() == [[True, False, False, False]]
    assert select_pairs(labels, probabilities, 0.6).tolist() == [[True, True, True, False]]


def explain(config: dict[str, Any], folder: Path, members: list[Path], output: str) -> Path:
    explain_shard(
        resolved(config),
        Inputs(index=folder / "index.parquet", images=folder / "images", committee=members),
        "doll",
        "0000",
        folder / output,
    )
    return folder / output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and a member that has learned it."""
    path = tmp_path_factory.mktemp("attribute")
    make_dataset(path)
    train(make_config(epochs=8), path, "a")
    return path


def test_the_map_points_at_what_decides(folder: Path) -> None:
    config = make_config(epochs=8)
    config["recipes"]["doll"]["attribute"].update(baselines=["mean"], smoothing=1.0)
    with Shard(explain(config, folder, [folder / "a"], "r.h5"), "relevance") as shard:
        table, maps = shard.table(), shard.read("map").astype(np.float32)
    assert len(maps) == 48  # one finding an image
    assert set(table["finding"]) == {"bright", "dark"}
    assert np.isfinite(table["completeness"]).all()
    np.testing.assert_allclose(maps.max((1, 2)), 1)
    with Shard(folder / "images/0000.h5", "images") as images:
        stored = images.read("image")[:, 0].astype(int)
    square = np.abs(stored - 125) > 60
    inside = [m[s].mean() / m[~s].mean() for m, s in zip(maps, square, strict=True)]
    assert np.median(inside) > 3


def test_batches_and_runs_change_no_byte(folder: Path) -> None:
    config = make_config()
    first = explain(config, folder, [folder / "a"], "a.h5").read_bytes()
    assert explain(config, folder, [folder / "a"], "b.h5").read_bytes() == first


def test_unknown_names_are_refused(folder: Path) -> None:
    config = make_config()
    config["recipes"]["doll"]["attribute"]["method"] = "magic"
    with pytest.raises(ConfigError, match='"magic"; use one of: "integrated_gradients"'):
        explain(config, folder, [folder / "a"], "c.h5")
    assert not (folder / "c.h5").exists()
