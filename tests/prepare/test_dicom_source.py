"""Trees of DICOM studies: joins with labels, names that tell nothing, and what is refused."""

import hmac
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from dollmaker.config import settings as configuration
from dollmaker.launch.preflight import _list
from dollmaker.pixels.pictures import read_picture
from dollmaker.prepare import dicom
from dollmaker.prepare.convert import convert, look_at_original
from dollmaker.prepare.sources import list_source
from dollmaker.runtime.errors import ConfigError, DataError
from prepare.studies import radiograph, write_study_file

KEY = "0123456789abcdef-key"
OPTIONS = {
    "folder": "pacs",
    "labels": "labels.csv",
    "by": "study",
    "finding_columns": ["disc", "other"],
    "key": "names.key",
}


def resolved(prepare: dict[str, Any] | None = None, **changes: Any) -> Any:
    source = {"kind": "dicom", "dicom": {**OPTIONS, **changes}}
    return configuration.resolved({"dataset": "x", "source": source, "prepare": prepare or {}})


def write(root: Path, number: int, path: str = "", **elements: Any) -> None:
    """Image number so-and-so: two of a study, two studies of a patient."""
    known = {
        "PatientID": f"MRN{number // 4:04d}",
        "StudyInstanceUID": f"1.7.{number // 2}",
        "SOPInstanceUID": f"1.7.{number // 2}.{number}",
    }
    place = root / "pacs" / (path or f"MRN{number // 4:04d}/st{number // 2}/im{number}.dcm")
    write_study_file(place, radiograph(number), **{**known, **elements})


def write_table(root: Path, column: str, rows: dict[str, str]) -> None:
    lines = [f"{column},disc,other", *(f"{name},{labels}" for name, labels in rows.items())]
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    (root / "names.key").write_text(f"{KEY}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Eight images of four studies of two patients."""
    for number in range(8):
        write(tmp_path, number)
    write_table(
        tmp_path,
        "StudyInstanceUID",
        {"1.7.0": "1,0", "1.7.1": "0,", "1.7.2": "-1,1", "1.7.3": "1,1"},
    )
    return tmp_path


def converted(config: Any, root: Path, workers: int = 1) -> tuple[pl.DataFrame, list[str]]:
    shutil.rmtree(root / "out", ignore_errors=True)
    convert(config, root, root / "out", workers)
    return list_source(config, root / "out")


def named(kind: str, text: str) -> str:
    digest = hmac.new(KEY.encode(), f"dollmaker {kind} {text}".encode(), "sha256").hexdigest()
    return f"{kind[0]}{digest[:16]}"


def test_images_get_patients_views_and_labels(tree: Path) -> None:
    plan, names = converted(resolved(), tree)
    assert names == ["disc", "other"] and len(plan) == 8
    wanted = {0: (1, 0), 1: (0, None), 2: (-1, 1), 3: (1, 1)}
    rows = {row["image_id"]: row for row in plan.iter_rows(named=True)}
    for number in range(8):
        row = rows[named("image", f"1.7.{number // 2}.{number}")]
        assert row["patient_id"] == named("patient", f"MRN{number // 4:04d}")
        assert (row["disc"], row["other"]) == wanted[number // 2]
        assert row["view"] == "pa" and row["path"] == f"images/{row['image_id']}.png"


def test_pictures_are_those_that_the_files_show(tree: Path) -> None:
    write(tree, 6, PhotometricInterpretation="MONOCHROME1", WindowCenter=1200, WindowWidth=600)
    plan, _ = converted(resolved(), tree)
    originals = dict(pl.read_csv(tree / "out/originals.csv").iter_rows())
    assert len(originals) == len(plan)
    for image, source in originals.items():
        shown, _ = read_picture(tree / "pacs" / source, mode=None, max_pixels=10**6)
        assert np.array_equal(
            np.asarray(Image.open(tree / "out/images" / image)), np.asarray(shown)
        )


def test_no_name_of_the_headers_is_in_what_goes_further(tree: Path) -> None:
    converted(resolved(), tree)
    files = [p for p in (tree / "out").rglob("*") if p.is_file()]
    kept = [p for p in files if p.name not in ("originals.csv", "left_out.csv")]
    assert len(kept) == 8 + 2  # pictures, labels.csv and convert.json
    for path in kept:
        for said in (b"MRN", b"1.7.", b"Doe", KEY.encode()):
            assert said not in path.read_bytes() and said.decode() not in path.name


def test_the_result_depends_neither_on_workers_nor_on_the_names_of_files(tree: Path) -> None:
    converted(resolved(), tree, workers=4)
    first = (tree / "out/labels.csv").read_bytes()
    moved = tree / "moved"
    for number, file in enumerate(sorted((tree / "pacs").rglob("*.dcm"), reverse=True)):
        moved.mkdir(exist_ok=True)
        shutil.copy(file, moved / f"IM{number:05d}")
    plan, _ = converted(resolved(folder="moved"), tree)
    assert (tree / "out/labels.csv").read_bytes() == first and len(plan) == 8
    assert plan["image_id"].is_sorted()  # files lie in the order of patients, which tells them


def test_another_key_gives_other_names_and_keep_ids_those_of_the_headers(tree: Path) -> None:
    plan, _ = converted(resolved(), tree)
    (tree / "names.key").write_text("another key of enough signs")
    other, _ = converted(resolved(), tree)
    assert not set(plan["image_id"]) & set(other["image_id"])
    kept, _ = converted(resolved(keep_ids=True, key=None), tree)
    assert set(kept["patient_id"]) == {"MRN0000", "MRN0001"}
    assert "1.7.3.7" in kept["image_id"].to_list()


@pytest.mark.parametrize(
    ("by", "column", "rows"),
    [
        ("patient", "PatientID", {"MRN0000": "1,0", "MRN0001": "0,1"}),
        (
            "image",
            "SOPInstanceUID",
            {f"1.7.{n // 2}.{n}": f"{1 - n // 4},{n // 4}" for n in range(8)},
        ),
        ("study", "accession", {f"1.7.{n}": f"{1 - n // 2},{n // 2}" for n in range(4)}),
    ],
)
def test_labels_are_joined_by_patient_study_or_image(
    by: str, column: str, rows: dict[str, str], tree: Path
) -> None:
    write_table(tree, column, rows)
    own = None if column[0].isupper() else column
    plan, _ = converted(resolved(by=by, id_column=own), tree)
    of_first = plan.filter(patient_id=named("patient", "MRN0000"))
    assert of_first["disc"].to_list() == [1] * 4 and of_first["other"].to_list() == [0] * 4
    assert plan["disc"].sum() == 4


def test_patients_of_office_programs_are_joined(tree: Path) -> None:
    for number in range(8):
        write(tree, number, PatientID=str(number // 4 + 1))
    write_table(tree, "PatientID", {"1.0": "1,0", "2.0": "0,1"})
    plan, _ = converted(resolved(by="patient"), tree)
    assert len(plan) == 8 and plan["patient_id"].n_unique() == 2


def test_what_was_not_asked_for_is_skipped_with_a_count(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tree, 0, "a/ct", Modality="CT", SOPInstanceUID="1.9.1")
    write(tree, 0, "a/lateral", ViewPosition="LL", SOPInstanceUID="1.9.2")
    write(tree, 0, "a/silent", ViewPosition=None, SOPInstanceUID="1.9.3")
    write(tree, 0, "a/unread", StudyInstanceUID="1.8", SOPInstanceUID="1.9.4")
    write_study_file(tree / "pacs/a/report", None, Modality="SR")
    write_study_file(
        tree / "pacs/DICOMDIR", None, Modality=None, SOPClassUID="1.2.840.10008.1.3.10"
    )
    (tree / "pacs/a/notes.txt").write_text("x")
    shutil.copy(tree / "pacs/MRN0000/st0/im0.dcm", tree / "pacs/a/zz")
    plan, _ = converted(resolved(view=["pa", "AP"]), tree)
    assert len(plan) == 8
    said = capsys.readouterr().err
    assert "8 images of 2 patients and 4 studies" in said
    assert "8 files are left out: no image (reports, DICOMDIR) 2" in said
    for part in ("modality CT 1", "view LL 1", "view not told 1", "no row of labels.csv 1",
                 "no DICOM 1", "copies of others 1"):  # fmt: skip
        assert part in said
    assert len(converted(resolved(), tree)[0]) == 10  # with every view
    views = converted(resolved(), tree)[0]["view"].to_list()
    assert sorted(set(views) - {None}) == ["ll", "pa"] and views.count(None) == 1


def test_what_cannot_be_used_is_left_out_with_the_reason(tree: Path) -> None:
    write_study_file(
        tree / "pacs/b/frames.dcm", np.zeros((2, 8, 8), np.uint16), PatientID="MRN0000",
        StudyInstanceUID="1.7.0", SOPInstanceUID="1.9.1",
    )  # fmt: skip
    write(tree, 0, "b/same.dcm", ViewPosition="AP")  # other bytes under one name
    write(tree, 0, "b/unnamed.dcm", SOPInstanceUID=None)
    (tree / "pacs/b/text.dcm").write_text("no DICOM")
    (tree / "pacs/b/link.dcm").symlink_to("nowhere")
    (tree / "pacs/b/out.dcm").symlink_to("/etc/passwd")
    write(tree, 0, "b/cut.dcm", SOPInstanceUID="1.9.2")
    cut = (tree / "pacs/b/cut.dcm").read_bytes()
    (tree / "pacs/b/cut.dcm").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(DataError, match=r"7 of 15 items .* prepare\.max_quarantined"):
        converted(resolved(), tree)
    plan, _ = converted(resolved({"max_quarantined": 0.5}), tree)
    assert len(plan) == 8
    reasons = dict(pl.read_csv(tree / "out/left_out.csv").iter_rows())
    assert {path.removeprefix("b/"): said.split("(")[0][:24] for path, said in reasons.items()} == {
        "frames.dcm": "holds 2 frames, and one ",
        "same.dcm": "has the SOPInstanceUID o",
        "unnamed.dcm": "has no SOPInstanceUID",
        "text.dcm": "is no DICOM file: its ma",
        "link.dcm": "is a link to a file that",
        "out.dcm": "is a link that leaves th",
        "cut.dcm": reasons["b/cut.dcm"].split("(")[0][:24],
    }


def test_a_header_without_a_patient_is_one_sentence(tree: Path) -> None:
    write(tree, 3, PatientID=None)
    said = r"1 of 8 images have no PatientID .*im3\.dcm'; set source\.dicom\.patient: study"
    with pytest.raises(DataError, match=said):
        _list(resolved(), tree)
    with pytest.raises(DataError, match=said):
        converted(resolved(), tree)
    plan, _ = converted(resolved(patient="study"), tree)
    assert plan["patient_id"].n_unique() == 4
    assert named("patient", "1.7.0") in plan["patient_id"].to_list()


def test_one_patient_for_all_is_refused(tree: Path) -> None:
    for number in range(8):
        write(tree, number, PatientID="ANONYMOUS")
    with pytest.raises(DataError, match="all 8 images of 4 studies have the same PatientID"):
        _list(resolved(), tree)
    assert _list(resolved(patient="study"), tree) == (None, ["disc", "other"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"folder": "nowhere"}, "nowhere does not exist"),
        ({"labels": "nowhere.csv"}, r"nowhere\.csv does not exist"),
        ({"key": "nowhere.key"}, r"nowhere\.key cannot be read \(.*openssl rand"),
        ({"key": "../names.key"}, "leaves the data root"),
        ({"id_column": "study"}, "lacks the column 'study'"),
        ({"finding_columns": ["disc", "none"]}, "lacks the column 'none'"),
        ({"by": "image", "id_column": "StudyInstanceUID"}, r"no image is left .*no row of labels"),
        ({"modality": ["CT"]}, r"no image is left of 8 files .*modality DX 8"),
        ({"view": ["AP"]}, r"no image is left .*view PA 8"),
    ],
)
def test_mistakes_are_found_before_the_first_job(
    change: dict[str, Any], said: str, tree: Path
) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        _list(resolved(**change), tree)


def test_a_short_key_and_rows_at_odds_are_refused(tree: Path) -> None:
    (tree / "names.key").write_text(" short \n")
    with pytest.raises(ConfigError, match="has 5 signs"):
        _list(resolved(), tree)
    write_table(tree, "StudyInstanceUID", {"1.7.0": "1,0", "1.7.2": "0,"})
    with (tree / "labels.csv").open("a") as file:
        file.write("1.7.2,0,\n")
    _list(resolved(), tree)  # twice the same
    with (tree / "labels.csv").open("a") as file:
        file.write("1.7.0,0,0\n")
    with pytest.raises(DataError, match="lines 2 and 5 give one StudyInstanceUID different labels"):
        _list(resolved(), tree)


@pytest.mark.parametrize("name", ["image", "patient", "view", "path"])
def test_findings_that_are_columns_are_refused(name: str, tree: Path) -> None:
    (tree / "labels.csv").write_text(f"StudyInstanceUID,{name}\n1.7.0,1\n")
    with pytest.raises(DataError, match="rename it"):
        _list(resolved(finding_columns=[name]), tree)


def test_names_need_a_key_and_truth_finds_none() -> None:
    with pytest.raises(ConfigError, match=r"source\.dicom\.key is missing"):
        resolved(key=None)
    source = {"kind": "dicom", "dicom": OPTIONS}
    truth = {"kind": "boxes", "file": "b.csv"}
    with pytest.raises(ConfigError, match="truth and tasks find none"):
        configuration.resolved({"dataset": "x", "source": source, "truth": truth})


def test_of_large_trees_a_part_is_looked_at(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, "_LOOK", 3)
    read: list[Path] = []
    real = dicom.read_header
    monkeypatch.setattr(dicom, "read_header", lambda file: read.append(file) or real(file))
    look_at_original(resolved(), tree)
    assert len(read) == 3
    look_at_original(resolved(modality=["CT"]), tree)  # the conversion will say
    empty = tree / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no image is left of 0 files"):
        look_at_original(resolved(folder="empty"), tree)


def test_without_pydicom_the_remedy_is_said_at_once(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=re.escape("pip install 'dollmaker[dicom]'")):
        look_at_original(resolved(), tree)


def test_burned_in_text_is_told(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tree, 0, BurnedInAnnotation="YES")
    converted(resolved(), tree)
    assert "the headers of 1 images say that text is burned" in capsys.readouterr().err
