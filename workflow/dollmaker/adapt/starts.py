"""Where a network starts: random, ImageNet, a classifier of the committee, or the segmenter."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from dollmaker.adapt import PLAIN
from dollmaker.config import weight_names
from dollmaker.config.networks import SegmentConfig
from dollmaker.config.whole import Config
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import (
    ARCHITECTURES,
    create,
    file_start,
    member_start,
    random_start,
)
from dollmaker.networks.weights import State, load_weights, read_weights
from dollmaker.runtime.errors import ArtifactError, ModelError
from dollmaker.store.files import read_json, sha256_file

#: The convolution of a segmenter that draws its classes.
_HEAD = "segmentation_head.0."

#: Blocks of a Unet's decoder that start anew: the last draw the outline, which transfers worst. How
#: many is our choice.
_NEW_BLOCKS = 2


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What networks start from and learn from."""

    data_root: Path  #: Folder of the source.
    weights_root: Path  #: Folder of weights files.
    committee: Path | None = None  #: Folder of a member, for the start classifier.
    #: Folder of the segmenter, for the start doll and other pre-trainings.
    segmenter: Path | None = None
    #: The index that classifiers and segmenters were trained on: a task whose test images they have
    #: seen is refused.
    index: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """Weights to start from, and what the network expects."""

    #: Part of the network (encoder, decoder) -> its weights; others stay random.
    parts: dict[str, State]
    input: Input
    sha256: str  #: Checksum of the weights; empty if all are random.
    source: str  #: For messages.
    #: Finding -> its filter and bias in the head of a segmenter, by their names in the convolution.
    head: dict[str, State] = field(default_factory=dict)


def find_beginning(init: str, config: Config, inputs: Inputs) -> Beginning:
    """Read the weights of a start: random, imagenet, classifier, or the name of a segmenter.

    Raises:
        ModelError: If what the start needs is not given or does not fit.
        ArtifactError: If a folder of the pipeline is damaged.
    """
    channels, size = config.prepare.channels, config.prepare.size
    if init not in PLAIN:
        if inputs.segmenter is None:
            raise ModelError(
                f"the start {init!r} is none of {', '.join(PLAIN)}, and as a pre-trained segmenter "
                "it needs its folder; give --segmenter."
            )
        return _segmenter(inputs.segmenter, config.segment, channels, size)
    if init == "random":
        start = random_start(channels=channels, size=size)
    elif init == "classifier":
        if inputs.committee is None:
            raise ModelError("the start classifier needs a committee member; give --committee.")
        start = member_start(inputs.committee, channels=channels, size=size)
    else:
        if config.adapt.imagenet is None:
            raise ModelError("the start imagenet needs weights; set adapt.imagenet.")
        encoder = weight_names.of_encoder(config.segment.encoder)
        file = weight_names.locate(inputs.weights_root, config.adapt.imagenet, encoder)
        start = file_start(file, channels=channels, size=size)
    return Beginning(
        parts={"encoder": start.state} if start.state else {},
        input=start.input,
        sha256=start.sha256,
        source=start.source,
    )


def _segmenter(folder: Path, options: SegmentConfig, channels: int, size: int) -> Beginning:
    """Encoder, decoder and head of a segmenter."""
    description = read_json(folder / "segmenter.json")
    file = folder / "model.safetensors"
    state = read_weights(file)
    try:
        theirs = description["input"]
        spec = Input(channels=channels, size=size, mean=theirs["mean"], std=theirs["std"])
        network = (description["architecture"], description["encoder"])
        findings = [str(name) for name in description["findings"]]
        damaged = description["sha256"] != (sha256 := sha256_file(file))
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{folder / 'segmenter.json'} is not as written ({error}); make the segmenter again."
        ) from None
    if damaged:
        raise ArtifactError(f"{file} is not what was written (checksum); make the segmenter again.")
    wanted = ARCHITECTURES.get(options.architecture.lower()), options.encoder
    if network != wanted:
        raise ModelError(
            f"the segmenter {folder} is {network[0]} with encoder {network[1]}, the section "
            f"segment names {wanted[0]} with {wanted[1]}; make it again or correct the section."
        )
    own = _below(state, _HEAD)
    head = {finding: {n: t[k] for n, t in own.items()} for k, finding in enumerate(findings)}
    parts = {part: _below(state, f"{part}.") for part in ("encoder", "decoder")}
    source = f"segmenter {folder}"
    return Beginning(parts=parts, input=spec, sha256=sha256, source=source, head=head)


def _below(state: State, prefix: str) -> State:
    """The tensors whose names begin so, by the rest of their names."""
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def make_network(
    beginning: Beginning,
    options: SegmentConfig,
    classes: Sequence[str],
    seed: int,
    new_blocks: int | None = 0,
    *,
    new_head: bool = False,
) -> nn.Module:
    """The network of the section ``segment`` with its starting weights.

    What is random is the same for every start of a seed. The last blocks of a decoder that was
    trained before can start anew: those that draw the outline are the ones that transfer worst. A
    class that the segmenter was pre-trained on by name keeps its part of the head, unless the
    blocks under it are new: such a start draws something before the first step.

    ``new_blocks`` are how many of the decoder's last blocks stay random; ``None`` is none where the
    head is kept for every class, otherwise two where blocks follow each other (Unet, Linknet,
    MAnet). With ``new_head`` the head is new even for classes that it knows.
    """
    spec = beginning.input
    count = len(classes)
    model = create(options, channels=spec.channels, classes=count, size=spec.size, seed=seed)
    decoder = model.get_submodule("decoder")
    known = {} if new_head else {k: beginning.head.get(name) for k, name in enumerate(classes)}
    if new_blocks is None:
        follow = isinstance(getattr(decoder, "blocks", 0), nn.ModuleList)
        new_blocks = _NEW_BLOCKS if follow and not (known and all(known.values())) else 0
    fresh = {name: copy.deepcopy(block.state_dict()) for name, block in blocks(decoder)}
    for part, state in beginning.parts.items():
        load_weights(model.get_submodule(part), state, source=f"{beginning.source} ({part})")
    for name in list(fresh)[-new_blocks:] if new_blocks else []:
        decoder.get_submodule(name).load_state_dict(fresh[name])
    if not new_blocks:
        _keep_head(model, {k: state for k, state in known.items() if state})
    return model


def _keep_head(model: nn.Module, known: Mapping[int, State]) -> None:
    """Put what a segmenter learned of classes into a head, by their numbers."""
    layer = model.get_submodule(_HEAD.removesuffix("."))
    with torch.no_grad():
        for k, state in known.items():
            for name, tensor in state.items():
                layer.get_parameter(name)[k].copy_(tensor)


def blocks(decoder: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a decoder that hold parameters, by name, the first those that see coarse maps.

    They are its modules in the order in which segmentation-models-pytorch makes them; a list or
    dictionary of modules counts by its members (the five blocks of a Unet).
    """
    found: list[tuple[str, nn.Module]] = []
    for name, child in decoder.named_children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            found += [(f"{name}.{key}", member) for key, member in child.named_children()]
        else:
            found.append((name, child))
    return [(name, block) for name, block in found if next(block.parameters(), None) is not None]
