"""The segmenter's own masks: its logits' sign, at the size of the source, on the recipe's pairs."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import fake_results as fake
from dollmaker.config.checks import TAKEN
from dollmaker.config.networks import SegmentConfig
from dollmaker.config.settings import resolved
from dollmaker.evaluate.guesses import Segmenter
from dollmaker.evaluate.stage import Inputs, evaluate
from dollmaker.measures.baselines import BASELINES, MEAN_MAP, SEGMENTER
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import create
from dollmaker.runtime.errors import ConfigError
from dollmaker.segment.stage import save
from dollmaker.store import provenance, tables

SPEC = Input(channels=1, size=fake.SIZE, mean=0.5, std=0.25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained segmenter of the fake findings."""
    made = tmp_path_factory.mktemp("segmenter")
    options = SegmentConfig(architecture="Unet", encoder="resnet18", init="random")
    model = create(options, channels=1, classes=len(fake.FINDINGS), size=fake.SIZE, seed=0)
    header = provenance.header("segment", {})
    save(made, model, options, list(fake.FINDINGS), SPEC, curve=[], header=header)
    return made


def test_masks_are_where_the_logit_is_positive(folder: Path) -> None:
    image = fake.draw(5)
    segmenter = Segmenter(folder, "letterbox")
    drawn = segmenter.draw(image, fake.FINDINGS, fake.SIZE, fake.SIZE)
    assert list(segmenter.draw(image, fake.FINDINGS[1:2], fake.SIZE, fake.SIZE)) == [
        fake.FINDINGS[1]
    ]
    import segmentation_models_pytorch as smp

    with torch.no_grad():
        x = (torch.from_numpy(image)[None] / 255 - 0.5) / 0.25
        logits = smp.from_pretrained(folder).eval()(x)[0].numpy()
    for finding, levels in zip(fake.FINDINGS, logits, strict=True):
        assert_array_equal(drawn[finding].mask, levels > 0)
        assert_allclose(drawn[finding].values, 1 / (1 + np.exp(-levels)), rtol=1e-5)


def test_the_segmenter_has_rows_on_the_pairs_of_the_released_recipe(
    tree: Any, folder: Path, tmp_path: Path
) -> None:
    inputs = fake.scored_things(tree.results, tree.data) | {"segmenter": folder, "tasks": ()}
    evaluate(resolved(tree.config), Inputs(**inputs), tmp_path / "scores")
    pairs = tables.read(tmp_path / "scores/pairs.parquet")
    key = ["target", "image_id", "finding"]
    mine, centre = (pairs.filter(recipe=name).sort(key) for name in (SEGMENTER, "centre"))
    assert len(mine) and mine.select(key).equals(centre.select(key))
    assert not mine.filter(~pl.col("explained"))["mask_area"].sum()
    means = tables.read(tmp_path / "scores/masks.parquet").filter(recipe=SEGMENTER)
    released = tree.config["release"]["recipe"]
    gates = tables.read(tmp_path / "scores/masks.parquet").filter(recipe=released)["gated_by"]
    assert set(means["gated_by"]) == set(gates)


def test_rows_that_are_no_recipe_have_names_of_their_own(tree: Any) -> None:
    assert {SEGMENTER, MEAN_MAP, *BASELINES} == set(TAKEN)
    config = fake.make_config()
    config["recipes"]["centre"] = dict(config["recipes"]["doll"])
    with pytest.raises(ConfigError, match=r"recipes\.centre: .* rename it"):
        resolved(config)
