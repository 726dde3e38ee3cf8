"""The weights that a configuration asks for, and where it does."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from dollmaker.errors import ConfigError
from dollmaker.fetch import names
from dollmaker.study import plan

Config = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Need:
    """A weights file that jobs will read.

    Attributes:
        name: Of published weights, as :func:`names.parse` gives it; empty for a user's file.
        file: Below ``weights_root``.
        place: Where the configuration asks for it.
    """

    name: str
    file: Path
    place: str


def of_config(config: Config) -> list[Need]:
    """What the members, the segmenter and the fine-tunings start from, each file once.

    Raises:
        ConfigError: If a name is not as its library's are.
    """
    members = config["classify"]["members"]
    asked = [
        (f"classify.members.{name}.weights", member["weights"], member["architecture"])
        for name, member in members.items()
        if member["weights"]
    ]
    encoder = names.of_encoder(config["segment"]["encoder"])
    init, starts = config["segment"]["init"], [run.split("/")[0] for run in config["adapt"]["runs"]]
    if init not in ("random", *members):
        asked.append(("segment.init", init, encoder))
    if config["tasks"] and "imagenet" in [*starts, *config["study"]["inits"]]:
        asked.append(("adapt.imagenet", config["adapt"]["imagenet"], encoder))
    return _each_once(config, asked)


def of_study(config: Config) -> list[Need]:
    """What the pre-trainings and the start imagenet of each architecture of the study need.

    Raises:
        ConfigError: If a name is not as its library's are.
    """
    asked = []
    for architecture, changes in config["study"]["architectures"].items():
        network = names.of_encoder(changes.get("encoder", config["segment"]["encoder"]))
        for start in config["study"]["inits"]:
            if plan.pretrained(config, start):
                mine = plan.pretraining_config(config, architecture, start)["segment"]
                if mine["init"] not in ("random", *config["classify"]["members"]):
                    asked.append((f"study.pretrainings.{start}", mine["init"], network))
            elif start == "imagenet":
                asked.append(("adapt.imagenet", config["adapt"]["imagenet"], network))
    return _each_once(config, asked)


def of_name(name: str, root: Path) -> Need:
    """One need, by the full name of published weights.

    Raises:
        ConfigError: If it is no such name.
    """
    library, _, network = name.partition(":")
    text = library if library == names.PRETRAINED else name
    full = names.parse(text, network)
    if not full:
        known = "timm:, torchvision:, hf: or pretrained:"
        raise ConfigError(f"{name!r} is no name of published weights; begin it with {known}.")
    return Need(name=full, file=names.locate(root, text, network), place="--name")


def join(*several: list[Need]) -> list[Need]:
    """Needs of several parts of the configuration, each file once."""
    found: dict[Path, Need] = {}
    for need in chain(*several):
        found.setdefault(need.file, need)
    return list(found.values())


def _each_once(config: Config, asked: list[tuple[str, str | None, str]]) -> list[Need]:
    return join(list(_needs(Path(config["weights_root"]), asked)))


def _needs(root: Path, asked: list[tuple[str, str | None, str]]) -> Iterator[Need]:
    for place, text, network in asked:
        if not text:  # adapt.imagenet, which the configuration misses itself where it must
            continue
        try:
            name, file = names.parse(text, network), names.locate(root, text, network)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
        yield Need(name=name, file=file, place=place)
