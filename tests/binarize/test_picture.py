"""Masks are of the picture: whatever the bars hold, they are not looked at and never foreground."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from dollmaker.binarize.label_free import choose_thresholds, cuts_of, read_thresholds
from dollmaker.binarize.pair import FOREGROUND, Pair, stability
from dollmaker.binarize.stage import binarize_shard
from dollmaker.binarize.steps import STEPS, make_chain
from dollmaker.config.catalogue import catalogue
from dollmaker.config.settings import resolved
from dollmaker.pixels import geometry
from dollmaker.store import provenance
from dollmaker.store.shards import Shard, create_shard

SIDE = 48
SOURCES = {"wide": (160, 90), "tall": (50, 120), "square": (64, 64)}
SCALES = (0.02, 0.05, 0.03)
FITS = ("letterbox", "resize", "crop")

#: Two values, as the cutters' maps have them: dense_crf with levels takes no others.
_OF_LEVELS = ("recipe maskcut",)

CHAINS: dict[str, list[Any]] = {
    **{name: [{"gate": {}}, {"quantile": {}}, {name: {}}] for name in STEPS},
    **{f"recipe {name}": recipe["binarize"] for name, recipe in catalogue().items()},
}


def material(fit: str, seed: int = 0) -> dict[str, Any]:
    """An image and a map for each source; what the bars hold depends on the seed, and is strong."""
    noise, bars = np.random.default_rng(7), np.random.default_rng(seed)
    rows: dict[str, Any] = {"images": [], "maps": [], "where": []}
    for width, height in SOURCES.values():
        where = geometry.box(width, height, SIDE, fit)  # type: ignore[arg-type]
        image = bars.integers(0, 255, (3, SIDE, SIDE), dtype=np.uint8)
        values = bars.uniform(0.5, 1, (SIDE, SIDE)).astype(np.float32)
        inner = geometry.inside(values, where)
        inner[...] = gaussian_filter(noise.random(inner.shape), 2)
        inner[...] -= inner.min()
        inner[...] /= inner.max()
        shown = geometry.inside(image, where)
        shown[...] = np.where(inner > 0.6, 190, 60) + noise.integers(0, 20, shown.shape)
        for name, value in (("images", image), ("maps", values), ("where", where)):
            rows[name].append(value)
    return rows


def written(folder: Path, rows: dict[str, Any]) -> None:
    """The shards of that material."""
    header = provenance.header("attribute", {})
    names = list(SOURCES)
    sides = np.array(list(SOURCES.values()))
    with create_shard(folder / "i.h5", "images", header) as writer:
        table = {"image_id": names, "width": sides[:, 0], "height": sides[:, 1]}
        writer.append(table, image=np.stack(rows["images"]))
    columns = ("label", "probability", "agreement", "completeness")
    facts = {n: np.ones(len(names), np.int8 if n == "label" else np.float32) for n in columns}
    facts |= {"image_id": names, "finding": ["f"] * len(names)}
    facts["scale"] = np.array(SCALES, np.float32)
    with create_shard(folder / "r.h5", "relevance", header) as writer:
        writer.append(facts, map=np.stack(rows["maps"]).astype(np.float16))


@pytest.fixture(scope="module")
def thresholds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of thresholds of noise."""
    folder = tmp_path_factory.mktemp("thresholds")
    views = np.random.default_rng(3).random((4, 1, 2, 16, 16)).astype(np.float16)
    header = provenance.header("sample", {})
    with create_shard(folder / "s.h5", "relevance", header) as writer:
        sample = {"image_id": list("abcd"), "finding": ["f"] * 4, "label": np.ones(4, np.int8)}
        writer.append(sample, views=views, view_scale=np.full((4, 1, 2), 0.03, np.float32))
    choose_thresholds(folder / "s.h5", folder / "t.parquet")
    return folder / "t.parquet"


def drawn(
    folder: Path, rows: dict[str, Any], fit: str, steps: list[Any], thresholds: Path
) -> tuple[Any, Any]:
    folder.mkdir()
    written(folder, rows)
    config = resolved(
        {
            "dataset": "x",
            "source": {"kind": "phantoms"},
            "recipes": {"r": {"binarize": steps}},
            "release": {"recipe": "r"},
            "prepare": {"fit": fit},
        }
    )
    shards = (folder / "i.h5", folder / "r.h5")
    binarize_shard(config, *shards, "r", folder / "m.h5", thresholds)
    with Shard(folder / "m.h5", "masks") as shard:
        return shard.table(), shard.read("mask")


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("chain", CHAINS)
def test_no_step_and_no_recipe_looks_or_draws_outside(
    tmp_path: Path, thresholds: Path, chain: str, fit: str
) -> None:
    found = []
    for seed in (0, 1) if fit == "letterbox" else (0,):
        rows = material(fit, seed)
        if chain in _OF_LEVELS:
            rows["maps"] = [(values > 0.6).astype(np.float32) for values in rows["maps"]]
        table, masks = drawn(tmp_path / str(seed), rows, fit, CHAINS[chain], thresholds)
        cuts = cuts_of(read_thresholds(thresholds), "f")
        for k, where in enumerate(rows["where"]):
            outside = np.ones((SIDE, SIDE), bool)
            geometry.inside(outside, where)[...] = False
            assert not masks[k][outside].any()
            inner = geometry.inside(masks[k], where)
            pair = Pair(
                map=geometry.inside(rows["maps"][k].astype(np.float16).astype(np.float32), where),
                image=geometry.inside(rows["images"][k], where),
                label=1,
                probability=1.0,
                scale=SCALES[k],
                cuts=cuts,
            )
            alone = make_chain(CHAINS[chain])(pair)
            np.testing.assert_array_equal(inner, alone.mask)
            assert table["area"][k] == pytest.approx((inner == FOREGROUND).mean())
            expected = stability(alone)
            assert table["stability"][k] == pytest.approx(expected, nan_ok=True)
        found.append(masks)
    np.testing.assert_array_equal(found[0], found[-1])  # whatever the bars hold
    assert any((masks == FOREGROUND).any() for masks in found[0])
