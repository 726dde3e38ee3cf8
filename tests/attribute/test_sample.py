"""The sample: who is drawn, and what its columns say about maps whose answer is known."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import spearmanr

from classify.test_classify import make_config, make_dataset, train
from dollmaker.attribute import consensus
from dollmaker.attribute import sample as module
from dollmaker.attribute.sample import _correlations, explain_sample, insertion_deletion
from dollmaker.attribute.selection import draw_pairs
from dollmaker.attribute.stage import Inputs, explain_shard
from dollmaker.config.masks import SampleConfig
from dollmaker.config.settings import resolved
from dollmaker.measures import scores
from dollmaker.networks.frames import Frames
from dollmaker.runtime.errors import DataError
from dollmaker.store import tables
from dollmaker.store.shards import Shard

OPTIONS = SampleConfig(positives=5, checks=2)


def index(count: int = 60) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(count)],
            "split": [("train", "valid", "test")[k % 3] for k in range(count)],
            "a": pl.Series([k % 2 for k in range(count)], dtype=pl.Int8),
            "b": pl.Series([(1, None, -1, 0)[k % 4] for k in range(count)], dtype=pl.Int8),
        }
    )


def test_pairs_are_drawn_by_image_whatever_the_order() -> None:
    drawn = draw_pairs(index(), ["a", "b"], OPTIONS, 0)
    mixed = index().sample(fraction=1, shuffle=True, seed=3)
    ids = [{(t["image_id"][p.row], p.finding, p.positive, p.checked) for p in draw_pairs(t, ["a", "b"], OPTIONS, 0)} for t in (index(), mixed)]  # fmt: skip # noqa: E501
    assert ids[0] == ids[1]
    assert len([p for p in drawn if p.positive]) == 10 and len(drawn) == 14
    assert len([p for p in drawn if p.checked]) == 4 and all(p.positive for p in drawn if p.checked)
    table = index()
    for pair in drawn:
        assert table["split"][pair.row] != "test"
        assert table[pair.finding][pair.row] in ((1,) if pair.positive else (0, None))
    other = {p.row for p in draw_pairs(index(), ["a", "b"], OPTIONS, 1)}
    assert other != {p.row for p in drawn}


def test_a_sample_without_positives_is_refused() -> None:
    with pytest.raises(DataError, match=r"set sample\.splits"):
        draw_pairs(index().with_columns(a=pl.lit(0), b=pl.lit(0)), ["a", "b"], OPTIONS, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample")
    make_dataset(path)
    for name, seed in (("a", 0), ("b", 5)):
        config = make_config(epochs=4)
        config["classify"]["members"]["a"]["seed"] = seed
        train(config, path, name)
    return path


def sample(
    folder: Path, name: str, members: str = "ab", index: str = "index.parquet", **options: Any
) -> dict[str, Any]:
    config = make_config()
    config["sample"] = {**config["sample"], "positives": 6, "checks": 3}
    config["recipes"]["doll"]["attribute"].update(options)
    explain_sample(
        resolved(config),
        Inputs(
            index=folder / index,
            images=folder / "images",
            committee=[folder / m for m in members],
        ),
        "doll",
        folder / name,
    )
    with Shard(folder / name, "relevance") as shard:
        arrays = {array: shard.read(array) for array in ("map", "views", "view_scale", "blind")}
        return {**shard.table(), **arrays}


def test_the_maps_are_those_of_the_shard(folder: Path) -> None:
    found = sample(folder, "s.h5", nodes=8)
    config = make_config()
    config["recipes"]["doll"]["attribute"]["nodes"] = 8
    explain_shard(
        resolved(config),
        Inputs(
            index=folder / "index.parquet",
            images=folder / "images",
            committee=[folder / "a", folder / "b"],
        ),
        "doll",
        "0000",
        folder / "r.h5",
    )
    with Shard(folder / "r.h5", "relevance") as shard:
        table, maps = shard.table(), shard.read("map")
    place = {p: k for k, p in enumerate(zip(table["image_id"], table["finding"], strict=True))}
    positive = np.nonzero(found["label"] == 1)[0]
    assert len(positive) == 12 and (found["label"] == 0).sum() == 6
    for k in positive:
        row = place[found["image_id"][k], found["finding"][k]]
        np.testing.assert_allclose(found["map"][k], maps[row], atol=2e-3)
    assert found["views"].shape == (18, 2, 2, 32, 32)
    checked = np.isfinite(found["randomised"])
    assert found["blind"].shape == (18, module.DRAWS, 32, 32) and checked.sum() == 6
    assert np.isnan(found["blind"][~checked]).all()
    for k in np.nonzero(checked)[0]:
        ranks = [spearmanr(found["map"][k].ravel(), b.ravel())[0] for b in found["blind"][k]]
        assert np.mean(ranks) == pytest.approx(found["randomised"][k], abs=0.02)
    assert np.isfinite(found["randomised"]).sum() == 6
    assert np.nanmedian(found["randomised"]) < 0.9
    assert (found["views"][:, :, 1].max((2, 3)) == 1).all()  # mirrored and turned back


def test_progress_counts_all_maps_and_its_steps_change_no_byte(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, step in (("one", 1), ("all", 99)):
        monkeypatch.setattr(module, "_STEP", {"cpu": step})
        sample(folder, f"{name}.h5", nodes=2)
        # 18 pairs, 6 of them checked: 2 members, as it is and mirrored, 3 draws, another finding.
        maps = 2 * (18 * 2 + 6 * 3 + 6)
        assert f"sample doll: {maps}/{maps} maps" in capsys.readouterr().err
    assert (folder / "one.h5").read_bytes() == (folder / "all.h5").read_bytes()


def test_a_mirrored_view_is_turned_back(folder: Path) -> None:
    views = sample(folder, "v.h5", "a", nodes=8)["views"].astype(float)
    plain, mirrored = views[:, 0, 0], views[:, 0, 1]
    seen = mirrored.any((1, 2))
    as_it_is = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(plain[seen], mirrored[seen], strict=True)]  # fmt: skip # noqa: E501
    turned = [np.corrcoef(a.ravel(), b[:, ::-1].ravel())[0, 1] for a, b in zip(plain[seen], mirrored[seen], strict=True)]  # fmt: skip # noqa: E501
    assert np.mean(as_it_is) > np.mean(turned) + 0.1


def test_views_are_of_the_picture_and_give_relevance_in_logits(folder: Path) -> None:
    """The same squares, said to be letterboxes of wide pictures: rows 4 to 28."""
    index = tables.read(folder / "index.parquet")
    wide = index.with_columns(width=pl.lit(64), height=pl.lit(48))
    tables.write(wide, folder / "wide.parquet", tables.read_header(folder / "index.parquet"))
    found = sample(folder, "w.h5", "a", index="wide.parquet", nodes=8)
    maps, views = found["map"].astype(np.float32), found["views"].astype(np.float32)
    assert not maps[:, :4].any() and not maps[:, 28:].any() and (maps.max((1, 2)) == 1).all()
    parts = torch.from_numpy(maps[:, 4:28])
    pooled = torch.nn.functional.adaptive_avg_pool2d(parts, 32).numpy()
    np.testing.assert_allclose(views[:, 0, 0], pooled, atol=2e-3)  # of the one member
    np.testing.assert_allclose(found["view_scale"][:, 0, 0], found["scale"], rtol=1e-5)
    assert (found["view_scale"] > 0).all()  # mirrored, without the finding, too
    assert found["view_scale"].shape == (18, 1, 2) and found["view_scale"].dtype == np.float32
    seen = views[:, 0]
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in seen]
    turned = [np.corrcoef(a.ravel(), b[:, ::-1].ravel())[0, 1] for a, b in seen]
    assert np.mean(alike) > np.mean(turned) + 0.1


def test_the_correlation_with_random_weights_is_the_mean_of_the_draws_that_are_known() -> None:
    nan = np.nan
    draws = np.array([[0.2, nan, nan], [0.4, 0.3, nan], [0.9, 0.5, nan]], np.float32)
    np.testing.assert_allclose(scores.nanmean(draws, axis=0), [0.5, 0.4, nan], rtol=1e-6)


def test_correlations_are_of_the_picture() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 8, 8)).astype(np.float32)
    frames = Frames(((0, 2, 8, 6), (1, 0, 3, 8), (0, 0, 8, 8)), 8)
    found = _correlations(torch.from_numpy(a), torch.from_numpy(b), frames)
    wanted = [
        spearmanr(a[0, 2:6].ravel(), b[0, 2:6].ravel()).statistic,
        spearmanr(a[1, :, 1:3].ravel(), b[1, :, 1:3].ravel()).statistic,
        spearmanr(a[2].ravel(), b[2].ravel()).statistic,
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_maps_that_know_no_findings_are_the_same_for_another(folder: Path) -> None:
    found = sample(folder, "t.h5", "a", method="tokencut", side=128)
    assert np.nanmin(found["other"]) == pytest.approx(1)
    assert np.nanmax(sample(folder, "u.h5", "a", nodes=8)["other"]) < 1


def test_insertion_and_deletion_of_a_linear_logit() -> None:
    image, baseline = torch.full((1, 10, 10), 100.0), torch.zeros(1, 10, 10)
    weights = torch.zeros(10, 10)
    weights[:2, :5] = 1  # a tenth of the pixels is all that counts

    def logit(rows: torch.Tensor) -> torch.Tensor:
        return (rows[:, 0] * weights).sum((1, 2))

    good = insertion_deletion(logit, image, baseline, weights, (0, 0, 10, 10))
    assert good[0] == pytest.approx(0.95) and good[1] == pytest.approx(0.05)
    bad = insertion_deletion(logit, image, baseline, -weights, (0, 0, 10, 10))
    assert bad[0] < 0.2 and bad[1] > 0.8
    assert np.isnan(
        insertion_deletion(lambda r: -logit(r), image, baseline, weights, (0, 0, 10, 10))
    ).all()


def test_curves_change_the_picture_only() -> None:
    """A tenth of the picture counts, and the map's largest values lie outside."""
    image, baseline = torch.full((1, 10, 10), 100.0), torch.zeros(1, 10, 10)
    baseline[:, :2] = image[:, :2]
    weights = torch.zeros(10, 10)
    weights[2, :8] = 1
    seen: list[torch.Tensor] = []

    def logit(rows: torch.Tensor) -> torch.Tensor:
        seen.append(rows)
        return (rows[:, 0] * weights).sum((1, 2))

    relevance = weights.clone()
    relevance[:2] = 9
    found = insertion_deletion(logit, image, baseline, relevance, (0, 2, 10, 10))
    # Of its 80 pixels 2 and 4 are a quarter and half of the 8 that count.
    assert found[0] == pytest.approx(0.95125) and found[1] == pytest.approx(0.04875)
    assert (seen[0][:, :, :2] == 100).all()


def test_fusion_multiplies_and_scales_again() -> None:
    maps = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    joined = consensus.agree([maps])
    weights = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(1))
    fused = consensus.fuse(joined, weights)
    torch.testing.assert_close(fused.maps * fused.scale[:, None, None], maps * weights)
    assert fused.maps.amax((1, 2)).tolist() == [1, 1]
    nothing = consensus.fuse(joined, torch.zeros_like(weights))
    assert not nothing.maps.any()
