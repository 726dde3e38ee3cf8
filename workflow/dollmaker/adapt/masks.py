"""True masks of a task in the forms that people have them in.

Every form is read to one channel a class, uint8 (K, h, w) at the size of the image: 1 class, 0 not,
255 ignore. ``tasks.{name}.encoding`` names the form, and ``classes`` says what a class is in it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker.augment import IGNORE
from dollmaker.errors import ConfigError, DataError
from dollmaker.files import inside
from dollmaker.prepare.images import FORMATS
from dollmaker.rle import decode

Pixels = npt.NDArray[np.uint8]

#: (image file, mask file or None, width, height) -> masks (K, h, w), and what was seen there.
Reader = Callable[[str, str | None, int, int], tuple[Pixels, set[str]]]

#: Modes of images whose pixels are numbers: black and white, grey, palette, 16 and 32 bits.
_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")

#: Suffixes that are tried where a table does not name the mask.
_SUFFIXES = (".png", ".gif", ".bmp", ".tif", ".tiff")


def make_reader(options: Mapping[str, Any], data_root: Path, key: str) -> Reader:
    """The reader of a task's masks.

    Args:
        options: The task: ``masks``, ``classes``, ``encoding`` and ``ignore``.
        data_root: Folder of the source data.
        key: Name of the options, for messages.

    Raises:
        ConfigError: If the classes are not such as the encoding has.
        DataError: If a file of all masks is missing or not of its form.
    """
    numbers = options["encoding"] in ("index", "bits")
    for name, members in options["classes"].items():
        if numbers and not all(isinstance(member, int) for member in members):
            raise ConfigError(
                f"{key}.classes.{name} is {members!r}; encoding {options['encoding']} takes the "
                "numbers of its pixels."
            )
    classes = {name: list(members) for name, members in options["classes"].items()}
    if options["encoding"] == "coco":
        return _coco(inside(data_root, options["masks"]), classes)
    if options["encoding"] == "chexlocalize":
        return _chexlocalize(inside(data_root, options["masks"]), classes)
    if options["encoding"] == "files":
        return _files(data_root, options, classes)
    return _pictures(data_root, options, classes)


def _pictures(
    data_root: Path, options: Mapping[str, Any], classes: Mapping[str, Sequence[int]]
) -> Reader:
    """One picture an image: a pixel holds a class number, or a sum of class bits."""

    def read(image: str, mask: str | None, width: int, height: int) -> tuple[Pixels, set[str]]:
        path = _find(data_root, options["masks"], image, mask)
        values = read_numbers(path, width, height)
        channels = encode_classes(values, classes, options["encoding"], options["ignore"])
        return channels, {str(value) for value in np.unique(values)}

    return read


def _files(
    data_root: Path, options: Mapping[str, Any], classes: Mapping[str, Sequence[Any]]
) -> Reader:
    """One picture for each part of each class, in folders of their names (as SCR has organs).

    What a picture says to ignore is ignored in its class, where no other part of it is.
    """
    folder, ignore = options["masks"], options["ignore"]

    def read(image: str, mask: str | None, width: int, height: int) -> tuple[Pixels, set[str]]:
        result = np.zeros((len(classes), height, width), np.uint8)
        seen = set()
        for channel, parts in zip(result, classes.values(), strict=True):
            for part in parts:
                try:
                    path = _find(data_root, f"{folder}/{part}", image, mask)
                except FileNotFoundError:
                    continue
                values = read_numbers(path, width, height)
                ignored = values == ignore
                channel[ignored & (channel == 0)] = IGNORE
                channel[(values != 0) & ~ignored] = 1
                seen.add(str(part))
        if not seen:
            raise DataError("file is missing in every class's folder")
        return result, seen

    return read


def _find(data_root: Path, folder: str, image: str, mask: str | None) -> Path:
    """The mask that a table names, or that is called as the image."""
    if mask is not None:
        path = inside(data_root, f"{folder}/{mask}")
        if not path.is_file():
            raise FileNotFoundError(str(path))
        return path
    stem = PurePosixPath(image).with_suffix("")
    parent = inside(data_root, str((PurePosixPath(folder) / stem).parent))
    names = _list_pictures(parent, parent.stat().st_mtime_ns) if parent.is_dir() else {}
    if stem.name in names:
        path = inside(data_root, f"{parent.relative_to(data_root.resolve())}/{names[stem.name]}")
        if path.is_file():
            return path
    raise FileNotFoundError(f"{stem} with {', '.join(_SUFFIXES)}")


@lru_cache(maxsize=64)
def _list_pictures(folder: Path, _: int) -> dict[str, str]:
    """Name without suffix -> name of the picture, whatever the case of its suffix.

    Args:
        folder: A folder.
        _: When it changed last, as what is listed is kept.
    """
    found: dict[str, str] = {}
    files = sorted(folder.iterdir())
    for suffix in _SUFFIXES:
        for file in files:
            if file.suffix.lower() == suffix:
                found.setdefault(file.stem, file.name)
    return found


def _coco(file: Path, classes: Mapping[str, Sequence[Any]]) -> Reader:
    """COCO's JSON: polygons or run lengths of instances; a class is categories by name or id."""
    content = _json(file)
    try:
        named = {str(entry["name"]): entry["id"] for entry in content["categories"]}
        images = {str(entry["file_name"]): entry for entry in content["images"]}
        instances: dict[Any, list[Any]] = {entry["id"]: [] for entry in images.values()}
        for entry in content["annotations"]:
            instances.setdefault(entry["image_id"], []).append(entry)
            hash(entry["category_id"])  # a number or a name
        wanted = [
            {named.get(str(member), member) for member in members} for members in classes.values()
        ]
        names = {number: name for name, number in named.items()}
    except (AttributeError, KeyError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{file} is not COCO's JSON of instances ({reason}); export it again."
        ) from None

    def read(image: str, _: str | None, width: int, height: int) -> tuple[Pixels, set[str]]:
        entry = images.get(image) or images.get(PurePosixPath(image).name)
        if entry is None:
            raise DataError(f"{file.name} has no image of this name")
        _require_size((entry.get("width"), entry.get("height")), width, height)
        result = np.zeros((len(classes), height, width), np.uint8)
        seen = set()
        for instance in instances[entry["id"]]:
            category = instance["category_id"]
            name = names.get(category, str(category))
            seen.add(name)
            channels = [k for k, members in enumerate(wanted) if category in members]
            code = instance.get("segmentation")
            if code == [] and channels:
                raise DataError(f"an instance of {name!r} has a box at most but no outline")
            if code != []:
                area = _instance(code, width, height)
                result[channels] |= area
        return result, seen

    return read


def _instance(code: Any, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Polygons [[x, y, x, y, ...], ...] or run lengths {size, counts}, to pixels."""
    from pycocotools import mask as coco

    try:
        if isinstance(code, dict) and isinstance(code["counts"], str):
            _require_size(tuple(code["size"][::-1]), width, height)
            return decode(code["counts"], height, width)
        if isinstance(code, dict):
            runs = np.asarray(code["counts"], np.int64)
            if (runs < 0).any() or runs.sum() != width * height:
                raise DataError("its run lengths do not fill the image")
            values = np.arange(len(runs)) % 2 == 1
            return np.repeat(values, runs).reshape(width, height).T
        polygons = [np.asarray(points, float).ravel().tolist() for points in code]
        if any(len(points) < 6 or len(points) % 2 for points in polygons):
            raise DataError("a polygon has less than three corners")
        merged = coco.merge(coco.frPyObjects(polygons, height, width))
        return np.asarray(coco.decode(merged) != 0)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"an instance has no readable segmentation ({error})") from None


def _chexlocalize(file: Path, classes: Mapping[str, Sequence[Any]]) -> Reader:
    """CheXlocalize's JSON {image: {finding: run lengths}}; a class is findings."""
    content = _json(file)

    def read(image: str, _: str | None, width: int, height: int) -> tuple[Pixels, set[str]]:
        parts = PurePosixPath(image).with_suffix("").parts
        names = ["_".join(parts[start:]) for start in range(len(parts))]
        entry = next((content[name] for name in names if name in content), None)
        if not isinstance(entry, dict):
            raise DataError(f"{file.name} has no image of this name")
        result = np.zeros((len(classes), height, width), np.uint8)
        for channel, findings in zip(result, classes.values(), strict=True):
            for finding in findings:
                code = entry.get(str(finding))
                if code is not None:
                    if not isinstance(code, dict) or not isinstance(code.get("counts"), str):
                        raise DataError(f"{finding!r} has no run lengths")
                    channel[_instance(code, width, height)] = 1
        return result, set(entry)

    return read


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"file {file} does not exist; correct the key masks.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON ({error}); export it again.") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} holds no JSON object; export it again.")
    return content


def read_numbers(path: Path, width: int, height: int) -> npt.NDArray[np.int64]:
    """The numbers in a mask's pixels, (height, width).

    Raises:
        DataError: If it is no picture of numbers, or not of this size.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            size, mode, frames = image.size, image.mode, getattr(image, "n_frames", 1)
            if size == (width, height) and mode in _MODES and frames == 1:
                return np.asarray(image).astype(np.int64)
    except Exception as error:  # decoders raise anything on hostile bytes
        raise DataError(f"not a readable image ({type(error).__name__}: {error})") from None
    _require_size(size, width, height)
    raise DataError(f"mode {mode}; a mask has one number in each pixel (grey or palette PNG)")


def _require_size(size: tuple[Any, ...], width: int, height: int) -> None:
    if tuple(size) != (width, height):
        raise DataError(f"{size[0]}x{size[1]} pixels, its image has {width}x{height}")


def encode_classes(
    values: npt.NDArray[np.int64],
    classes: Mapping[str, Sequence[int]],
    encoding: str,
    ignore: int | None,
) -> Pixels:
    """From numbers in pixels (h, w) to one channel a class, uint8 (K, h, w).

    Args:
        values: Pixel values.
        classes: Class name -> pixel values (``index``) or bit values (``bits``).
        encoding: ``index`` or ``bits``.
        ignore: Value of pixels that are 255 in every channel; ``None`` if there is none.
    """
    channels = []
    for wanted in classes.values():
        if encoding == "bits":
            channels.append((values & int(np.bitwise_or.reduce(wanted))) != 0)
        else:
            channels.append(np.isin(values, wanted))
    result = np.stack(channels).astype(np.uint8)
    if ignore is not None:
        result[:, values == ignore] = IGNORE
    return result
