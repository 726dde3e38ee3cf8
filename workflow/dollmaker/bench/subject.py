"""What is measured: a network and images for it."""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dollmaker.networks.classifiers import create_network
from dollmaker.runtime import devices
from dollmaker.runtime.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network, twice, and images prepared for it.

    Attributes:
        name: Architecture, or folder of the member.
        trained: Whether its weights are trained.
        called: The network as users call it: as the library makes it, float32.
        network: The same weights in channels-last memory format, as members are loaded.
        images: float32 (B, C, H, W).
        baseline: Black, float32 (1, C, H, W).
        findings: Outputs explained of each image.
    """

    name: str
    trained: bool
    called: nn.Module
    network: nn.Module
    images: Tensor
    baseline: Tensor
    findings: int


def make_subject(
    *,
    architecture: str,
    member: Path | None,
    shard: Path | None,
    size: int,
    findings: int,
    images: int,
    device: str,
) -> Subject:
    """A trained member and real (or generated) images, or an untrained network and clouds.

    Raises:
        ModelError: If the architecture, the member or the device does not exist.
        ConfigError: If the member has fewer findings, or the shard fewer images.
    """
    place = devices.choose(device)
    if member is None:
        torch.manual_seed(0)
        network, name = create_network(architecture, outputs=findings, channels=3, size=size)
        network.eval().requires_grad_(False).to(place)
        x = clouds(images, 3, size).to(place)
        last = copy.deepcopy(network).to(memory_format=torch.channels_last)
        return Subject(
            name=name,
            trained=False,
            called=network,
            network=last,
            images=x,
            baseline=torch.full_like(x[:1], -1),
            findings=findings,
        )
    from dollmaker.networks.member import load_member

    loaded = load_member(member, place)
    if findings > len(loaded.findings):
        raise ConfigError(
            f"member {member} has {len(loaded.findings)} findings; lower --findings to that."
        )
    stored = _phantoms(images, loaded.input.size) if shard is None else _stored(shard, images)
    prepared = loaded.prepare(stored.to(place)).contiguous()
    black = loaded.prepare(torch.zeros_like(stored[:1]).to(place)).contiguous()
    called = copy.deepcopy(loaded.network).to(memory_format=torch.contiguous_format)
    return Subject(
        name=f"member {member.name}",
        trained=True,
        called=called,
        network=loaded.network,
        images=prepared,
        baseline=black,
        findings=findings,
    )


def clouds(images: int, channels: int, size: int) -> Tensor:
    """Smooth random pictures in -1..1 with some grain, float32 (B, C, H, W), seeded."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(images, channels, size, size)
    for octave in range(6):
        cells = min(size, 2 ** (octave + 1))
        grid = torch.randn(images, channels, cells, cells, generator=generator) / 2**octave
        total += nn.functional.interpolate(grid, size=(size, size), mode="bilinear")
    return total / total.abs().amax((1, 2, 3), keepdim=True)


def _phantoms(images: int, size: int) -> Tensor:
    import numpy as np

    from dollmaker.phantoms import FINDINGS, render_frontal, sample_patient
    from dollmaker.phantoms.sampling import draw_sign

    rng = np.random.default_rng(1234)
    pictures = []
    for number in range(images):
        patient = sample_patient(rng)
        names = rng.choice(FINDINGS, 3, replace=False)
        signs = {str(name): draw_sign(rng) for name in names}
        pictures.append(render_frontal(patient, signs, (size, size), number).image)
    return torch.from_numpy(np.stack(pictures))[:, None]


def _stored(shard: Path, images: int) -> Tensor:
    import numpy as np

    from dollmaker.store.shards import Shard

    with Shard(shard, "images") as source:
        if len(source) < images:
            raise ConfigError(f"{shard} has {len(source)} images; lower --images to that.")
        rows = np.linspace(0, len(source) - 1, images).round().astype(int)
        return torch.from_numpy(source.read("image", rows.tolist()))
