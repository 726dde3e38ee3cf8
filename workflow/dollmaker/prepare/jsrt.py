"""JSRT radiographs (Shiraishi et al. 2000) with the SCR masks (van Ginneken et al. 2006).

The raw files hold 12-bit values, big-endian, and high values are dark: they are inverted here, so
that bones are bright as in other radiographs. The nodule is known from the file's name only.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dollmaker.config.sources import JsrtConfig, PrepareConfig
from dollmaker.pixels.geometry import fit_mask
from dollmaker.pixels.levels import objects
from dollmaker.pixels.masks import read_mask
from dollmaker.pixels.names import is_junk, is_picture
from dollmaker.prepare.listing import Find, Item, Piece
from dollmaker.runtime.errors import DataError
from dollmaker.store.depth import Bits, Stored, type_of

#: Folder of an organ in SCR -> its bit in the masks that are written.
ORGANS = {"left lung": 1, "right lung": 2, "heart": 4, "left clavicle": 8, "right clavicle": 16}

_NODULE = {"JPCLN": 1, "JPCNN": 0}
_BRIGHTEST = 4095  # 12 bits


def list_items(options: JsrtConfig, prepare: PrepareConfig, find: Find) -> list[Item]:
    """One item per raw file; masks over ``max_pixels`` are refused, pictures get ``bits``.

    Raises:
        DataError: If a folder is missing or holds no such files.
    """
    folder = _folder(options.images, "images", find)
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.upper() == ".IMG" and path.name[:5].upper() in _NODULE and not is_junk(path)
    ]
    if not files:
        raise DataError(
            f"folder {folder} has no JPCLN*.IMG or JPCNN*.IMG; correct source.jsrt.images."
        )
    masks = _find_masks(_folder(options.masks, "masks", find)) if options.masks else {}
    if masks and not any(path.stem.upper() in masks for path in files):
        raise DataError(
            f"none of the masks (the first is of {min(masks)}) is called as an image (the first is "
            f"{files[0].stem}); correct source.jsrt.masks."
        )
    items = []
    for path in files:
        name = path.stem.upper()
        make = partial(_make, path, masks.get(name, {}), options, prepare)
        items.append(Item(source=path.name, patient=name, make=make))
    return items


def _folder(name: str, key: str, find: Find) -> Path:
    folder = find(name)
    if not folder.is_dir():
        raise DataError(f"folder {folder} does not exist; correct source.jsrt.{key}.")
    return folder


def _find_masks(folder: Path) -> dict[str, dict[str, Path]]:
    """Image -> organ -> mask file, with the organs' folders at any depth (fold1/masks, ...)."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.rglob("*")):
        organ = path.parent.name.lower()
        if organ not in ORGANS or not is_picture(path):
            continue
        mine = found.setdefault(path.stem.upper(), {})
        if organ in mine:
            raise DataError(
                f"{mine[organ]} and {path} are both the {organ} of {path.stem}; remove one."
            )
        mine[organ] = path
    if not found:
        raise DataError(
            f"folder {folder} has no folder of an organ ({', '.join(ORGANS)}) with masks; correct "
            "source.jsrt.masks."
        )
    return found


def _make(
    path: Path, masks: Mapping[str, Path], options: JsrtConfig, prepare: PrepareConfig
) -> list[Piece]:
    image = _read_raw(path, options, prepare.bits)
    mask = _read_masks(masks, options.size, prepare.max_pixels) if masks else None
    labels = {"Nodule": _NODULE[path.name[:5].upper()]}
    return [Piece(name=path.stem.upper(), image=image[None], mask=mask, labels=labels)]


def _read_raw(path: Path, options: JsrtConfig, bits: Bits) -> Stored:
    """The radiograph (size, size) in so many bits, bones bright; shrunk by averaging."""
    raw_size, size = options.raw_size, options.size
    if path.stat().st_size != 2 * raw_size**2:
        raise DataError(
            f"it has {path.stat().st_size} bytes, {raw_size}x{raw_size} 16-bit numbers need "
            f"{2 * raw_size**2} (source.jsrt.raw_size)"
        )
    values = np.fromfile(path, dtype=">u2").reshape(raw_size, raw_size).astype(np.float32)
    if values.max() > _BRIGHTEST:
        raise DataError(f"it holds {values.max():.0f}, more than 12 bits: not big-endian raw data")
    kind = type_of(bits)
    white = np.iinfo(kind).max
    grey = Image.fromarray((_BRIGHTEST - values) * (white / _BRIGHTEST))
    if size != raw_size:
        grey = grey.resize((size, size), Image.Resampling.BOX)
    return np.asarray(np.asarray(grey).round().clip(0, white), kind)


def _read_masks(masks: Mapping[str, Path], size: int, max_pixels: int) -> npt.NDArray[np.uint8]:
    """The organs of an image as sum of their bits, uint8 (size, size)."""
    if missing := [organ for organ in ORGANS if organ not in masks]:
        raise DataError(f"its mask of the {missing[0]} is missing")
    read = partial(read_mask, size=None, max_pixels=max_pixels)
    areas = {organ: objects(read(masks[organ])) for organ in ORGANS}
    shapes = {area.shape for area in areas.values()}
    width, height = shapes.pop()
    if shapes or width != height:
        raise DataError("its masks are not all squares of one size")
    bits = np.zeros((size, size), np.uint8)
    for organ, bit in ORGANS.items():
        bits |= fit_mask(areas[organ], size, "resize") * np.uint8(bit)
    return bits
