"""Augmentation: image and masks move alike, and what comes from beyond the square is background."""

import pytest
import torch
from torchvision.transforms import v2

from dollmaker.networks.augment import Kind, _Exposure, augment, make_transform
from dollmaker.pixels.masks import IGNORE


@pytest.mark.parametrize("kind", ["geometric", "flip"])
def test_masks_move_with_the_image_and_the_rim_is_background(kind: Kind) -> None:
    transform, outside, kept = make_transform(kind), 0, 0
    image = torch.full((1, 40, 40), 200, dtype=torch.uint8)
    masks = torch.ones(2, 40, 40, dtype=torch.uint8)
    masks[1, 10:30, 10:30] = IGNORE
    for index in range(20):
        moved, target = augment(transform, image, masks, seed=0, epoch=0, index=index)
        assert target is not None
        empty = moved[0] == 0
        # Nothing is to be seen there, so nothing is there: it is taught, not passed over.
        assert (target[:, empty] == 0).all()
        # Bilinear pixels at the border are part of both; all others are alike.
        assert ((target[0] == 1) | empty | (moved[0] < 150)).all()
        outside += int(empty.sum())
        kept += int((target[1] == IGNORE).sum())
    assert outside > 500  # of 20 images of 1600 pixels
    assert 0.8 * 20 * 400 < kept < 1.25 * 20 * 400  # pixels that were unknown stay so


def test_the_same_numbers_give_the_same_picture() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8, generator=generator)
    transform = make_transform("flip")

    def picture(seed: int, index: int) -> torch.Tensor:
        return augment(transform, image, None, seed=seed, epoch=1, index=index)[0]

    assert torch.equal(picture(1, 2), picture(1, 2))
    assert not torch.equal(picture(1, 2), picture(1, 3))
    assert torch.equal(
        augment(make_transform("none"), image, None, seed=0, epoch=0, index=0)[0], image
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_levels_with_parts_are_augmented_as_eight_bits_are(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(40, 160, (channels, 20, 20), dtype=torch.uint8, generator=generator)
    transform = make_transform("flip")
    for index in range(5):
        one, _ = augment(transform, image, None, seed=0, epoch=0, index=index)
        other, _ = augment(transform, image.float(), None, seed=0, epoch=0, index=index)
        assert one.shape == image.shape and other.dtype == torch.float32
        # Of 8 bits torchvision cuts parts off in each of three steps, and contrast enlarges.
        assert (one.float() - other).abs().max() < 4 and not torch.equal(one, image)


def test_contrast_of_any_channels_is_that_around_the_mean_of_all() -> None:
    image = torch.rand(4, 9, 9, generator=torch.Generator().manual_seed(0)) * 100 + 50
    jitter = v2.Compose([_Exposure(contrast=(1.5, 1.5))])
    changed, _ = augment(jitter, image, None, seed=0, epoch=0, index=0)
    wanted = image.mean() + 1.5 * (image - image.mean())
    torch.testing.assert_close(changed, wanted.clamp(0, 255), rtol=1e-4, atol=1e-3)
    copies = image[:1].expand(4, -1, -1)
    alone, _ = augment(jitter, image[:1], None, seed=0, epoch=0, index=0)
    several, _ = augment(jitter, copies, None, seed=0, epoch=0, index=0)
    torch.testing.assert_close(several, alone.expand(4, -1, -1), rtol=1e-5, atol=1e-3)
