"""Occlusion against Captum and against windows covered by hand."""

import pytest
import torch
from captum.attr import Occlusion

from attribute.test_passes import PAIRS, check_manners, network, pictures, relative
from dollmaker.attribute.methods import occlusion
from dollmaker.attribute.passes import Question
from dollmaker.runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("window", "stride"),
    [(16, 16), (16, 8), (20, 9), (64, 1), (15, 15)],  # some leave the image at the far sides
)
def test_the_same_maps_as_captum(window: int, stride: int) -> None:
    net, x, cover = network("timm:test_resnet"), pictures(), pictures(seed=2) * 0.3
    maps = occlusion(Question(net, x, PAIRS, 7), baseline=cover, window=window, stride=stride)
    for number in (0, 1, 4):
        image, output = PAIRS[number]
        expected = Occlusion(net).attribute(
            x[[image]], (3, window, window), (3, stride, stride), cover[[image]], target=output
        )[0]
        assert relative(maps[number].expand(3, -1, -1), expected.float()) < 5e-5


def test_one_window_by_hand() -> None:
    net, x, cover = network("timm:test_resnet"), pictures(), torch.full((1, 3, 64, 64), 0.5)
    maps = occlusion(Question(net, x, PAIRS, 4), baseline=cover, window=16, stride=16)
    for number, (image, output) in enumerate(PAIRS):
        hidden = x[[image]].clone()
        hidden[:, :, 16:32, 48:] = 0.5
        drop = float(net(x[[image]])[0, output] - net(hidden)[0, output])
        block = maps[number, 0, 16:32, 48:]
        assert float(block.min()) == float(block.max()) == pytest.approx(drop, abs=1e-5)


def test_shares_of_the_side_are_pixels() -> None:
    net, x, cover = network("timm:test_resnet"), pictures(), torch.zeros(1, 3, 64, 64)
    shares = occlusion(Question(net, x, PAIRS, 4), baseline=cover, window=0.25, stride=0.125)
    pixels = occlusion(Question(net, x, PAIRS, 4), baseline=cover, window=16, stride=8)
    assert torch.equal(shares, pixels)


def test_images_need_not_be_square() -> None:
    net, x = network("timm:test_resnet"), pictures()[:, :, :48]
    cover = torch.zeros(1, 3, 48, 64)
    maps = occlusion(Question(net, x, PAIRS, 4), baseline=cover, window=20, stride=12)
    expected = Occlusion(net).attribute(x[[2]], (3, 20, 20), (3, 12, 12), cover, target=3)
    assert relative(maps[3].expand(3, -1, -1), expected[0].float()) < 1e-5


def test_manners() -> None:
    check_manners(
        occlusion, network("timm:test_resnet"), 1, baseline=pictures(seed=2), window=24, stride=20
    )


@pytest.mark.parametrize(("window", "stride"), [(8, 9), (80, 8), (0.1, 0.2), (8, -1)])
def test_windows_that_do_not_cover_the_image_are_refused(window: float, stride: float) -> None:
    net, x = network("timm:test_resnet"), pictures()
    with pytest.raises(ConfigError, match="do not cover an image of 64; choose a window up to"):
        occlusion(Question(net, x, PAIRS, 4), baseline=x, window=window, stride=stride)
