"""Masks as COCO run-length encoding, the exchange format of CheXlocalize and CheXmask."""

from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.errors import DataError


def encode(mask: npt.NDArray[Any]) -> str:
    """Compressed COCO counts of a binary mask (H, W)."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return str(encoded["counts"].decode("ascii"))


def decode(counts: str, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Binary mask (height, width) of compressed COCO counts.

    Raises:
        DataError: If the counts do not describe a mask of this size.
    """
    runs = _runs(counts)
    if sum(runs) != height * width:
        raise DataError(f"its runs do not fill {width}x{height} pixels; correct the file.")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _runs(counts: str) -> list[int]:
    """Run lengths of COCO's text form: 5 bits a character, differences from the fourth run on.

    Read here because pycocotools trusts its input: it returns uninitialised memory for codes that
    end too early.
    """
    runs: list[int] = []
    place = 0
    data = counts.encode("ascii", errors="replace")
    while place < len(data):
        value, shift, more = 0, 0, True
        while more:
            if place >= len(data) or not 48 <= data[place] < 112 or shift > 60:
                raise DataError("its run-length code is damaged; correct the file.")
            byte = data[place] - 48
            value |= (byte & 0x1F) << shift
            more = bool(byte & 0x20)
            place += 1
            shift += 5
            if not more and byte & 0x10:
                value |= -1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            raise DataError("its run-length code is damaged; correct the file.")
        runs.append(value)
    return runs
