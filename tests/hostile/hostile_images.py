"""Hostile images: each is listed beside five good ones."""

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dollmaker.pixels.names import image_id
from hostile.place import GOOD, SIZE, Case, Place, add_image, write_table


class Bomb:
    """Unpickling it makes the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.canary,))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG whose comment inflates to 64 MB."""
    packer = zlib.compressobj(9)
    body = b"Comment\0\0" + b"".join(packer.compress(bytes(1 << 22)) for _ in range(16))
    body += packer.flush()
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    plain = buffer.getvalue()
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body
    return plain[:33] + chunk + struct.pack(">I", zlib.crc32(b"zTXt" + body)) + plain[33:]


def ramp(dtype: Any, top: float, shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    """Left dark, right bright."""
    return np.tile(np.linspace(0, top, shape[1]), (shape[0], 1)).astype(dtype)


def is_ramp(pixels: np.ndarray) -> bool:
    """Whether the decoded image is the ramp over the whole range."""
    line = pixels[0].mean(axis=0)
    return bool(np.all(np.diff(line) > 0) and line[0] < 16 and line[-1] > 239)


def write_dicom(path: Path, **changes: Any) -> None:
    """A radiograph of 30 x 20 pixels, 12 bits."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    values = changes.pop("values", ramp(np.uint16, 4095))
    content.Rows, content.Columns = values.shape
    content.BitsAllocated, content.BitsStored, content.HighBit = 16, 12, 11
    content.SamplesPerPixel, content.PixelRepresentation = 1, 0
    content.PhotometricInterpretation = "MONOCHROME2"
    content.PixelData = values.tobytes()
    for key, value in changes.items():
        setattr(content, key, value)
    content.save_as(path, enforce_file_format=True)


def image(
    name: str,
    write: Callable[[Path], Any],
    *,
    file: str = "x.png",
    reason: str = "",
    check: Callable[[np.ndarray], Any] | None = None,
) -> Case:
    """A case of one file: quarantined with a reason, or accepted with the right pixels."""

    def accepted(place: Place) -> None:
        assert place.quarantine() == {}
        pixels = place.pixels(image_id(file))
        assert pixels.shape == (1, SIZE, SIZE)
        assert check is not None
        assert check(pixels), pixels

    return Case(
        name=f"image: {name}",
        make=lambda place: write(add_image(place, file)),
        quarantined=(f"images/{file}", reason) if reason else None,
        check=None if reason else accepted,
    )


def save(picture: Image.Image, **options: Any) -> Callable[[Path], Any]:
    return lambda path: picture.save(path, **options)


def array(values: np.ndarray, **options: Any) -> Callable[[Path], Any]:
    return save(Image.fromarray(values), **options)


def with_bytes(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def truncated(path: Path) -> None:
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (20, 30), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter: the left side becomes the top
    Image.fromarray(ramp(np.uint8, 255)).save(path, exif=exif)


def animated(path: Path) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (0, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def sparse(path: Path) -> None:
    with path.open("wb") as handle:
        handle.truncate(1 << 40)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../canary", "x")


def inks() -> Image.Image:
    ink = Image.fromarray(255 - ramp(np.uint8, 255))
    return Image.merge("CMYK", [ink, ink, ink, Image.new("L", ink.size)])


def palette() -> Image.Image:
    picture = Image.fromarray(ramp(np.uint8, 255)).convert("P")
    picture.putpalette([255 - value for value in range(256) for _ in range(3)])
    return picture


def linked(target: str) -> Callable[[Path], Any]:
    return lambda path: path.symlink_to(path.parents[2] / target)


def listed(name: str, row: str, path: str, reason: str) -> Case:
    """A case of a row without a file of its own."""

    def make(place: Place) -> None:
        place.rows.append(row)
        write_table(place)

    return Case(name=f"image: {name}", make=make, quarantined=(path, reason))


def same_bytes(place: Place) -> None:
    path = add_image(place, "x.png", patient="someone else")
    path.write_bytes((place.data / "images/good0.png").read_bytes())


def same_patient(place: Place) -> None:
    path = add_image(place, "x.png", patient="p0")
    path.write_bytes((place.data / "images/good0.png").read_bytes())


def hostile_name(place: Place) -> None:
    path = add_image(place, '"a;$(touch canary)`touch canary`<script>.png"')
    Image.fromarray(ramp(np.uint8, 255)).save(str(path).replace('"', ""))


def eps(place: Place) -> None:
    """Pillow would start Ghostscript, which would run the program."""
    code = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({place.canary}) (w) file\n%%EOF\n"
    add_image(place, "x.eps").write_text(code)


def pickled(place: Place) -> None:
    add_image(place, "x.png").write_bytes(pickle.dumps(Bomb(place.canary)))


NAN = np.full((20, 30), np.nan, np.float32)
UNREADABLE = "not a readable image"

CASES = [
    image("zero bytes", with_bytes(b""), reason="file is empty"),
    image("truncated", truncated, reason=UNREADABLE),
    image("text", with_bytes(b"<svg onload='x'/>"), reason=UNREADABLE),
    image("random bytes", with_bytes(bytes(range(256)) * 9), reason=UNREADABLE),
    image("a zip file", zipped, reason=UNREADABLE),
    image("wrong extension", array(ramp(np.uint8, 255), format="PNG"), file="x.jpg", check=is_ramp),
    image("CMYK", save(inks(), format="TIFF"), file="x.bin", check=is_ramp),
    image(
        "CMYK JPEG",
        save(Image.new("CMYK", (30, 20), (0, 0, 0, 255))),
        file="x.jpg",
        check=lambda p: p.max() < 9,
    ),
    image("palette", save(palette()), check=lambda p: is_ramp(255 - p)),
    image("1 bit", save(Image.new("1", (9, 9), 1)), check=lambda p: (p == 255).all()),
    image("16 bit", array(ramp(np.uint16, 4095)), check=is_ramp),
    image("32 bit", array(ramp(np.int32, 10**6)), file="x.tif", check=is_ramp),
    image("float", array(ramp(np.float32, 0.01)), file="x.tif", check=is_ramp),
    image("alpha", save(Image.new("LA", (9, 9), (255, 0))), check=lambda p: (p == 0).all()),
    image("colour", save(Image.new("RGB", (9, 9), (255, 0, 0))), check=lambda p: (p == 76).all()),
    image("one pixel", save(Image.new("L", (1, 1), 9)), check=lambda p: (p == 9).all()),
    image("one row", array(ramp(np.uint8, 255, (1, 4000))), check=is_ramp),
    image("claims 30000 x 30000", with_bytes(png_header(30000, 30000)), reason="pixels"),
    image(
        "over max_pixels", save(Image.new("L", (101, 100))), reason="101x100 is over 10000 pixels"
    ),
    image("no size", with_bytes(png_header(0, 0)), reason=UNREADABLE),
    image("a comment that inflates", with_bytes(text_bomb()), reason=UNREADABLE),
    image("a file of a terabyte", sparse, reason="1099511627776 bytes"),
    image("animated GIF", animated, file="x.gif", reason="several frames"),
    image("pages", animated, file="x.tif", reason="several frames"),
    image("turned by EXIF", rotated, file="x.jpg", check=lambda p: is_ramp(p.swapaxes(1, 2))),
    image("all black", save(Image.new("L", (30, 20))), check=lambda p: (p == 0).all()),
    image("NaN", array(NAN), file="x.tif", reason="not finite"),
    image("a folder", lambda path: path.mkdir(), reason="is not a file"),
    image("a pipe", os.mkfifo, reason="is not a file"),
    image("a link out of the root", linked("secret"), reason="leaves the data root"),
    image("a link to nothing", linked("data/images/absent.png"), reason="a link to a file that is"),
    image("a link in a circle", lambda path: path.symlink_to(path), reason="cannot be followed"),
    image("DICOM", write_dicom, file="x.dcm", check=is_ramp),
    image(
        "DICOM, inverted",
        lambda path: write_dicom(path, PhotometricInterpretation="MONOCHROME1"),
        file="x.dcm",
        check=lambda p: is_ramp(255 - p),
    ),
    image(
        "DICOM with a window",
        lambda path: write_dicom(path, WindowCenter=4095, WindowWidth=2),
        file="x.dcm",
        check=lambda p: p[0, :, :-3].max() == 0 and p.max() > 100,
    ),
    image(
        "DICOM of many frames",
        lambda path: write_dicom(path, NumberOfFrames=2),
        file="x.dcm",
        reason="several frames",
    ),
    image(
        "DICOM that claims 65535 x 65535",
        lambda path: write_dicom(path, Rows=65535, Columns=65535),
        file="x.dcm",
        reason="65535x65535 is over",
    ),
    image(
        "DICOM with too few pixels",
        lambda path: write_dicom(path, PixelData=b"\0\0"),
        file="x.dcm",
        reason=UNREADABLE,
    ),
    image(
        "DICOM header only",
        with_bytes(bytes(128) + b"DICM"),
        file="x.dcm",
        reason="without an image",
    ),
    Case(name="image: a program (EPS)", make=eps, quarantined=("images/x.eps", UNREADABLE)),
    Case(name="image: a pickle", make=pickled, quarantined=("images/x.png", UNREADABLE)),
    Case(
        name="image: a name for shells and browsers",
        make=hostile_name,
        check=lambda place: is_ramp(place.pixels("a;$(touch canary)`touch canary`<script>")),
    ),
    listed("missing", "x.png,p9,1,0", "images/x.png", "file is missing"),
    listed(
        "path out of the root", "../../secret,p9,1,0", "images/../../secret", "leaves the data root"
    ),
    listed("absolute path", "/etc/passwd,p9,1,0", "/etc/passwd", "not relative to the data root"),
    listed(
        "a name of 5000 letters",
        "x" * 5000 + ",p9,1,0",
        f"images/{'x' * 5000}",
        "cannot be followed",
    ),
    listed("listed twice", "good0.png,p0,0,1", "images/good0.png", "image_id occurs twice"),
    listed("listed under two patients", "good0.png,p9,0,1", "images/good0.png", "occurs twice"),
    Case(
        name="image: same bytes under two patients",
        make=same_bytes,
        quarantined=("images/x.png", "the same file belongs to patient p0"),
    ),
    Case(
        name="image: same bytes twice of one patient",
        make=same_patient,
        check=lambda place: len(place.index()) == GOOD + 1 and place.quarantine() == {},
    ),
]
