"""Every format at every depth: the same ramp, whatever it is stored in."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from dollmaker.pixels.formats import read_frame, turn_upright
from dollmaker.pixels.pictures import read_picture
from dollmaker.runtime.errors import DataError

RAMP = np.tile(np.linspace(0, 1, 48), (20, 1))
TWELVE = (RAMP * 4095).round().astype(np.uint16)


def grey(path: Path) -> np.ndarray:
    return np.asarray(read_picture(path, mode="L", max_pixels=10**6).image).astype(int)


def is_ramp(pixels: np.ndarray) -> bool:
    return np.abs(pixels - RAMP * 255).max() <= 3


def tiff(path: Path, values: np.ndarray, **options: Any) -> None:
    tifffile.imwrite(path, values, **({"photometric": "minisblack"} | options))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_deep_png_keeps_its_range(tmp_path: Path, channels: int) -> None:
    layers = [TWELVE] * channels
    if channels in (2, 4):
        layers[-1] = np.full_like(TWELVE, 65535)
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(np.stack(layers, -1)))
    assert is_ramp(grey(tmp_path / "x.png"))


def test_deep_png_that_is_half_transparent_lies_on_black(tmp_path: Path) -> None:
    opacity = np.full_like(TWELVE, 65535)
    opacity[:10] = 0
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(np.stack([TWELVE, opacity], -1)))
    pixels = grey(tmp_path / "x.png")
    assert not pixels[:10].any() and pixels[10:].max() == 255


@pytest.mark.parametrize(
    "values",
    [
        TWELVE,
        TWELVE.astype(np.int16) - 2048,
        TWELVE.astype(np.uint32) * 1000,
        TWELVE.astype(np.float16),
        RAMP.astype(np.float32),
        RAMP,
    ],
    ids=lambda values: str(values.dtype),
)
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_tiff_of_every_depth(tmp_path: Path, values: np.ndarray, white_is_zero: bool) -> None:
    kind = "miniswhite" if white_is_zero else "minisblack"
    tiff(tmp_path / "x.tif", values, photometric=kind)
    pixels = grey(tmp_path / "x.tif")
    assert is_ramp(255 - pixels if white_is_zero else pixels)


def test_tiff_of_deep_colours_and_planes(tmp_path: Path) -> None:
    colours = np.stack([TWELVE, TWELVE // 2, np.zeros_like(TWELVE)], -1)
    tiff(tmp_path / "x.tif", colours, photometric="rgb")
    planes = {"photometric": "rgb", "planarconfig": "separate"}
    tiff(tmp_path / "y.tif", np.moveaxis(colours, -1, 0), **planes)
    first, second = (
        np.asarray(read_picture(tmp_path / f"{name}.tif", mode=None, max_pixels=10**6).image)
        for name in "xy"
    )
    assert np.array_equal(first, second) and first[0, -1].tolist() == [255, 127, 0]


def test_tiff_of_8_bits_whose_white_is_zero(tmp_path: Path) -> None:
    tiff(tmp_path / "x.tif", (255 - RAMP * 255).astype(np.uint8), photometric="miniswhite")
    assert is_ramp(grey(tmp_path / "x.tif"))


def test_a_thumbnail_is_no_second_frame_but_a_page_is(tmp_path: Path) -> None:
    for name, kind in (("x", 1), ("y", 0)):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as writer:
            writer.write(TWELVE, photometric="minisblack")
            writer.write(TWELVE[::4, ::4], photometric="minisblack", subfiletype=kind)
    assert is_ramp(grey(tmp_path / "x.tif"))
    with pytest.raises(DataError, match="several frames"):
        grey(tmp_path / "y.tif")


def four(last: np.ndarray, dtype: Any = np.uint16) -> np.ndarray:
    """The ramp as grey colours, and a fourth channel."""
    return np.stack([TWELVE, TWELVE, TWELVE, last], -1).astype(dtype)


@pytest.mark.parametrize(
    ("last", "kind", "dtype"),
    [
        (np.zeros_like(TWELVE), "unspecified", np.uint16),
        (np.full_like(TWELVE, 4095), "unassalpha", np.uint16),
        (np.full_like(TWELVE, 4095), "unassalpha", np.float32),
        (np.full_like(TWELVE, 30000), "assocalpha", np.uint16),
        (np.maximum(TWELVE, 1), "assocalpha", np.uint16),
    ],
    ids=[
        "no opacity",
        "opacity of 12 bits",
        "of floats",
        "half laid on black",
        "all laid on black",
    ],
)
def test_a_fourth_channel_leaves_what_is_seen(
    tmp_path: Path, last: np.ndarray, kind: str, dtype: Any
) -> None:
    tiff(tmp_path / "x.tif", four(last, dtype), photometric="rgb", extrasamples=[kind])
    assert is_ramp(grey(tmp_path / "x.tif"))


def test_a_second_channel_that_is_no_opacity_hides_nothing(tmp_path: Path) -> None:
    values = np.stack([TWELVE, np.zeros_like(TWELVE)], -1)
    tiff(tmp_path / "x.tif", values, planarconfig="contig", extrasamples=["unspecified"])
    assert is_ramp(grey(tmp_path / "x.tif"))


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_four_bands_of_grey_are_no_colours(tmp_path: Path, planes: str, dtype: Any) -> None:
    values = four(TWELVE[::-1], dtype)
    if planes == "separate":
        values = np.moveaxis(values, -1, 0)
    tiff(tmp_path / "x.tif", values, photometric="minisblack", planarconfig=planes)
    with pytest.raises(DataError, match="holds 4 channels; save it as grey or RGB"):
        grey(tmp_path / "x.tif")
    two = np.zeros((2, 20, 48), np.uint8)
    tiff(tmp_path / "x.tif", two, photometric="minisblack", planarconfig="separate")
    with pytest.raises(DataError, match="a TIFF whose layout or compression Pillow does not know"):
        grey(tmp_path / "x.tif")


def test_deep_inks_are_colours(tmp_path: Path) -> None:
    inks = np.zeros((20, 48, 4), np.uint16)
    inks[..., 3] = (65535 * (1 - RAMP)).round()
    tiff(tmp_path / "x.tif", inks, photometric="separated")
    assert is_ramp(grey(tmp_path / "x.tif"))
    inks[..., 0] = 65535
    tiff(tmp_path / "x.tif", inks, photometric="separated")
    with read_picture(tmp_path / "x.tif", mode=None, max_pixels=10**6).image as cyan:
        assert [channel.getextrema()[1] for channel in cyan.split()] == [0, 255, 255]


@pytest.mark.parametrize(
    ("kind", "dtype", "options"),
    [
        ("CIELAB", np.uint16, {"photometric": "cielab"}),
        ("PALETTE", np.uint16, {"photometric": "palette", "colormap": np.zeros((3, 65536), "u2")}),
        ("CFA", np.uint16, {"photometric": "cfa"}),
        ("complex64", np.complex64, {}),
    ],
)
def test_deep_values_that_are_no_grey_and_no_rgb_are_refused(
    tmp_path: Path, kind: str, dtype: Any, options: dict[str, Any]
) -> None:
    values = np.stack([TWELVE] * 3, -1) if kind == "CIELAB" else TWELVE
    tiff(tmp_path / "x.tif", values.astype(dtype), **options)
    with pytest.raises(DataError, match=rf"holds deep values of the kind .*{kind}"):
        grey(tmp_path / "x.tif")


@pytest.mark.parametrize("options", [{"imagej": True}, {}], ids=["ImageJ", "tifffile"])
def test_a_stack_whose_frames_are_not_listed_is_refused(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    tiff(tmp_path / "x.tif", np.stack([TWELVE] * 3), truncate=True, **options)
    with pytest.raises(DataError, match="holds several frames"):
        grey(tmp_path / "x.tif")


@pytest.mark.parametrize("mode", ["L", "RGB", None])
def test_lab_has_a_grey(tmp_path: Path, mode: str | None) -> None:
    Image.new("LAB", (6, 4), (200, 128, 128)).save(tmp_path / "x.tif")
    picture = read_picture(tmp_path / "x.tif", mode=mode, max_pixels=10**6).image
    assert picture.mode == (mode or "RGB") and picture.size == (6, 4)


def test_a_grey_of_deep_png_can_be_transparent(tmp_path: Path) -> None:
    values = np.where(RAMP > 0.9, 65535, TWELVE).astype(np.uint16)
    data = imagecodecs.png_encode(values)
    mark = _chunk(b"tRNS", b"\xff\xff")
    (tmp_path / "x.png").write_bytes(data[:33] + mark + data[33:])
    pixels = grey(tmp_path / "x.png")
    assert not pixels[RAMP > 0.9].any()
    assert pixels[RAMP <= 0.9].max() == 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_thumbnail_may_come_first(tmp_path: Path, dtype: Any) -> None:
    values = (RAMP * np.iinfo(dtype).max).round().astype(dtype)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(values[::4, ::4], photometric="minisblack", subfiletype=1)
        file.write(values, photometric="minisblack", extratags=[(274, 3, 1, 3, True)])
    assert is_ramp(grey(tmp_path / "x.tif")[::-1, ::-1])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "a pointer of Git LFS; fetch",
        ),
        (b"/annex/objects/SHA256E-s5--00.png\n", "a pointer of git-annex; fetch"),
        (b"\n<!DOCTYPE html><html>sign in</html>", "a web page; download"),
        (b"no picture", "none of BMP, .*DICOM"),
    ],
)
def test_what_stands_for_a_picture_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"not a readable image \({said}"):
        grey(tmp_path / "x.png")


def test_channels_that_are_no_colours_are_refused_unread(tmp_path: Path) -> None:
    tiff(tmp_path / "x.tif", np.zeros((9, 9, 40), np.uint16), planarconfig="contig")
    with pytest.raises(DataError, match="40 channels"):
        grey(tmp_path / "x.tif")


@pytest.mark.parametrize("colours", [False, True])
def test_deep_jpeg_2000(tmp_path: Path, colours: bool) -> None:
    values = np.stack([TWELVE] * 3, -1) if colours else TWELVE
    for bits in (12, 16):
        data = imagecodecs.jpeg2k_encode(values, bitspersample=bits, reversible=True)
        (tmp_path / "x.jp2").write_bytes(data)
        assert is_ramp(grey(tmp_path / "x.jp2"))


@pytest.mark.parametrize("top", [4095, 65535])
@pytest.mark.parametrize("kind", [b"P5", b"P6"])
def test_deep_pnm(tmp_path: Path, top: int, kind: bytes) -> None:
    values = TWELVE if kind == b"P5" else np.stack([TWELVE] * 3, -1)
    (tmp_path / "x.pnm").write_bytes(kind + b"\n48 20\n%d\n" % top + values.astype(">u2").tobytes())
    assert is_ramp(grey(tmp_path / "x.pnm"))


@pytest.mark.parametrize("kind", [b"P2", b"P3"])
def test_deep_pnm_that_is_text(tmp_path: Path, kind: bytes) -> None:
    values = TWELVE if kind == b"P2" else np.stack([TWELVE] * 3, -1)
    text = " ".join(map(str, values.ravel())).encode()
    (tmp_path / "x.pnm").write_bytes(kind + b"\n48 20\n65535\n# 9 9 9\n" + text + b"\n")
    assert is_ramp(grey(tmp_path / "x.pnm"))


def test_the_second_picture_of_a_phone_does_not_count(tmp_path: Path) -> None:
    first = Image.fromarray((RAMP * 255).astype(np.uint8)).convert("RGB")
    others = [first.resize((12, 5)), first.resize((24, 10))]
    first.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=others)
    assert np.abs(grey(tmp_path / "x.jpg") - RAMP * 255).max() < 8


@pytest.mark.parametrize("tag", range(1, 9))
def test_arrays_are_turned_as_pillow_turns_pictures(tmp_path: Path, tag: int) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(values).save(tmp_path / "x.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "x.png")))
    assert np.array_equal(turn_upright(values, tag), expected)
    tiff(tmp_path / "x.tif", values, extratags=[(274, "H", 1, tag, True)])
    tiff(tmp_path / "y.tif", values.astype(np.uint16), extratags=[(274, "H", 1, tag, True)])
    deep = np.stack([values.astype(np.uint16)] * 3, -1)
    plain = imagecodecs.png_encode(deep)
    (tmp_path / "z.png").write_bytes(plain[:33] + _exif_chunk(tag) + plain[33:])
    for name in ("x.png", "x.tif", "y.tif", "z.png"):
        frame = read_frame(tmp_path / name, 100)
        stored = np.asarray(frame.image) if frame.image else frame.deep
        assert frame.orientation == tag
        assert np.array_equal(stored if stored.ndim == 2 else stored[..., 0], expected), name


def _exif_chunk(tag: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    return _chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))


def _chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def lossy_files() -> dict[str, tuple[bytes, bool]]:
    """Name -> bytes, and whether the compression changes values."""
    picture = Image.fromarray((RAMP * 255).astype(np.uint8))

    def save(form: str, **options: Any) -> bytes:
        picture.save(buffer := io.BytesIO(), format=form, **options)
        return buffer.getvalue()

    return {
        "x.jpg": (save("JPEG"), True),
        "x.webp": (save("WEBP"), True),
        "y.webp": (save("WEBP", lossless=True), False),
        "z.webp": (save("WEBP", lossless=True, exif=Image.Exif().tobytes()), False),
        "x.tif": (save("TIFF", compression="jpeg"), True),
        "y.tif": (save("TIFF", compression="tiff_lzw"), False),
        "x.jp2": (save("JPEG2000", irreversible=True), True),
        "y.jp2": (save("JPEG2000"), False),
        "x.png": (save("PNG"), False),
        "x.gif": (save("GIF"), False),
    }


@pytest.mark.parametrize("name", lossy_files())
def test_what_changes_values_is_known(tmp_path: Path, name: str) -> None:
    data, lossy = lossy_files()[name]
    (tmp_path / name).write_bytes(data)
    assert read_frame(tmp_path / name, 10**6).lossy == lossy


def test_large_pictures_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    tiff(tmp_path / "x.tif", TWELVE)
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(np.stack([TWELVE] * 3, -1)))
    (tmp_path / "x.jp2").write_bytes(imagecodecs.jpeg2k_encode(TWELVE, bitspersample=12))
    for name in ("x.tif", "x.png", "x.jp2"):
        with pytest.raises(DataError, match="48x20 is over 900 pixels"):
            read_frame(tmp_path / name, 900)
