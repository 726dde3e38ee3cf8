"""A trained segmenter, and the same network untrained."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dollmaker.errors import ArtifactError, ModelError
from dollmaker.files import read_json, sha256_file
from dollmaker.inputs import Input
from dollmaker.segment.models import create
from dollmaker.weights import read_weights


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """A network to explain.

    Attributes:
        network: In evaluation mode, parameters frozen.
        blind: The same with random weights.
        findings: Name of each output channel.
        input: What the network expects.
        sha256: Checksum of the weights.
    """

    network: nn.Module
    blind: nn.Module
    findings: list[str]
    input: Input
    sha256: str


def load_segmenter(folder: Path, seed: int, device: torch.device) -> Segmenter:
    """Read the folder that ``dollmaker segment`` wrote.

    Args:
        folder: With segmenter.json and model.safetensors.
        seed: Seed of the untrained weights.
        device: Where both networks go.

    Raises:
        ArtifactError: If the folder is damaged.
        ModelError: If weights are missing or do not fit the description.
    """
    description = read_json(folder / "segmenter.json")
    file = folder / "model.safetensors"
    state = read_weights(file)
    try:
        names, options = list(description["findings"]), description["header"]["config"]
        spec, sha256 = Input(**description["input"]), description["sha256"]
        trained, blind = (_make(options, names, spec, s) for s in (0, seed))
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"{folder / 'segmenter.json'} is not as written ({error}); make the segmenter again."
        ) from None
    if sha256 != sha256_file(file):
        raise ArtifactError(f"{file} is not what was written (checksum); make the segmenter again.")
    _fill(trained, state, file)
    for network in (trained, blind):
        network.eval().requires_grad_(False).to(device)
    return Segmenter(network=trained, blind=blind, findings=names, input=spec, sha256=sha256)


def _make(options: Mapping[str, Any], names: list[str], spec: Input, seed: int) -> nn.Module:
    return create(options, channels=spec.channels, classes=len(names), size=spec.size, seed=seed)


def _fill(network: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        detail = str(error).strip().splitlines()[-1].strip()[:200]
        raise ModelError(
            f"{file} does not fit its description ({detail}); make the segmenter again."
        ) from None
