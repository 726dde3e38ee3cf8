"""A member of the committee on disk: ``model.safetensors``, ``model.json``, predictions.

Every classifier is read here, whatever its origin.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dollmaker.networks import positions
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.inputs import Input
from dollmaker.networks.weights import load_weights, read_weights
from dollmaker.runtime.errors import DamagedError
from dollmaker.store.files import read_json, sha256_file, write_json


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """From logits to probabilities: ``sigmoid((z - shift) / temperature)``.

    Training with weight w on positives raises logits by log w; the shift takes this back. One
    temperature serves all findings (Guo et al. 2017).

    Attributes:
        shift: log of the weight of positives of each finding; empty means 0 for all.
        temperature: Positive; 1 changes nothing.

    Raises:
        ValueError: If a number is none of these.
    """

    shift: Sequence[float] = ()
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(float(value)) for value in self.shift):
            raise ValueError("a shift that is not finite")
        if not 0 < float(self.temperature) < math.inf:
            raise ValueError(f"temperature {self.temperature}")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (B, K) of logits (B, K), in the same precision."""
        shift = logits.new_tensor(list(self.shift) or [0.0])
        return torch.sigmoid((logits - shift) / self.temperature)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A trained classifier.

    Attributes:
        name: Name in the committee.
        network: Maps float (B, channels, size, size) to logits (B, findings).
        findings: Names of the logits, in order.
        input: What the network expects.
        sha256: Checksum of the weights.
        architecture: Name of the network, see :func:`create_network`.
        calibration: From its logits to probabilities.
        unknown: Findings that a ready classifier does not know; their logit is 0 and says nothing.
    """

    name: str
    network: nn.Module
    findings: list[str]
    input: Input
    sha256: str
    architecture: str = ""
    calibration: Calibration = field(default_factory=Calibration)
    unknown: frozenset[str] = frozenset()

    def knows(self, output: int) -> bool:
        """Whether a logit, by its number, says anything."""
        return self.findings[output] not in self.unknown

    def prepare(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in levels to the network's input."""
        return self.input.prepare(images)


def save_member(
    folder: Path,
    network: nn.Module,
    architecture: str,
    findings: list[str],
    spec: Input,
    **more: Any,
) -> None:
    """Write the weights and their description into an existing folder."""
    from safetensors.torch import save_file

    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
    kept = getattr(network, positions.KEPT, None)
    if kept is not None:
        state[positions.KEPT] = kept.detach().cpu().contiguous()
    save_file(state, folder / "model.safetensors")
    description: Mapping[str, Any] = {
        "architecture": architecture,
        "findings": findings,
        "input": vars(spec),
        "sha256": sha256_file(folder / "model.safetensors"),
        **more,
    }
    write_json(folder / "model.json", description)


def load_member(folder: Path, device: torch.device) -> Member:
    """Read a member: evaluation mode, parameters frozen.

    Raises:
        ArtifactError: If a file is missing or damaged, or the weights are not those described.
    """
    description = read_json(folder / "model.json")
    try:
        findings = [str(finding) for finding in description["findings"]]
        architecture, sha256 = str(description["architecture"]), str(description["sha256"])
        spec = Input(**description["input"])
        calibration = Calibration(**description.get("calibration", {}))
        if len(calibration.shift) not in (0, len(findings)):
            raise ValueError(f"{len(calibration.shift)} shifts for {len(findings)} findings")
        unknown = frozenset(str(finding) for finding in description.get("unknown", ()))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(
            f"{folder / 'model.json'} is not a member's description ({error})", folder
        ) from None
    weights = folder / "model.safetensors"
    state = read_weights(weights)
    if sha256_file(weights) != sha256:
        raise DamagedError(f"{weights} is not the file that model.json describes", folder)
    network, _ = create_network(
        architecture,
        outputs=len(findings),
        channels=spec.channels,
        size=spec.size,
    )
    load_weights(network, state, source=str(weights))
    if positions.KEPT in state:
        positions.put(network, state[positions.KEPT])
    network.eval().to(device).to(memory_format=torch.channels_last)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return Member(
        name=folder.name,
        network=network,
        findings=findings,
        input=spec,
        sha256=sha256,
        architecture=architecture,
        calibration=calibration,
        unknown=unknown,
    )
