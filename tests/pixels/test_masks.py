"""True masks as people save them: the same area, whatever the format writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from dollmaker.pixels.levels import Numbers, objects
from dollmaker.pixels.masks import MaskPicture, read_mask
from dollmaker.runtime.errors import ConfigError, DataError

SIZE = (96, 80)
Y, X = np.mgrid[: SIZE[1], : SIZE[0]]
DISK = (X - 40) ** 2 + (Y - 30) ** 2 < 18**2
BAR = (X > 70) & (X < 84)
WHITE = Image.fromarray(DISK.astype(np.uint8) * 255)


def mask(path: Path, **options: Any) -> MaskPicture:
    return read_mask(path, **({"size": SIZE} | options))


def overlap(found: np.ndarray, area: np.ndarray = DISK) -> float:
    return float((found & area).sum() / (found | area).sum())


def palette(values: np.ndarray, colours: list[int]) -> Image.Image:
    picture = Image.fromarray(values.astype(np.uint8), mode="P")
    picture.putpalette(colours)
    return picture


def drawn(colour: tuple[int, int, int], ground: tuple[int, int, int] = (255, 255, 255)) -> Any:
    """On transparent ground, whose hidden colour does not count."""
    pixels = np.where(DISK[..., None], colour, ground).astype(np.uint8)
    opacity = (DISK * 255).astype(np.uint8)[..., None]
    return Image.fromarray(np.concatenate([pixels, opacity], -1))


#: Name -> picture, options of saving: all of them show the disk.
SHOWN: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    "grey.png": (WHITE, {}),
    "ones.png": (Image.fromarray(DISK.astype(np.uint8)), {}),
    "bit.png": (WHITE.convert("1"), {}),
    "bit.tif": (WHITE.convert("1"), {"compression": "group4"}),
    "colours.bmp": (WHITE.convert("RGB"), {}),
    "deep.png": (Image.fromarray(DISK.astype(np.uint16) * 4000), {}),
    "white first.png": (palette(~DISK, [255, 255, 255, 0, 0, 0]), {}),
    "white first.gif": (palette(~DISK, [255, 255, 255, 0, 0, 0]), {}),
    "voc.png": (palette(DISK * 3, [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]), {}),
    "red first.png": (palette(~DISK, [255, 0, 0, 0, 0, 0]), {}),
    "white on nothing.png": (drawn((255, 255, 255)), {}),
    "red on nothing.png": (drawn((200, 0, 0)), {}),
    "black on nothing.png": (drawn((0, 0, 0)), {}),
    "grey and opaque.png": (WHITE.convert("LA"), {}),
    "x.jpg": (WHITE, {"quality": 60}),
    "colours.jpg": (WHITE.convert("RGB"), {"quality": 80}),
    "x.webp": (WHITE, {"quality": 50}),
    "lossless.webp": (WHITE, {"lossless": True}),
    "jpeg.tif": (WHITE, {"compression": "jpeg"}),
    "x.jp2": (WHITE, {"irreversible": True, "quality_mode": "rates", "quality_layers": [12]}),
}


@pytest.mark.parametrize("name", SHOWN)
def test_objects_are_what_is_shown(tmp_path: Path, name: str) -> None:
    picture, options = SHOWN[name]
    picture.save(tmp_path / name, **options)
    assert overlap(objects(mask(tmp_path / name))) > 0.98


@pytest.mark.parametrize("quality", [40, 75, 95])
def test_a_jpeg_that_became_a_png_is_cut_at_half_brightness(tmp_path: Path, quality: int) -> None:
    thin = Image.fromarray(((np.abs(X - Y) < 3) * 255).astype(np.uint8))
    thin.save(tmp_path / "x.jpg", quality=quality)
    Image.open(tmp_path / "x.jpg").save(tmp_path / "x.png")
    found = objects(mask(tmp_path / "x.png"))
    assert overlap(found, np.asarray(thin) > 0) > 0.98


def test_soft_edges_are_cut_but_instances_are_not(tmp_path: Path) -> None:
    small = WHITE.resize((24, 20), Image.Resampling.BILINEAR)
    small.resize(SIZE, Image.Resampling.BICUBIC).save(tmp_path / "soft.png")
    assert overlap(objects(mask(tmp_path / "soft.png"))) > 0.93
    instances = np.zeros(SIZE[::-1], np.uint8)
    for number in range(240):
        top, left = 4 * (number // 20), 4 * (number % 20)
        instances[top : top + 3, left : left + 3] = 255 - number
    Image.fromarray(instances).save(tmp_path / "instances.png")
    assert np.array_equal(objects(mask(tmp_path / "instances.png")), instances > 0)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (DISK * 127 + BAR * 255, {"format": "JPEG"}),
        (DISK * 40 + BAR * 80, {"format": "JPEG", "quality": 95}),
        (DISK * 127 + BAR * 255, {"format": "WEBP"}),
        (DISK * 90, {"format": "JPEG2000", "irreversible": True}),
    ],
)
def test_lossy_class_numbers_are_refused(tmp_path: Path, values: Any, options: Any) -> None:
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "x", **options)
    with pytest.raises(DataError, match="not black and white; save class numbers as PNG"):
        objects(mask(tmp_path / "x"))
    with pytest.raises(DataError, match="blurs class numbers"):
        Numbers({"a": [1], "b": [2]}).read(mask(tmp_path / "x"))


@pytest.mark.parametrize("tag", [2, 3, 4, 5, 6, 7, 8])
def test_masks_are_turned_as_their_images(tmp_path: Path, tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    WHITE.save(tmp_path / "x.png", exif=exif)
    turned = mask(tmp_path / "x.png", size=SIZE if tag < 5 else SIZE[::-1], turned=True)
    # Where the middle of the disk goes: EXIF 2.3, by which side the first row and column are.
    x, y = (40, 30) if tag in (1, 4) else (SIZE[0] - 1 - 40, 30)
    x, y = (x, y) if tag in (2,) else (x, SIZE[1] - 1 - 30)
    expected = {5: (30, 40), 6: (79 - 30, 40), 7: (79 - 30, 95 - 40), 8: (30, 95 - 40)}
    middle = np.argwhere(objects(turned)).mean(0)[::-1]
    assert np.abs(middle - expected.get(tag, (x, y))).max() < 0.5
    WHITE.save(tmp_path / "y.png")
    with pytest.raises(DataError, match="has no EXIF orientation but its image was turned"):
        mask(tmp_path / "y.png", turned=True)


def read(numbers: Numbers, path: Path) -> Any:
    return numbers.read(mask(path))


@pytest.mark.parametrize("name", ["grey.png", "ones.png", "bit.png", "white first.png", "x.jpg"])
@pytest.mark.parametrize("asked", [1, 255])
def test_white_is_the_one_number_that_is_asked_for(tmp_path: Path, name: str, asked: int) -> None:
    picture, options = SHOWN[name]
    picture.save(tmp_path / name, **options)
    numbers = Numbers({"lung": [asked]})
    assert overlap(numbers.area(read(numbers, tmp_path / name), "lung")) > 0.98
    assert numbers.fault() == ""


def test_palettes_and_greys_hold_class_numbers(tmp_path: Path) -> None:
    classes = DISK * 3 + BAR * 7
    palette(classes, [5 * n % 256 for n in range(30)]).save(tmp_path / "p.png")
    Image.fromarray(classes.astype(np.uint8)).save(tmp_path / "g.png")
    Image.fromarray(classes.astype(np.uint16)).save(tmp_path / "d.png")
    tifffile.imwrite(tmp_path / "f.tif", classes.astype(np.float32))
    (tmp_path / "x.pgm").write_bytes(b"P5\n96 80\n9\n" + classes.astype(np.uint8).tobytes())
    for name in ("p.png", "g.png", "d.png", "f.tif", "x.pgm"):
        numbers = Numbers({"disk": [3], "both": [3, 7]})
        found = read(numbers, tmp_path / name)
        assert np.array_equal(numbers.area(found, "disk"), DISK), name
        assert np.array_equal(numbers.area(found, "both"), DISK | BAR), name
        assert numbers.seen == {0, 3, 7} and not numbers.fault()


@pytest.mark.parametrize("asked", [1, 255])
def test_soft_edges_are_no_numbers(tmp_path: Path, asked: int) -> None:
    WHITE.save(tmp_path / "x.jpg", quality=80)
    Image.open(tmp_path / "x.jpg").save(tmp_path / "x.png")
    numbers = Numbers({"lung": [asked]})
    assert overlap(numbers.area(read(numbers, tmp_path / "x.png"), "lung")) > 0.98


def test_places_of_a_palette_with_colours_stand_for_themselves(tmp_path: Path) -> None:
    palette(DISK * 255, [0, 0, 0] + [9, 9, 0] * 254 + [224, 224, 192]).save(tmp_path / "x.png")
    numbers = Numbers({"aeroplane": [1]})
    assert not numbers.area(read(numbers, tmp_path / "x.png"), "aeroplane").any()


def test_bools_that_tifffile_wrote_are_not_turned_round(tmp_path: Path) -> None:
    """It stores them as bits whose white is zero, as they are."""
    tifffile.imwrite(tmp_path / "x.tif", DISK)
    assert np.array_equal(objects(mask(tmp_path / "x.tif")), DISK)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_second_band_is_not_left_out(tmp_path: Path, dtype: Any) -> None:
    bands = np.stack([DISK, BAR], -1).astype(dtype)
    options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "x.tif", bands, extrasamples=["unspecified"], **options)
    with pytest.raises(DataError, match="holds two bands; save each as a mask"):
        mask(tmp_path / "x.tif")
    white = np.iinfo(dtype).max if dtype != np.float32 else 1
    bands = np.stack([DISK * 1, DISK * 0 + 1], -1).astype(dtype) * dtype(white)
    tifffile.imwrite(tmp_path / "x.tif", bands, extrasamples=["unassalpha"], **options)
    assert overlap(objects(mask(tmp_path / "x.tif"))) == 1


def test_a_class_that_no_mask_holds_is_a_fault(tmp_path: Path) -> None:
    Image.fromarray((DISK * 3).astype(np.uint8)).save(tmp_path / "x.png")
    numbers = Numbers({"disk": [3], "bar": [7]})
    read(numbers, tmp_path / "x.png")
    assert numbers.fault() == "'bar' (values [7]) is in no mask; values there: 0, 3"
    assert Numbers({"bar": [7]}).fault() == ""  # nothing was read: nothing is known


@pytest.mark.parametrize(("first", "second", "asked"), [(1, 255, 1), (255, 1, 1), (1, 255, 255)])
def test_a_set_that_writes_objects_in_two_ways_is_a_fault(
    tmp_path: Path, first: int, second: int, asked: int
) -> None:
    numbers = Numbers({"lung": [asked]})
    for value in (first, second):
        Image.fromarray((DISK * value).astype(np.uint8)).save(tmp_path / "x.png")
        read(numbers, tmp_path / "x.png")
    assert "'lung': some masks write it as" in numbers.fault()


def test_white_is_no_object_where_it_is_to_be_ignored_or_others_are_asked_for(
    tmp_path: Path,
) -> None:
    WHITE.save(tmp_path / "x.png")
    for numbers in (Numbers({"a": [1]}, ignore=255), Numbers({"a": [1], "b": [2]})):
        assert not numbers.area(read(numbers, tmp_path / "x.png"), "a").any()
    with pytest.raises(DataError, match="black and white, no sum of bits"):
        read(Numbers({"a": [1], "b": [2]}, bits=True), tmp_path / "x.png")


def test_bits_overlap(tmp_path: Path) -> None:
    Image.fromarray((DISK * 16 + BAR * 4096).astype(np.uint16)).save(tmp_path / "x.png")
    numbers = Numbers({"low": [16], "both": [16, 4096]}, bits=True)
    found = read(numbers, tmp_path / "x.png")
    assert np.array_equal(numbers.area(found, "low"), DISK)
    assert np.array_equal(numbers.area(found, "both"), DISK | BAR)
    assert not numbers.fault()


def test_what_holds_no_numbers_is_refused(tmp_path: Path) -> None:
    Image.merge("RGB", [WHITE, WHITE, Image.new("L", SIZE)]).save(tmp_path / "x.png")
    with pytest.raises(DataError, match="has colours; save it as grey or palette PNG"):
        mask(tmp_path / "x.png")
    tifffile.imwrite(tmp_path / "x.tif", DISK.astype(np.float32) * 0.4)
    with pytest.raises(DataError, match="fractions"):
        mask(tmp_path / "x.tif")
    tifffile.imwrite(tmp_path / "y.tif", (DISK * 2).astype(np.uint8), photometric="miniswhite")
    with pytest.raises(DataError, match="white is zero"):
        objects(mask(tmp_path / "y.tif"))
    tifffile.imwrite(tmp_path / "z.tif", (~DISK * 255).astype(np.uint8), photometric="miniswhite")
    assert np.array_equal(objects(mask(tmp_path / "z.tif")), DISK)
    with pytest.raises(DataError, match="is 96x80, its image 9x9 pixels"):
        mask(tmp_path / "x.tif", size=(9, 9))


@pytest.mark.parametrize("level", [1, 20])
@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif"])
def test_a_lossy_mask_without_white_is_no_empty_mask(
    tmp_path: Path, suffix: str, level: int
) -> None:
    options: dict[str, Any] = {"compression": "jpeg"} if suffix == "tif" else {}
    path = tmp_path / f"x.{suffix}"
    Image.fromarray((DISK * level).astype(np.uint8)).save(path, quality=95, **options)
    with pytest.raises(DataError, match="not black and white"):
        objects(mask(path))
    with pytest.raises(DataError, match="not black and white"):
        read(Numbers({"a": [1]}), path)


@pytest.mark.parametrize("factor", [2, 3])
def test_enlarged_masks_are_cut_at_half_brightness(tmp_path: Path, factor: int) -> None:
    size = (SIZE[0] * factor, SIZE[1] * factor)
    WHITE.resize(size, Image.Resampling.BILINEAR).save(tmp_path / "x.png")
    large = np.kron(DISK, np.ones((factor, factor))) > 0
    picture = mask(tmp_path / "x.png", size=size)
    assert overlap(objects(picture), large) > 0.97
    numbers = Numbers({"lung": [255]})
    assert overlap(numbers.area(numbers.read(picture), "lung"), large) > 0.97


def test_many_classes_beside_white_are_no_soft_edges(tmp_path: Path) -> None:
    classes = (Y // 16) * 5 + X // 20 + 1  # 1 to 25
    classes[70:, 90:] = 255
    Image.fromarray(classes.astype(np.uint8)).save(tmp_path / "x.png")
    assert objects(mask(tmp_path / "x.png")).all()
    numbers = Numbers({"first": [1]})
    assert np.array_equal(numbers.area(read(numbers, tmp_path / "x.png"), "first"), classes == 1)


def test_class_numbers_that_were_blurred_are_refused(tmp_path: Path) -> None:
    classes = Image.fromarray((DISK * 100 + BAR * 200).astype(np.uint8))
    classes.save(tmp_path / "x.jpg", quality=80)
    Image.open(tmp_path / "x.jpg").save(tmp_path / "jpeg.png")
    turned = classes.rotate(20, resample=Image.Resampling.BICUBIC)
    turned.save(tmp_path / "turned.png")
    for name in ("jpeg.png", "turned.png"):
        with pytest.raises(DataError, match="most of them at edges only"):
            read(Numbers({"a": [100], "b": [200]}), tmp_path / name)
        with pytest.raises(DataError, match="most of them at edges only"):
            objects(mask(tmp_path / name))


def test_small_instances_are_not_blurred(tmp_path: Path) -> None:
    tiles = (Y // 4) * 24 + X // 4 + 1
    spots = np.where((Y % 4 < 2) & (X % 4 < 2), tiles, 0)
    Image.fromarray(spots.astype(np.uint16)).save(tmp_path / "x.png")
    assert np.array_equal(objects(mask(tmp_path / "x.png")), spots > 0)


#: A palette with white in it, for class numbers, and the places of the two classes in it.
WITH_WHITE: dict[str, tuple[list[int], int, int]] = {
    "white is the second class": ([0, 0, 0, 255, 0, 0, 255, 255, 255], 1, 2),
    "white is the ground": ([255, 255, 255, 0, 0, 0, 255, 0, 0], 1, 2),
    "greys": ([0, 0, 0, 128, 128, 128, 255, 255, 255], 1, 2),
}


@pytest.mark.parametrize("name", WITH_WHITE)
@pytest.mark.parametrize("ground", [None, 0])
def test_every_mask_of_a_palette_has_the_same_numbers(
    tmp_path: Path, name: str, ground: int | None
) -> None:
    """Whichever classes it has, and whether its ground is transparent."""
    colours, first, second = WITH_WHITE[name]
    options = {} if ground is None else {"transparency": ground}
    numbers = Numbers({"disk": [first], "bar": [second]})
    for disk, bar in ((DISK, BAR), (DISK, BAR & False), (DISK & False, BAR)):
        palette(disk * first + bar * second, colours).save(tmp_path / "x.png", **options)
        found = read(numbers, tmp_path / "x.png")
        assert np.array_equal(numbers.area(found, "disk"), disk)
        assert np.array_equal(numbers.area(found, "bar"), bar)
    assert not numbers.fault()


def test_white_is_the_object_of_any_palette_that_shows_no_more(tmp_path: Path) -> None:
    colours = [5 * n % 256 for n in range(3 * 200)] + [0, 0, 0, 255, 255, 255]
    palette(200 + DISK, colours).save(tmp_path / "x.png")
    numbers = Numbers({"lung": [1]})
    assert np.array_equal(numbers.area(read(numbers, tmp_path / "x.png"), "lung"), DISK)
    Image.fromarray(DISK.astype(np.uint8)).save(tmp_path / "y.png")
    read(numbers, tmp_path / "y.png")
    assert "some masks write it as 201, others hold 1" in numbers.fault()


@pytest.mark.parametrize("grey", [True, False])
def test_palettes_that_a_program_sorted_are_a_fault(tmp_path: Path, grey: bool) -> None:
    """GIF's writers leave out colours that are not there, so that places move."""
    numbers = Numbers({"disk": [1], "bar": [2]})
    for classes in (DISK * 1 + BAR * 2, BAR * 2):
        picture = Image.fromarray(classes.astype(np.uint8))
        if not grey:
            picture = palette(classes, [0, 0, 0, 128, 0, 0, 0, 128, 0])
        picture.save(tmp_path / "x.gif")
        read(numbers, tmp_path / "x.gif")
    assert "one colour is at two places" in numbers.fault()


def test_colours_on_transparent_ground_are_objects_but_no_numbers(tmp_path: Path) -> None:
    colours = np.stack([DISK, BAR, DISK & False, DISK | BAR], -1).astype(np.uint8) * 255
    Image.fromarray(colours, mode="RGBA").save(tmp_path / "x.png")
    assert np.array_equal(objects(mask(tmp_path / "x.png")), DISK | BAR)
    with pytest.raises(DataError, match="has colours"):
        read(Numbers({"a": [1]}), tmp_path / "x.png")


def test_lossy_white_on_a_ground_that_is_partly_transparent(tmp_path: Path) -> None:
    white = np.repeat(DISK[..., None] * 255, 3, -1)
    pixels = np.concatenate([white, (X < 66)[..., None] * 255], -1).astype(np.uint8)
    Image.fromarray(pixels, mode="RGBA").save(tmp_path / "x.webp", quality=40)
    assert overlap(objects(mask(tmp_path / "x.webp"))) > 0.98


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.where(BAR, -1, DISK).astype(np.int16), "the number -1"),
        (np.where(DISK, 1, np.nan).astype(np.float32), "not finite"),
        (np.where(DISK, np.inf, 0).astype(np.float32), "not finite"),
    ],
)
def test_numbers_that_no_class_has_are_refused(tmp_path: Path, values: Any, said: str) -> None:
    tifffile.imwrite(tmp_path / "x.tif", values)
    with pytest.raises(DataError, match=said):
        mask(tmp_path / "x.tif")


@pytest.mark.parametrize("others", [2, 128])
def test_white_beside_other_numbers_is_not_the_class_one(tmp_path: Path, others: int) -> None:
    numbers = Numbers({"lung": [1]})
    for picture in (DISK * 255, DISK * 255 + BAR * others):
        Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "x.png")
        read(numbers, tmp_path / "x.png")
    assert "some masks write it as 255, others hold" in numbers.fault()


def test_bits_are_powers_of_two() -> None:
    assert Numbers({"lungs": [1, 2], "all": [64]}, bits=True).asked == {1, 2, 64}
    with pytest.raises(
        ConfigError, match=r"'effusion' is \[11\], and 11 is a sum of bits.*2 \*\* 11"
    ):
        Numbers({"lungs": [1, 2], "effusion": [11]}, bits=True)
    assert Numbers({"effusion": [11]}).asked == {11}  # a class number


def test_numbers_of_no_class_are_told(tmp_path: Path) -> None:
    values = np.zeros(SIZE[::-1], np.uint8)
    values[:40, :40], values[50:, 50:], values[:20, 60:] = 1, 3, 9
    Image.fromarray(values).save(tmp_path / "a.png")
    for numbers, wanted in (
        (Numbers({"lung": [1]}), [3, 9]),
        (Numbers({"lung": [1]}, ignore=9), [3]),
        (Numbers({"lung": [1], "heart": [3, 9]}), []),
        (Numbers({"lung": [1]}, bits=True), []),
    ):
        read(numbers, tmp_path / "a.png")
        assert numbers.unnamed() == wanted
