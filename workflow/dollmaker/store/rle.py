"""Masks as COCO run-length encoding, the exchange format of CheXlocalize and CheXmask.

The text form is read here because pycocotools trusts its input: it returns uninitialised memory
for codes that end too early. Equal masks have equal codes, whoever writes them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.runtime.errors import DataError

#: Lengths of runs, alternately of background and of the mask, down the columns.
Runs = npt.NDArray[np.int64]

#: Characters of the longest number: 12 of 5 bits are 60.
_LONGEST = 12


def encode(mask: npt.NDArray[Any]) -> str:
    """Compressed COCO counts of a binary mask (H, W)."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return str(encoded["counts"].decode("ascii"))


def decode(counts: str | Sequence[Any], height: int, width: int) -> npt.NDArray[np.bool_]:
    """Binary mask (height, width) of COCO counts: compressed, a text, or the lengths themselves.

    Raises:
        DataError: If the counts do not describe a mask of this size.
    """
    runs = read_runs(counts) if isinstance(counts, str) else _read_lengths(counts)
    # Sums of damaged codes may be beyond 64 bits: no run may be longer than the mask.
    if not len(runs) or runs.max() > height * width or runs.sum() != height * width:
        raise DataError(f"its runs do not fill {width}x{height} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def write_runs(masks: Sequence[Runs]) -> list[str]:
    """COCO's text form of the runs of masks: 5 bits a character, differences from the fourth on."""
    lengths = np.array([len(runs) for runs in masks], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    runs = np.concatenate([np.zeros(0, np.int64), *masks])
    later = np.flatnonzero(np.arange(len(runs)) - np.repeat(starts, lengths) >= 3)
    rest = runs.copy()
    rest[later] -= runs[later - 2]
    columns, used = [], []
    more = np.ones(len(rest), bool)
    while more.any():
        low = rest & 0x1F
        rest >>= 5
        used.append(more)
        more = more & (rest != np.where(low & 0x10, -1, 0))
        columns.append((low + 48 + 32 * more).astype(np.uint8))
    if not columns:
        return []
    valid = np.stack(used, axis=1)
    text = str(np.stack(columns, axis=1)[valid].tobytes(), "ascii")
    ends = np.cumsum(np.add.reduceat(valid.sum(1), starts)).tolist()
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def read_runs(counts: str) -> Runs:
    """Runs of COCO's text form.

    Raises:
        DataError: If it is not such a text.
    """
    damaged = DataError("its run-length code is damaged")
    codes = np.frombuffer(counts.encode("ascii", errors="replace"), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((codes & 0x20) == 0)
    if not len(last) or last[-1] != len(codes) - 1 or codes.min() < 0 or codes.max() >= 64:
        raise damaged
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() >= _LONGEST:
        raise damaged
    shifts = 5 * (np.arange(len(codes)) - np.repeat(first, last - first + 1))
    runs: Runs = np.add.reduceat((codes & 0x1F) << shifts, first)
    # The highest bit of a number's last character is its sign.
    runs -= np.where(codes[last] & 0x10, 1 << (shifts[last] + 5), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if runs.min() < 0:
        raise damaged
    return runs


def _read_lengths(counts: Sequence[Any]) -> Runs:
    """Runs that are written as a list of whole numbers."""
    longest = np.iinfo(np.int64).max
    for count in counts:
        if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= longest:
            raise DataError("its run lengths are not all whole numbers from 0 on")
    return np.array(counts, dtype=np.int64)
