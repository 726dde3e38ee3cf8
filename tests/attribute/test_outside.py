"""No relevance outside the picture: every method, option and fit, by tiny networks.

Baselines, noise and features are in test_frames.py.
"""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribute.test_frozen import lively
from attribute.whole_paths import integrated_gradients
from dollmaker.attribute.baselines import make_baseline
from dollmaker.attribute.committee import Committee, Setup
from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.integrated_gradients import Refined, fixed
from dollmaker.attribute.methods import METHODS
from dollmaker.config.settings import resolved
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.frames import WHOLE, Frames
from dollmaker.networks.inputs import Input
from dollmaker.networks.member import Member
from dollmaker.pixels.geometry import Fit, box, fit_image, inside

SIZE, MEAN = 32, torch.tensor([90.0])
NEGATIVES = [torch.full((1, 32, 32), 60.0), 4.0 * torch.arange(20).expand(1, 12, 20)]
#: Width and height of three sources, and how they are fitted.
FITS: dict[str, tuple[Fit, list[tuple[int, int]]]] = {
    "wide": ("letterbox", [(80, 60), (90, 40), (50, 50)]),
    "tall": ("letterbox", [(60, 80), (33, 100), (50, 50)]),
    "resize": ("resize", [(80, 60), (60, 80), (50, 50)]),
    "crop": ("crop", [(80, 60), (60, 80), (50, 50)]),
}
PAIRS = [(0, 0), (1, 1), (0, 2), (2, 0)]
ADAPTIVE = {"criterion": "convergence", "target": 0.999, "first": 2, "max_nodes": 9}
NOISE = {"kind": "smoothgrad", "samples": 2, "stdev": 0.15}
EVERY = ["black", "white", "mean", "border", "median", "blur"]

RECIPES: dict[str, dict[str, Any]] = {
    **{name: {"method": name, "baselines": ["mean"]} for name in METHODS},
    "integrated_gradients": {"baselines": EVERY, "nodes": 3},
    "noise": {"baselines": ["white"], "nodes": 2, "noise": NOISE},
    "adaptive": {"baselines": ["median"], "adaptive": ADAPTIVE},
    "fuse": {"baselines": ["blur"], "nodes": 2, "fuse": True},
    "negatives": {"baselines": ["negatives", "mean"], "reduction": "brighter", "nodes": 2},
    "noisy_saliency": {"method": "saliency", "noise": {**NOISE, "kind": "vargrad"}},
}


class Tiny(nn.Module):
    """Two convolutions with what makes maps of bars: biases and normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 12, 3, stride=2, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
        )
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x).mean((2, 3)))
        return logits


def member(network: nn.Module, size: int) -> Member:
    spec = Input(channels=1, size=size)
    network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return Member(name="m", network=network, findings=list("abc"), input=spec, sha256="")


def tiny(size: int = SIZE, seed: int = 0) -> Member:
    torch.manual_seed(seed)
    return member(lively(Tiny()), size)


def transformer(size: int = SIZE, seed: int = 0) -> Member:
    torch.manual_seed(seed)
    network, _ = create_network("timm:test_vit", outputs=3, channels=1, size=size, tried=False)
    return member(network, size)


def pictures(fit: str) -> tuple[Tensor, Frames]:
    """Grey scenes with a bright disk, as stored, and where they lie."""
    how, sides = FITS[fit]
    rng = np.random.default_rng(0)
    stored = []
    for width, height in sides:
        y, x = np.mgrid[:height, :width]
        grey = 120 + rng.normal(0, 20, (height, width))
        grey[(y - height / 3) ** 2 + (x - width / 2) ** 2 < (min(width, height) / 4) ** 2] = 230
        stored.append(fit_image(grey.clip(0, 255).astype(np.uint8)[None], SIZE, how))
    boxes = tuple(box(*s, SIZE, how) for s in sides)
    frames = Frames(boxes if how == "letterbox" else None, SIZE)
    return torch.from_numpy(np.stack(stored)), frames


def committee(members: list[Member], chunk: int = 8, **options: Any) -> Committee:
    config = {"dataset": "x", "source": {"kind": "phantoms"}}
    recipe = {"attribute": {"smoothing": 1.5, **options}, "binarize": [{"otsu": {}}]}
    whole = resolved({**config, "recipes": {"doll": recipe}}).maps("doll")
    return Committee(
        members, whole, Setup(channel_mean=MEAN, size=SIZE, chunk=chunk, negatives=NEGATIVES)
    )


@functools.cache
def explained(recipe: str, fit: str, sizes: tuple[int, ...] = (SIZE,), chunk: int = 8) -> Refined:
    make = transformer if recipe == "attention_rollout" else tiny
    experts = committee([make(s, k) for k, s in enumerate(sizes)], chunk, **RECIPES[recipe])
    images, frames = pictures(fit)
    return experts.explain(images, list("pqr"), PAIRS, frames)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_relevance_ends_where_the_picture_ends(recipe: str, fit: str) -> None:
    _, frames = pictures(fit)
    for sizes in ((SIZE,), (SIZE, 48)):  # the second member's map is resized
        found = explained(recipe, fit, sizes)
        maps = found.consensus.maps
        assert maps.isfinite().all()
        peaks = maps.abs().amax((1, 2))
        assert ((peaks == 1) | (peaks == 0)).all() and peaks.any()
        outside = ~frames.of([image for image, _ in PAIRS]).inside((SIZE, SIZE), maps.device)
        assert (fit in ("wide", "tall")) == bool(outside.any())
        assert not maps.where(outside, 0).any()


@pytest.mark.parametrize("fit", ["wide", "crop"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_neighbours_and_chunks_change_nothing(recipe: str, fit: str) -> None:
    together = explained(recipe, fit, (SIZE, 48))
    images, frames = pictures(fit)
    make = transformer if recipe == "attention_rollout" else tiny
    experts = committee([make(s, k) for k, s in enumerate((SIZE, 48))], **RECIPES[recipe])
    for number, (image, output) in enumerate(PAIRS):
        alone = experts.explain(
            images[[image]], ["pqr"[image]], [(0, output)], frames.of([image])
        ).consensus
        assert torch.equal(alone.maps[0], together.consensus.maps[number])
        assert torch.equal(alone.scale[0], together.consensus.scale[number])
    for chunk in (3, 64):
        other = explained(recipe, fit, (SIZE, 48), chunk).consensus
        torch.testing.assert_close(other.maps, together.consensus.maps, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("name", EVERY)
def test_completeness_holds_and_nothing_is_cut_from_it(name: str, fit: str) -> None:
    """The sum of the raw attributions is F(x) - F(x'), and all of it lies inside."""
    images, frames = pictures(fit)
    one = tiny()
    x = one.prepare(images)
    start = one.prepare(make_baseline(name, images.float(), MEAN, frames))
    network = FrozenNetwork(one.network, x[:1])
    raw = integrated_gradients(network, x, start, PAIRS, fixed(200, "midpoint"), 64)
    rows, outputs = [image for image, _ in PAIRS], [output for _, output in PAIRS]
    difference = (one.network(x) - one.network(start))[rows, outputs]
    torch.testing.assert_close(raw.maps.sum((1, 2, 3)), difference, rtol=0.01, atol=2e-4)
    outside = ~frames.of(rows).inside((SIZE, SIZE), x.device)[:, None]
    assert not raw.maps.where(outside, 0).any()
    found = committee([one], baselines=[name], nodes=200, quadrature="midpoint").explain(
        images, list("pqr"), PAIRS, frames
    )
    torch.testing.assert_close(found.completeness, raw.completeness(), rtol=0.05, atol=1e-4)


def test_bars_no_longer_get_a_share() -> None:
    """An untrained network, an image of 4:3: a mean baseline saw bars, a quarter of the square."""
    images, frames = pictures("wide")
    experts = committee([tiny()], baselines=["mean"], nodes=8)
    shares = []
    for where in (WHOLE, frames):
        maps = experts.explain(images[:1], ["p"], [(0, 0), (0, 1), (0, 2)], where).consensus.maps
        within = inside(maps, (frames.boxes or ())[0]).sum((1, 2))
        shares.append(float((1 - within / maps.sum((1, 2))).mean()))
    assert shares[0] > 0.15
    assert shares[1] == pytest.approx(0, abs=1e-6)


class Part(nn.Module):
    """Sees the bars alone, or the picture alone: places of a stride of 4 pixels."""

    def __init__(self, seen: Tensor) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 4, stride=4)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4, 3)
        self.register_buffer("seen", seen.float())

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head((self.relu(self.conv(x)) * self.seen).sum((2, 3)))
        return logits


#: The first picture of "wide" fills rows 4 to 28: of eight places, six.
BARS = torch.tensor([True, False, False, False, False, False, False, True])[:, None].expand(8, 8)

#: grad_cam and multi_layer_cam average gradients over all places, the others are not by findings.
SEEING = ["integrated_gradients", "noise", "adaptive", "saliency", "input_x_gradient", "deep_lift",
          "guided_backprop", "deconvolution", "occlusion", "hires_cam", "layer_cam"]  # fmt: skip


@pytest.mark.parametrize("recipe", SEEING)
def test_what_sees_bars_only_has_no_map(recipe: str) -> None:
    images, frames = pictures("wide")
    torch.manual_seed(3)
    experts = committee([member(Part(BARS), SIZE)], **RECIPES[recipe])
    pairs = [(0, k) for k in range(3)]
    found = experts.explain(images[:1], ["p"], pairs, frames.of([0]))
    assert not found.consensus.maps.any() and not found.consensus.scale.any()


@pytest.mark.parametrize("recipe", [*SEEING, "multi_layer_cam", "grad_cam"])
def test_what_sees_the_picture_only_has_the_same_map_whatever_the_bars(recipe: str) -> None:
    images, frames = pictures("wide")
    torch.manual_seed(3)
    experts = committee([member(Part(~BARS), SIZE)], **RECIPES[recipe])
    picture = frames.of([0]).inside((SIZE, SIZE), images.device)
    grain = torch.randint(0, 256, (1, 1, SIZE, SIZE), dtype=torch.uint8)
    maps = [
        experts.explain(one, ["p"], [(0, 0), (0, 1)], frames.of([0])).consensus.maps
        for one in (images[:1], images[:1].where(picture, grain))
    ]
    if recipe in ("grad_cam", "multi_layer_cam"):  # their gradient's mean is that of a constant
        torch.testing.assert_close(maps[0], maps[1])
    else:
        assert maps[0].any() and torch.equal(maps[0], maps[1])
