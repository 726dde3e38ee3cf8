"""The command: weights are fetched, or listed for whoever carries them by hand."""

from collections.abc import Iterable
from pathlib import Path

from dollmaker.config import settings, weight_names
from dollmaker.config.whole import Config
from dollmaker.fetch import needed
from dollmaker.fetch.needed import Need
from dollmaker.runtime.errors import UsageError


def fetch_weights(
    config: Config | None = None,
    name: str | None = None,
    weights_root: Path | None = None,
    list_: bool = False,
) -> None:
    """Fetch published weights that are named, or list them.

    Args:
        config: A resolved configuration: all that it names.
        name: One name instead of a configuration, e.g. timm:resnet18.a1_in1k.
        weights_root: Folder of weights files; default: as configured, else ``weights``.
        list_: Fetch nothing; print every file, where it is had and where to put it by hand.
    """
    if (config is None) == (name is None):
        raise UsageError("give either --config, for all that it names, or --name")
    if config is not None:
        whole = settings.complete(config)
        root = weights_root or Path(whole.weights_root)
        whole = whole.replace(weights_root=str(root))
        needs = needed.join(needed.of_config(whole), needed.of_study(whole))
    else:
        root = weights_root or Path("weights")
        needs = [needed.of_name(str(name), root)]
    if list_:
        print(listed(needs, root), end="")
        return
    from dollmaker.fetch.stage import fetch

    for need in needs:
        if need.name:
            print(fetch(need.name, root))


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
