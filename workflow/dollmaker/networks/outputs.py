"""Ready classifiers: their outputs, reordered to the data set's findings."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dollmaker.config import ready
from dollmaker.networks import positions
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.inputs import Input
from dollmaker.networks.member import Member
from dollmaker.networks.weights import load_weights, read_weights, unify
from dollmaker.runtime.errors import ModelError

#: Tensors that are not read: torchxrayvision's operating points do not change the logit.
_NO_WEIGHTS = ("op_threshs",)


def take(
    name: str,
    member: Mapping[str, Any],
    spec: Input,
    findings: list[str],
    file: Path,
    device: torch.device,
) -> tuple[Member, dict[str, str]]:
    """Load a ready classifier and put its outputs into the order of the findings.

    Args:
        name: Of the member.
        member: As it is configured.
        spec: What it expects.
        findings: The data set's.
        file: Its weights.
        device: Where it shall be.

    Returns:
        The member, its network in evaluation mode; and finding -> name of the output. Findings
        that it does not know have the logit 0.

    Raises:
        ConfigError: If two outputs are the same finding.
        ModelError: If the weights are missing or are not those of such a network, last layer
            included.
    """
    names = ready.outputs(member)
    whole, architecture = _make(member, spec, len(names))
    given = read_weights(file, without=_NO_WEIGHTS)
    last = load(whole, given, member, spec, str(file))
    matched = ready.match(names, findings)
    network, _ = _make(member, spec, len(findings))
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
        network=network.eval().to(device).to(memory_format=torch.channels_last),
        findings=findings,
        input=spec,
        sha256="",
        architecture=architecture,
        unknown=frozenset(findings) - set(found),
    )
    return taken, found


def load(
    network: nn.Module,
    state: Mapping[str, Tensor],
    member: Mapping[str, Any],
    spec: Input,
    source: str,
) -> Collection[str]:
    """Fill a network with all outputs of a ready classifier, in place.

    Args:
        network: As :func:`dollmaker.networks.classifiers.create_network` makes it.
        state: Its weights.
        member: The configured member.
        spec: What it expects.
        source: Where the weights come from, for the message.

    Returns:
        Names of the tensors of the last layer.

    Raises:
        ModelError: If they are not those of the network, last layer included.
    """
    wanted = len(ready.outputs(member))
    last = _last(member, spec, wanted)
    for name, tensor in state.items():
        fits = any(unify(name).endswith(unify(end)) for end in last)
        if fits and tensor.ndim and len(tensor) != wanted:
            raise ModelError(
                f"weights file {source} has {len(tensor)} outputs ({name[:100]!r}), and {wanted} "
                "are named; name each in order in findings, null for those that are no finding."
            )
    load_weights(network, state, source=f"weights file {source}")
    return last


def _make(member: Mapping[str, Any], spec: Input, outputs: int) -> tuple[nn.Module, str]:
    return create_network(
        member["architecture"],
        outputs=outputs,
        channels=spec.channels,
        size=spec.size,
        tried=False,
    )


def _last(member: Mapping[str, Any], spec: Input, outputs: int) -> list[str]:
    """The tensors of the last layer: those whose shape changes with the number of outputs.

    Raises:
        ModelError: If there are none.
    """
    with torch.random.fork_rng(devices=[]):
        one, more = (_make(member, spec, n)[0].state_dict() for n in (outputs, outputs + 1))
    names = [name for name in one if one[name].shape != more[name].shape]
    if not names or any(len(one[name]) != outputs for name in names):
        raise ModelError(
            f"{member['architecture']} has no last layer with one row for each output; use another "
            "network."
        )
    return names
