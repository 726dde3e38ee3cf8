"""True masks against pycocotools, and hostile files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from dollmaker.config import settings as configuration
from dollmaker.evaluate.stage import load_truth
from dollmaker.prepare.listing import assign
from dollmaker.prepare.sources import list_source
from dollmaker.runtime.errors import ConfigError, DataError

ROW = {"image_id": "a", "width": 9, "height": 7, "mask": "a.png", "X": 1, "Y": 0}


def _load(tmp_path: Path, **truth: Any) -> Any:
    config = configuration.resolved(
        {"dataset": "t", "source": {"kind": "phantoms"}, "truth": truth}
    )
    return load_truth(
        config, tmp_path, ["X", "Y", "Lung Opacity", "Fracture", "Mass", "Infiltration"]
    )


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
        {"size": [7, 9], "counts": [62]},
        {"size": [7, 9], "counts": [31.5, 31.5]},
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


def test_several_files_and_images_by_their_folders(tmp_path: Path) -> None:
    mask = np.ones((7, 9), dtype=bool)
    (tmp_path / "one.json").write_text(json.dumps({"p1_s1_v": {"X": _code(mask)}}))
    (tmp_path / "two.json").write_text(json.dumps({"p1_s1_v": {"Y": _code(mask)}, "p2_s1_v": {}}))
    truth = _load(tmp_path, kind="chexlocalize", files=["one.json", "two.json"])
    row = ROW | {"image_id": "other", "path": "valid/p1/s1/v.jpg"}
    assert truth.mask(row, "X", "finding").all() and truth.mask(row, "Y", "finding").all()
    row |= {"path": "valid/p2/s1/v.jpg"}
    assert not truth.mask(row, "X", "finding").any()
    assert truth.mask(row | {"path": "valid/p3/s1/v.jpg"}, "X", "finding") is None


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
    with pytest.raises(DataError, match="missing"):
        mask_files.mask(ROW | {"mask": "missing.png"}, "X", "cell")
    Image.new("RGB", (9, 7), "blue").save(tmp_path / "masks" / "colour.png")
    with pytest.raises(DataError, match="colours"):
        mask_files.mask(ROW | {"mask": "colour.png"}, "X", "cell")


def _deep(tmp_path: Path, **truth: Any) -> Any:
    """A 16-bit mask: bit 16 in two columns, bit 4096 in two rows that cross them."""
    (tmp_path / "masks").mkdir(exist_ok=True)
    values = np.zeros((7, 9), np.uint16)
    values[:, :2] += 16
    values[5:] += 4096
    Image.fromarray(values).save(tmp_path / "masks" / "a.png")
    targets = {"low": [16], "high": [4096], "both": [16, 4096]}
    given = {"folder": "masks", "column": None, "encoding": "bits", "targets": targets, **truth}
    return _load(tmp_path, kind="masks", **given)


def test_masks_of_bits_may_overlap(tmp_path: Path) -> None:
    truth = _deep(tmp_path)
    areas = {name: truth.mask(ROW, "X", name) for name in truth.targets}
    assert {name: int(area.sum()) for name, area in areas.items()} == {
        "low": 14,
        "high": 18,
        "both": 14 + 18 - 4,
    }
    assert areas["low"][6, 0] and areas["high"][6, 0] and not areas["high"][4, 0]
    values = _deep(tmp_path, encoding="index", targets={"crossing": [16 + 4096]})
    assert values.mask(ROW, "X", "crossing").sum() == 4


def test_masks_count_for_some_findings_and_without_labels_if_so_configured(tmp_path: Path) -> None:
    assert _deep(tmp_path).mask(ROW, "Y", "low") is None  # label 0
    truth = _deep(tmp_path, findings=["Y"], when_labelled=False, targets={"a": [16], "b": [1]})
    assert truth.mask(ROW, "X", "a") is None  # labelled, but not its truth
    assert truth.mask(ROW, "Y", "a").sum() == 14
    assert not truth.mask(ROW, "Y", "b").any()  # known to be empty
    assert truth.mask(ROW | {"mask": None}, "Y", "a") is None


def test_masks_called_as_their_images_and_patients_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _deep(tmp_path)
    (tmp_path / "t.csv").write_text(
        "name,who,X\nsub/a.jpg,p,1\nb.jpg,p,0\n" + "".join(f"c{n}.jpg,q{n},1\n" for n in range(9))
    )
    table = {
        "file": "t.csv",
        "images": ".",
        "image_column": "name",
        "patient_column": "who",
        "finding_columns": ["X"],
    }
    given: dict[str, Any] = {
        "dataset": "t",
        "source": {"kind": "table", "table": table},
        "prepare": {"valid": 0.1, "hold_out_truth": True},
        "truth": {"kind": "masks", "folder": "masks", "column": None, "targets": {"low": [16]}},
    }
    plan, _ = list_source(configuration.resolved(given), tmp_path)
    assert plan["mask"].to_list() == ["a.png"] + [None] * 10
    assert not capsys.readouterr().err
    Image.new("L", (8, 8)).save(tmp_path / "masks/B_mask.png")
    list_source(configuration.resolved(given), tmp_path)
    assert "1 of 2 masks of" in (said := capsys.readouterr().err) and "'B_mask.png'" in said
    assert plan["split"].to_list() == ["test", "test"] + [assign(f"q{n}", 0.1, 0) for n in range(9)]
    free, _ = list_source(configuration.resolved(given | {"prepare": {"valid": 0.1}}), tmp_path)
    assert free["split"].to_list()[:2] == [assign("p", 0.1, 0)] * 2 != ["test"] * 2
    with pytest.raises(ConfigError, match="hold_out_truth needs truth of kind masks"):
        list_source(configuration.resolved(given | {"truth": None}), tmp_path)
    (tmp_path / "t.csv").write_text("name,who,X\na.jpg,p,1\n")
    with pytest.raises(DataError, match="leaves no patient to train"):
        list_source(configuration.resolved(given), tmp_path)
    (tmp_path / "t.csv").write_text("name,who,X\nz.jpg,p,1\n")
    with pytest.raises(DataError, match=r"has no file for any image, e\.g\. 'z\.jpg'"):
        list_source(configuration.resolved(given), tmp_path)


BOX_HEAD = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"  # as released


def _boxes(tmp_path: Path, rows: str) -> Any:
    (tmp_path / "b.csv").write_text(BOX_HEAD + rows, encoding="utf-8")
    return _load(tmp_path, kind="boxes", file="b.csv")


def test_boxes_are_scaled_to_the_image(tmp_path: Path) -> None:
    truth = _boxes(
        tmp_path,
        "7_0.png,Infiltrate,256.0,512.0,128.0,64.5,,,\n"
        "7_0.png,Infiltrate,0,0,64,64,,,\n"
        "7_0.png,Mass,1000.2,1000.2,24.3,24.3,,,\n"
        "8_0.png,Mass,1,1,0.01,0.01,,,\n",
    )
    row = {"image_id": "x", "path": "nih/images/7_0.png", "width": 128, "height": 256}
    area = truth.mask(row, "Infiltration", "box")
    expected = np.zeros((256, 128), dtype=bool)
    expected[128:144, 32:48] = expected[:16, :8] = True  # 128/1024 across, 256/1024 down
    assert truth.targets == ["box"] and np.array_equal(area, expected)
    corner = truth.mask(row, "Mass", "box")
    assert np.argwhere(corner)[0].tolist() == [250, 125] and corner[250:, 125:].all()
    assert truth.mask(row, "Nodule", "box") is None  # nothing is known of other findings
    assert truth.mask(row | {"path": "nih/images/9_0.png"}, "Mass", "box") is None
    assert truth.mask(row | {"path": "8_0.png"}, "Mass", "box").sum() == 1


def test_boxes_in_pixels_of_the_image(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("image_id,class_name,x_min,y_min,x_max,y_max\nv7,X,2,1,4,6\n")
    truth = _load(tmp_path, kind="boxes", file="b.csv", space=None)
    row = ROW | {"image_id": "train_v7", "path": "train/v7.dicom"}
    expected = np.zeros((7, 9), bool)
    expected[1:6, 2:4] = True
    assert np.array_equal(truth.mask(row, "X", "box"), expected)


@pytest.mark.parametrize("row", ["a.png,Mass,1,2,3", "a.png,Mass,1,2,x,4", "a.png,Mass,1,2,-3,nan"])
def test_damaged_boxes_are_refused(tmp_path: Path, row: str) -> None:
    with pytest.raises(DataError, match=r"line 3: no image, finding, .*; correct the line"):
        _boxes(tmp_path, "a.png,Mass,1,2,3,4,,,\n" + row + "\n")
    with pytest.raises(DataError, match=r"does not exist; correct truth\.file"):
        _load(tmp_path, kind="boxes", file="none.csv")
    with pytest.raises(ConfigError, match="lacks the key 'file'"):
        _load(tmp_path, kind="boxes")


def test_no_truth_is_none() -> None:
    config = configuration.resolved({"dataset": "t", "source": {"kind": "phantoms"}})
    assert load_truth(config, Path(), []) is None


def test_what_is_missing_may_be_absent(tmp_path: Path) -> None:
    """CheXlocalize's reading: an image without an entry has none of the findings of the file."""
    mask = np.ones((7, 9), dtype=bool)
    (tmp_path / "t.json").write_text(json.dumps({"b": {"X": _code(mask)}}))
    truth = _load(tmp_path, kind="chexlocalize", files=["t.json"], missing="empty")
    found = truth.mask(ROW, "X", "finding")
    assert found.shape == (7, 9) and not found.any()
    assert truth.mask(ROW | {"image_id": "b"}, "X", "finding").all()
    assert truth.mask(ROW, "Fracture", "finding") is None  # of which the file tells nothing
    assert not truth.knows(ROW | {"path": "a.png"})  # for held-out images it is still missing


def test_a_finding_without_a_box_may_be_absent(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("image,finding,x,y,w,h\na.png,X,1,1,2,2\nb.png,Y,1,1,2,2\n")
    options = {"kind": "boxes", "file": "b.csv", "space": None}
    for missing in ("unknown", "empty"):
        truth = _load(tmp_path, **options, missing=missing)
        for name, finding in (("a", "Y"), ("c", "X")):
            found = truth.mask(ROW | {"path": f"{name}.png", "image_id": name}, finding, "box")
            assert (found is None) if missing == "unknown" else not found.any()
        assert truth.mask(ROW | {"path": "a.png"}, "X", "box").sum() == 4
        assert truth.mask(ROW | {"path": "a.png"}, "Fracture", "box") is None


def test_an_image_without_a_mask_may_have_nothing(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    options = {"kind": "masks", "folder": "m", "column": "mask"}
    options |= {"targets": {"t": [1]}, "findings": ["X"]}
    truth = _load(tmp_path, **options, missing="empty")
    assert not truth.mask(ROW | {"mask": None}, "X", "t").any()
    assert truth.mask(ROW | {"mask": None}, "Y", "t") is None
    assert _load(tmp_path, **options).mask(ROW | {"mask": None}, "X", "t") is None
