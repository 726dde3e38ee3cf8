"""YOLO's data sets: every label lies where YOLO looks for it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw

from dollmaker.release.export import FORMS, yolo_label
from dollmaker.release.read import Release, read_release, source_mask
from dollmaker.runtime.errors import DataError


@pytest.fixture(scope="module")
def release(made: Path) -> Release:
    return read_release(made)


def renamed(release: Release, name: Callable[[int], str]) -> Release:
    """The release with other paths of its images i0, i1, ..."""
    number = pl.col("image_id").str.slice(1).cast(pl.Int64)
    paths = number.map_elements(name, return_dtype=pl.String)
    return replace(release, table=release.table.with_columns(path=paths))


def written(release: Release, folder: Path, images: Path | None = None) -> Path:
    folder.mkdir()
    FORMS["yolo"](release, folder, images)
    return folder


def draw_sources(release: Release, root: Path, **options: object) -> Path:
    """A file for each image of the release, with noise of its own."""
    noise = np.random.default_rng(2)
    for path in release.table["path"].unique(maintain_order=True):
        pixels = noise.integers(0, 255, (20, 30), dtype=np.uint8)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / path, **options)  # type: ignore[arg-type]
    return root


def looked_for(picture: Path) -> Path:
    """The last folder called images is labels; what follows the last dot is txt."""
    parts = list(picture.parts)
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts[:-1], parts[-1][: parts[-1].rindex(".")] + ".txt")


def names(folder: Path, kind: str) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in (folder / kind).rglob("*.*"))


@pytest.mark.parametrize(
    ("picture", "label"),
    [
        ("images/train/x.png", "labels/train/x.txt"),
        ("images/valid/p.1/x.y.JPG", "labels/valid/p.1/x.y.txt"),
        ("images/train/a/images/x.png", "images/train/a/labels/x.txt"),
        ("images/train/images.png", "labels/train/images.txt"),
    ],
)
def test_yolos_rule(picture: str, label: str) -> None:
    assert yolo_label(picture) == label == looked_for(Path(picture)).as_posix()


def test_one_folder_stays_one_folder(release: Release, tmp_path: Path) -> None:
    out = written(release, tmp_path / "y")
    assert names(out, "labels")[:2] == ["labels/test/10.txt", "labels/test/11.txt"]
    assert not (out / "images").exists()
    facts = json.loads((out / "data.yaml").read_text())
    assert facts["names"] == {str(k): name for k, name in enumerate(release.findings)}
    assert not facts["path"]  # else it is found only from within the folder
    assert [facts[key] for key in ("train", "val", "test")] == [
        f"images/{split}" for split in ("train", "valid", "test")
    ]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        (lambda k: f"set/p{k // 2}/view {k % 2}.JPG", "images/train/p0/view 0.JPG"),
        (lambda k: f"set/s{k}/images/x.png", "images/train/s0/images/x.png"),
        (lambda k: f"{k}.v1.tif" if k % 2 else f"more/{k}.v1.bmp", "images/train/1.v1.tif"),
    ],
)
def test_every_picture_has_its_label(
    release: Release, tmp_path: Path, name: Callable[[int], str], first: str
) -> None:
    other = renamed(release, name)
    root = draw_sources(other, tmp_path / "root")
    out = written(other, tmp_path / "y", root)
    assert written(other, tmp_path / "z")  # the labels do not depend on the images
    assert names(tmp_path / "z", "labels") == names(out, "labels")
    assert first in names(out, "images")
    rows = {row["path"]: row for row in other.table.iter_rows(named=True)}
    pictures = {(root / path).read_bytes(): path for path in rows}
    copies = [p for p in (out / "images").rglob("*.*") if p.suffix != ".txt"]
    assert len(copies) == len(rows)
    for copy in copies:
        row = rows[pictures[copy.read_bytes()]]
        assert copy.relative_to(out / "images").parts[0] == row["split"]
        label = looked_for(copy.relative_to(out))
        assert inside(out / label, other, row["image_id"])
    assert len(list(out.rglob("*.txt"))) == len(copies)


def inside(label: Path, release: Release, image_id: str) -> bool:
    """Whether the polygons of a label cover the masks of an image, pixel by pixel."""
    drawn = {number: Image.new("L", (300, 200)) for number in range(len(release.findings))}
    for line in label.read_text().splitlines():
        number, *values = line.split()
        points = [v * side for v, side in zip(map(float, values), [300, 200] * 99, strict=False)]
        ImageDraw.Draw(drawn[int(number)]).polygon(points, fill=1)
    for row in release.table.filter(image_id=image_id).iter_rows(named=True):
        middle = np.asarray(drawn[release.findings.index(row["finding"])])[5::10, 5::10]
        if (middle.astype(bool) != source_mask(release, row)).any():
            return False
    return True


def test_what_yolo_does_not_read_becomes_png(release: Release, tmp_path: Path) -> None:
    other = renamed(release, lambda k: f"scans/{k}.7.gif" if k else "scans/1.2.840")
    root = draw_sources(other, tmp_path / "root", format="GIF")
    out = written(other, tmp_path / "y", root)
    copies = names(out, "images")
    assert "images/train/1.2.840.png" in copies and "images/test/10.7.png" in copies
    assert [looked_for(Path(name)).as_posix() for name in copies] == names(out, "labels")
    with (
        Image.open(root / "scans/3.7.gif") as source,
        Image.open(out / "images/train/3.7.png") as copy,
    ):
        assert copy.format == "PNG"
        assert (np.asarray(copy) == np.asarray(source.convert(copy.mode))).all()
    (root / "scans/4.7.gif").write_bytes(b"GIF89a, but for the rest")
    with pytest.raises(DataError, match=r"image 'scans/4.7.gif' under .*not a readable image"):
        written(other, tmp_path / "z", root)
    (root / "scans/4.7.gif").unlink()
    with pytest.raises(DataError, match=r"'scans/4.7.gif' under .*is missing; give the root"):
        written(other, tmp_path / "no", root)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("kind", ["deep", "transparent", "turned"])
def test_what_yolo_would_see_otherwise_is_written_as_it_is_meant(
    release: Release, tmp_path: Path, suffix: str, kind: str
) -> None:
    other = renamed(release, lambda k: f"{k}.{suffix}")
    root = draw_sources(other, tmp_path / "root")
    ramp = np.linspace(0, 255, 600).reshape(20, 30).round().astype(np.uint8)
    picture = Image.fromarray(ramp)
    exif = Image.Exif()
    if kind == "deep":
        picture = Image.fromarray(ramp.astype(np.uint16) * 16)
    if kind == "transparent":
        picture = Image.merge("LA", [Image.new("L", (30, 20), 255), picture])
    if kind == "turned":
        exif[0x0112] = 3
    picture.save(root / f"0.{suffix}", exif=exif)
    out = written(other, tmp_path / "y", root)
    with Image.open(out / f"images/train/0.{suffix}") as copy:
        shown = np.asarray(copy).astype(int)
        assert copy.mode == "L" and copy.getexif().get(0x0112, 1) == 1
    wanted = ramp[::-1, ::-1] if kind == "turned" else ramp
    assert np.abs(shown - wanted).max() <= 3
    assert (out / f"images/train/1.{suffix}").read_bytes() == (root / f"1.{suffix}").read_bytes()


def test_two_images_with_one_label_are_refused(release: Release, tmp_path: Path) -> None:
    apart = renamed(release, lambda k: {0: "a/x.png", 11: "a/x.jpg"}.get(k, f"a/{k}.png"))
    assert "labels/test/x.txt" in names(written(apart, tmp_path / "y"), "labels")
    both = renamed(release, lambda k: {0: "a/x.png", 2: "a/x.dcm"}.get(k, f"a/{k}.png"))
    with pytest.raises(
        DataError, match=r"'a/x.png' and 'a/x.dcm' would have one label for YOLO, labels/train/x"
    ):
        written(both, tmp_path / "no")


@pytest.mark.parametrize("path", ["../x.png", "a/../../../x.png", "/etc/x.png", ""])
def test_a_path_of_the_tables_does_not_leave_the_folder(
    release: Release, tmp_path: Path, path: str
) -> None:
    with pytest.raises(DataError, match="path"):
        written(renamed(release, lambda k: path if k == 1 else f"a/{k}.png"), tmp_path / "y")
    assert [p.name for p in tmp_path.rglob("*.txt")] == []


def test_nor_does_a_split(release: Release, tmp_path: Path) -> None:
    table = release.table.with_columns(split=pl.lit("../../../up"))
    with pytest.raises(DataError, match="leaves"):
        written(replace(release, table=table), tmp_path / "y")
    assert not (tmp_path.parent / "up").exists()
