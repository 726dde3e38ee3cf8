"""Which files are pictures, what images are called, and what belongs together."""

from pathlib import Path

import pytest
from PIL import Image

from dollmaker.errors import DataError
from dollmaker.pixels import names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b.png", "a_b"),
        ("a//./b.PNG", "a_b"),
        ("scan.v2.Tiff", "scan.v2"),
        ("1.3.6.1.4", "1.3.6.1.4"),
        ("report.final", "report.final"),
        ("x.dcm", "x"),
    ],
)
def test_known_suffixes_alone_are_taken_off(path: str, name: str) -> None:
    assert names.image_id(path) == name


def test_identifiers_are_unique_and_equal_paths_share_one() -> None:
    paths = ["a/b.png", "a_b.png", "c.png", "c.jpg", "d.png", "d.png"]
    ids = names.image_ids(paths)
    assert len(set(ids)) == 5 and ids[4] == ids[5] == "d"
    assert ids[0].startswith("a_b-") and ids[1].startswith("a_b-")
    assert names.image_ids(paths[::-1]) == ids[::-1]


@pytest.mark.parametrize(
    ("text", "name"),
    [("1.0", "1"), ("12,00", "12"), ("1.5", "1.5"), ("p1.0", "p1.0"), ("007", "007")],
)
def test_patients_of_tables_with_gaps(text: str, name: str) -> None:
    assert names.patient(text) == name


@pytest.mark.parametrize(
    ("path", "plain"),
    [(r"a\b.png", "a/b.png"), ("./a//./b.png", "a/b.png"), ("/a/b", "/a/b"), ("../a", "../a")],
)
def test_paths_have_one_form(path: str, plain: str) -> None:
    assert names.posix(path) == plain


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    for name in ("a.PNG", "sub/b.Jp2", "c.pgm", "__MACOSX/a.png", "._a.png"):
        Image.new("L", (2, 2)).save(tmp_path / name, format="PNG")
    Image.new("L", (2, 2)).save(tmp_path / "1.2.840", format="JPEG")
    (tmp_path / "dicom").write_bytes(bytes(128) + b"DICM")
    for name in ("Thumbs.db", ".DS_Store", "README", "notes.txt", "7.3"):
        (tmp_path / name).write_bytes(b"no picture")
    assert names.list_pictures(tmp_path) == ["1.2.840", "a.PNG", "c.pgm", "dicom", "sub/b.Jp2"]


def test_the_longest_path_that_fits_is_taken() -> None:
    known = names.Names(["s1/view.png", "p2/s1/view.png", "lone.tif"], "masks")
    assert known.find("data/p2/s1/view.jpg") == "p2/s1/view.png"
    assert known.find("data/p1/s1/view.jpg") == "s1/view.png"
    assert known.find("p1/s2/view.jpg") is None  # the end of neither is the other
    assert known.find("deep/down/lone.png") == "lone.tif"
    assert known.find("lone2.png") is None


def test_names_with_more_folders_than_the_image_has() -> None:
    known = names.Names(["/disk/a/x.png", "/disk/b/y.png"], "entries")
    assert known.find("a/x.jpg") == "/disk/a/x.png" and known.find("c/y.jpg") is None


def test_one_name_is_never_taken_for_two_images() -> None:
    known = names.Names(["001.png"], "masks of m")
    assert known.find("p1/001.png") == known.find("p1/001.png") == "001.png"
    with pytest.raises(DataError, match=r"masks of m '001\.png' fits the images 'p1/001\.png' and"):
        known.find("p2/001.png")


def test_two_names_never_fit_one_image() -> None:
    known = names.Names(["a/001.png", "b/001.gif"], "masks")
    with pytest.raises(DataError, match=r"'a/001\.png' and 'b/001\.gif' both fit .*'001\.jpg'"):
        known.find("001.jpg")
    assert known.find("b/001.jpg") == "b/001.gif"


def test_names_that_are_identifiers() -> None:
    known = names.Names(["patient1_study1_view1", "view1"], "entries")
    assert known.find("v/patient1/study1/view1.jpg", "patient1_study1_view1") == (
        "patient1_study1_view1"
    )
    assert names.Names(["p1_s1_view1"], "x").find("root/p1/s1/view1.jpg") == "p1_s1_view1"
