"""Which files are pictures, what images are called, and what belongs together."""

from pathlib import Path

import pytest
from PIL import Image

from dollmaker.pixels import names
from dollmaker.runtime.errors import DataError


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


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "mine").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "disk/a.png")
    (tmp_path / "mine/far").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/back").symlink_to(tmp_path / "mine")
    assert names.list_pictures(tmp_path / "mine") == ["far/a.png"]


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


def test_letters_with_signs_have_one_form() -> None:
    """macOS writes an umlaut as two characters."""
    composed, apart = "r\u00f6ntgen 1", "ro\u0308ntgen 1"
    assert names.Names([f"{apart}.png"], "masks").find(f"i/{composed}.jpg") == f"{apart}.png"
    assert names.image_id(f"{apart}.png") == composed
    assert names.patient(apart) == names.patient(composed)


def test_what_servers_and_notebooks_leave_is_junk(tmp_path: Path) -> None:
    for file in ("1.png", "@eaDir/1.png/THUMB_M.jpg", ".ipynb_checkpoints/1-checkpoint.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / file)
    assert names.list_pictures(tmp_path) == ["1.png"]


@pytest.mark.parametrize("text", [None, "NA", "nan", "<NA>", "None", "NULL"])
def test_a_cell_without_a_mask(text: str | None) -> None:
    assert names.mask_file(text) is None
    assert names.mask_file("nana\\1.png") == "nana/1.png"


def test_a_path_and_an_identifier_are_two_names_of_one_image() -> None:
    both = names.Names(["p1/v.png", "p1_v.png"], "masks")
    with pytest.raises(DataError, match=r"'p1/v\.png' and 'p1_v\.png' both fit"):
        both.find("images/p1/v.jpg", "p1_v")
