"""From stored images to the input of a network."""

import pytest
import torch
from torchvision.transforms.v2.functional import normalize

from dollmaker.networks.inputs import Input, adapt_images, per_channel

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def test_images_become_the_networks_input() -> None:
    images = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)
    x = adapt_images(images, channels=3, size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert x.shape == (1, 3, 8, 8)
    torch.testing.assert_close(x, torch.ones_like(x))


def test_each_channel_has_its_own_mean_and_deviation() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    spec = Input(channels=3, size=5, **IMAGENET)
    theirs = normalize(images / 255, list(IMAGENET["mean"]), list(IMAGENET["std"]))
    torch.testing.assert_close(spec.prepare(images), theirs)
    grey = spec.prepare(images[:, :1])
    torch.testing.assert_close(grey[:, 1], (images[:, 0] / 255 - 0.456) / 0.224)


def test_one_number_is_that_of_every_channel_and_gives_the_same_bits_as_before() -> None:
    images = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    one, each = Input(channels=3, size=5, mean=0.4, std=0.3), (0.4, 0.4, 0.4)
    assert one == Input(channels=3, size=5, mean=list(each), std=[0.3] * 3) and one.mean == each
    assert torch.equal(one.prepare(images), (images / 255 - 0.4) / 0.3)


def test_a_network_of_other_channels_takes_the_mean_of_the_numbers() -> None:
    assert per_channel(IMAGENET["mean"], 1) == (pytest.approx((0.485 + 0.456 + 0.406) / 3),)
    assert per_channel([0.4], 3) == (0.4, 0.4, 0.4) and per_channel([0.1] * 3, 1) == (0.1,)
    # Three filters summed into one see a grey image as before, but for the channels' differences.
    filters, grey = torch.randn(8, 3, 1, 1), torch.randint(0, 256, (4, 1, 9, 9), dtype=torch.uint8)
    three = torch.conv2d(Input(channels=3, size=9, **IMAGENET).prepare(grey), filters)
    one = Input(channels=1, size=9, **IMAGENET).prepare(grey)
    one = torch.conv2d(one, filters.sum(1, keepdim=True))
    assert (three - one).abs().max() < 0.2 * filters.abs().sum(1).max()


@pytest.mark.parametrize(
    "wrong",
    [{"std": [0.1, 0.0, 0.1]}, {"mean": [float("nan")] * 3}, {"mean": []}, {"std": float("inf")}],
)
def test_what_no_network_expects_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Input(channels=3, size=8, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0, -1, 1.0, True, 1001])
def test_channels_are_a_whole_number_of_at_least_one(wrong: object) -> None:
    with pytest.raises(ValueError):
        Input(channels=wrong, size=8)  # type: ignore[arg-type]


def test_four_channels_take_the_mean_of_three_numbers_and_images_are_not_mixed() -> None:
    spec = Input(channels=4, size=5, **IMAGENET)
    assert spec.mean == (pytest.approx((0.485 + 0.456 + 0.406) / 3),) * 4
    images = torch.randint(0, 256, (2, 4, 5, 5), dtype=torch.uint8)
    assert torch.equal(spec.prepare(images), (images / 255 - spec.mean[0]) / spec.std[0])
    one = Input(channels=1, size=5)
    torch.testing.assert_close(one.prepare(images)[:, 0], images.float().mean(1) / 127.5 - 1)
    with pytest.raises(ValueError, match="images of 4 channels for a network of 3"):
        Input(channels=3, size=5).prepare(images)


def test_levels_with_parts_are_prepared_as_eight_bits_are() -> None:
    images = torch.randint(0, 256, (2, 3, 9, 9), dtype=torch.uint8)
    spec = Input(channels=3, size=6, **IMAGENET)
    assert torch.equal(spec.prepare(images), spec.prepare(images.float()))
