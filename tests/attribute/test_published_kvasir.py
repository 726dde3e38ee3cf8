"""The published rules on colonoscopy images at 224 pixels, and ExplainSeg's map written out.

Real images and DINOv2's features: skipped where they are not at hand (see test_published).
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn

from attribute.test_published import (
    WEIGHTS,
    centred,
    place_with,
    plain_found,
    plain_maskcut,
    plain_tokencut,
)
from dollmaker.attribute.committee import Committee, Setup, noisy_copies
from dollmaker.attribute.cutters import background_maps, mask_maps, token_maps
from dollmaker.attribute.features import Features, features
from dollmaker.config import settings as configuration
from dollmaker.config.masks import NoiseConfig
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.inputs import Input
from dollmaker.networks.member import Member
from dollmaker.networks.weights import load_weights, read_weights

#: Images of the fast test, and of the slow one.
FEW, MANY = 6, 30
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@cache
def stored(count: int, size: int) -> Tensor:
    """The first images, uint8 (count, 3, size, size)."""
    folder = place_with("DOLLMAKER_DATA", "data", "kvasir/images")
    found = []
    for path in sorted(folder.iterdir())[:count]:
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        found.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
    return torch.stack(found)


@cache
def network(size: int) -> nn.Module:
    """The transformer with a head of two random findings."""
    file = place_with("DOLLMAKER_WEIGHTS", "weights", WEIGHTS)
    torch.manual_seed(0)
    name = "timm:vit_small_patch14_dinov2"
    made, _ = create_network(name, outputs=2, channels=3, size=size, tried=False)
    load_weights(made, read_weights(file), optional=("head",), source=WEIGHTS)
    return made.eval().requires_grad_(False)


@cache
def keys(count: int) -> Features:
    spec = Input(channels=3, size=224, **IMAGENET)
    return features(network(224), spec.prepare(stored(count, 224)))


def overlap(ours: np.ndarray, theirs: np.ndarray) -> float:
    union = (ours | theirs).sum()
    return float((ours & theirs).sum() / union) if union else 1.0


def tokencut(given: Features, vectors: np.ndarray, _: np.ndarray) -> np.ndarray:
    return plain_tokencut(vectors, given.grid)


def maskcut(given: Features, vectors: np.ndarray, _: np.ndarray) -> np.ndarray:
    return np.any(plain_maskcut(vectors, given.grid), axis=0)


def found(given: Features, vectors: np.ndarray, attention: np.ndarray) -> np.ndarray:
    return plain_found(vectors, attention, given.grid)


RULES: dict[str, tuple[Callable[..., Tensor], Callable[..., np.ndarray]]] = {
    "tokencut": (partial(token_maps, centred=True), tokencut),
    "maskcut": (partial(mask_maps, centred=True), maskcut),
    "found": (partial(background_maps, centred=True), found),
}


def agreement(name: str, count: int) -> list[float]:
    """IoU of our masks and those of the rule written out, image by image."""
    given, (ours, plain) = keys(count), RULES[name]
    parts = zip(ours(given).numpy(), centred(given), given.attention.double().numpy(), strict=True)
    # FOUND centres after the heads' weights, which is the same.
    return [overlap(grid > 0.5, plain(given, v, attention)) for grid, v, attention in parts]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_masks_of_polyps_are_those_of_the_published_rule(name: str, count: int) -> None:
    values = agreement(name, count)
    print(f"{name}: IoU with the rule written out, {count} images: {np.mean(values):.4f}")
    assert np.mean(values) >= 0.98


def plain_explainseg(net: nn.Module, copies: list[Tensor], start: Tensor, output: int) -> Any:
    """Integrated gradients over noisy copies of an image: four Gauss-Legendre nodes each."""
    places, weights = np.polynomial.legendre.leggauss(4)
    total = np.zeros(start.shape)
    for copy in copies:
        integral = torch.zeros_like(copy)
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            x = (start + float(place) * (copy - start)).requires_grad_()
            (gradient,) = torch.autograd.grad(net(x[None])[0, output], x)
            integral += float(weight) * gradient
        total += (integral * (copy - start)).double().numpy() / len(copies)
    blurred = ndimage.gaussian_filter(np.abs(total).sum(0), 1.0, mode="nearest")
    return blurred / blurred.max()


@pytest.mark.parametrize(
    ("count", "size", "samples"),
    [(2, 70, 2), pytest.param(MANY, 224, 5, marks=pytest.mark.slow)],
)
def test_explainsegs_map_is_the_published_rule(count: int, size: int, samples: int) -> None:
    net, spec = network(size), Input(channels=3, size=size, **IMAGENET)
    member = Member(name="probe", network=net, findings=["a", "b"], input=spec, sha256="")
    recipe: dict[str, Any] = {
        "nodes": 4, "noise": {"kind": "smoothgrad", "samples": samples, "stdev": 0.15},
        "baselines": ["black"], "smoothing": 1.0,
    }  # fmt: skip
    config = configuration.resolved(
        {
            "dataset": "x",
            "source": {"kind": "phantoms"},
            "recipes": {"doll": {"attribute": recipe, "binarize": [{"gate": {}}, {"otsu": {}}]}},
        }
    )
    experts = Committee(
        [member],
        config.maps("doll"),
        Setup(channel_mean=torch.tensor([0.0, 0, 0]), size=size, seed=3),
    )
    images, ids = stored(count, size), [f"image {number}" for number in range(count)]
    ours = experts.explain(images, ids, [(row, row % 2) for row in range(count)]).consensus.maps
    x, black = spec.prepare(images), spec.prepare(torch.zeros_like(images))
    copies = noisy_copies(x, ids, NoiseConfig(samples=samples, stdev=0.15), 3)
    for row, mine in enumerate(ours.double().numpy()):
        plain = plain_explainseg(net, [copy[row] for copy in copies], black[row], row % 2)
        np.testing.assert_allclose(mine, plain, atol=1e-3)
        cuts = [values > np.quantile(values, 0.8) for values in (mine, plain)]
        assert overlap(*cuts) >= 0.98
