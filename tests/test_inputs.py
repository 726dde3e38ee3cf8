"""From stored images to the input of a network."""

import torch

from dollmaker.inputs import adapt_images


def test_images_become_the_networks_input() -> None:
    images = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)
    x = adapt_images(images, channels=3, size=8, mean=0.5, std=0.5)
    assert x.shape == (1, 3, 8, 8)
    torch.testing.assert_close(x, torch.ones_like(x))
