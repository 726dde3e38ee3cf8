"""The members for the calibration: the trained ones if they exist, else untrained twins."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dollmaker.classify.stage import member_input
from dollmaker.config.ready import unknown_to
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.member import Member, load_member
from dollmaker.runtime.errors import DollmakerError
from dollmaker.store.files import read_json


def find_committee(
    config: dict[str, Any],
    findings: list[str],
    results: Path,
    images: Tensor,
    device: torch.device,
) -> tuple[list[Member], bool]:
    """The members, and whether they are the trained ones.

    Trained members are taken if all exist and fit the configuration; else all are random networks
    of the configured architectures, whose normalisation has seen some images. These take as long,
    but their maps may need other nodes.

    Args:
        config: The resolved configuration.
        findings: All findings.
        results: Folder of the data set's results.
        images: Some images (B, C, H, W) in levels.
        device: Where they run.
    """
    untrained, trained = [], []
    for name, options in config["classify"]["members"].items():
        member, architecture = untrained_member(config, name, options, findings, device)
        untrained.append(member)
        found = _trained(results / "committee" / name, member, architecture, device)
        trained += [found] if found else []
    if len(trained) == len(untrained):
        return trained, True
    for member in untrained:
        _settle(member.network, member.prepare(images.to(device)))
    return untrained, False


def _settle(network: nn.Module, x: Tensor) -> None:
    """Give batch normalisation the statistics of some images.

    Without them the signal of a random network fades to nothing, layer by layer, and with it the
    gradients that are to be explained.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(x)
    network.eval()
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def untrained_member(
    config: dict[str, Any],
    name: str,
    options: dict[str, Any],
    findings: list[str],
    device: torch.device,
) -> tuple[Member, str]:
    """A member with random weights, parameters frozen, and the full name of its architecture.

    Raises:
        ModelError: If no library knows the architecture.
    """
    spec = member_input(config, options)
    torch.manual_seed(config["seed"] * 1000 + options["seed"])
    network, architecture = create_network(
        options["architecture"], outputs=len(findings), channels=spec.channels, size=spec.size
    )
    network.eval().to(device).to(memory_format=torch.channels_last)
    network.requires_grad_(False)
    member = Member(
        name=name,
        network=network,
        findings=findings,
        input=spec,
        sha256="",
        unknown=unknown_to(options, findings),
    )
    return member, architecture


def _trained(folder: Path, like: Member, architecture: str, device: torch.device) -> Member | None:
    """The member in a folder, if it is there, whole and like the configured one."""
    try:
        known = read_json(folder / "model.json")["architecture"]
        member = load_member(folder, device)
    except (DollmakerError, KeyError, TypeError):
        return None
    sides = [(one.input.channels, one.input.size) for one in (member, like)]
    fits = (known, member.findings) == (architecture, like.findings) and sides[0] == sides[1]
    return member if fits else None
