"""The command: a folder with maps, measures and a picture, from a segmenter's folder."""

import itertools
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from dollmaker.config import settings as configuration
from dollmaker.config.networks import SegmentConfig
from dollmaker.explain.measures import MEASURES, page
from dollmaker.explain.subject import blind_seeds, load_segmenter
from dollmaker.launch import pipeline
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import create
from dollmaker.runtime.cli import main
from dollmaker.runtime.errors import ConfigError
from dollmaker.segment.stage import save
from dollmaker.store import provenance, tables
from dollmaker.store.shards import Shard, create_shard

SIZE, FINDINGS = 64, ["Bright", "Dark"]
OPTIONS = {
    "architecture": "unet",
    "encoder": "tu-test_resnet",
    "arguments": {"decoder_channels": [8, 8, 4, 4, 4]},
    "init": "random",
}
CONFIG = json.dumps({"dataset": "fake", "source": {"kind": "phantoms"}, "device": "cpu"})


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Five images, the last two of the test split; a release; an untrained segmenter."""
    rng = np.random.default_rng(0)
    header = provenance.header("prepare", {})
    rows = [
        {"image_id": f"i{n}", "path": f"{n}.png", "patient_id": f"p{n}", "shard": "0000", "row": n,
         "split": "test" if n > 2 else "valid", "Bright": 1, "Dark": n % 2,
         "width": SIZE, "height": SIZE}
        for n in range(5)
    ]  # fmt: skip
    index = pl.DataFrame(rows).with_columns(pl.col(FINDINGS).cast(pl.Int8))
    tables.write(index, tmp_path / "index.parquet", {**header, "findings": FINDINGS})
    with create_shard(tmp_path / "images" / "0000.h5", "images", header) as writer:
        pixels = rng.integers(0, 255, (5, 1, SIZE, SIZE)).astype(np.uint8)
        writer.append({"image_id": [row["image_id"] for row in rows]}, image=pixels)
    for split, pairs in (
        ("valid", [("i0", "Bright", True)]),
        ("test", [("i4", "Bright", True), ("i3", "Dark", True), ("i3", "Bright", True),
                  ("i4", "Dark", False)]),
    ):  # fmt: skip
        with create_shard(
            tmp_path / "labels" / "masks" / f"{split}-00000-of-00001.h5", "masks", header
        ) as w:
            ids, names, kept = zip(*pairs, strict=True)
            masks = np.zeros((len(pairs), SIZE, SIZE), np.uint8)
            masks[:, 10:40, 20:50] = 1
            w.append({"image_id": ids, "finding": names, "kept": kept}, mask=masks)
    model = create(SegmentConfig(**OPTIONS), channels=1, classes=2, size=SIZE, seed=3)
    folder = tmp_path / "segmenter"
    folder.mkdir()
    save(folder, model, SegmentConfig(**OPTIONS), FINDINGS, Input(channels=1, size=SIZE),
         header=provenance.header("segment", OPTIONS))  # fmt: skip
    return tmp_path


def explain(world: Path, *more: str, config: str = CONFIG) -> int:
    words = ["explain", "--config", config]
    for name in ("segmenter", "images", "labels"):
        words += [f"--{name}", str(world / name)]
    words += ["--index", str(world / "index.parquet"), "--output", str(world / "explained")]
    return main([*words, *more])


def test_the_test_pairs_by_both_methods(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(world, "--pixels", "image") == 0
    folder = world / "explained"
    names = ["README.md", "measures.parquet", "overlays.png", "seg_grad_cam.h5", "seg_hires_cam.h5"]
    assert sorted(path.name for path in folder.iterdir()) == names
    measures = tables.read(folder / "measures.parquet")
    assert measures.select("method", "image_id", "finding").rows() == [
        (method, *pair)
        for method in ("seg_grad_cam", "seg_hires_cam")
        for pair in [("i3", "Dark"), ("i3", "Bright"), ("i4", "Bright")]
    ]
    for method in ("seg_grad_cam", "seg_hires_cam"):
        with Shard(folder / f"{method}.h5", "relevance") as shard:
            table, maps = shard.table(), shard.read("map")
        assert table["finding"].tolist() == ["Dark", "Bright", "Bright"]
        assert maps.shape == (3, SIZE, SIZE)
        assert maps.dtype == np.float16
        assert maps.min() >= 0
        assert 0.5 < maps.max() <= 1
        mine = measures.filter(pl.col("method") == method)
        inside, whole = (part.sum((1, 2), dtype=float) for part in (maps[:, 10:40, 20:50], maps))
        expected = np.divide(inside, whole, out=np.full(3, np.nan), where=whole > 0)
        np.testing.assert_allclose(mine["inside_truth"], expected, atol=2e-3)
    with Image.open(folder / "overlays.png") as picture:
        assert picture.width > 3 * 160 and picture.height > 3 * 160
    assert "seg_hires_cam: inside_prediction" in capsys.readouterr().err
    assert not list(world.glob(".explained*"))


def test_maps_and_measures_are_of_the_picture(world: Path) -> None:
    """The same squares, said to be letterboxes of wide pictures: rows 16 to 48 of 64."""
    index = tables.read(world / "index.parquet").with_columns(width=pl.lit(100), height=pl.lit(50))
    header = tables.read_header(world / "index.parquet")
    tables.write(index, world / "index.parquet", header)
    assert explain(world, "--pixels", "image") == 0
    measures = tables.read(world / "explained" / "measures.parquet")
    np.testing.assert_allclose(measures["truth"], 24 * 30 / (32 * 64))
    with Shard(world / "explained" / "seg_hires_cam.h5", "relevance") as shard:
        maps = shard.read("map").astype(np.float64)
    assert not maps[:, :16].any() and not maps[:, 48:].any() and maps.any((1, 2)).any()
    mine = measures.filter(pl.col("method") == "seg_hires_cam")
    inside, whole = maps[:, 16:40, 20:50].sum((1, 2)), maps.sum((1, 2))
    expected = np.divide(inside, whole, out=np.full(3, np.nan), where=whole > 0)
    np.testing.assert_allclose(mine["inside_truth"], expected, atol=2e-3)
    resized = json.dumps({**json.loads(CONFIG), "prepare": {"fit": "resize"}})
    assert explain(world, "--pixels", "image", config=resized) == 0
    with Shard(world / "explained" / "seg_hires_cam.h5", "relevance") as shard:
        assert shard.read("map")[:, :16].any()


def test_the_same_bytes_again(world: Path) -> None:
    read = []
    for _ in range(2):
        assert explain(world, "--layer", "decoder.1", "--images-limit", "1") == 0
        files = sorted((world / "explained").iterdir())
        read.append([file.read_bytes() for file in files if file.suffix != ".h5"])
    assert read[0] == read[1]
    measures = tables.read(world / "explained" / "measures.parquet")
    assert measures["image_id"].unique().to_list() == ["i3"]


def test_the_untrained_networks_are_not_the_start_of_the_training(world: Path) -> None:
    seed = 3  # of the fixture's segmenter, which is as created
    subject = load_segmenter(world / "segmenter", seed, torch.device("cpu"))
    assert len(subject.blind) == 3
    networks = [subject.network, *subject.blind]
    for part in ("encoder", "decoder", "segmentation_head"):
        weights = [
            torch.cat([p.ravel() for p in n.get_submodule(part).parameters() if p.ndim == 4])
            for n in networks
        ]
        for a, b in itertools.combinations(weights, 2):
            assert abs(torch.cosine_similarity(a, b, dim=0)) < 0.3, part


def test_seeds_of_untrained_networks() -> None:
    first = blind_seeds(0)
    assert len(set(first)) == 3
    assert first == blind_seeds(0) != blind_seeds(1)
    # Not the segmenter's own, by chance or because torch sees its lowest 32 bits only.
    assert first[0] not in blind_seeds(0, own=first[0] + 2**32)


def test_what_the_configuration_asks_for(world: Path) -> None:
    section = {"layer": "decoder.1", "point": [20, 30], "methods": ["seg_hires_cam"], "images": 1}
    config = json.dumps({**json.loads(CONFIG), "explain": section})
    resolved = configuration.loaded(config)
    assert json.loads(pipeline.stage_config(resolved, "explain"))["explain"] == {
        **section, "pixels": None,
    }  # fmt: skip
    file = world / "explained" / "measures.parquet"
    asked = {"layer": "decoder.1", "pixels": "point", "point": [20, 30], "limit": 1}
    for more, changed in (
        ([], {}),
        (["--pixels", "image", "--layer", "encoder.0"],
         {"layer": "encoder.0", "pixels": "image", "point": None}),
        (["--point", "1,2", "--images-limit", "9"], {"point": [1, 2], "limit": 9}),
    ):  # fmt: skip
        assert explain(world, *more, config=config) == 0
        expected = {**asked, **changed, "methods": ["seg_hires_cam"], "split": "test"}
        assert tables.read_header(file)["config"] == expected
    with pytest.raises(ConfigError, match=r"explain\.pixels"):
        configuration.loaded(json.dumps({**json.loads(CONFIG), "explain": {"pixels": "all"}}))


def test_the_page_counts_what_it_leaves_out() -> None:
    nan = float("nan")
    rows = [
        (method, image, finding, inside, inside / 2, pointing, 0.25)
        for method, values in (
            ("seg_grad_cam", [("a", "X", 0.5, 1.0), ("b", "X", 0.7, nan), ("a", "Y|Z", nan, nan)]),
            ("seg_hires_cam", [("a", "X", 0.1, 0.0), ("b", "X", 0.3, 1.0), ("a", "Y|Z", 0.9, 1.0)]),
        )
        for image, finding, inside, pointing in values
    ]
    names = ["method", "image_id", "finding", *MEASURES]
    text = page(pl.DataFrame(rows, names, orient="row"), layer="l.1", pixels="class", split="test")
    for line in (
        "Layer `l.1`, pixel set `class`, released pairs of the split `test`.",
        "**Truth here is the released pseudo-mask**",
        "| seg_grad_cam | X | 2 | 0.600 (2; 0) | 0.300 (2; 0) | 1.000 (1; 1) | 0.250 (2; 0) |",
        "| seg_hires_cam | Y\\|Z | 1 | unknown (0; 1) | ",
        "| seg_hires_cam | **all pairs** | 3 | 0.200 (2; 1) | 0.100 (2; 1) | 0.500 (2; 1) | ",
    ):
        assert line in text


def test_without_test_masks_the_validation_pairs(world: Path) -> None:
    (world / "labels" / "masks" / "test-00000-of-00001.h5").unlink()
    assert explain(world, "--method", "seg_grad_cam", "--point", "20,30") == 0
    measures = tables.read(world / "explained" / "measures.parquet")
    assert measures["image_id"].to_list() == ["i0"]
    assert tables.read_header(world / "explained" / "measures.parquet")["config"]["split"] == (
        "valid"
    )
    assert not (world / "explained" / "seg_hires_cam.h5").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--layer", "decoder.blok.0"], "did you mean one of: decoder.blocks.0"),
        (["--pixels", "point"], "give --point"),
        (["--point", "64,0"], "x in 0..63"),
        (["--pixels", "zero", "--point", "1,1"], "leave out one"),
        (["--images-limit", "0"], "at least 1"),
    ],
)
def test_refusals(
    words: list[str], said: str, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(world, *words) == 1
    assert said in capsys.readouterr().err
    assert not list(world.glob("*explained*"))


def test_a_damaged_segmenter_is_refused(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = world / "segmenter" / "segmenter.json"
    description = json.loads(file.read_text())
    file.write_text(json.dumps({**description, "sha256": "0"}))
    assert explain(world) == 1
    assert "checksum" in capsys.readouterr().err
    file.write_text(json.dumps({**description, "findings": FINDINGS[:1]}))
    assert explain(world) == 1
    assert "does not fit its description" in capsys.readouterr().err
