"""Members of the committee: read from disk, or taken from a ready classifier.

On disk a member is ``model.safetensors``, ``model.json`` and its predictions. Of a ready classifier
the outputs are reordered to the data set's findings.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dollmaker.config import ready
from dollmaker.networks import positions
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.inputs import Input
from dollmaker.networks.weights import load_weights, read_weights, unify
from dollmaker.runtime.errors import DamagedError, ModelError
from dollmaker.store.files import read_json, sha256_file, write_json

if TYPE_CHECKING:  # who predicts with a release has no pydantic
    from dollmaker.config.networks import MemberConfig

#: Tensors that are not read: torchxrayvision's operating points do not change the logit.
_NO_WEIGHTS = ("op_threshs",)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """From logits to probabilities: ``sigmoid((z - shift) / temperature)``.

    Training with weight w on positives raises logits by log w; the shift takes this back. One
    temperature serves all findings (Guo et al. 2017).

    Raises:
        ValueError: If a number is none of these.
    """

    #: log of the weight of positives of each finding; empty means 0 for all.
    shift: Sequence[float] = ()
    temperature: float = 1.0  #: Positive; 1 changes nothing.

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
    """A classifier of the committee."""

    name: str  #: Name in the committee.
    network: nn.Module  #: Maps float (B, channels, size, size) to logits (B, findings).
    findings: list[str]  #: Names of the logits, in order.
    input: Input  #: What the network expects.
    sha256: str = ""  #: Checksum of the weights.
    architecture: str = ""  #: See :func:`create_network`.
    calibration: Calibration = field(default_factory=Calibration)
    #: Findings that a ready classifier does not know; their logit is 0 and says nothing.
    unknown: frozenset[str] = frozenset()

    def knows(self, output: int) -> bool:
        """Whether a logit, by its number, says anything."""
        return self.findings[output] not in self.unknown

    def prepare(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in levels to the network's input."""
        return self.input.prepare(images)


def save_member(folder: Path, member: Member, **more: Any) -> None:
    """Write the weights and their description, with more keys, into an existing folder."""
    from safetensors.torch import save_file

    tensors = member.network.state_dict()
    kept = getattr(member.network, positions.KEPT, None)
    if kept is not None:
        tensors[positions.KEPT] = kept
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(state, folder / "model.safetensors")
    description: Mapping[str, Any] = {
        "architecture": member.architecture,
        "findings": member.findings,
        "input": vars(member.input),
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
        architecture, outputs=len(findings), channels=spec.channels, size=spec.size, tried=False
    )
    load_weights(network, state, source=str(weights))
    if positions.KEPT in state:
        positions.put(network, state[positions.KEPT])
    network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
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


# --- ready classifiers --------------------------------------------------------------------------


def take_ready(
    name: str, member: "MemberConfig", spec: Input, findings: list[str], file: Path
) -> tuple[Member, dict[str, str]]:
    """Load a ready classifier and put its outputs into the order of the data set's findings.

    Returns:
        The member, its network in evaluation mode; and finding -> name of the output. Findings
        that it does not know have the logit 0.

    Raises:
        ConfigError: If two outputs are the same finding.
        ModelError: If the weights are missing or are not those of such a network, last layer
            included.
    """
    names = ready.outputs(member.architecture, member.findings)
    whole, architecture = _make(member.architecture, spec, len(names))
    given = read_weights(file, without=_NO_WEIGHTS)
    last = fill_ready(whole, given, member.architecture, len(names), spec, str(file))
    matched = ready.match(names, findings)
    network, _ = _make(member.architecture, spec, len(findings))
    state = whole.state_dict()
    for key, tensor in network.state_dict().items():
        if key in last:
            tensor.zero_()
            for finding, output in matched.items():
                tensor[finding] = state[key][output]
        else:
            tensor.copy_(state[key])
    positions.keep(network, given)
    found = {findings[finding]: str(names[output]) for finding, output in matched.items()}
    taken = Member(
        name=name,
        network=network.eval(),
        findings=findings,
        input=spec,
        architecture=architecture,
        unknown=frozenset(findings) - set(found),
    )
    return taken, found


def fill_ready(
    network: nn.Module,
    state: Mapping[str, Tensor],
    architecture: str,
    outputs: int,
    spec: Input,
    source: str,
) -> Collection[str]:
    """Fill a network with all outputs of a ready classifier, so many of which are named, in place.

    Returns:
        Names of the tensors of the last layer; a ``ModelError`` if the weights are of another,
        which says their ``source``.
    """
    last = _last(architecture, spec, outputs)
    for name, tensor in state.items():
        fits = any(unify(name).endswith(unify(end)) for end in last)
        if fits and tensor.ndim and len(tensor) != outputs:
            raise ModelError(
                f"weights file {source} has {len(tensor)} outputs ({name[:100]!r}), and {outputs} "
                "are named; name each in order in findings, null for those that are no finding."
            )
    load_weights(network, state, source=f"weights file {source}")
    return last


def _make(architecture: str, spec: Input, outputs: int) -> tuple[nn.Module, str]:
    size, channels = spec.size, spec.channels
    return create_network(architecture, outputs=outputs, channels=channels, size=size, tried=False)


def _last(architecture: str, spec: Input, outputs: int) -> list[str]:
    """The tensors of the last layer: those whose shape changes with the number of outputs."""
    with torch.random.fork_rng(devices=[]):
        one, more = (_make(architecture, spec, n)[0].state_dict() for n in (outputs, outputs + 1))
    names = [name for name in one if one[name].shape != more[name].shape]
    if not names or any(len(one[name]) != outputs for name in names):
        raise ModelError(
            f"{architecture} has no last layer with one row for each output; use another network."
        )
    return names
