"""What benchmarks measure on and with: options, made-up pictures, a network, a browser."""

from __future__ import annotations

import argparse
import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dollmaker.runtime import devices
from dollmaker.runtime.errors import ConfigError
from dollmaker.store.files import write_json

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


def options(doc: str | None, **numbers: int) -> argparse.ArgumentParser:
    """A parser with an option for each number, all positive, and ``--json``."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=_positive, default=default, help="a number")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


def keep(results: Any, file: Path | None) -> None:
    """Write the numbers where ``--json`` says."""
    if file:
        write_json(file, results)


def write_sanity(file: Path) -> None:
    """What the stage sanity writes of a recipe that passes."""
    numbers = ("positives", "negatives", "same_masks", "randomised", "other", "insertion")
    checks = dict.fromkeys((*numbers, "deletion", "masked_negatives"), 0)
    flags = dict.fromkeys(("ignores_model", "ignores_finding", "uninformative"), False)
    said = {"doubts": [], "verdict": "depends on model and finding"}
    write_json(file, {"recipe": "doll", **checks, **flags, **said})


@dataclass(frozen=True)
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


def make_subject(given: argparse.Namespace) -> Subject:
    """A trained member and real (or generated) images, or an untrained network and clouds."""
    from dollmaker.networks.classifiers import create_network
    from dollmaker.networks.member import load_member
    from dollmaker.store.shards import Shard

    place, findings, size = devices.choose(given.device), given.findings, given.size
    if given.member is None:
        torch.manual_seed(0)
        network, name = create_network(given.architecture, outputs=findings, channels=3, size=size)
        network.eval().requires_grad_(False).to(place)
        x = clouds(given.images, 3, size).to(place)
        last = copy.deepcopy(network).to(memory_format=torch.channels_last)
        black = torch.full_like(x[:1], -1)
        return Subject(name, False, network, last, x, black, findings)
    member = load_member(given.member, place)
    assert findings <= len(member.findings), f"the member has {len(member.findings)} findings"
    stored = _phantoms(given.images, member.input.size)
    if given.shard:
        with Shard(given.shard, "images") as source:
            rows = np.linspace(0, len(source) - 1, given.images).round().astype(int)
            stored = torch.from_numpy(source.read("image", rows.tolist()))
    prepared = member.prepare(stored.to(place)).contiguous()
    black = member.prepare(torch.zeros_like(stored[:1]).to(place)).contiguous()
    called = copy.deepcopy(member.network).to(memory_format=torch.contiguous_format)
    name = f"member {given.member.name}"
    return Subject(name, True, called, member.network, prepared, black, findings)


def _phantoms(images: int, size: int) -> Tensor:
    from dollmaker.phantoms.patient import draw_sign, sample_patient
    from dollmaker.phantoms.study import FINDINGS, render_frontal

    rng = np.random.default_rng(1234)
    pictures = []
    for number in range(images):
        patient = sample_patient(rng)
        names = rng.choice(FINDINGS, 3, replace=False)
        signs = {str(name): draw_sign(rng) for name in names}
        pictures.append(render_frontal(patient, signs, (size, size), number).image)
    return torch.from_numpy(np.stack(pictures))[:, None]


def clouds(images: int, channels: int, size: int) -> Tensor:
    """Smooth random pictures in -1..1 with some grain, float32 (B, C, H, W), seeded."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(images, channels, size, size)
    for octave in range(6):
        cells = min(size, 2 ** (octave + 1))
        grid = torch.randn(images, channels, cells, cells, generator=generator) / 2**octave
        total += nn.functional.interpolate(grid, size=(size, size), mode="bilinear")
    return total / total.abs().amax((1, 2, 3), keepdim=True)


_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
)


def missing() -> str:
    """Which of the programs are not installed, in words; empty if all are."""
    names = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(names)} not found on this machine" if names else ""


def start(profile: Path) -> Chrome:
    """A new browser that talks to no one.

    Args:
        profile: An empty folder for what it keeps.

    Raises:
        ConfigError: If Chromium, its driver or selenium is not installed.
    """
    if reason := missing():
        raise ConfigError(f"{reason}; install Debian's packages chromium and chromium-driver.")
    try:
        from selenium import webdriver
    except ModuleNotFoundError:
        raise ConfigError("selenium is not installed; run pip install selenium.") from None
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
