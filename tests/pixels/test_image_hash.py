"""Perceptual hashes: against scipy's cosine transform, copies of pictures, and a count of bits."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.fft import dctn

from dollmaker.pixels import image_hash
from dollmaker.pixels.image_hash import NEAR, near_pairs, perceptual_hash


def picture(seed: int, width: int = 200, height: int = 150) -> Image.Image:
    """Smooth noise of several scales, as photographs have it."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width))
    for cells in (4, 8, 16, 32):
        coarse = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / cells
    total = (total - total.min()) / np.ptp(total)
    return Image.fromarray((20 + 200 * total).astype(np.uint8))


def hashed(image: Image.Image) -> str:
    pixels = np.asarray(image)
    return perceptual_hash(pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0))


def apart(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_the_hash_is_the_signs_of_the_low_cosines() -> None:
    for seed in range(5):
        small = picture(seed).resize((64, 64), Image.Resampling.BILINEAR)
        waves = dctn(np.asarray(small, float), norm="ortho")[:16, :16].ravel()
        bits = "".join(str(int(wave > np.median(waves[1:]))) for wave in waves)
        assert hashed(picture(seed)) == f"{int(bits, 2):064x}"


def compressed(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=50)
    return Image.open(stream)


@pytest.mark.parametrize(
    "change",
    [
        compressed,
        lambda image: image.resize((91, 70)),
        lambda image: image.point([int(255 * (v / 255) ** 0.8) for v in range(256)]),
        lambda image: ImageOps.autocontrast(image),
        lambda image: image.convert("RGB"),
    ],
)
def test_a_copy_is_near(change: Callable[[Image.Image], Image.Image]) -> None:
    for seed in range(5):
        assert apart(hashed(picture(seed)), hashed(change(picture(seed)))) <= NEAR


def test_other_pictures_are_far() -> None:
    hashes = [hashed(picture(seed)) for seed in range(30)]
    assert min(apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 2 * NEAR


@pytest.mark.parametrize("value", [0, 100, 255])
def test_one_grey_has_no_looks(value: int) -> None:
    plain = np.full((3, 40, 30), value, np.uint8)
    assert perceptual_hash(plain) == ""
    plain[:, 3, 4] ^= 1
    assert perceptual_hash(plain) == ""


def test_pairs_by_counting_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    one: list[Any] = [rng.bytes(32).hex() for _ in range(17)]
    other: list[Any] = [rng.bytes(32).hex() for _ in range(23)]
    for i, j, bits in ((0, 22, 0), (5, 1, NEAR), (16, 1, 3), (7, 7, NEAR + 1), (9, 3, 256)):
        one[i] = f"{int(other[j], 16) ^ ((1 << bits) - 1):064x}"
    one[3] = other[4] = ""
    expected = [
        (i, j)
        for i, a in enumerate(one)
        for j, b in enumerate(other)
        if a and b and apart(a, b) <= NEAR
    ]
    assert expected == [(0, 22), (5, 1), (16, 1)]
    for block in (2_000_000, 50, 1):
        monkeypatch.setattr(image_hash, "_BLOCK", block)
        assert list(near_pairs(one, other)) == expected
    assert list(near_pairs([], other)) == list(near_pairs(one, [])) == []
    assert list(near_pairs(["", ""], other)) == []
