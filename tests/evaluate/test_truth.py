"""True masks against pycocotools, and hostile files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from dollmaker import config as configuration
from dollmaker.errors import DataError
from dollmaker.evaluate.truth import load_truth

ROW = {"image_id": "a", "width": 9, "height": 7, "mask": "a.png", "X": 1, "Y": 0}


def _load(tmp_path: Path, **truth: Any) -> Any:
    config = configuration.resolve({"dataset": "t", "source": {"kind": "phantoms"}, "truth": truth})
    return load_truth(config, tmp_path, ["X", "Y", "Lung Opacity", "Fracture"])


def _code(mask: Any) -> dict[str, Any]:
    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(code["size"]), "counts": code["counts"].decode("ascii")}


def _json(tmp_path: Path, content: Any) -> Any:
    (tmp_path / "t.json").write_text(json.dumps(content), encoding="utf-8")
    return _load(tmp_path, kind="chexlocalize", files=["t.json"])


@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 0.9, 1.0])
def test_codes_decode_as_pycocotools_encodes(tmp_path: Path, density: float) -> None:
    mask = np.random.default_rng(0).random((70, 90)) < density
    truth = _json(tmp_path, {"a": {"X": _code(mask)}})
    row = ROW | {"width": 90, "height": 70}
    assert np.array_equal(truth.mask(row, "X", "finding"), mask)


def test_what_is_unknown_and_what_is_absent(tmp_path: Path) -> None:
    mask = np.ones((7, 9), dtype=bool)
    truth = _json(
        tmp_path,
        {"a": {"X": _code(mask), "Airspace Opacity": _code(mask)}, "b": {"Y": _code(mask)}},
    )
    assert truth.targets == ["finding"]
    assert truth.mask(ROW, "Lung Opacity", "finding").all()  # CheXlocalize's name for it
    assert not truth.mask(ROW, "Y", "finding").any()  # annotated elsewhere, not here
    assert truth.mask(ROW, "Fracture", "finding") is None  # never annotated
    assert truth.mask(ROW | {"image_id": "c"}, "X", "finding") is None


@pytest.mark.parametrize(
    "code",
    [
        {"size": [9, 7], "counts": "o1"},
        {"size": [7, 9], "counts": ""},
        {"size": [7, 9], "counts": "1"},
        {"size": [7, 9], "counts": "\u00ff"},
        {"size": [7, 9], "counts": "oooooooooooooooooooooo"},
        {"size": [7, 9], "counts": [63]},
        {"size": "7x9", "counts": "o1"},
        {"counts": "o1"},
        "o1",
        None,
    ],
)
def test_damaged_codes_are_refused(tmp_path: Path, code: Any) -> None:
    truth = _json(tmp_path, {"a": {"X": code}})
    with pytest.raises(DataError, match="'a'"):
        truth.mask(ROW, "X", "finding")


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="form"):
        _json(tmp_path, {"a": [1]})
    (tmp_path / "t.json").write_bytes(b"\xff{")
    with pytest.raises(DataError, match="JSON"):
        _load(tmp_path, kind="chexlocalize", files=["t.json"])
    with pytest.raises(DataError, match="exist"):
        _load(tmp_path, kind="chexlocalize", files=["none.json"])
    with pytest.raises(DataError, match="leaves"):
        _load(tmp_path, kind="chexlocalize", files=["../t.json"])


@pytest.fixture
def mask_files(tmp_path: Path) -> Any:
    """A folder with one mask of three values."""
    (tmp_path / "masks").mkdir()
    values = np.zeros((7, 9), np.uint8)
    values[1:3], values[3:5] = 1, 2
    Image.fromarray(values).save(tmp_path / "masks" / "a.png")
    return _load(
        tmp_path,
        kind="masks",
        folder="masks",
        column="mask",
        targets={"nucleus": [2], "cell": [1, 2]},
    )


def test_mask_files(mask_files: Any) -> None:
    assert mask_files.targets == ["nucleus", "cell"]
    assert mask_files.mask(ROW, "X", "nucleus").sum() == 18
    assert mask_files.mask(ROW, "X", "cell").sum() == 36
    assert mask_files.mask(ROW, "Y", "cell") is None  # label 0
    assert mask_files.mask(ROW | {"mask": None}, "X", "cell") is None


def test_unusable_mask_files(mask_files: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="9x7"):
        mask_files.mask(ROW | {"image_id": "b", "width": 8}, "X", "cell")
    with pytest.raises(DataError, match="leaves"):
        mask_files.mask(ROW | {"mask": "../../x.png"}, "X", "cell")
    (tmp_path / "masks" / "text.png").write_text("no image", encoding="utf-8")
    with pytest.raises(DataError, match="readable image"):
        mask_files.mask(ROW | {"mask": "text.png"}, "X", "cell")
    with pytest.raises(DataError, match="not readable"):
        mask_files.mask(ROW | {"mask": "missing.png"}, "X", "cell")
    Image.new("RGB", (9, 7)).save(tmp_path / "masks" / "colour.png")
    with pytest.raises(DataError, match="colours"):
        mask_files.mask(ROW | {"mask": "colour.png"}, "X", "cell")


def test_no_truth_is_none() -> None:
    config = configuration.resolve({"dataset": "t", "source": {"kind": "phantoms"}})
    assert load_truth(config, Path(), []) is None
