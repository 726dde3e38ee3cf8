"""The list of weights files, for whoever carries them by hand."""

from collections.abc import Iterable
from pathlib import Path

from dollmaker.config import weight_names
from dollmaker.fetch.needed import Need


def listed(needs: Iterable[Need], root: Path) -> str:
    """Every weights file, whether it is there, where it is had and where to put it.

    Args:
        needs: The weights.
        root: ``weights_root``.

    Raises:
        ModelError: If a library has no such weights.
    """
    lines = []
    for need in needs:
        there = need.file.is_file()
        state = "is there" if there else "is not there"
        lines.append(f"{need.name or need.file.name} ({need.place}): {need.file} {state}")
        if need.name and not there:
            lines += _by_hand(need.name, root)
        elif not there:
            lines.append(f"    put your file at {need.file}")
    return "".join(f"{line}\n" for line in lines) or "no weights are named\n"


def _by_hand(name: str, root: Path) -> list[str]:
    from dollmaker.fetch.libraries import locked

    source = locked(name, root)
    folder = root / weight_names.stem(name)
    lines = []
    for number, file in enumerate(source.files):
        begin = "get" if not number else "or, where that is not there,"
        lines.append(f"    {begin} {source.address(file)}")
        lines.append(f"        and put it at {folder / Path(file).name}")
    if not source.normalisation:
        for file in source.extras:
            lines.append(f"    also, if it is there, {source.address(file)}")
            lines.append(f"        at {folder / file}")
    return lines
