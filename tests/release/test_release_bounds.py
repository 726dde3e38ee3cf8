"""Bounds of the masks' IoU in a release: a promise where there is truth, else rank only."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose

from dollmaker import PseudoLabels
from dollmaker.config.settings import resolved
from dollmaker.evaluate.means import PAIRS
from dollmaker.release.bounds import RANK_ONLY, add_bounds, calibrate_release, tell
from dollmaker.release.browse import stats
from dollmaker.release.parts import read_rows
from dollmaker.release.read import read_release
from dollmaker.release.verify import verify
from dollmaker.runtime.cli import main
from dollmaker.runtime.errors import ConfigError
from dollmaker.store import tables
from dollmaker.store.files import read_json, write_json
from dollmaker.store.sums import checksums
from release.small_release import FINDINGS, build

#: IoU of the first finding's masks, by image; two images a patient.
IOU = {0: 0.0, 1: 0.0, 2: 0.1, 4: 0.3, 5: 0.4, 6: 0.35, 7: 0.5, 10: 0.9, 11: 0.9}


def scored() -> list[dict[str, Any]]:
    """Rows of pairs.parquet, of the first finding, and one that is none of the release's masks."""
    rows = [{"image_id": f"i{k}", "finding": FINDINGS[0], "iou": iou} for k, iou in IOU.items()]
    return [*rows, {"image_id": "i99", "finding": FINDINGS[0], "iou": 0.0}]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Four patients of the training split are enough, for a confidence of 0.5."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dollmaker.measures.conformal.LEAST", 4)
        folder = tmp_path_factory.mktemp("bounds")
        yield build(folder / "x", truth=True, pairs=scored(), evaluated={"confidence": 0.5})


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same masks without truth: what a release of an earlier version holds."""
    return build(tmp_path_factory.mktemp("plain") / "x")


def test_bounds_are_the_quality_less_the_margin_of_the_finding_and_split(release: Path) -> None:
    # errors of p0: 0 and 1/12; p1: 1/6 - 0.1 (of its other image no truth); p2: 1/3 - 0.3,
    # 5/12 - 0.4; p3: 0.5 - 0.35, 7/12 - 0.5: in order with weights of 1/5 a patient
    # 0 (.1) .0167 (.2) .0333 (.3) .0667 (.5)
    margin = round(1 / 6, 4) - 0.1
    facts = read_json(release / "bounds.json")
    train, test = facts["calibrations"][1], facts["calibrations"][0]
    assert (train["split"], train["patients"], train["masks"]) == ("train", 4, 7)
    assert train["margin"] == pytest.approx(margin, abs=1e-6)
    assert (test["split"], test["patients"], test["margin"]) == ("test", 1, None)
    rows = read_rows(release, "train")
    first = rows.filter(finding=FINDINGS[0])
    expected = np.floor(np.maximum(0, first["quality"] - margin) * 1e4 + 1e-3) / 1e4
    assert_allclose(first["iou_bound"], expected, atol=1e-6)
    assert first["iou_bound"].to_list()[0] == 0.0
    assert rows.filter(finding=FINDINGS[1])["iou_bound"].is_null().all()
    assert read_rows(release, "test")["iou_bound"].is_null().all()


def test_bounds_change_no_mask_no_quality_and_no_label(release: Path, plain: Path) -> None:
    for folder in ("masks", "chexlocalize", "coco"):
        names = sorted(path.name for path in (plain / folder).iterdir())
        for name in names:
            mine, theirs = release / folder / name, plain / folder / name
            assert mine.read_bytes() == theirs.read_bytes(), name
    for path in sorted((plain / "data").iterdir()):
        with_bounds = tables.read(release / "data" / path.name)
        assert with_bounds.drop("iou_bound").equals(tables.read(path))
        assert tables.read_header(release / "data" / path.name) == tables.read_header(path)


def test_without_truth_nothing_is_added_and_everything_ranks_only(plain: Path) -> None:
    assert not (plain / "bounds.json").exists() and verify(plain) == []
    assert "iou_bound" not in pl.read_parquet(plain / "data/train-00000-of-00001.parquet").columns
    assert read_release(plain).confidence is None
    assert read_release(plain).table["iou_bound"].is_null().all()
    assert "rank only: no mask has a bound" in stats(plain)
    assert "None: no released mask has truth." in (plain / "README.md").read_text()
    assert '"bound"' not in (plain / "gallery/data/pairs.js").read_text()
    data = PseudoLabels(plain)
    assert data.confidence is None and data[0]["iou_bound"].isnan().all()
    with pytest.raises(ConfigError, match=r"min_bound is 0\.2, but no such mask .*rank only"):
        PseudoLabels(plain, min_bound=0.2)


def test_too_few_patients_are_named_but_bound_nothing(tmp_path: Path) -> None:
    release = build(tmp_path / "x", truth=True, pairs=scored())
    facts = read_json(release / "bounds.json")
    assert [row["margin"] for row in facts["calibrations"]] == [None, None]
    assert verify(release) == [] and read_release(release).table["iou_bound"].is_null().all()
    assert "iou_bound" not in pl.read_parquet(release / "data/train-00000-of-00001.parquet").columns
    card = " ".join((release / "README.md").read_text().split())
    assert (
        "0 have a lower bound" in card and "| Edema | train | 1 | 4 | 7 | - | - | - | - |" in card
    )
    assert "rank only: no mask has a bound" in stats(release)
    assert '"bound"' not in (release / "gallery/data/pairs.js").read_text()


def test_the_release_tells_its_bounds(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(release) == []
    main(["stats", str(release)])
    said = capsys.readouterr().out
    assert "8 masks have a bound of their IoU with 50 % confidence, the others: rank only" in said
    card = " ".join((release / "README.md").read_text().split())
    assert "Of 22 masks 8 have a lower bound" in card and "(50 %)" in card
    assert "| Edema | train | 1 | 4 | 7 | 0.07 |" in card
    pages = (release / "gallery/data/pairs.js").read_text()
    shown = json.loads(pages[pages.index("{") : pages.rindex("}") + 1])
    assert shown["confidence"] == 0.5 and sum(b is not None for b in shown["bound"]) == 8
    croissant = read_json(release / "croissant.json")
    names = [field["name"] for field in croissant["recordSet"][0]["field"]]
    assert names == pl.read_parquet(release / "data/train-00000-of-00001.parquet").columns
    main(["show", str(release), "i7", "--output", str(tmp_path / "i7.png")])
    assert (tmp_path / "i7.png").stat().st_size > 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("quality 0.58  IoU at least 0.51 (50 %)")
    assert second.endswith("quality 0.62  rank only")


def test_a_training_set_has_bounds_and_is_chosen_by_them(release: Path) -> None:
    data = PseudoLabels(release)
    rows = {(r["image_id"], r["finding"]): r["iou_bound"] for r in data.table.to_dicts()}
    for item in (data[k] for k in range(len(data))):
        expected = [rows.get((item["image_id"], finding)) for finding in FINDINGS]
        assert_allclose(item["iou_bound"], [np.nan if b is None else b for b in expected])
    few = PseudoLabels(release, min_bound=0.3)
    assert set(few.table["finding"]) == {FINDINGS[0]} and few.table["iou_bound"].min() >= 0.3
    assert 0 < len(few) < len(data) and data.confidence == 0.5


@pytest.mark.parametrize(
    ("pair", "probability"),
    [
        ({}, 0.8),  # all have 0.7: they are scored as empty
        ({"recipe": "centre"}, 0.0),
        ({"target": "box"}, 0.0),
        ({"explained": False}, 0.0),
        ({"image_id": "i99"}, 0.0),
    ],
)
def test_only_released_masks_that_are_scored_as_they_are_calibrate(
    release: Path, pair: dict[str, Any], probability: float
) -> None:
    same = {"recipe": "doll", "target": "finding", "explained": True}
    pairs = pl.DataFrame([same | row | pair for row in scored()], schema=PAIRS, orient="row")
    config = resolved(
        {
            "dataset": "x",
            "source": {"kind": "phantoms"},
            "evaluate": {"confidence": 0.5, "min_probability": probability},
        }
    )
    table = read_rows(release, "train")
    assert calibrate_release(config, table, pairs, "finding") is None


def test_masks_under_the_probability_that_counts_have_no_bound(release: Path) -> None:
    facts = read_json(release / "bounds.json") | {"min_probability": 0.5}
    table = read_rows(release, "train")
    unlike = pl.Series([0.4, None, float("nan"), *[0.5] * (len(table) - 3)], dtype=pl.Float32)
    bounds = add_bounds(table.with_columns(probability=unlike), facts)["iou_bound"]
    expected = table["iou_bound"].to_list()
    assert expected[0] is not None and bounds.to_list() == [None, *expected[1:]]


def test_other_tools_read_the_column(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    mlc = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed: not tested")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: not tested")
    mine = read_rows(release, "train")["iou_bound"].to_list()
    found = datasets.load_dataset(str(release), cache_dir=str(tmp_path / "cache"))["train"]
    assert found["iou_bound"][:] == mine
    records = mlc.Dataset(jsonld=str(release / "croissant.json")).records("masks")
    train = [r["masks/iou_bound"] for r in records if r["masks/split"] == b"train"]
    assert train == mine


def test_changed_bounds_are_found(release: Path, tmp_path: Path) -> None:
    path, sums = release / "data/train-00000-of-00001.parquet", release / "SHA256SUMS"
    facts, kept = read_json(release / "bounds.json"), [path.read_bytes(), sums.read_bytes()]
    table, header = tables.read(path), tables.read_header(path)
    raised = table.with_columns(iou_bound=pl.col("iou_bound") + 0.1)
    for wrong in (raised, table.with_columns(iou_bound=pl.lit(None, pl.Float32)),
                  table.drop("iou_bound")):  # fmt: skip
        tables.write(wrong, path, header)
        sums.write_text(checksums(release))
        (fault,) = verify(release)
        assert fault.endswith("bounds of the IoU are not those of bounds.json")
    path.write_bytes(kept[0])
    (release / "bounds.json").unlink()
    sums.write_text(checksums(release))
    assert any("bounds of the IoU" in fault for fault in verify(release))
    write_json(release / "bounds.json", [])
    sums.write_text(checksums(release))
    assert any("is not that of a release" in fault for fault in verify(release))
    write_json(release / "bounds.json", facts)
    sums.write_bytes(kept[1])
    assert verify(release) == []


def test_a_bound_is_told_in_two_digits_and_never_rounded_up() -> None:
    told = {0.4199: "0.41", 0.29: "0.29", 0.57: "0.57", 0.0: "0.00", 1.0: "1.00", 0.9999: "0.99"}
    for bound, text in told.items():
        assert tell(float(np.float32(bound)), 0.9) == f"IoU at least {text} (90 %)"
    assert tell(0.3, 0.975) == "IoU at least 0.30 (97.5 %)"
    assert tell(None, 0.9) == tell(0.3, None) == RANK_ONLY
