"""Files whose channels are no colours: pages and bands of TIFF, arrays; and pictures in 16 bits."""

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from dollmaker.pixels.pictures import decode, read_channels, read_picture
from dollmaker.pixels.stacks import read_stack, write_stack
from dollmaker.runtime.errors import DataError
from dollmaker.store.depth import by_percentiles

MOST = 10**6


def values(*shape: int, dtype: Any = np.uint8, top: int = 255) -> Any:
    return np.random.default_rng(0).integers(0, top + 1, shape).astype(dtype)


def read(path: Path, channels: int, bits: Any = 8) -> Any:
    return read_channels(path, channels=channels, bits=bits, max_pixels=MOST).pixels


def array(content: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, content, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [2, 3, 4, 5])
@pytest.mark.parametrize("form", ["pages", "own", "bands", "planes", "first", "last"])
def test_eight_bits_of_any_channels_are_read_as_they_are(
    tmp_path: Path, form: str, channels: int, bits: Any
) -> None:
    wanted, file = values(channels, 6, 9), tmp_path / "x.tif"
    if form == "pages":
        tifffile.imwrite(file, wanted, photometric="minisblack")
    elif form == "own":
        write_stack(file, wanted)
    elif form == "bands":
        last = np.moveaxis(wanted, 0, -1)
        kind = "rgb" if channels == 3 else "minisblack"
        tifffile.imwrite(file, last, photometric=kind, planarconfig="contig")
    elif form == "planes":
        kind = "rgb" if channels == 3 else "minisblack"
        tifffile.imwrite(file, wanted, photometric=kind, planarconfig="separate")
    else:
        np.save(file, wanted if form == "first" else np.moveaxis(wanted, 0, -1))
        file = tmp_path / "x.tif.npy"
    assert np.array_equal(
        read(file, channels, bits), wanted.astype(int) * (257 if bits == 16 else 1)
    )


@pytest.mark.parametrize("form", ["pages", "array"])
def test_each_channel_of_deep_values_has_its_own_range(tmp_path: Path, form: str) -> None:
    deep = (
        values(4, 30, 20, dtype=np.uint16, top=900)
        * np.array([1, 3, 9, 27], np.uint16)[:, None, None]
    )
    file = tmp_path / ("x.tif" if form == "pages" else "x.npy")
    if form == "pages":
        tifffile.imwrite(file, deep, photometric="minisblack")
    else:
        np.save(file, deep)
    for bits in (8, 16):
        one_by_one = [by_percentiles(channel, bits=bits) for channel in deep]  # type: ignore[arg-type]
        assert np.array_equal(read(file, 4, bits), one_by_one)


def test_what_was_written_here_is_not_scaled_again(tmp_path: Path) -> None:
    for channels in (1, 4):
        wanted = values(channels, 7, 5, dtype=np.uint16, top=3000)
        write_stack(tmp_path / "x.tif", wanted)
        assert np.array_equal(read(tmp_path / "x.tif", channels, 16), wanted)
        assert np.array_equal(read(tmp_path / "x.tif", channels), np.round(wanted / 257))
    write_stack(tmp_path / "x.tif", wanted[:1])
    shown = read_picture(tmp_path / "x.tif", mode=None, max_pixels=MOST).image
    assert np.array_equal(np.asarray(shown), np.round(wanted[0] / 257))
    assert np.array_equal(read(tmp_path / "x.tif", 3, 16), np.repeat(wanted[:1], 3, 0))


@pytest.mark.parametrize("kind", ["png", "tif", "dcm"])
def test_a_ramp_of_sixteen_bits_survives_prepare_value_by_value(tmp_path: Path, kind: str) -> None:
    """All 65536 values; a border of both ends makes the percentiles those of the whole range."""
    ramp = np.full((264, 264), 65535, np.uint16)
    ramp[:4] = 0
    ramp[4:260, 4:260] = np.arange(65536).reshape(256, 256)
    file = tmp_path / f"x.{kind}"
    if kind == "png":
        file.write_bytes(imagecodecs.png_encode(ramp))
    elif kind == "tif":
        tifffile.imwrite(file, ramp)
    else:
        pytest.importorskip("pydicom")
        from hostile.hostile_images import write_dicom

        write_dicom(file, values=ramp, BitsStored=16, HighBit=15)
    done = decode(file, size=264, channels=1, fit="letterbox", max_pixels=MOST, bits=16)
    assert done.pixels.dtype == np.uint16 and np.array_equal(done.pixels[0], ramp)
    assert done.mean == [pytest.approx(ramp.mean() / 257)]
    eight = decode(file, size=264, channels=1, fit="letterbox", max_pixels=MOST)
    assert np.array_equal(eight.pixels[0], np.round(ramp / 257)) and eight.hash == done.hash


def test_a_dicom_window_keeps_all_its_steps(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from hostile.hostile_images import write_dicom

    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    write_dicom(tmp_path / "x.dcm", values=stored, WindowCenter=1500.5, WindowWidth=1001)
    wanted = np.clip((stored - 1000.0) / 1000, 0, 1)  # PS3.3 C.11.2.1.2.1: c - 0.5, w - 1
    deep = read(tmp_path / "x.dcm", 1, 16)[0]
    assert np.abs(deep - wanted * 65535).max() <= 0.51
    assert len(np.unique(deep)) == 1001 and len(np.unique(read(tmp_path / "x.dcm", 1))) == 256


def test_colours_share_a_range_and_become_grey_as_in_eight_bits(tmp_path: Path) -> None:
    deep = values(20, 30, 3, dtype=np.uint16, top=60000) // np.array([1, 2, 4], np.uint16)
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(deep))
    colours = read(tmp_path / "x.png", 3, 16)
    assert np.array_equal(colours, np.moveaxis(by_percentiles(deep, bits=16), -1, 0))
    grey = read(tmp_path / "x.png", 1, 16)[0]
    mixed = np.tensordot([0.299, 0.587, 0.114], colours.astype(float), 1)
    assert np.abs(grey - mixed).max() <= 0.51
    assert np.abs(grey / 257 - read(tmp_path / "x.png", 1)[0]).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "P", "CMYK"])
def test_pictures_of_eight_bits_are_whole_in_sixteen(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.fromarray(values(9, 7, 4), "RGBA").convert(mode).save(file)
    for channels, own in ((1, "L"), (3, "RGB")):
        plain = np.asarray(read_picture(file, mode=own, max_pixels=MOST).image)
        eight = np.moveaxis(np.atleast_3d(plain), -1, 0)
        assert np.array_equal(read(file, channels), eight)
        assert np.array_equal(read(file, channels, 16), eight.astype(int) * 257)
    own_mode = read_picture(file, mode=None, max_pixels=MOST).image.mode
    alone = read_channels(file, channels=None, bits=8, max_pixels=MOST).pixels
    assert len(alone) == len(own_mode)


@pytest.mark.parametrize(
    ("content", "asked", "said"),
    [
        ("L", 4, "holds one channel, grey, and prepare.channels asks for 4"),
        ("RGBA", 4, "holds three channels, red, green and blue, and prepare.channels asks for 4"),
        ("pages", 4, "holds 5 pages, and prepare.channels asks for 4"),
        ("pages", 3, "holds 5 pages, and prepare.channels asks for 3"),
        ("pages", 1, "holds several frames"),
        ("sizes", 2, "holds several frames that are no grey pages of one size and type"),
        ("colour pages", 2, "no grey pages"),
        ("depth", 4, "holds 4 pages along depth, which are no channels"),
        ("time", 4, "holds 4 pages along time, which are no channels"),
        ("bands", 4, "holds 5 bands, and prepare.channels asks for 4"),
        ("bands", 1, "holds 5 channels"),
    ],
)
def test_files_of_other_channels_say_what_they_hold(
    tmp_path: Path, content: str, asked: int, said: str
) -> None:
    file, five = tmp_path / "x.tif", values(5, 8, 6)
    if content in ("L", "RGBA"):
        Image.fromarray(values(8, 6, 4), "RGBA").convert(content).save(file)
    elif content == "pages":
        tifffile.imwrite(file, five, photometric="minisblack")
    elif content == "bands":
        last = np.moveaxis(five, 0, -1)
        tifffile.imwrite(file, last, photometric="minisblack", planarconfig="contig")
    elif content in ("depth", "time"):
        axes = {"depth": "ZYX", "time": "TYX"}[content]
        tifffile.imwrite(file, five[:4], imagej=True, metadata={"axes": axes})
    else:
        with tifffile.TiffWriter(file) as writer:
            for side in (8, 8 if content == "colour pages" else 9):
                picture = values(side, 6, 3)
                whole = picture if content == "colour pages" else picture[..., 0]
                writer.write(whole, photometric="rgb" if whole.ndim == 3 else "minisblack")
    with pytest.raises(DataError, match=said):
        read(file, asked)


@pytest.mark.parametrize(
    ("data", "channels", "said"),
    [
        (array(values(4, 9, 9)), 3, r"the shape \(4, 9, 9\), and prepare\.channels asks for 3"),
        (array(values(4, 9, 4)), 4, "which its first and its last axis have"),
        (array(values(9, 9)), 4, r"the shape \(9, 9\)"),
        (array(values(2, 3, 4, 5)), 2, r"the shape \(2, 3, 4, 5\)"),
        (array(np.zeros((4, 0, 9))), 4, "the shape"),
        (array(np.array([{}, {}], object)), 1, "array of the type object"),
        (array(np.ones((9, 9), complex)), 1, "array of the type complex128"),
        (array(np.ones((9, 9), bool)), 1, "array of the type bool"),
        (array(np.full((9, 9), np.nan)), 1, "values that are not finite"),
        (array(np.zeros((1001, 1000), np.uint8)), 1, "1000x1001 is over 1000000 pixels"),
        (array(values(9, 9))[:-7], 1, "not a readable image"),
        (b"\x93NUMPY\x09\x00", 1, "not a readable image"),
        (b"\x93NUMPY", 1, "not a readable image"),
        (b"II*\0" + bytes(20), 4, "not a readable image"),
    ],
)
def test_hostile_arrays_and_tiffs_are_refused(
    tmp_path: Path, data: bytes, channels: int, said: str
) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "x", channels)


def test_a_header_that_claims_much_is_refused_before_anything_is_read() -> None:
    stream = io.BytesIO()
    claims = {"descr": "<f8", "fortran_order": False, "shape": (4, 10**6, 10**6)}
    np.lib.format.write_array_header_1_0(stream, claims)
    with pytest.raises(DataError, match="is over 1000000 pixels"):
        read_stack(stream.getvalue(), 4, 8, MOST)


def test_a_grey_array_is_repeated_to_three_and_white_is_zero_is_turned(tmp_path: Path) -> None:
    grey = values(6, 8)
    np.save(tmp_path / "x.npy", grey)
    assert np.array_equal(read(tmp_path / "x.npy", 3), np.stack([grey] * 3))
    pages = values(2, 6, 8)
    tifffile.imwrite(tmp_path / "x.tif", pages, photometric="miniswhite")
    assert np.array_equal(read(tmp_path / "x.tif", 2), 255 - pages)


def test_pages_are_turned_by_their_tag(tmp_path: Path) -> None:
    pages = values(2, 6, 8)
    tag = [(274, "H", 1, 6, True)]
    tifffile.imwrite(tmp_path / "x.tif", pages, photometric="minisblack", extratags=tag)
    found = read_channels(tmp_path / "x.tif", channels=2, bits=8, max_pixels=MOST)
    assert found.origin.orientation == 6
    assert np.array_equal(found.pixels, np.rot90(pages, -1, (1, 2)))


def test_volumes_say_where_they_are_read(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3)), np.eye(4)), tmp_path / "x.nii")
    with pytest.raises(DataError, match=r"volumes are read by source\.kind msd"):
        read(tmp_path / "x.nii", 1)


def test_many_channels_of_large_pictures_are_refused_before_they_are_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", values(5, 40, 50), photometric="minisblack")
    np.save(tmp_path / "x.npy", values(5, 40, 50))
    for name in ("x.tif", "x.npy"):
        with pytest.raises(DataError, match="50x40 of 5 channels is over 8000 values"):
            read_channels(tmp_path / name, channels=5, bits=8, max_pixels=2000)
