"""Checks of the configured networks before the run, remembered once they passed.

A check makes a network as the stage will, without numbers if possible: does it exist, does it take
the images, can it be trained with such batches, do its starting weights fit? As its libraries take
seconds to load, a file keeps what has passed, until configuration, weights or libraries change.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dollmaker.config import ready, weight_names
from dollmaker.config.base import Tree
from dollmaker.config.networks import MemberConfig
from dollmaker.config.whole import Config
from dollmaker.runtime.errors import ModelError
from dollmaker.store.files import write_json

if TYPE_CHECKING:
    from torch import Tensor, nn

#: What has passed, below the folder of the run.
MEMORY = Path(".snakemake/dollmaker/network_checks.json")

#: Modules and distributions of the libraries that make networks.
_LIBRARIES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "segmentation_models_pytorch": "segmentation-models-pytorch",
}

#: Files of this package that decide what passes.
_CODE = (
    "launch/network_checks.py",
    *(f"config/{name}.py" for name in ("patch_sizes", "ready", "xrv")),
    *(
        f"networks/{name}.py"
        for name in ("classifiers", "dry_run", "member", "positions", "segmenters", "weights")
    ),
)

#: Verdicts that are kept.
_MOST = 1000

#: Enough to be more than one, where the size of a batch does not matter.
_SEVERAL = 2

_MORE = "batch_size to 2 or more, with as many training images"


@dataclass(frozen=True)
class NetworkCheck:
    """A check of one network, which the configuration names at a place.

    It raises a :class:`ModelError` for ``settings`` that do not work: all that decides, as JSON.
    """

    place: str
    check: Callable[[Tree], None]
    settings: Tree


def run_checks(checks: Iterable[NetworkCheck], memory: Path = MEMORY) -> None:
    """Run checks, but for those that are known to pass.

    Where the libraries are not installed, jobs bring an environment of their own, and nothing is
    checked. A damaged ``memory``, the file that keeps what has passed, counts as empty.

    Raises:
        ModelError: With the first network that does not work.
    """
    if not all(find_spec(module) for module in _LIBRARIES):
        return
    base, known = _base(), _read(memory)
    passed = dict.fromkeys(known)
    try:
        for one in checks:
            text = json.dumps([base, one.check.__name__, one.settings], sort_keys=True)
            key = hashlib.sha256(text.encode()).hexdigest()
            if key not in passed:
                _check(one)
                passed[key] = None
    finally:
        if len(passed) > len(known):
            with suppress(OSError):  # it is checked again next time
                write_json(memory, list(passed)[-_MOST:])


def _check(one: NetworkCheck) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one.check(one.settings)
    except ModelError as error:
        raise ModelError(f"{one.place}: {error}") from None


def _base() -> list[str]:
    """What every verdict depends on: the libraries and the code."""
    folder = Path(__file__).parents[1]
    code = hashlib.sha256(b"".join((folder / name).read_bytes() for name in _CODE)).hexdigest()
    return [*(metadata.version(name) for name in _LIBRARIES.values()), code]


def _read(memory: Path) -> list[str]:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def of_members(config: Config, findings: int, images: int | None) -> list[NetworkCheck]:
    """Checks of the members of the committee; the number of training images may not be known."""
    options, checks = config.classify, []
    for name, member in options.members.items():
        network, seen = member.architecture, _seen(config, member)
        known: Tree = {"architecture": network, "weights": _file(config, member.weights, network)}
        if ready.is_ready(member):
            check = check_ready
            known |= {"findings": ready.outputs(network, member.findings), "input": seen}
        else:
            check = check_member
            known |= seen | {
                "outputs": findings,
                "batch": _batch(options.batch_size, images),
                "linear_probe": member.linear_probe,
                "freeze_norm": bool(options.freeze_batch_norm and member.weights),
            }
        checks.append(NetworkCheck(f"classify.members.{name}", check, known))
    return checks


def _seen(config: Config, member: MemberConfig) -> Tree:
    """Channels and size of what a member sees."""
    spec = ready.input_options(config, member)
    return {key: spec[key] for key in ("channels", "size")}


def of_names(config: Config) -> list[NetworkCheck]:
    """Checks of the names of all segmenters: that of section segment, and those of the study."""
    names = {"architecture": config.segment.architecture, "encoder": config.segment.encoder}
    named = {"segment": names}
    for name, changes in config.study.architectures.items():
        named[f"study.architectures.{name}"] = {key: changes.get(key, names[key]) for key in names}
    return [NetworkCheck(place, check_names, settings) for place, settings in named.items()]


def of_segmenter(place: str, config: Config, findings: int, images: int | None) -> NetworkCheck:
    """A check of the network that is pre-trained, for so many findings that are localized."""
    options = config.segment
    clusters = options.clusters if options.objectives.structure else 0
    return _of_network(
        place,
        config,
        options.init,
        classes=findings + clusters,
        batch=_batch(options.batch_size, images),
        tuning=None,
        freeze_norm=options.freeze_batch_norm and options.init != "random",
    )


def of_tuning(place: str, config: Config, init: str, tuning: str) -> NetworkCheck:
    """A check of a network that is fine-tuned, named at a place, with its start and its tuning."""
    options, first = config.adapt, next(iter(config.classify.members))
    return _of_network(
        place,
        config,
        {"classifier": first, "imagenet": options.imagenet}.get(init, "random"),
        classes=1,
        batch=_batch(options.batch_size, None),
        tuning=tuning,
        freeze_norm=options.freeze_batch_norm and init != "random" and tuning == "full",
    )


def _batch(size: int, images: int | None) -> int:
    """Images of a training step: one, or several."""
    return min(size, _SEVERAL if images is None else images, _SEVERAL)


def _of_network(place: str, config: Config, init: str | None, **more: Any) -> NetworkCheck:
    """A check of a segmenter: its network, what it is fed, where it starts, and more."""
    settings = {
        **{key: getattr(config.segment, key) for key in ("architecture", "encoder", "arguments")},
        **{key: getattr(config.prepare, key) for key in ("channels", "size")},
        "start": _start(config, init),
        **more,
    }
    return NetworkCheck(place, check_segmenter, settings)


def _start(config: Config, init: str | None) -> Tree:
    """Where an encoder starts: a member, a file, or random numbers."""
    mine = config.classify.members.get(init or "")
    if mine is None:
        encoder = weight_names.of_encoder(config.segment.encoder)
        return {"file": None if init == "random" else _file(config, init, encoder)}
    return {"member": {"name": init, "architecture": mine.architecture, **_seen(config, mine)}}


def _file(config: Config, weights: str | None, network: str) -> list[Any] | None:
    """A weights file and what changes when it does; ``None`` if there is none yet."""
    if not weights:
        return None
    path = weight_names.locate(Path(config.weights_root), weights, network)
    if not path.is_file():
        return None
    stat = path.stat()
    return [str(path), stat.st_size, stat.st_mtime_ns]


def check_names(settings: Tree) -> None:
    """Refuse an architecture or an encoder of a segmenter that does not exist."""
    from dollmaker.networks import segmenters

    segmenters.check_names(settings["architecture"], settings["encoder"])


def check_member(settings: Tree) -> None:
    """Refuse a classifier that cannot be made, fed, trained or started as configured."""
    from dollmaker.networks import dry_run
    from dollmaker.networks.batch_norm import freeze_batch_norm
    from dollmaker.networks.classifiers import create_network, head_name

    channels, size, outputs = (settings[key] for key in ("channels", "size", "outputs"))
    network, title = _make(
        lambda: create_network(
            settings["architecture"], outputs=outputs, channels=channels, size=size
        )
    )
    head = head_name(network, outputs)
    network.train(not settings["linear_probe"])
    if settings["freeze_norm"]:
        freeze_batch_norm(network)
    if settings["batch"] == 1 and dry_run.fails_on_one(network, (1, channels, size, size)):
        raise ModelError(dry_run.needs_two(f"{title} at {size} pixels", f"set classify.{_MORE}"))
    if settings["weights"]:
        file = settings["weights"][0]
        _check_fit(network, _header(file), (head,), f"weights file {file}")


def check_ready(settings: Tree) -> None:
    """Refuse a ready classifier that cannot be made, fed, or filled with its weights."""
    from dollmaker.networks.classifiers import create_network
    from dollmaker.networks.inputs import Input
    from dollmaker.networks.member import fill_ready

    name, spec, wanted = settings["architecture"], settings["input"], len(settings["findings"])
    network, _ = _make(lambda: create_network(name, outputs=wanted, **spec))
    if settings["weights"]:
        file = settings["weights"][0]
        with suppress(RuntimeError):  # as in _check_fit
            state = _header(file)
            fill_ready(network.to("meta"), state, name, wanted, Input(**spec), file)


def check_segmenter(settings: Tree) -> None:
    """Refuse a segmenter that cannot be made, fed, trained or started as configured."""
    from dollmaker.adapt.tuning import FROZEN, one_image
    from dollmaker.config.networks import SegmentConfig
    from dollmaker.networks import dry_run
    from dollmaker.networks.batch_norm import freeze_batch_norm
    from dollmaker.networks.segmenters import NETWORK, create

    channels, size, tuning = (settings[key] for key in ("channels", "size", "tuning"))
    network = SegmentConfig(**{key: settings[key] for key in NETWORK})
    model = _make(
        lambda: create(network, channels=channels, classes=settings["classes"], size=size, seed=0)
    )
    model.train()
    for part in FROZEN[tuning] if tuning else ():
        model.get_submodule(part).eval()
    encoder = model.get_submodule("encoder")
    if settings["freeze_norm"]:
        freeze_batch_norm(encoder)
    if settings["batch"] == 1 and dry_run.fails_on_one(model, (1, channels, size, size)):
        title = f"{settings['architecture']} with encoder {settings['encoder']}"
        pretraining = dry_run.needs_two(title, f"set segment.{_MORE}")
        raise ModelError(one_image(title) if tuning else pretraining)
    state, source = _state(settings["start"])
    if state:
        _check_fit(encoder, state, (), source)


def _make(make: Callable[[], Any]) -> Any:
    """A network without numbers; with them where it cannot be made otherwise, or is refused."""
    import torch

    try:
        with torch.device("meta"):
            return make()
    except Exception:
        return make()


def _state(start: Tree) -> tuple[dict[str, "Tensor"], str]:
    """Names and shapes of the weights of a start, and what they are for messages."""
    if "member" in start:
        from dollmaker.networks.classifiers import create_network

        seen = dict(start["member"])
        member, architecture = seen.pop("name"), seen.pop("architecture")
        network, title = _make(lambda: create_network(architecture, outputs=1, tried=False, **seen))
        state = {name: tensor.to("meta") for name, tensor in network.state_dict().items()}
        return state, f"committee member {member} ({title})"
    if start["file"] is None:
        return {}, ""
    return _header(start["file"][0]), f"weights file {start['file'][0]}"


def _header(file: str) -> dict[str, "Tensor"]:
    """Names and shapes of a safetensors file."""
    import torch
    from safetensors import safe_open

    with safe_open(file, framework="np") as content:
        shapes = {name: content.get_slice(name).get_shape() for name in content.keys()}  # noqa: SIM118
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _check_fit(
    module: "nn.Module", state: Mapping[str, "Tensor"], optional: tuple[str, ...], source: str
) -> None:
    """Refuse weights of another network."""
    from dollmaker.networks.weights import load_weights

    with suppress(RuntimeError):  # they cannot be laid side by side without numbers; the stage will
        load_weights(module.to("meta"), state, optional=optional, source=source)
