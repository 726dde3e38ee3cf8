"""ChestX-ray14 as released: labels, folders, lists, and what is refused."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dollmaker.config import settings as configuration
from dollmaker.launch import pipeline
from dollmaker.launch.preflight import preflight
from dollmaker.prepare.listing import assign
from dollmaker.prepare.nih import NIH
from dollmaker.prepare.sources import list_source
from dollmaker.runtime.errors import ConfigError, DataError

HEAD = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ROWS = [
    ("00000001_000.png", "Cardiomegaly|Effusion", "1", "PA"),
    ("00000001_001.png", "No Finding", "1", "AP"),
    ("00000002_000.png", "Pleural_Thickening", "2", "PA"),
    ("00000003_000.png", "Infiltration", "3", "AP"),
]


def resolved(**changes: Any) -> Any:
    source = {"kind": "nih", "nih": {"folder": "nih", **changes.pop("nih", {})}}
    return configuration.resolved({"dataset": "x", "source": source, **changes})


def tree(root: Path, rows: list[tuple[str, str, str, str]] = ROWS, end: str = "") -> None:
    """The table, and the images in two of the released folders and one beside the table."""
    lines = [HEAD + end]
    for image, labels, patient, view in rows:
        lines.append(f"{image},{labels},0,{patient},58,M,{view},2682,2749,0.143,0.143{end}")
    (root / "nih").mkdir()
    (root / "nih/Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")
    places = ("images_001/images", "images_012/images", ".")
    for place, (image, *_) in zip(places, rows, strict=False):
        (root / "nih" / place).mkdir(parents=True, exist_ok=True)
        (root / "nih" / place / image).write_bytes(b"")


@pytest.mark.parametrize("end", ["", ","])  # the release of 2017 ends its lines with a comma
def test_labels_folders_and_views(tmp_path: Path, end: str) -> None:
    tree(tmp_path, end=end)
    plan, names = list_source(resolved(), tmp_path)
    assert names == list(NIH) and len(names) == 15
    assert plan["image_id"].to_list() == [row[0][:-4] for row in ROWS]
    assert plan["path"].to_list() == [
        "nih/images_001/images/00000001_000.png",
        "nih/images_012/images/00000001_001.png",
        "nih/00000002_000.png",
        "nih/00000003_000.png",  # in no folder: ends in the quarantine
    ]
    assert plan["view"].to_list() == ["pa", "ap", "pa", "ap"]
    present = [[name for name in names if row[name]] for row in plan.iter_rows(named=True)]
    assert present == [
        ["Cardiomegaly", "Effusion"],
        ["No Finding"],
        ["Pleural_Thickening"],
        ["Infiltration"],
    ]
    assert plan.select(pl.col(names).is_null().any()).row(0) == (False,) * 15
    frontal, _ = list_source(resolved(nih={"views": ["AP"]}), tmp_path)
    assert frontal["image_id"].to_list() == ["00000001_001", "00000003_000"]


def test_the_released_lists_are_honoured(tmp_path: Path) -> None:
    tree(tmp_path)
    config = resolved(prepare={"valid": 0.5, "test": 0.4})
    by_hash = [assign(row[2], 0.5, 0.4) for row in ROWS]
    assert list_source(config, tmp_path)[0]["split"].to_list() == by_hash
    (tmp_path / "nih/test_list.txt").write_text("00000003_000.png\n")
    with pytest.raises(DataError, match=r"has test_list\.txt only"):
        list_source(config, tmp_path)
    (tmp_path / "nih/train_val_list.txt").write_text("\n".join(row[0] for row in ROWS[:3]))
    expected = [assign(row[2], 0.5, 0.0) for row in ROWS[:3]] + ["test"]
    assert list_source(config, tmp_path)[0]["split"].to_list() == expected
    assert "test" not in expected[:3]
    (tmp_path / "nih/train_val_list.txt").write_text("00000001_000.png\n")
    with pytest.raises(DataError, match=r"'00000001_001\.png' .* is in neither"):
        list_source(config, tmp_path)


def test_images_of_mirrors_are_found_by_their_name(tmp_path: Path) -> None:
    tree(tmp_path)
    images = tmp_path / "nih/images"
    images.mkdir()
    first = tmp_path / "nih/images_001/images/00000001_000.png"
    first.with_suffix(".JPG").write_bytes(b"")  # beside the released one
    for name in ("00000003_000.jpeg", "._00000003_000.png", "00000003_000.txt"):
        (images / name).write_bytes(b"")
    plan, _ = list_source(resolved(), tmp_path)
    assert plan["image_id"].to_list() == [row[0][:-4] for row in ROWS]
    assert plan["path"][0] == "nih/images_001/images/00000001_000.png"
    assert plan["path"][3] == "nih/images/00000003_000.jpeg"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_of_other_programs_are_read(tmp_path: Path, encoding: str) -> None:
    tree(tmp_path)
    names = [row[0].replace(".png", ".jpg") for row in ROWS]
    train = "\r\n".join(names[1:]).encode(encoding)
    (tmp_path / "nih/test_list.txt").write_bytes(f"{names[0]}\r\n".encode(encoding))
    (tmp_path / "nih/train_val_list.txt").write_bytes(train)
    splits = list_source(resolved(prepare={"valid": 0.0}), tmp_path)[0]["split"]
    assert splits.to_list() == ["test", "train", "train", "train"]
    (tmp_path / "nih/test_list.txt").write_bytes(b"a.png\n\xff\n")
    with pytest.raises(DataError, match=r"test_list\.txt is not readable \(line 2 .* in UTF-8\."):
        list_source(resolved(), tmp_path)


def test_a_table_saved_by_an_office_program_is_the_same(tmp_path: Path) -> None:
    tree(tmp_path)
    plan = list_source(resolved(), tmp_path)[0]
    file = tmp_path / "nih/Data_Entry_2017_v2020.csv"
    text = file.read_text().replace(",", ";")
    file.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    assert list_source(resolved(), tmp_path)[0].equals(plan)


def test_lines_are_those_of_the_table_whatever_the_views(tmp_path: Path) -> None:
    tree(tmp_path, [*ROWS[:3], ("00000003_000.png", "Edema", "", "AP")])
    with pytest.raises(DataError, match="line 5: 'Patient ID' is blank"):
        list_source(resolved(nih={"views": ["AP"]}), tmp_path)


def test_the_table_may_not_lie_outside(tmp_path: Path) -> None:
    tree(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "nih").rename(tmp_path / "other/nih")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/nih").symlink_to(tmp_path / "other/nih")
    with pytest.raises(DataError, match=r"'nih/Data_Entry.*set allow_links: true"):
        list_source(resolved(), tmp_path / "root")
    assert len(list_source(resolved(allow_links=True), tmp_path / "root")[0]) == 4
    with pytest.raises(DataError, match="leaves the data root"):
        list_source(resolved(nih={"table": "../../secret.csv"}), tmp_path / "root")


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    tree(tmp_path, [("a.png", "Cardiomegaly|Mas", "1", "PA")])
    with pytest.raises(DataError, match=r"gives 'a\.png' the finding 'Mas'; it must be one of: At"):
        list_source(resolved(), tmp_path)
    config = resolved().replace(data_root=str(tmp_path))
    preflight(config)
    assert pipeline.source_files(config) == [f"{tmp_path}/nih/Data_Entry_2017_v2020.csv"]
    with pytest.raises(ConfigError, match="unknown finding 'Infiltrate'"):
        attribute = config.attribute.replace(findings=["Infiltrate"])
        preflight(config.replace(attribute=attribute))
    with pytest.raises(DataError, match=r"does not exist; correct data_root or source\.nih"):
        preflight(resolved(nih={"folder": "other"}).replace(data_root=str(tmp_path)))
    with pytest.raises(ConfigError, match="'source' lacks the key 'nih'"):
        configuration.resolved({"dataset": "x", "source": {"kind": "nih"}})
