"""What masks mean: where objects are, and which class a pixel is. Nothing else decides it.

A mask answers two questions. *Where is anything?* (``objects``): its colours count, so that a
palette may begin with white; black is nothing. *Which number has a pixel?* (:class:`Numbers`): the
number of its grey or of its palette. A picture of two levels, black and white, answers both: white
is the object, whether it is written as 1, as 255 or as one bit.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.pixels.masks import MARGIN, Bools, Ints, MaskPicture
from dollmaker.runtime.errors import ConfigError, DataError

#: Numbers that white has in masks of two levels: one bit, 8 and 16 bits.
_WHITES = {1, 255, 65535}
#: Levels between black and white, from which on edges were smoothed if no area has one.
_SOFT_LEVELS = 3
#: More numbers than a few classes have: edges were smoothed, or there are many instances.
_FEW_LEVELS = 8


def objects(mask: MaskPicture) -> Bools:
    """Where a mask holds anything, bool (H, W): any colour but black.

    Lossy and smoothed edges are cut at half brightness.

    Raises:
        DataError: If it is lossy and not black and white.
    """
    if mask.lossy:
        _require_black_and_white(mask)
    if mask.lossy or _is_smoothed(mask):
        return np.asarray(mask.shown > 0.5)
    if mask.coloured:
        return np.asarray(mask.shown > 0)
    _require_sharp(mask)
    return np.asarray(_told_numbers(mask) != 0)


class Numbers:
    """Reads the masks of a set whose pixels hold class numbers (or sums of class bits).

    In a mask of two levels white is the one number that is asked for, if that is 1 or white;
    whether the whole set agrees with that, and holds every class, :meth:`fault` says at its end.
    ``ignore`` is the number of pixels that are not known, if there is one.

    Raises:
        ConfigError: If a bit that is asked for is no power of two.
    """

    def __init__(
        self,
        classes: Mapping[str, Collection[int]],
        *,
        bits: bool = False,
        ignore: int | None = None,
    ) -> None:
        self._classes = {name: [int(value) for value in values] for name, values in classes.items()}
        #: Numbers, or bits, of all classes.
        self.asked = {value for values in self._classes.values() for value in values}
        for name, values in self._classes.items():
            for value in values if bits else ():
                if value & (value - 1):
                    raise ConfigError(
                        f"{name!r} is {values}, and {value} is a sum of bits: list each, 1, 2, 4, "
                        f"8 and so on; bit number {value} has the value 2 ** {value}."
                    )
        self._bits, self.ignore = bits, ignore
        #: Numbers in the masks that were read, as they are stored.
        self.seen: set[int] = set()
        self._found: set[int] = set()
        self._whites: set[int] = set()
        self._others: set[int] = set()
        self._colours: set[tuple[int, tuple[int, ...]]] = set()

    def read(self, mask: MaskPicture) -> Ints:
        """The numbers of a mask, (H, W), in which classes are looked for.

        Raises:
            DataError: If the mask has no numbers: it is lossy, or its white is zero.
        """
        white = self._white(mask)
        if mask.painted:
            raise DataError("has colours; save it as grey or palette PNG, one value a class")
        if mask.lossy or (white is not None and (mask.coloured or _is_smoothed(mask))):
            if white is None:
                raise DataError("is of a lossy format, which blurs class numbers; save it as PNG")
            if mask.lossy:
                _require_black_and_white(mask)
            numbers = np.where(mask.shown > 0.5, white, 0).astype(np.int64)
            self.seen |= {0, mask.white} if numbers.any() else {0}
            self._found |= {white} if numbers.any() else set()
            if mask.coloured:
                self._whites |= {int(place) for place in np.unique(mask.numbers[numbers != 0])}
            return numbers
        _require_sharp(mask)
        stored = _told_numbers(mask)
        levels = {int(value) for value in np.unique(stored)}
        self.seen |= levels
        self._found |= levels & {0}
        self._colours |= set(mask.palette.items())
        drawn = levels - {0, self.ignore}
        if white is not None and len(drawn) == 1 and (mask.white == 1 or drawn <= _WHITES):
            self._whites |= drawn if mask.white > 1 else set()
            self._found.add(white)
            return np.where(stored == min(drawn), white, stored)
        if self._bits and len(self.asked) > 1 and drawn and drawn <= {255, 65535}:
            raise DataError(f"holds 0 and {min(drawn)}: it is black and white, no sum of bits")
        self._others |= drawn
        self._found |= drawn
        return stored

    def _white(self, mask: MaskPicture) -> int | None:
        """The number that white stands for; ``None`` if it stands for itself."""
        asked = self.asked & _WHITES
        if self._bits or self.ignore in (mask.white, 255) or not asked:
            return None
        if mask.coloured and (not mask.plain or self.asked & mask.palette.keys()):
            return None
        if len(self.asked) == 1:
            return min(asked)
        return (1 if 1 in asked else min(asked)) if mask.white == 1 else None

    def area(self, numbers: Ints, name: str) -> Bools:
        """Where a class is in numbers that :meth:`read` gave, bool (H, W)."""
        if self._bits:
            wanted = int(np.bitwise_or.reduce(self._classes[name]))
            return np.asarray((numbers & wanted) != 0)
        return np.isin(numbers, self._classes[name])

    def fault(self, some: bool = False) -> str:
        """What is wrong with the set as a whole, part of a sentence; empty if nothing is.

        If only ``some`` masks of the set were read, one class in them is enough.
        """
        mixed = self._whites - self.asked
        others = (self._whites & self.asked) | self._others
        if mixed and others:
            return (
                f"{min(self._classes)!r}: some masks write it as {min(mixed)}, others hold "
                f"{_listed(others)}; write all alike, or list each number as a class"
            )
        # Where programs sorted the palettes, places change their colours, colours theirs.
        places, colours = ({one[k] for one in self._colours} for k in (0, 1))
        if len(places) < len(self._colours) > len(colours):
            return (
                f"{min(self._classes)!r}: the masks have different palettes, one colour is at two "
                "places; save all with one palette"
            )
        absent = [
            name
            for name, wanted in self._classes.items()
            if not any(self._has(number, wanted) for number in self._found)
        ]
        if some and (self.seen <= {0, self.ignore} or len(absent) < len(self._classes)):
            return ""
        if absent and self.seen:
            values, there = self._classes[absent[0]], _listed(self.seen)
            nowhere = "none of the masks that were looked at" if some else "no mask"
            return f"{absent[0]!r} (values {values}) is in {nowhere}; values there: {there}"
        return ""

    def unnamed(self) -> list[int]:
        """Numbers in the masks that were read that are in no class: background. Not of bits."""
        return [] if self._bits else sorted(self._others - self.asked)

    def _has(self, number: int, wanted: Collection[int]) -> bool:
        return any(number & bit for bit in wanted) if self._bits else number in wanted


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers)[:20])


def _told_numbers(mask: MaskPicture) -> Ints:
    """The numbers; where white is zero, class numbers are turned round and cannot be told."""
    if mask.white_is_zero and not np.isin(mask.numbers, (0, mask.white)).all():
        raise DataError(
            "is a TIFF whose white is zero and holds more than black and white; save it with "
            "black as zero"
        )
    return mask.numbers


def _require_black_and_white(mask: MaskPicture) -> None:
    """A lossy mask of two levels has no areas between them, and its brightest is white."""
    grey = mask.shown * 255
    flat = _flat(grey, 8)
    between = flat & (grey > MARGIN) & (grey < 255 - MARGIN)
    white = int((grey > 127).sum())
    dark = grey.max(initial=0) > MARGIN or (flat & (grey > 0)).sum() > 9
    if between.sum() > 9 + 0.02 * white or (not white and dark):
        raise DataError("is of a lossy format and not black and white; save class numbers as PNG")


def _is_smoothed(mask: MaskPicture) -> bool:
    """Whether it is black and white with soft edges: drawn so, resized, or once a JPEG."""
    if mask.coloured or mask.white == 1 or mask.shown.max(initial=0) < 240 / 255:
        return False
    grey = np.round(mask.shown * 255)
    levels = np.unique(grey[(grey > 0) & (grey < grey.max())])
    between = (grey > MARGIN) & (grey < 255 - MARGIN)
    if between.any():
        soft = len(np.unique(grey[between])) >= _SOFT_LEVELS or len(levels) > _FEW_LEVELS
        return soft and not (_flat(grey, 1) & between).any()
    # Once a JPEG of high quality: beside black and beside white, where no class has its number.
    return bool((levels < 16).any() and (levels >= 240).any())


def _require_sharp(mask: MaskPicture) -> None:
    """Refuse many numbers that no area has but edges: what a class is there, nobody knows.

    Small instances are no edges: what they touch is background.
    """
    levels = np.unique(mask.numbers[mask.numbers != 0])
    if mask.coloured or len(levels) <= _FEW_LEVELS:
        return
    areas = mask.numbers[_flat(mask.numbers, 0)]
    loose = levels[~np.isin(levels, areas)]
    at_edges = _touches(mask.numbers)[np.isin(mask.numbers, loose)]
    if len(loose) > 0.75 * len(levels) and at_edges.mean() > 0.5:
        raise DataError(
            f"holds {len(levels)} numbers, most of them at edges only: it was compressed with loss "
            "or resized with smoothing; save class numbers as PNG, resized by nearest neighbour"
        )


def _touches(numbers: Ints) -> Bools:
    """Where a pixel has a neighbour, above, below or beside, of another number but 0."""
    found = np.zeros(numbers.shape, bool)
    for values, into in ((numbers, found), (numbers.T, found.T)):
        first, second = values[:-1], values[1:]
        differ = (first != second) & (first != 0) & (second != 0)
        into[:-1] |= differ
        into[1:] |= differ
    return found


def _flat(values: npt.NDArray[Any], most: float) -> Bools:
    """Where the 3x3 pixels around a pixel differ by ``most`` at most; False at the border."""
    flat = np.zeros(values.shape, bool)
    if min(values.shape) < 3:
        return flat
    windows = np.lib.stride_tricks.sliding_window_view(values, (3, 3))
    flat[1:-1, 1:-1] = np.ptp(windows, axis=(2, 3)) <= most
    return flat
