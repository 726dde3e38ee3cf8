"""The weights that jobs start from: files of the user's, and those of names.

A file that comes of a name is an input, made by the rule ``fetch_weights``. A file of the user's is
no input of any rule: the checksum of its content is a parameter. This runs at every start, and
loads no library of networks.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

from dollmaker.config import weight_names
from dollmaker.config.whole import Config
from dollmaker.fetch import lock
from dollmaker.runtime.errors import ConfigError, ModelError
from dollmaker.store import sums
from dollmaker.store.files import POINTERS, WEB_PAGE
from dollmaker.study import grid

#: A start: as the configuration has it, and the network for :func:`weight_names.parse`; ``None`` if
#: it is no file.
Start = tuple[str, str] | None

_LIBRARIES = ("torch", "torchvision", "timm", "segmentation_models_pytorch", "huggingface_hub")

#: How weights files begin that are no safetensors, and what they are.
_FOREIGN = {
    b"PK": "a pickle of PyTorch, which is never loaded; convert it to safetensors",
    b"\x80": "a pickle, which is never loaded; convert it to safetensors",
    **POINTERS,
    b"<": WEB_PAGE,
}


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
    asked: list[tuple[str, Start]] = [
        (f"classify.members.{name}.weights", of_member(config, name))
        for name in config.classify.members
    ]
    asked.append(("segment.init", of_segmenter(config)))
    starts = [*(run.split("/")[0] for run in config.adapt.runs), *config.study.inits]
    if config.tasks and "imagenet" in starts:
        asked.append(("adapt.imagenet", of_tuning(config, "imagenet")))
    return _each_once(config, asked)


def of_study(config: Config) -> list[Need]:
    """What the pre-trainings and the start imagenet of each architecture of the study need."""
    asked: list[tuple[str, Start]] = []
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


def _each_once(config: Config, asked: list[tuple[str, Start]]) -> list[Need]:
    root, needs = Path(config.weights_root), []
    for place, start in asked:
        try:
            if start is not None:
                name, file = weight_names.parse(*start), weight_names.locate(root, *start)
                needs.append(Need(name=name, file=file, place=place))
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
    return join(needs)


def require_weights(needs: Iterable[Need], root: Path) -> None:
    """Refuse weights files that are missing or are none, and names that cannot be had.

    What has a name may be fetched yet; the libraries are loaded for what is not there only. Where
    they are not installed, jobs bring an environment of their own, and it is the rule that says
    what it cannot have.

    Raises:
        ModelError: With the first reason, in one sentence.
    """
    needs = sorted(needs, key=lambda need: need.file)
    for need in needs:
        if not need.name or need.file.is_file():
            check_weights(need.file)
    for need in needs:
        try:
            if need.name and need.file.is_file():
                lock.check(root, need.name, sums.sha256(need.file))
            elif need.name:
                _require_reachable(need.name, root)
        except ModelError as error:
            raise ModelError(f"{need.place}: {error}") from None


def check_weights(path: Path) -> None:
    """Refuse a weights file that is missing or is no safetensors, by its header alone.

    Raises:
        ModelError: If it cannot be read as safetensors, or holds nothing.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(
            f"weights file {path} does not exist; correct weights_root or the file's name."
        )
    try:
        with safe_open(path, framework="np") as content:
            names = list(content.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"weights file {path} is {_foreign(path, error)}.") from None
    if not names:
        raise ModelError(f"weights file {path} holds no weights; get it again.")


def _foreign(path: Path, error: Exception) -> str:
    with path.open("rb") as handle:
        head = handle.read(32)
    for start, kind in _FOREIGN.items():
        if head.startswith(start):
            return kind
    detail = " ".join(str(error).split())[:200]
    return f"no whole safetensors file ({detail}); get it again, or convert it to safetensors"


def _require_reachable(name: str, root: Path) -> None:
    if all(find_spec(module) for module in _LIBRARIES):
        from dollmaker.fetch.libraries import locked
        from dollmaker.fetch.originals import require_reachable

        require_reachable(locked(name, root), root / weight_names.stem(name))
