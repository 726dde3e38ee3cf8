"""TokenCut's, MaskCut's and FOUND's rules, on features with known answers."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dollmaker.attribute import cutters
from dollmaker.attribute.cutters import background_maps, found, mask_maps, maskcut, token_maps
from dollmaker.attribute.features import Features, Look, features, strength
from dollmaker.attribute.passes import Question

GRID = (8, 8)


def scene(*regions: tuple[slice, slice], noise: float = 0.0) -> Features:
    """A background along one axis, each region along its own; one head looks at the regions."""
    values = torch.zeros(*GRID, 2 + len(regions))
    values[..., 0] = 1
    for number, region in enumerate(regions, start=1):
        values[region] = 0
        values[(*region, number)] = 1 + 0.1 * number
    values[..., -1] = -0.001  # signed, like keys
    generator = torch.Generator().manual_seed(0)
    values += noise * torch.randn(values.shape, generator=generator)
    looked = (values[..., 0] < 0.5).float().reshape(1, 1, -1) + 0.01
    return Features(values=values.reshape(1, 64, -1), attention=looked, grid=GRID)


def square(*regions: tuple[slice, slice]) -> np.ndarray:
    mask = np.zeros(GRID, bool)
    for region in regions:
        mask[region] = True
    return mask


SMALL = (slice(2, 5), slice(3, 6))
OTHER = (slice(6, 8), slice(0, 2))


def test_tokencut_finds_the_object() -> None:
    (grid,) = token_maps(scene(SMALL, noise=0.05)).numpy()
    assert ((grid > 0.5) == square(SMALL)).all()
    assert grid.max() == 1 and grid.min() >= 0


def test_tokencut_keeps_the_piece_with_the_seed_only() -> None:
    two = scene(SMALL)
    values = two.values.clone().reshape(*GRID, -1)
    values[7, 7] = values[3, 4]  # the same feature, elsewhere
    (grid,) = token_maps(
        Features(values=values.reshape(1, 64, -1), attention=two.attention, grid=GRID)
    )
    mask = (grid > 0.5).numpy()
    assert (mask == square(SMALL)).all() or (mask == square((slice(7, 8), slice(7, 8)))).all()


def test_maskcut_finds_one_object_after_the_other() -> None:
    given = scene(SMALL, OTHER, noise=0.02)
    (grid,) = mask_maps(given, masks=3).numpy()
    assert (grid[SMALL] > 0.5).all() and (grid[OTHER] > 0.5).all()
    levels = sorted(np.unique(grid[grid > 0]))
    assert len(levels) >= 2 and levels[-1] == 1
    assert len(np.unique(grid[SMALL])) == 1 and len(np.unique(grid[OTHER])) == 1


def test_maskcut_turns_round_when_the_corners_are_object() -> None:
    frame = [(slice(0, 2), slice(0, 8)), (slice(6, 8), slice(0, 8)), (slice(2, 6), slice(0, 2))]
    frame.append((slice(2, 6), slice(6, 8)))
    values = torch.zeros(*GRID, 3)
    values[..., 1] = 1
    for region in frame:
        values[region] = torch.tensor([1.0, 0, 0])
    values[..., 2] = -0.001
    given = Features(values=values.reshape(1, 64, 3), attention=torch.ones(1, 1, 64), grid=GRID)
    (grid,) = mask_maps(given, masks=1).numpy()
    assert ((grid > 0.5) == square((slice(2, 6), slice(2, 6)))).all()


def test_found_takes_what_is_unlike_the_least_looked_at_place() -> None:
    (grid,) = background_maps(scene(SMALL, OTHER)).numpy()
    assert ((grid > 0.5) == square(SMALL, OTHER)).all()


def test_found_weighs_heads_by_how_few_places_they_look_at() -> None:
    given = scene(SMALL)
    sharp = given.attention
    broad = torch.rand(1, 1, 64, generator=torch.Generator().manual_seed(1)) + 1
    both = Features(values=given.values, attention=torch.cat([broad, 5 * sharp], 1), grid=GRID)
    (grid,) = background_maps(both).numpy()
    assert ((grid > 0.5) == square(SMALL)).all()


class Halves(nn.Module):
    """A convolution whose channels see bright and dark places apart."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 12, 4, stride=4, bias=False)
        self.head = nn.Linear(12, 2)
        with torch.no_grad():
            self.conv.weight[:6] = 1 / 16
            self.conv.weight[6:] = -1 / 16

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean((2, 3)))


def test_a_convolutional_network_is_enlarged_until_the_grid_is_fine() -> None:
    image = -torch.ones(2, 1, 32, 32)
    image[:, :, 8:20, 12:24] = 1
    network = Halves().eval()
    given = features(network, image)
    assert given.grid == (16, 16)  # of 8 as it is; about 14 are wanted
    assert given.attention.shape[:2] == (2, 6)
    assert features(network, image, Look(side=32)).grid == (8, 8)
    maps = found(Question(network, image, [(0, 0), (1, 1), (0, 1)], 4))
    assert maps.shape == (3, 1, 32, 32)
    assert torch.equal(maps[0], maps[2])
    masks = maskcut(Question(network, image, [(0, 0)], 4), masks=1)[0, 0] > 0.5
    truth = image[0, 0] > 0
    assert (masks & truth).sum() / (masks | truth).sum() > 0.8


def test_keys_of_a_transformer_are_those_of_its_last_attention() -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", img_size=48, num_classes=2).eval()
    images = torch.randn(2, 3, 48, 48)
    given = features(network, images)
    assert given.grid == (3, 3) and given.values.shape == (2, 9, 192)
    tokens: list[Tensor] = []
    handle = network.blocks[-1].norm1.register_forward_hook(lambda m, i, o: tokens.append(o))
    with torch.no_grad():
        network(images)
        weight, bias = network.blocks[-1].attn.qkv.weight, network.blocks[-1].attn.qkv.bias
        keys = tokens[0] @ weight[192:384].T + bias[192:384]
        query = tokens[0] @ weight[:192].T + bias[:192]
    handle.remove()
    torch.testing.assert_close(given.values, keys[:, 1:], rtol=1e-4, atol=1e-5)
    one = (query[0, 0, :64] @ keys[0, :, :64].T / 8).softmax(0)
    torch.testing.assert_close(given.attention[0, 0], one[1:], rtol=1e-4, atol=1e-5)


def test_strength_is_the_scaled_length() -> None:
    values = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [0.0, 0.0], [0.0, 3.0]]])
    given = Features(values=values, attention=torch.ones(1, 1, 4), grid=(2, 2))
    torch.testing.assert_close(strength(given), torch.tensor([[[1.0, 0.2], [0.0, 0.6]]]))


def test_after_a_dropped_mask_the_next_is_compared_with_an_empty_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cuts A, A again (dropped), and B, which overlaps with A by more than half and is kept."""
    wider = (slice(2, 5), slice(2, 6))
    vectors = iter([np.where(square(region), 1.0, -0.1) for region in (SMALL, SMALL, wider)])

    def cut(_: Tensor) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(next(vectors)).reshape(1, 64), torch.zeros(1)

    monkeypatch.setattr(cutters, "normalised_cut", cut)
    (grid,) = mask_maps(scene(SMALL, noise=0.05), masks=3).numpy()
    assert ((grid == 1) == square(SMALL)).all()
    assert ((grid > 0.5) == square(wider)).all()


def test_found_weighs_the_keys_of_each_head() -> None:
    """Two heads of one channel pair each: only the sharp one tells the object from the rest."""
    values = torch.zeros(1, 64, 4)
    values[..., 0] = 1  # the broad head: alike everywhere
    values[..., 2] = 1
    values[:, :9, 2:] = torch.tensor([0.0, 1.0])
    attention = torch.full((1, 2, 64), 0.02)
    attention[0, 0, 9:] = 1.0  # looks at most places: weighs little
    attention[0, 1, :9] = 1.0
    attention[0, 1, 40] = attention[0, 0, 40] = 0.0
    given = Features(values=values, attention=attention, grid=GRID)
    (grid,) = background_maps(given, 0.3).numpy()
    assert ((grid > 0.5).ravel() == (np.arange(64) < 9)).all()
    unweighted = torch.nn.functional.normalize(values[0], dim=-1)
    assert float(unweighted[40] @ unweighted[0]) > 0.3  # alike without the weights


def test_found_without_an_object_has_an_empty_map() -> None:
    values = torch.ones(1, 64, 4) - 2 * torch.eye(4)[0]
    given = Features(values=values, attention=torch.rand(1, 2, 64), grid=GRID)
    assert not background_maps(given).any()
