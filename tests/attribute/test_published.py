"""MaskCut, TokenCut, FOUND and MICRA-Net: their published rules in loops, on features of all kinds.

The real features are DINOv2's of real images, where both are at hand: looked for in the folders
named by DOLLMAKER_DATA and DOLLMAKER_WEIGHTS, in data/ and weights/ of the project, and in a folder
shared/ beside it.
"""

import math
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from torch import Tensor

from dollmaker.attribute import consensus
from dollmaker.attribute.cams import multi_layer_cam
from dollmaker.attribute.cutters import background_maps, found, mask_maps, token_maps, tokencut
from dollmaker.attribute.features import Features, Look, features
from dollmaker.attribute.passes import Question
from dollmaker.binarize.pair import Pair
from dollmaker.binarize.thresholds import at
from dollmaker.networks.classifiers import MicraNet, create_network
from dollmaker.networks.weights import load_weights, read_weights
from dollmaker.runtime.errors import ModelError

ROOT = Path(__file__).parents[2]
WEIGHTS = "dinov2_vits14.safetensors"
SIDE = 168


# --- the rules in loops -------------------------------------------------------------------------


def graph(vectors: np.ndarray, tau: float) -> np.ndarray:
    count = len(vectors)
    lengths = [math.sqrt(sum(float(x) ** 2 for x in v)) for v in vectors]
    weights = np.zeros((count, count))
    for i in range(count):
        for j in range(i + 1):
            norm = lengths[i] * lengths[j]
            cosine = float(vectors[i] @ vectors[j]) / norm if norm else 0.0
            weights[i, j] = weights[j, i] = 1 if cosine > tau else 1e-5
    return weights


def cut(weights: np.ndarray) -> np.ndarray:
    """The second-smallest solution of (D - W) v = l D v."""
    degrees = np.diag(weights.sum(1))
    return eigh(degrees - weights, degrees, subset_by_index=[1, 1])[1][:, 0]


def component(side: np.ndarray, seed: tuple[int, int]) -> np.ndarray:
    """The 4-connected piece of a side around a place, by filling."""
    piece, waiting = np.zeros_like(side), [seed]
    while waiting:
        y, x = waiting.pop()
        if 0 <= y < side.shape[0] and 0 <= x < side.shape[1] and side[y, x] and not piece[y, x]:
            piece[y, x] = True
            waiting += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return piece


def place_of(values: np.ndarray) -> tuple[int, int]:
    """The first place of the largest value; places that are taken have equal entries."""
    y, x = np.unravel_index(int((values >= values.max() - 1e-9).argmax()), values.shape)
    return int(y), int(x)


def seeds_side(v: np.ndarray) -> np.ndarray:
    """A vector turned so that its place of largest magnitude is over its mean."""
    return v if v[place_of(abs(v))] > v.mean() else -v


def plain_tokencut(vectors: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    v = seeds_side(cut(graph(vectors, 0.2)).reshape(grid))
    return component(v > v.mean(), place_of(abs(v)))


def plain_maskcut(vectors: np.ndarray, grid: tuple[int, int], most: int = 3) -> list[np.ndarray]:
    """The masks that are kept, each without the places of the ones before."""
    vectors, taken, masks = vectors.copy(), np.zeros(grid, bool), []
    before = np.zeros(grid, bool)
    for number in range(most):
        vectors[taken.ravel()] = 0
        v = seeds_side(cut(graph(vectors, 0.15)).reshape(grid))
        side, seed = v > v.mean(), place_of(abs(v))
        if sum(map(int, (side[0, 0], side[0, -1], side[-1, 0], side[-1, -1]))) >= 3:
            side, seed = ~side, place_of(-v)
        mask = component(side, seed)
        overlap = (mask & before).sum() / (mask | before).sum()
        if number > 0 and (overlap > 0.5 or mask.mean() <= 0.01):
            before = np.zeros(grid, bool)
            continue
        masks.append(mask & ~taken)
        before, taken = mask, taken | mask
    return masks


def plain_found(vectors: np.ndarray, attention: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    heads, places = attention.shape
    shares = [float((attention[h] > attention.mean()).sum()) / places for h in range(heads)]
    weights = [math.log(sum(shares) / max(share, 1e-10)) for share in shares]
    looked = sum(weights[h] * attention[h] for h in range(heads))
    parts = np.split(vectors, heads, axis=1)
    weighted = np.concatenate([w * part for w, part in zip(weights, parts, strict=True)], 1)
    seed = weighted[int(np.argmin(looked))]
    cosines = [float(v @ seed) / (np.linalg.norm(v) * np.linalg.norm(seed)) for v in weighted]
    return np.array([cosine <= 0.3 for cosine in cosines]).reshape(grid)


def plain_micranet(net: MicraNet, image: Tensor, output: int) -> np.ndarray:
    """Grad-CAM of each block, min-max, nearest, the first component of seven values a pixel."""
    maps, x = [], image[None]
    for layer in net.features:
        x = layer(x)
        if isinstance(layer, torch.nn.ReLU):
            x.retain_grad()
            maps.append(x)
    net.head(net.pool(x).flatten(1))[0, output].backward()
    values = []
    for number, a in enumerate(maps, start=1):
        cam = (a.grad.mean((2, 3), keepdim=True) * a).sum(1)[0].detach().double().numpy()
        cam = cam if number < len(maps) else np.clip(cam, 0, None)
        cam = (cam - cam.min()) / (cam.max() - cam.min())
        factor = image.shape[-1] // cam.shape[-1]
        values.append(np.repeat(np.repeat(cam, factor, 0), factor, 1).ravel())
    table = np.stack(values[:-1], 1)
    table = table - table.mean(0)
    first = table @ np.linalg.svd(table.T @ table)[0][:, 0]
    first = first if (first * values[-1]).sum() >= 0 else -first
    return first.reshape(image.shape[1:])


# --- features -----------------------------------------------------------------------------------


def place_with(variable: str, name: str, inside: str) -> Path:
    places = [Path(os.environ.get(variable, name)), ROOT / name, ROOT.parent / "shared" / name]
    for place in places:
        if (place / inside).exists():
            return place / inside
    pytest.skip(f"no {inside} in {variable} or {name}/: it is not at hand")


@cache
def pictures() -> Tensor:
    """Real images, normalised as for DINOv2, float32 (6, 3, SIDE, SIDE)."""
    from PIL import Image

    found = []
    for name in ("wbc", "kvasir"):
        folder = place_with("DOLLMAKER_DATA", "data", f"{name}/images")
        for path in sorted(folder.iterdir())[:3]:
            with Image.open(path) as picture:
                small = picture.convert("RGB").resize((SIDE, SIDE))
            found.append(torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    return (torch.stack(found) - mean[:, None, None]) / deviation[:, None, None]


@cache
def dino() -> torch.nn.Module:
    file = place_with("DOLLMAKER_WEIGHTS", "weights", WEIGHTS)
    name = "timm:vit_small_patch14_dinov2"
    network, _ = create_network(name, outputs=1, channels=3, size=SIDE, tried=False)
    state = read_weights(file)
    load_weights(network, state, optional=("head.weight", "head.bias"), source=WEIGHTS)
    return network.eval().requires_grad_(False)


def real(part: str = "key", block: int = -1) -> Features:
    return features(dino(), pictures(), Look(part=part, block=block))  # type: ignore[arg-type]


def drawn(seed: int, rows: int = 8) -> Features:
    """Random features, smooth enough for pieces of several places, and no two of them equal."""
    generator = torch.Generator().manual_seed(seed)
    rough = torch.randn(rows, 6, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(rough, size=(8, 8), mode="bilinear").flatten(2).mT
    values = smooth + 0.3 * torch.randn(smooth.shape, generator=generator)
    attention = torch.rand(rows, 3, 64, generator=generator) ** 3
    attention *= torch.tensor([1.0, 0.7, 1.5])[:, None]
    return Features(values=values, attention=attention, grid=(8, 8))


def centred(given: Features) -> np.ndarray:
    return (given.values - given.values.mean(1, keepdim=True)).double().numpy()


KINDS: dict[str, Callable[[], Features]] = {
    **{f"random {seed}": lambda seed=seed: drawn(seed) for seed in range(3)},
    "keys": real,
    "queries": lambda: real("query"),
    "values": lambda: real("value"),
    "keys of the middle": lambda: real("key", 6),
}


# --- ours against them --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_tokencut_is_the_published_rule(kind: str) -> None:
    given = KINDS[kind]()
    for grid, vectors in zip(token_maps(given, centred=True), centred(given), strict=True):
        np.testing.assert_array_equal(grid.numpy() > 0.5, plain_tokencut(vectors, given.grid))


@pytest.mark.parametrize("kind", KINDS)
def test_maskcut_is_the_published_rule(kind: str) -> None:
    given = KINDS[kind]()
    for grid, vectors in zip(mask_maps(given, centred=True), centred(given), strict=True):
        masks = plain_maskcut(vectors, given.grid)
        np.testing.assert_array_equal(grid.numpy() > 0.5, np.any(masks, axis=0))
        levels = [grid.numpy() == value for value in np.unique(grid.numpy())[::-1] if value]
        np.testing.assert_array_equal(levels, [mask for mask in masks if mask.any()])


@pytest.mark.parametrize("kind", KINDS)
def test_found_is_the_published_rule(kind: str) -> None:
    given = KINDS[kind]()
    parts = zip(background_maps(given), given.values, given.attention, strict=True)
    for grid, vectors, attention in parts:
        expected = plain_found(vectors.double().numpy(), attention.double().numpy(), given.grid)
        np.testing.assert_array_equal(grid.numpy() > 0.5, expected)


@pytest.mark.parametrize("rule", [token_maps, mask_maps, background_maps])
def test_the_mask_that_is_drawn_is_the_published_one(rule: Callable[..., Tensor]) -> None:
    """Through the consensus and the 16 bits of a file: no place is lost at the cut."""
    given = drawn(7, rows=40)
    grids = rule(given, centred=True)
    stored = consensus.agree([grids]).maps.half().numpy().astype(np.float32)
    for values, grid in zip(stored, grids.numpy(), strict=True):
        pair = Pair(map=values, image=np.zeros((1, 8, 8), np.uint8), label=1, probability=1.0)
        assert values.max() == 1
        np.testing.assert_array_equal(at(pair).mask, grid > 0.5)


@pytest.mark.parametrize("where", ["random", "real"])
def test_micranet_is_the_published_rule(where: str) -> None:
    torch.manual_seed(3)
    images = pictures()[:, :, :96, :96] if where == "real" else torch.rand(4, 3, 64, 64)
    net = MicraNet(outputs=2, channels=3).eval()
    net.head.weight.data.abs_()  # the deepest map, which is rectified, is not 0
    pairs = [(row, row % 2) for row in range(len(images))]
    maps = multi_layer_cam(Question(net, images, pairs, 4))[:, 0].numpy()
    for ours, (row, output) in zip(maps, pairs, strict=True):
        expected = plain_micranet(net, images[row].clone(), output)
        np.testing.assert_allclose(ours, expected - expected.min(), atol=1e-4)


# --- what no cut can be made of -----------------------------------------------------------------


def test_places_that_are_all_alike_have_no_cut() -> None:
    """As keys of DINOv2 are: a large common part, which differs from image to image."""
    given = drawn(0, rows=3)
    common = 40 * torch.randn(3, 1, 6, generator=torch.Generator().manual_seed(1))
    alike = Features(values=given.values + common, attention=given.attention, grid=given.grid)
    for rule in (token_maps, mask_maps):
        assert not rule(alike).any()
        torch.testing.assert_close(rule(alike, centred=True), rule(given, centred=True))
        assert (rule(alike, centred=True) > 0.5).flatten(1).any(1).all()
    assert not token_maps(given, 0.9999).any()  # no two places are alike: no cut either


def test_a_line_says_that_keys_of_dinov2_are_all_alike(capsys: pytest.CaptureFixture[str]) -> None:
    images, pairs = pictures(), [(1, 0), (4, 0)]
    for method in (tokencut, found):
        maps = method(Question(dino(), images, pairs, 4))
        assert not maps.any()
        assert "2 of 2 images have no cut" in capsys.readouterr().err
        maps = method(Question(dino(), images, pairs, 4), centred=True, part="value")
        assert (maps > 0.5).flatten(1).any(1).all() and not torch.equal(maps[0], maps[1])
        assert not capsys.readouterr().err


def test_maskcut_does_not_depend_on_the_hand_of_the_image() -> None:
    given = drawn(2, rows=12)
    values = given.values.reshape(12, 8, 8, -1).flip(2).reshape(given.values.shape)
    mirrored = Features(values=values, attention=given.attention, grid=given.grid)
    torch.testing.assert_close(
        mask_maps(given, centred=True), mask_maps(mirrored, centred=True).flip(2)
    )


def test_parts_and_blocks_are_those_of_the_network() -> None:
    torch.manual_seed(0)
    network, _ = create_network("timm:test_vit", outputs=2, channels=3, size=64)
    images = torch.randn(2, 3, 64, 64)
    key, value = (features(network.eval(), images, Look(part=part)) for part in ("key", "value"))
    assert key.values.shape == value.values.shape
    assert not torch.allclose(key.values, value.values)
    torch.testing.assert_close(key.attention, value.attention)
    last = sum(hasattr(module, "qkv") for module in network.modules()) - 1
    torch.testing.assert_close(features(network, images, Look(block=last)).values, key.values)
    with pytest.raises(ModelError, match=r"block is 99, but the network has \d+ attentions"):
        features(network, images, Look(block=99))
    plain, _ = create_network("timm:test_resnet", outputs=2, channels=3, size=64)
    with pytest.raises(ModelError, match="no attention"):
        features(plain.eval(), images, Look(part="value"))
