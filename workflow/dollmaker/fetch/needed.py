"""The weights that jobs start from: files of the user's, and those of names.

A file that comes of a name is an input, made by the rule ``fetch_weights``. A file of the user's is
no input of any rule: the checksum of its content is a parameter. This runs at every start, and
loads no library of networks.
"""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from dollmaker.config import weight_names
from dollmaker.config.whole import Config
from dollmaker.runtime.errors import ConfigError
from dollmaker.study import grid

#: A start: as the configuration has it, and the network for :func:`weight_names.parse`; ``None`` if
#: it is no file.
Start = tuple[str, str] | None

#: Where the configuration asks for a start, and which.
Asked = tuple[str, Start]


def pattern(config: Config) -> str:
    """The files of names, with the wildcard ``weights``."""
    root = Path(config.weights_root.replace("{", "{{").replace("}", "}}"))
    return str(root / "{weights}.safetensors")


def of_member(config: Config, member: str) -> Start:
    """What a member starts from."""
    mine = config.classify.members[member]
    return (mine.weights, mine.architecture) if mine.weights else None


def of_segmenter(config: Config) -> Start:
    """The weights that the segmenter's encoder starts from."""
    init = config.segment.init
    if init == "random" or init in config.classify.members:
        return None
    return init, weight_names.of_encoder(config.segment.encoder)


def of_tuning(config: Config, init: str, architecture: str | None = None) -> Start:
    """The weights that a fine-tuning starts from, of an architecture of the study if one is given.

    Members and segmenters are folders of the workflow, and not meant.
    """
    if init != "imagenet" or not config.adapt.imagenet:
        return None
    changes = config.study.architectures[architecture] if architecture else {}
    encoder = changes.get("encoder", config.segment.encoder)
    return config.adapt.imagenet, weight_names.of_encoder(encoder)


def files(config: Config, start: Start) -> list[str]:
    """The file of a start that comes of a name: an input of the job."""
    if start is None or not weight_names.parse(*start):
        return []
    return [str(weight_names.locate(Path(config.weights_root), *start))]


@dataclass(frozen=True, kw_only=True)
class Need:
    """A weights file that jobs will read."""

    #: Of published weights, as :func:`weight_names.parse` gives it; empty for a user's file.
    name: str
    file: Path  #: Below ``weights_root``.
    place: str  #: Where the configuration asks for it.


def of_config(config: Config) -> list[Need]:
    """What the members, the segmenter and the fine-tunings start from, each file once.

    Raises:
        ConfigError: If a name is not as its library's are.
    """
    asked: list[Asked] = [
        (f"classify.members.{name}.weights", of_member(config, name))
        for name in config.classify.members
    ]
    asked.append(("segment.init", of_segmenter(config)))
    starts = [*(run.split("/")[0] for run in config.adapt.runs), *config.study.inits]
    if config.tasks and "imagenet" in starts:
        asked.append(("adapt.imagenet", of_tuning(config, "imagenet")))
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
                found = of_segmenter(grid.pretraining_config(config, architecture, start))
                asked.append((f"study.pretrainings.{start}", found))
            else:
                asked.append(("adapt.imagenet", of_tuning(config, start, architecture)))
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
    root, needs = Path(config.weights_root), []
    for place, start in asked:
        if start is None:
            continue
        try:
            name, file = weight_names.parse(*start), weight_names.locate(root, *start)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
        needs.append(Need(name=name, file=file, place=place))
    return join(needs)
