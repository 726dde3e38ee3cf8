"""Patches: images are cut into squares, and each square is labelled by its mask.

The protocol of ExplainSeg for nuclei and polyps: a classifier learns from the labels only whether
a patch holds an object; the masks are used again for scores, never for training.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from PIL import Image

from dollmaker.config.sources import PatchesConfig, PrepareConfig
from dollmaker.config.whole import Config
from dollmaker.pixels import names
from dollmaker.pixels.geometry import resized
from dollmaker.pixels.levels import Numbers, objects
from dollmaker.pixels.masks import read_mask
from dollmaker.pixels.pictures import read_channels
from dollmaker.prepare.listing import Find, Item, Piece, Row, assign, paths, patients
from dollmaker.runtime.errors import DataError
from dollmaker.store import tables


def list_items(options: PatchesConfig, prepare: PrepareConfig, find: Find) -> list[Item]:
    """One item per row of the table.

    Images over ``max_pixels`` are left out. They stay grey or in colours where ``channels`` is 1 or
    3, and have as many channels else.

    Raises:
        DataError: If the table, a column or a folder is missing.
    """
    file = find(options.table)
    table = tables.read_source(file)
    columns = (options.image_column, options.mask_column)
    patient = options.patient_column
    tables.require_columns(table, [*columns, *([patient] if patient else [])], file)
    for key, folder in (("images", options.images), ("masks", options.masks)):
        if not find(folder).is_dir():
            raise DataError(f"folder {find(folder)} does not exist; correct source.patches.{key}.")
    images, masks = (paths(table, column, file) for column in columns)
    ids = names.image_ids(images)
    people = patients(table, patient, file) if patient else ids
    reader = Numbers({options.finding: options.values}) if options.values else None
    cutter = _Cutter(options=options, prepare=prepare, find=find, reader=reader)
    return [
        Item(source=image, patient=who, make=partial(cutter.cut, name, image, mask), reader=reader)
        for name, image, mask, who in zip(ids, images, masks, people, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class _Cutter:
    """Cuts images; ``reader`` keeps what was seen of class numbers in the whole set."""

    options: PatchesConfig
    prepare: PrepareConfig
    find: Find
    reader: Numbers | None

    def cut(self, name: str, image: str, mask: str) -> list[Piece]:
        """The whole patches of an image; what is left at its right and lower border is dropped."""
        options, prepare = self.options, self.prepare
        picture, origin = read_channels(
            self.find(f"{options.images}/{image}"),
            channels=None if prepare.channels in (1, 3) else prepare.channels,
            bits=prepare.bits,
            max_pixels=prepare.max_pixels,
        )
        size = picture.shape[2], picture.shape[1]
        file, numbers = self.find(f"{options.masks}/{mask}"), self.reader
        try:
            found = read_mask(file, size=size, turned=origin.orientation != 1)
            area = numbers.area(numbers.read(found), options.finding) if numbers else objects(found)
        except DataError as error:
            raise DataError(f"mask {file.name!r}: {error}") from None
        side, stride = options.side, options.stride or options.side
        width, height = (max(1, round(length * options.scale)) for length in size)
        if width * height > prepare.max_pixels:
            raise DataError(
                f"{width}x{height} after source.patches.scale is over {prepare.max_pixels} pixels"
            )
        if (width, height) != size:
            picture = resized(picture, width, height)
            nearest = Image.Resampling.NEAREST
            area = resized(area.astype(np.uint8)[None], width, height, nearest)[0] > 0
        if side > min(width, height):
            raise DataError(f"{width}x{height} pixels are less than one patch of {side}")
        pieces = []
        tops, lefts = (range(0, length - side + 1, stride) for length in (height, width))
        for top, left in product(tops, lefts):
            part = area[top : top + side, left : left + side]
            share = float(part.mean())
            pieces.append(
                Piece(
                    name=f"{name}_y{top:04d}_x{left:04d}",
                    image=picture[:, top : top + side, left : left + side].copy(),
                    mask=part.astype(np.uint8),
                    labels={options.finding: int(share > 0 and share >= options.min_share)},
                )
            )
        return pieces


def thin(rows: list[Row], config: Config) -> list[Row]:
    """Thin the larger class of each split to the number of the smaller one, if so configured.

    Which patches stay follows from the seed and the patch's name alone. A split with one class
    only is left as it is.

    Raises:
        DataError: If all patches are of one class: there would be nothing to learn.
    """
    options, prepare = config.source.patches, config.prepare
    assert options is not None
    finding = options.finding
    counts = [sum(row[finding] == label for row in rows) for label in (0, 1)]
    if not counts[1]:
        raise DataError(
            f"none of {len(rows)} patches holds {finding}; correct source.patches.values or lower "
            "min_share."
        )
    if not counts[0]:
        raise DataError(
            f"each of {len(rows)} patches holds {finding}; lower source.patches.side or raise "
            "min_share."
        )
    if not options.balance:
        return rows
    groups: dict[tuple[str, int], list[str]] = defaultdict(list)
    for row in rows:
        split = assign(row["patient"], prepare.valid, prepare.test)
        groups[split, row[finding]].append(row["image"])
    kept: set[str] = set()
    for (split, label), images in groups.items():
        others = len(groups.get((split, 1 - label), ()))
        kept.update(sorted(images, key=partial(_rank, config.seed))[: others or None])
    return [row for row in rows if row["image"] in kept]


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"dollmaker thin {seed} {name}".encode()).hexdigest()
