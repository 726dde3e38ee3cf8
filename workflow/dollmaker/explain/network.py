"""A trained segmenter, and the same network untrained."""

import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dollmaker.config.networks import SegmentConfig
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import NETWORK, create
from dollmaker.networks.weights import read_weights
from dollmaker.runtime.errors import ArtifactError, ModelError
from dollmaker.store.files import read_json, sha256_file

#: Untrained networks of the randomisation test: one alone may resemble the trained one by chance.
BLIND = 3


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """A network to explain.

    Attributes:
        network: In evaluation mode, parameters frozen.
        blind: The same, each with other random weights, none with those the training began with.
        findings: Name of each output channel.
        input: What the network expects.
        sha256: Checksum of the weights.
    """

    network: nn.Module
    blind: list[nn.Module]
    findings: list[str]
    input: Input
    sha256: str


def load_segmenter(folder: Path, seed: int, device: torch.device) -> Segmenter:
    """Read the folder that ``dollmaker segment`` wrote.

    ``seed`` is what those of the untrained weights are derived from.

    Raises:
        ArtifactError: If the folder is damaged.
        ModelError: If weights are missing or do not fit the description.
    """
    description = read_json(folder / "segmenter.json")
    file = folder / "model.safetensors"
    state = read_weights(file)
    try:
        names, options = list(description["findings"]), description["header"]["config"]
        made_of = SegmentConfig(**{key: options[key] for key in NETWORK})
        spec, sha256 = Input(**description["input"]), description["sha256"]
        seeds = blind_seeds(seed, description["header"].get("seed"))
        trained, *blind = (_make(made_of, names, spec, s) for s in (0, *seeds))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{folder / 'segmenter.json'} is not as written ({error}); make the segmenter again."
        ) from None
    if sha256 != sha256_file(file):
        raise ArtifactError(f"{file} is not what was written (checksum); make the segmenter again.")
    _fill(trained, state, file)
    for network in (trained, *blind):
        network.eval().requires_grad_(False).to(device)
    return Segmenter(network=trained, blind=blind, findings=names, input=spec, sha256=sha256)


def blind_seeds(seed: int, own: int | None = None) -> list[int]:
    """Seeds of the untrained networks: :data:`BLIND` different numbers.

    None draws the same weights as the global seed, or as ``own``, which the segmenter was created
    with.
    """
    # Of a seed torch takes the lowest 32 bits.
    found = {number % 2**32 for number in (seed, own) if number is not None}
    seeds: list[int] = []
    for k in itertools.count():
        digest = hashlib.sha256(f"explain {seed} {k}".encode()).digest()
        number = int.from_bytes(digest[:4], "big")
        if number not in found:
            found.add(number)
            seeds.append(number)
        if len(seeds) == BLIND:
            break
    return seeds


def _make(options: SegmentConfig, names: list[str], spec: Input, seed: int) -> nn.Module:
    return create(options, channels=spec.channels, classes=len(names), size=spec.size, seed=seed)


def _fill(network: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        detail = str(error).strip().splitlines()[-1].strip()[:200]
        raise ModelError(
            f"{file} does not fit its description ({detail}); make the segmenter again."
        ) from None
