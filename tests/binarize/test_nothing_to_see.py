"""Images and maps with nothing in them have empty masks, whatever the recipe."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dollmaker.binarize.cuts import FAMILY, Cut
from dollmaker.binarize.label_free import CRITERIA
from dollmaker.binarize.pair import Pair
from dollmaker.binarize.stage import binarize_shard
from dollmaker.binarize.steps import STEPS, make_chain, nothing_to_see
from dollmaker.config.catalogue import catalogue
from dollmaker.config.settings import resolved
from dollmaker.store import provenance
from dollmaker.store.shards import Shard, create_shard

SIDE = 40
NOISE = np.random.default_rng(5)
PICTURE = NOISE.integers(1, 255, (1, SIDE, SIDE), dtype=np.uint8)
MAP = np.outer(np.hanning(SIDE), np.hanning(SIDE)).astype(np.float32) ** 2


def plain(*colour: int) -> np.ndarray:
    return np.tile(np.array(colour, np.uint8)[:, None, None], (1, SIDE, SIDE))


def pair(values: np.ndarray = MAP, image: np.ndarray = PICTURE, label: int = 1) -> Pair:
    cuts = {(name, FAMILY): Cut("area", 0.2) for name in CRITERIA}
    return Pair(map=values, image=image, label=label, probability=0.8, cuts=cuts)


BLANK = {
    "black": pair(image=plain(0)),
    "grey": pair(image=plain(140)),
    "a colour": pair(image=plain(200, 0, 30)),
    "no relevance": pair(np.zeros_like(MAP)),
    "relevance everywhere": pair(np.ones_like(MAP)),
    "rounding of a stored map": pair(np.where(MAP > 0.5, 1, 0.9995).astype(np.float32)),
    "against the finding": pair(-MAP),
    "against it but for rounding": pair(np.float32(1e-5) - MAP),
}

ORDINARY = {
    "a picture": pair(),
    "colours of one brightness": pair(image=np.concatenate([PICTURE, 255 - PICTURE, PICTURE])),
    "one other pixel": pair(image=plain(140) + (np.arange(SIDE**2) == 777).reshape(1, SIDE, SIDE)),
    "white on black": pair(image=(255 * (MAP > 0.3)).astype(np.uint8)[None]),
    "bars that are picture": pair(image=np.pad(plain(90)[:, 9:-9], ((0, 0), (9, 9), (0, 0)))),
    "weak relevance": pair(MAP * np.float32(0.001)),
    "a signed map": pair(MAP - np.float32(0.3)),
}

CHAINS: dict[str, list[Any]] = {
    **{name: [{"gate": {}}, {"quantile": {}}, {name: {}}] for name in STEPS},
    **{f"recipe {name}": recipe["binarize"] for name, recipe in catalogue().items()},
}


@pytest.mark.parametrize("what", BLANK)
def test_there_is_nothing_to_see(what: str) -> None:
    assert nothing_to_see(BLANK[what])


@pytest.mark.parametrize("what", ORDINARY)
def test_there_is_something_to_see(what: str) -> None:
    assert not nothing_to_see(ORDINARY[what])


@pytest.mark.parametrize("chain", CHAINS)
def test_no_step_and_no_recipe_draws_where_there_is_nothing(chain: str) -> None:
    draw = make_chain(CHAINS[chain])
    for what, blank in BLANK.items():
        done = draw(blank)
        assert done.mask is not None and done.mask.dtype == np.uint8, what
        assert done.mask.shape == (SIDE, SIDE) and not done.mask.any(), what
        assert done.kept and np.isnan(done.threshold), what
        assert not draw(pair(blank.map, blank.image, label=0)).kept, what


@pytest.mark.parametrize("step", [name for name in STEPS if name not in ("gate", "quantile")])
def test_what_is_there_is_drawn_by_the_steps_alone(step: str) -> None:
    draw = make_chain([{"quantile": {"q": 0.7}}, {step: {}}])
    for what, there in ORDINARY.items():
        by_hand = STEPS[step](STEPS["quantile"](there, q=0.7))
        done = draw(there)
        np.testing.assert_array_equal(done.mask, by_hand.mask, err_msg=what)
        assert by_hand.threshold == pytest.approx(done.threshold, rel=0, abs=0, nan_ok=True)


@pytest.mark.parametrize("fit", ["letterbox", "resize"])
def test_a_shard_says_that_a_blank_pair_is_worth_nothing(tmp_path: Path, fit: str) -> None:
    """Also if its map were 1 everywhere, and if it has bars."""
    disk = MAP > 0.4
    picture = np.where(disk, 200, PICTURE // 8).astype(np.uint8)
    blank = plain(77)
    if fit == "letterbox":
        blank[:, :10] = blank[:, 30:] = 0
    header = provenance.header("attribute", {})
    with create_shard(tmp_path / "i.h5", "images", header) as writer:
        sides = {"width": np.array([80, 40]), "height": np.array([40, 40])}
        writer.append({"image_id": ["blank", "picture"], **sides}, image=np.stack([blank, picture]))
    with create_shard(tmp_path / "r.h5", "relevance", header) as writer:
        columns = ("label", "probability", "scale", "agreement", "completeness")
        facts = {name: np.ones(2, np.int8 if name == "label" else np.float32) for name in columns}
        writer.append(
            {"image_id": ["blank", "picture"], "finding": ["f", "f"], **facts},
            map=np.stack([np.ones_like(disk), disk]).astype(np.float16),
        )
    config = resolved(
        {
            "dataset": "x",
            "source": {"kind": "phantoms"},
            "recipes": {"maskcut": {}},
            "release": {"recipe": "maskcut"},
            "prepare": {"fit": fit},
        }
    )
    binarize_shard(config, tmp_path / "i.h5", tmp_path / "r.h5", "maskcut", tmp_path / "m.h5")
    with Shard(tmp_path / "m.h5", "masks") as shard:
        table, masks = shard.table(), shard.read("mask", slice(0, 2))
    assert not masks[0].any() and masks[1].any()
    assert table["quality"][0] == table["area"][0] == 0 < table["quality"][1]
    assert np.isnan(table["threshold"][0])
    assert table["kept"].all()
