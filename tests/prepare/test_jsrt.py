"""JSRT's raw files and SCR's masks, made here in small."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from dollmaker.config import settings as configuration
from dollmaker.launch.preflight import preflight
from dollmaker.prepare.convert import convert
from dollmaker.prepare.jsrt import ORGANS
from dollmaker.prepare.sources import list_source
from dollmaker.runtime.errors import DataError

RAW, SIZE = 32, 16


def resolved(prepare: dict[str, Any] | None = None, **jsrt: Any) -> Any:
    options = {"images": "raw", "masks": "scr", "raw_size": RAW, "size": SIZE, **jsrt}
    source = {"kind": "jsrt", "jsrt": options}
    return configuration.resolved({"dataset": "x", "source": source, "prepare": prepare or {}})


def tree(root: Path) -> None:
    """Two images; the left lung is the left half, the heart a square that overlaps it."""
    (root / "raw").mkdir()
    for name in ("JPCLN001", "JPCNN002"):
        values = np.zeros((RAW, RAW), ">u2")
        values[:2, :2] = [[4095, 4095], [4095, 0]]  # averages to 3/4 of the range
        values[:, RAW // 2 :] = 4095
        (root / "raw" / f"{name}.IMG").write_bytes(values.tobytes())
    (root / "raw/readme.txt").write_text("x")
    for fold, name in (("fold1", "JPCLN001"), ("fold2", "JPCNN002")):
        for organ in ORGANS:
            mask = np.zeros((SIZE, SIZE), np.uint8)
            if organ == "left lung":
                mask[:, : SIZE // 2] = 255
            if organ == "heart":
                mask[4:8, 6:10] = 255
            folder = root / "scr" / fold / "masks" / organ
            folder.mkdir(parents=True)
            Image.fromarray(mask).save(folder / f"{name}.gif")


def run(config: Any, root: Path) -> pl.DataFrame:
    convert(config, root, root / "out", 2)
    return pl.read_csv(root / "out/labels.csv")


def test_raw_files_are_inverted_and_masks_are_bits(tmp_path: Path) -> None:
    tree(tmp_path)
    table = run(resolved(), tmp_path)
    assert table.rows() == [
        ("JPCLN001.png", "JPCLN001.png", "JPCLN001", 1),
        ("JPCNN002.png", "JPCNN002.png", "JPCNN002", 0),
    ]
    image = np.asarray(Image.open(tmp_path / "out/images/JPCLN001.png"))
    assert image.shape == (SIZE, SIZE)
    assert image[0, 0] == round(255 / 4)  # three of four raw pixels are dark
    assert image[5, 0] == 255 and image[5, 12] == 0  # low raw values are bright
    mask = np.asarray(Image.open(tmp_path / "out/masks/JPCLN001.png"))
    assert (mask[5, 0], mask[5, 7], mask[5, 9], mask[5, 12]) == (1, 5, 4, 0)
    assert (mask & 4 != 0).sum() == 16
    plan, names = list_source(resolved(), tmp_path / "out")
    assert names == ["Nodule"] and plan["Nodule"].to_list() == [1, 0]


def test_masks_of_another_size_are_scaled_and_none_are_none(tmp_path: Path) -> None:
    tree(tmp_path)
    run(resolved(size=RAW), tmp_path)
    mask = np.asarray(Image.open(tmp_path / "out/masks/JPCLN001.png"))
    assert mask.shape == (RAW, RAW) and ((mask & 4) > 0).sum() == 4 * 16
    table = run(resolved(masks=None), tmp_path)
    assert table["mask"].null_count() == 2
    assert list((tmp_path / "out/masks").iterdir()) == []


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(DataError, match=r"2048 bytes, 64x64 .* need 8192 .*raw_size"):
        run(resolved(raw_size=64), tmp_path)
    heart = tmp_path / "scr/fold1/masks/heart/JPCLN001.gif"
    Image.new("L", (SIZE, 9)).save(heart)
    with pytest.raises(DataError, match="not all squares of one size"):
        run(resolved(), tmp_path)
    heart.unlink()
    with pytest.raises(DataError, match=r"1 of 2 .*mask of the heart is missing"):
        run(resolved(), tmp_path)
    table = run(resolved({"max_quarantined": 0.5}), tmp_path)
    assert table["patient"].to_list() == ["JPCNN002"]
    little = np.full((RAW, RAW), 4095, "<u2").tobytes()
    (tmp_path / "raw/JPCNN002.IMG").write_bytes(little)
    with pytest.raises(DataError, match="more than 12 bits"):
        run(resolved(masks=None), tmp_path)
    for options, said in (
        ({"images": "no"}, r"correct source\.jsrt\.images"),
        ({"images": "scr"}, r"has no JPCLN\*\.IMG"),
        ({"masks": "raw"}, "has no folder of an organ"),
        ({"masks": "../raw"}, "leaves the data root"),
    ):
        with pytest.raises(DataError, match=said):
            preflight(resolved(**options).replace(data_root=str(tmp_path)))


def test_masks_of_no_image_are_refused(tmp_path: Path) -> None:
    tree(tmp_path)
    for path in sorted((tmp_path / "scr").rglob("*.gif")):
        path.rename(path.with_name(f"mask of {path.name}"))
    with pytest.raises(DataError, match=r"none of the masks .*'?MASK OF JPCLN001'?.* is called"):
        convert(resolved(), tmp_path, tmp_path / "out", 1)
