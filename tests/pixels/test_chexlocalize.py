"""CheXlocalize's JSON: what several files say together, and what is known to be absent."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dollmaker.pixels.chexlocalize import FindingFiles
from dollmaker.pixels.mask_forms import ImageFacts
from dollmaker.runtime.errors import DataError
from dollmaker.store import rle

HEIGHT, WIDTH = 6, 8
UPPER = np.zeros((HEIGHT, WIDTH), bool)
UPPER[:3] = True


def code(mask: Any) -> dict[str, Any]:
    return {"size": [HEIGHT, WIDTH], "counts": rle.encode(mask)}


def opened(folder: Path, *contents: Any) -> FindingFiles:
    files = [folder / f"{number}.json" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return FindingFiles(files, "truth.files")


def mask(files: FindingFiles, path: str, finding: str, identifier: str | None = None) -> Any:
    facts = ImageFacts(path=path, identifier=identifier, width=WIDTH, height=HEIGHT)
    return files.area(facts, finding)


def test_files_are_joined_by_image_and_finding(tmp_path: Path) -> None:
    files = opened(
        tmp_path,
        {"i": {"Edema": code(UPPER)}, "j": {"Edema": code(~UPPER)}},
        {"i": {"Mass": code(~UPPER), "Edema": code(UPPER)}, "k": {}},
    )
    assert np.array_equal(mask(files, "i.png", "Edema"), UPPER)
    assert np.array_equal(mask(files, "i.png", "Mass"), ~UPPER)
    for path, finding in (("j.png", "Mass"), ("k.png", "Edema")):
        absent = mask(files, path, finding)
        assert absent.shape == (HEIGHT, WIDTH) and not absent.any()
    assert mask(files, "i.png", "Fracture") is None and not files.has(ImageFacts(path="l.png"))


def test_files_that_disagree_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1\.json has another mask of 'Edema' in 'i'"):
        opened(tmp_path, {"i": {"Edema": code(UPPER)}}, {"i": {"Edema": code(~UPPER)}})
    entry = json.dumps({"Edema": code(UPPER)})
    with pytest.raises(DataError, match=r"0\.json has the name 'i' twice"):
        opened(tmp_path, f'{{"i": {entry}, "i": {entry}}}')


def test_lengths_may_be_a_list(tmp_path: Path) -> None:
    lengths = [0, *[3] * (2 * WIDTH)]
    files = opened(tmp_path, {"i": {"Edema": {"size": [HEIGHT, WIDTH], "counts": lengths}}})
    assert np.array_equal(mask(files, "i.png", "Edema"), UPPER)


def test_another_size_is_refused(tmp_path: Path) -> None:
    for counts in (code(UPPER)["counts"], [0, HEIGHT * WIDTH]):
        files = opened(tmp_path, {"i": {"Edema": {"size": [WIDTH, HEIGHT], "counts": counts}}})
        with pytest.raises(DataError, match="6x8 pixels, its image has 8x6"):
            mask(files, "i.png", "Edema")


def test_images_by_their_identifier_and_by_the_end_of_their_path(tmp_path: Path) -> None:
    files = opened(tmp_path, {"p1_s1_v": {"Airspace Opacity": code(UPPER)}, "p2_s1_v": {}})
    assert mask(files, "a/p1/s1/v.jpg", "Lung Opacity").any()
    assert not mask(files, "b.jpg", "Lung Opacity", "p2_s1_v").any()
    assert mask(files, "a/p3/s1/v.jpg", "Lung Opacity") is None
    bare = opened(tmp_path, {"v": {"Edema": code(UPPER)}})
    assert bare.has(ImageFacts(path="a/p1/s1/v.jpg"))
    with pytest.raises(DataError, match="fits the images"):
        bare.has(ImageFacts(path="a/p2/s1/v.jpg"))


def test_a_files_own_name_comes_before_the_alias(tmp_path: Path) -> None:
    entry = {"Airspace Opacity": code(UPPER), "Lung Opacity": code(~UPPER)}
    files = opened(tmp_path, {"i": entry})
    assert np.array_equal(mask(files, "i.png", "Lung Opacity"), ~UPPER)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"i": [1]}', r"not of the form \{image: \{finding: RLE\}\}"),
        ("[]", "one JSON object"),
        ("{", "is not JSON"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        opened(tmp_path, content)


def test_a_missing_file_is_told_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; correct truth\.files or data_root"):
        FindingFiles([tmp_path / "none.json"], "truth.files")


def test_findings_by_a_name_of_another_case(tmp_path: Path) -> None:
    files = opened(tmp_path, {"i": {"edema": code(UPPER)}})
    assert np.array_equal(mask(files, "i.png", "Edema"), UPPER)
    files.require_told(["Mass", "Edema"])
    with pytest.raises(DataError, match=r"0\.json tells of edema, of none of the findings Mass"):
        files.require_told(["Mass"])


def test_one_image_under_two_names_is_refused(tmp_path: Path) -> None:
    files = opened(tmp_path, {"p1_v": {"Edema": code(UPPER)}}, {"p1/v.jpg": {"Mass": code(UPPER)}})
    with pytest.raises(DataError, match="both fit the image"):
        files.has(ImageFacts(path="a/p1/v.jpg", identifier="p1_v"))
