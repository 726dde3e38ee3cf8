"""DICOM made here: windows by the standard's formulas, padding, tables, colours and refusals."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from dollmaker.pixels.dicom import _DEFLATED, is_dicom, read_dicom, read_header, starts_as_dicom
from dollmaker.runtime.errors import DataError
from dollmaker.store.depth import by_percentiles
from prepare.studies import radiograph, write_study_file

Values = npt.NDArray[Any]

MANY = 10**6
#: Every value of 12 bits once.
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def dicom(values: Values, syntax: UID = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A file of values (H, W) or (H, W, 3) that uses all bits, but for what elements say."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    meta.TransferSyntaxUID = syntax
    content = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    content.Rows, content.Columns = values.shape[:2]
    content.BitsAllocated = content.BitsStored = values.dtype.itemsize * 8
    content.PixelRepresentation = int(values.dtype.kind == "i")
    content.SamplesPerPixel = 1 if values.ndim == 2 else 3
    content.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    if values.ndim == 3:
        content.PlanarConfiguration = 0
    content.PixelData = values.tobytes()
    for keyword, value in elements.items():
        if keyword.startswith("PixelPadding") and value is not None:
            # As written, also where the pixels have the other sign.
            content.add_new(tag_for_keyword(keyword), "US" if value > 32767 else "SS", value)
        else:
            setattr(content, keyword, value)
    content.HighBit = elements.get("HighBit", content.BitsStored - 1)
    buffer = io.BytesIO()
    content.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def read(values: Values, **elements: Any) -> npt.NDArray[np.int64]:
    return np.asarray(read_dicom(dicom(values, **elements), MANY)).astype(np.int64)


def table(entries: Values, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item.LUTData = entries.astype(np.uint16).tobytes()
    return item


def linear(x: Values, centre: float, width: float) -> Values:
    """PS3.3 C.11.2.1.2.1 for the output range 0..1."""
    y = (x - (centre - 0.5)) / (width - 1) + 0.5
    y[x <= centre - 0.5 - (width - 1) / 2] = 0
    y[x > centre - 0.5 + (width - 1) / 2] = 1
    return y


def linear_exact(x: Values, centre: float, width: float) -> Values:
    """PS3.3 C.11.2.1.3.2."""
    return np.clip((x - centre) / width + 0.5, 0, 1)


def sigmoid(x: Values, centre: float, width: float) -> Values:
    """PS3.3 C.11.2.1.3.1."""
    return 1 / (1 + np.exp(-4 * (x - centre) / width))


def near(shown: Values, wanted: Values) -> bool:
    """Whether two pictures differ by rounding only."""
    return bool(np.abs(shown - 255 * wanted).max() <= 0.5 + 1e-9)


@pytest.mark.parametrize(
    ("function", "formula"),
    [("LINEAR", linear), ("LINEAR_EXACT", linear_exact), ("SIGMOID", sigmoid), ("", linear)],
)
@pytest.mark.parametrize(("centre", "width"), [(2048, 4096), (300, 200), (3000, 8000), (100.5, 2)])
def test_a_window_keeps_its_width(function: str, formula: Any, centre: float, width: float) -> None:
    window = {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": function}
    wanted = formula(RAMP.astype(float), centre, width)
    assert near(read(RAMP, BitsStored=12, **window), wanted)
    # What else the image holds does not matter.
    assert near(read(RAMP[1:11], BitsStored=12, **window), wanted[1:11])
    assert near(
        read(RAMP, BitsStored=12, PhotometricInterpretation="MONOCHROME1", **window), 1 - wanted
    )


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (0.25, 10), (-2, 4000)])
def test_windows_are_in_the_unit_of_the_device(slope: float, intercept: float) -> None:
    rescaled = RAMP * float(slope) + intercept
    shown = read(
        RAMP,
        BitsStored=12,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        WindowCenter=[500, 40],
        WindowWidth=[900, 400],
    )
    assert near(shown, linear(rescaled, 500, 900))


def test_empty_elements_are_absent() -> None:
    empty = dict.fromkeys(
        (
            *("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept"),
            *("PixelPaddingValue", "PixelPaddingRangeLimit", "PresentationLUTShape"),
        )
    )
    assert np.array_equal(read(RAMP, BitsStored=12, **empty), by_percentiles(RAMP))
    shown = read(RAMP, BitsStored=12, VOILUTFunction="", WindowCenter=1000, WindowWidth=500)
    assert near(shown, linear(RAMP.astype(float), 1000, 500))


@pytest.mark.parametrize(
    ("function", "width"), [("LINEAR", 0), ("LINEAR_EXACT", 0), ("SIGMOID", -3), ("CURVED", 9)]
)
def test_a_window_that_is_none_is_refused(function: str, width: float) -> None:
    with pytest.raises(DataError, match=r"^has a window that cannot be applied \(.+\)$"):
        read(RAMP, WindowCenter=10, WindowWidth=width, VOILUTFunction=function)


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": 0, "RescaleIntercept": 0},
        {"WindowCenter": 40000, "WindowWidth": 10},
        {"WindowCenter": -600, "WindowWidth": 150},
        {"VOILUTSequence": [table(np.zeros(4, np.uint16), 0, 16)]},
    ],
)
def test_what_makes_one_grey_of_a_picture_is_refused(elements: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="that makes one grey of all its values"):
        read(RAMP, PixelPaddingValue=7, **elements)
    assert np.ptp(read(RAMP * 0, **elements)) == 0


def test_without_a_window_eight_bits_stay() -> None:
    values = np.arange(40, 200, dtype=np.uint8).reshape(10, 16)
    assert np.array_equal(read(values), values)
    assert np.array_equal(read(values.astype(np.uint16), BitsStored=8), values)
    assert np.array_equal(read(values, RescaleSlope=1, RescaleIntercept=0), values)
    assert near(read(values >> 3, BitsStored=5), (values >> 3) / 31)
    assert np.array_equal(
        read(values, RescaleSlope=2, RescaleIntercept=-9), by_percentiles(values * 2.0 - 9)
    )


def test_without_a_window_deeper_values_are_scaled_by_percentiles() -> None:
    values = np.tile(np.arange(1000, 1200, dtype=np.uint16), (30, 1))
    values[0, 0] = 65535  # a dead detector element
    shown = read(values)
    assert np.abs(shown[1] - np.arange(200) * 255 / 199).max() < 2
    inverted = read(values, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(inverted, 255 - shown)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    "elements",
    [{}, {"WindowCenter": 1100, "WindowWidth": 150}, {"RescaleSlope": 2, "RescaleIntercept": -7}],
)
@pytest.mark.parametrize(
    ("padding", "written"),
    [
        ([-2000], {"PixelPaddingValue": -2000}),
        ([-2000], {"PixelPaddingValue": 63536}),  # as unsigned word
        ([3000, 3100], {"PixelPaddingValue": 3000, "PixelPaddingRangeLimit": 3100}),
        ([3000, 3050], {"PixelPaddingValue": 3100, "PixelPaddingRangeLimit": 3000}),
        ([-2000, -5], {"PixelPaddingValue": 63536, "PixelPaddingRangeLimit": 65535}),
    ],
)
def test_padding_has_no_part_in_the_picture(
    kind: str, elements: dict[str, Any], padding: list[int], written: dict[str, int]
) -> None:
    whole = np.tile(np.linspace(1000, 1200, 60), (20, 1)).astype(np.int16)
    padded = np.concatenate([np.resize(padding, (20, 7)).astype(np.int16), whole], axis=1)
    alone = read(whole, PhotometricInterpretation=kind, **elements)
    shown = read(padded, PhotometricInterpretation=kind, **elements, **written)
    assert (shown[:, :7] == 0).all()
    assert np.array_equal(shown[:, 7:], alone)


def test_padding_of_twelve_signed_bits_and_of_eight_bits() -> None:
    values = np.tile(np.arange(-60, 60, dtype=np.int16), (9, 1))
    padded = values.copy()
    padded[:3] = -2048
    shown = read(padded, BitsStored=12, PixelPaddingValue=2048)
    assert np.array_equal(shown[3:], read(values[3:], BitsStored=12))
    assert not shown[:3].any()
    grey = np.array([[0, 90, 255]], np.uint8)
    dark = read(grey, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0)
    assert dark.tolist() == [[0, 165, 0]]
    assert not read(grey.astype(np.uint16) * 0 + 9, PixelPaddingValue=9).any()


def test_numbers_out_of_range_are_no_padding() -> None:
    white = RAMP.copy()
    white[:30] = 4095
    shown = read(white, BitsStored=12, PixelPaddingValue=65535)
    assert np.array_equal(shown, by_percentiles(white))


def test_an_inverse_presentation_counts_once() -> None:
    plain = read(RAMP, BitsStored=12)
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        shown = read(
            RAMP,
            BitsStored=12,
            PhotometricInterpretation=kind,
            PresentationLUTShape="INVERSE",
        )
        assert np.array_equal(shown, 255 - plain)
    identity = read(RAMP, BitsStored=12, PresentationLUTShape="IDENTITY")
    assert np.array_equal(identity, plain)


def test_overlays_in_unused_bits_do_not_count() -> None:
    values = RAMP.copy()
    values[5:10, 5:10] |= 0xF000
    assert np.array_equal(read(values, BitsStored=12), read(RAMP, BitsStored=12))


CURVE = np.round(np.sqrt(np.arange(4096) / 4095) * 255)


@pytest.mark.parametrize(
    ("entries", "bits"),
    [(CURVE, 8), (CURVE[::-1], 8), (CURVE * 16, 12), (CURVE * 16, 16), (CURVE[:300], 8)],
)
def test_tables_of_values_of_interest(entries: Values, bits: int) -> None:
    """Entries of any depth, also narrower than declared; beyond its ends a table goes on."""
    item = table(entries, 100, bits)
    shown = read(RAMP, BitsStored=12, VOILUTSequence=[item], WindowCenter=9, WindowWidth=2)
    found = entries[np.clip(RAMP.astype(int) - 100, 0, len(entries) - 1)]
    low, high = entries.min(), entries.max()
    assert near(shown, (found - low) / (high - low))


def test_tables_of_modality_come_before_windows() -> None:
    squares = (np.arange(4096) ** 2) >> 12
    shown = read(
        RAMP,
        BitsStored=12,
        ModalityLUTSequence=[table(squares, 0, 12)],
        WindowCenter=1000,
        WindowWidth=800,
    )
    assert near(shown, linear(squares[RAMP].astype(float), 1000, 800))


@pytest.mark.parametrize("groups", ["SharedFunctional", "PerFrameFunctional"])
def test_an_enhanced_object_keeps_its_unit_and_window_in_groups(groups: str) -> None:
    unit, window, group = Dataset(), Dataset(), Dataset()
    unit.RescaleSlope, unit.RescaleIntercept = -1, 4095
    window.WindowCenter, window.WindowWidth = 1000, 800
    group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [unit], [window]
    shown = read(RAMP, BitsStored=12, NumberOfFrames=1, **{f"{groups}GroupsSequence": [group]})
    assert near(shown, linear(4095 - RAMP.astype(float), 1000, 800))


def palette(tables: list[Values], first: int, bits: int) -> dict[str, Any]:
    found: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, entries in zip(("Red", "Green", "Blue"), tables, strict=True):
        name = f"{colour}PaletteColorLookupTable"
        found[f"{name}Descriptor"] = [len(entries), first, bits]
        found[f"{name}Data"] = entries.astype(np.uint8 if bits == 8 else np.uint16).tobytes()
    return found


@pytest.mark.parametrize(("bits", "factor"), [(8, 1), (16, 257), (16, 1)])
def test_palettes_become_colours(bits: int, factor: int) -> None:
    """Of 16 bits some files use the lower 8 only."""
    indices = np.arange(600, dtype=np.uint16).reshape(20, 30)
    tables = [(np.arange(400) * step) % 256 for step in (1, 3, 7)]
    shown = read(indices, **palette([entries * factor for entries in tables], 50, bits))
    places = np.clip(indices.astype(int) - 50, 0, 399)
    assert np.array_equal(shown, np.stack([entries[places] for entries in tables], axis=-1))


def test_colours_of_sixteen_bits_share_one_range() -> None:
    values = np.zeros((40, 50, 3), np.uint16)
    values[..., 0] = np.linspace(0, 60000, 50)
    values[..., 1] = 30000
    shown = read(values)
    assert (np.diff(shown[0, :, 0]) > 0).all()
    assert abs(shown[0, 25, 0] - shown[0, 25, 1]) < 4
    planes = read(
        np.moveaxis(values, -1, 0).reshape(values.shape),
        PlanarConfiguration=1,
    )
    assert np.array_equal(planes, shown)


def test_colours_of_eight_bits_stay() -> None:
    values = np.random.default_rng(0).integers(20, 90, (6, 8, 3), np.uint8)
    assert np.array_equal(read(values), values)
    luminance = np.full((6, 8, 3), [150, 44, 21], np.uint8)  # green by BT.601
    shown = read(luminance, PhotometricInterpretation="YBR_FULL")
    assert np.abs(shown - [0, 255, 1]).max() <= 1


@pytest.mark.parametrize("marker", [b"", b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\1"])
def test_colours_of_jpeg_are_converted_once(marker: bytes) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8), (200, 30, 40)).save(buffer, "JPEG", quality=100)
    data = buffer.getvalue()
    assert data[2:4] == b"\xff\xe0"
    start = 4 + int.from_bytes(data[4:6], "big")  # without JFIF's marker
    frame = encapsulate([data[:2] + marker + data[start:]])
    shown = read(
        np.zeros((8, 16, 3), np.uint8),
        syntax=JPEGBaseline8Bit,
        PhotometricInterpretation="YBR_FULL_422",
        PixelData=frame,
    )
    assert np.abs(shown - [200, 30, 40]).max() <= 3


@pytest.mark.filterwarnings("ignore:.*:UserWarning:pydicom")
@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"NumberOfFrames": 2}, "holds several frames"),
        ({"PixelData": bytes(2 * 64 * 64 * 2)}, "holds several frames"),
        ({"Rows": 60000, "Columns": 60000}, "60000x60000 is over 1000000 pixels"),
        ({"PhotometricInterpretation": "HSV"}, "is DICOM of kind HSV with 1 channels; save it as"),
        ({"PhotometricInterpretation": "RGB"}, "is DICOM of kind RGB with 1 channels; save it as"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "has a palette in segments or none"),
        ({"BitsStored": 12, "HighBit": 15}, "has values that begin at bit 4; save it with those"),
        ({"RescaleSlope": "1e300", "RescaleIntercept": "nan"}, "values that are not finite"),
    ],
)
def test_what_is_no_single_picture_is_refused(elements: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(RAMP, **elements)


def test_partial_luminance_is_refused() -> None:
    with pytest.raises(DataError, match="is DICOM of kind YBR PARTIAL 422 with 3 channels"):
        read(np.zeros((4, 6, 3), np.uint8), PhotometricInterpretation="YBR_PARTIAL_422")


def test_files_that_cannot_be_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom(RAMP)
    assert is_dicom(data)
    assert not is_dicom(b"DICM" + bytes(200))
    with pytest.raises(DataError, match="is deflated DICOM; decompress it first"):
        late = bytes(6000)  # after a long description of the file
        read_dicom(data[:144] + late + b"1.2.840.10008.1.2.1.99", MANY)
    with pytest.raises(DataError, match="is DICOM without an image"):
        read_dicom(bytes(128) + b"DICM", MANY)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r"needs pydicom; pip install 'dollmaker\[dicom\]'"):
        read_dicom(data, MANY)


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
    deflated = whole[:132] + _DEFLATED + whole[132:]
    file.write_bytes(deflated)
    with pytest.raises(DataError, match="deflated"):
        read_header(file)
    assert not starts_as_dicom(Path(__file__))
