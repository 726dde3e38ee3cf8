"""The weights that a configuration asks for, and where it does."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from dollmaker.config import weight_names
from dollmaker.config.whole import Config
from dollmaker.fetch import weight_files
from dollmaker.fetch.weight_files import Start
from dollmaker.runtime.errors import ConfigError

#: Where the configuration asks for a start, and which.
Asked = tuple[str, Start]


@dataclass(frozen=True, kw_only=True)
class Need:
    """A weights file that jobs will read.

    Attributes:
        name: Of published weights, as :func:`weight_names.parse` gives it; empty for a user's file.
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
    asked: list[Asked] = [
        (f"classify.members.{name}.weights", weight_files.of_member(config, name))
        for name in config.classify.members
    ]
    asked.append(("segment.init", weight_files.of_segmenter(config)))
    starts = [*(run.split("/")[0] for run in config.adapt.runs), *config.study.inits]
    if config.tasks and "imagenet" in starts:
        asked.append(("adapt.imagenet", weight_files.of_tuning(config, "imagenet")))
    return _each_once(config, asked)


def of_study(config: Config) -> list[Need]:
    """What the pre-trainings and the start imagenet of each architecture of the study need.

    Raises:
        ConfigError: If a name is not as its library's are.
    """
    asked: list[Asked] = []
    for architecture in config.study.architectures:
        for start in config.study.inits:
            if start in config.study.pretrainings:
                found = weight_files.of_pretraining(config, architecture, start)
                asked.append((f"study.pretrainings.{start}", found))
            else:
                asked.append(
                    ("adapt.imagenet", weight_files.of_tuning(config, start, architecture))
                )
    return _each_once(config, asked)


def of_name(name: str, root: Path) -> Need:
    """One need, by the full name of published weights.

    Raises:
        ConfigError: If it is no such name.
    """
    library, _, network = name.partition(":")
    text = library if library == weight_names.PRETRAINED else name
    full = weight_names.parse(text, network)
    if not full:
        known = "timm:, torchvision:, hf: or pretrained:"
        raise ConfigError(f"{name!r} is no name of published weights; begin it with {known}.")
    return Need(name=full, file=weight_names.locate(root, text, network), place="--name")


def join(*several: list[Need]) -> list[Need]:
    """Needs of several parts of the configuration, each file once."""
    found: dict[Path, Need] = {}
    for need in chain(*several):
        found.setdefault(need.file, need)
    return list(found.values())


def _each_once(config: Config, asked: list[Asked]) -> list[Need]:
    return join(list(_needs(Path(config.weights_root), asked)))


def _needs(root: Path, asked: list[Asked]) -> Iterator[Need]:
    for place, start in asked:
        if start is None:
            continue
        text, network = start
        try:
            name, file = weight_names.parse(text, network), weight_names.locate(root, text, network)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
        yield Need(name=name, file=file, place=place)
