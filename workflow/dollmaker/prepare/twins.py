"""One picture in two classes: the same file is refused, one that looks the same is told."""

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from dollmaker.pixels.image_hash import near_pairs
from dollmaker.runtime.errors import DataError
from dollmaker.store.files import sha256_file

#: Files as path and class.
Group = list[tuple[str, str]]


def require_one_label(top: Path, files: Group) -> None:
    """Refuse files of the same bytes in two classes; only those of one size are read.

    Args:
        top: The folder.
        files: Path below it and class of each image.

    Raises:
        DataError: Naming two of them.
    """
    sized = _divided(top, files, _size)
    groups = [part for group in sized for part in _divided(top, group, sha256_file)]
    if groups:
        (one, label), *rest = sorted(groups[0])
        other = next(path for path, theirs in rest if theirs != label)
        raise DataError(
            f"the files {one!r} and {other!r} below {top} are the same and lie in two classes "
            f"({len(groups)} such files), so that nobody can tell the label; keep one of them, or "
            "describe the set with a table (source.kind: table), where an image may have several."
        )


def _divided(top: Path, group: Group, tell: Callable[[Path], object]) -> list[Group]:
    """Parts of a group that are alike by what is told of the files, and of several classes."""
    parts: dict[object, Group] = defaultdict(list)
    for path, label in group:
        try:
            parts[tell(top / path)].append((path, label))
        except OSError:  # the stage that decodes says what is wrong
            continue
    return [part for part in parts.values() if len({label for _, label in part}) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def tell_alike(index: pl.DataFrame, findings: Sequence[str]) -> None:
    """Say how many pairs of images look the same and have different labels.

    Args:
        index: Columns path, hash and the findings.
        findings: Their names.
    """
    labels = index.select(findings).rows()
    paths = index["path"].to_list()
    hashes = index["hash"].to_list()
    count, example = 0, (0, 0)
    for i, j in near_pairs(hashes, hashes):
        if i < j and labels[i] != labels[j]:
            count, example = count + 1, example if count else (i, j)
    if count:
        one, other = (paths[place] for place in example)
        print(
            f"folder: {count:,} pairs of images look the same and lie in two classes, e.g. {one!r} "
            f"and {other!r}; one of the labels is wrong, or neither can be learned.",
            file=sys.stderr,
            flush=True,
        )
