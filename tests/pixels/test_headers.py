"""Headers of DICOM files: what they say, what is no image, and damage."""

from pathlib import Path

import numpy as np
import pytest

from dollmaker.pixels import headers
from dollmaker.pixels.headers import read_header, starts_as_dicom
from dollmaker.runtime.errors import DataError
from prepare.studies import radiograph, write_study_file


def test_a_header_says_what_the_file_was_given(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_study_file(
        file, radiograph(0), PatientID=" 007 ", StudyInstanceUID="1.2", SOPInstanceUID="1.2.3",
        Modality="CR", ViewPosition="AP", BurnedInAnnotation="YES",
    )  # fmt: skip
    assert starts_as_dicom(file)
    header = read_header(file)
    assert header == ("CR", "AP", "007", "1.2", "1.2.3", 1, True)


def test_what_is_not_there_is_empty(tmp_path: Path) -> None:
    write_study_file(tmp_path / "a", radiograph(0), Modality=None, ViewPosition=None)
    assert read_header(tmp_path / "a") == ("", "", "", "", "", 1, False)


def test_letters_with_signs_and_several_values_are_text(tmp_path: Path) -> None:
    write_study_file(
        tmp_path / "a", radiograph(0), SpecificCharacterSet="ISO_IR 192", PatientID="Ä1"
    )
    write_study_file(tmp_path / "b", radiograph(0), PatientID=["a", "b"])
    found = [read_header(tmp_path / name) for name in "ab"]
    assert [header.patient for header in found if header] == ["Ä1", "a\\b"]


def test_frames_are_counted_and_reports_are_no_images(tmp_path: Path) -> None:
    write_study_file(tmp_path / "a", np.zeros((3, 4, 4), np.uint16))
    write_study_file(tmp_path / "b", None, Modality="SR")
    header = read_header(tmp_path / "a")
    assert header and header.frames == 3
    assert read_header(tmp_path / "b") is None


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_study_file(file, radiograph(0), PatientID="1")
    whole = file.read_bytes()
    refused = 0
    for cut in range(0, 600, 7):
        file.write_bytes(whole[:cut])
        if not starts_as_dicom(file):
            continue
        try:
            read_header(file)
        except DataError as error:
            assert "header that cannot be read" in str(error)
            refused += 1
    assert refused
    deflated = whole[:132] + headers.DEFLATED + whole[132:]
    file.write_bytes(deflated)
    with pytest.raises(DataError, match="deflated"):
        read_header(file)
    assert not starts_as_dicom(Path(__file__))
