"""A release that version 0.1 made (format 1: polygons in COCO's JSON, sums that end with a comment,
text of any length in HDF5): it still loads, verifies and exports."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dollmaker import PseudoLabels
from dollmaker.release.browse import stats
from dollmaker.release.export import export
from dollmaker.release.read import read_release, square_mask
from dollmaker.release.verify import verify
from dollmaker.runtime.cli import main
from dollmaker.store.sums import checksums


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(Path(__file__).with_name("release-0.1.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "release"


def test_it_is_verified_as_far_as_a_new_one(old: Path) -> None:
    assert (old / "SHA256SUMS").read_text().splitlines()[-1].startswith("# ")
    assert json.loads((old / "provenance.json").read_text())["format"] == 1
    assert verify(old) == verify(old, workers=2) == []
    (old / "LICENSE").write_text("mine")
    assert verify(old) == ["LICENSE: sha256 differs from that in SHA256SUMS"]


def test_its_polygons_are_compared(old: Path) -> None:
    path = old / "coco/train.json"
    content = json.loads(path.read_text())
    point = content["annotations"][3]["segmentation"][0]
    written = json.dumps(point, separators=(",", ":"))
    moved = json.dumps([point[0] + 1, *point[1:]], separators=(",", ":"))
    path.write_text(path.read_text().replace(written, moved))
    (old / "SHA256SUMS").write_text(checksums(old))
    (fault,) = verify(old)
    assert fault.startswith("coco/train.json: differs from tables and mask files in line ")


def test_it_loads_and_exports(old: Path, tmp_path: Path) -> None:
    data = PseudoLabels(old)
    assert len(data) == 8
    release = read_release(old)
    for row in release.table.to_dicts():
        stored = release.masks[row["split"]].read("mask", row["place"])
        np.testing.assert_array_equal(stored == 1, square_mask(row))
        assert release.masks[row["split"]].read("relevance", row["place"]).shape == (24, 24)
    assert "22 masks of 12 images" in stats(old)
    export(old, "coco", tmp_path / "coco")
    for file in (tmp_path / "coco").iterdir():  # the export has the polygons that releases had
        assert file.read_bytes() == (old / "coco" / file.name).read_bytes()
    words = ["evaluate", str(old), "--truth", str(old / "chexlocalize/train.json")]
    assert main([*words, "--json", str(tmp_path / "out.json")]) == 0
    scores = json.loads((tmp_path / "out.json").read_text())["scores"]
    assert {row["miou"] for row in scores} == {1.0}
