"""Where pictures lie in their squares: cells of grids, baselines, noise, features; with loops."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torchvision.transforms.v2 import functional

from attribute.test_cutters import GRID, SMALL, scene, square
from dollmaker.attribute.baselines import BASELINES, make_baseline
from dollmaker.attribute.committee import noisy_copies
from dollmaker.attribute.consensus import smooth
from dollmaker.attribute.cutters import background_maps, mask_maps, token_maps
from dollmaker.attribute.features import Features, of_pictures, strength
from dollmaker.config.masks import NoiseConfig
from dollmaker.networks.frames import WHOLE, Frames, frames_of
from dollmaker.pixels.geometry import Box, box, inside

SIZE = 40
#: Width and height of sources: wide, tall, square, and thinner than a cell of most grids.
SOURCES = [(400, 300), (211, 400), (50, 50), (400, 9)]


def index() -> pl.DataFrame:
    return pl.DataFrame(SOURCES, ["width", "height"], orient="row")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def boxed() -> Frames:
    return frames_of(index(), SIZE, "letterbox")


def test_only_a_letterbox_has_boxes() -> None:
    assert frames_of(index(), SIZE, "resize").boxes is None
    assert frames_of(index(), SIZE, "crop").boxes is None
    assert boxed().boxes == tuple(box(*sides, SIZE, "letterbox") for sides in SOURCES)
    assert boxed().of([2, 0]).boxes == ((0, 0, 40, 40), (0, 5, 40, 35))


@pytest.mark.parametrize("grid", [(40, 40), (7, 7), (14, 14), (5, 9), (64, 64), (1, 1)])
def test_a_cell_is_picture_when_at_least_half_of_it_is(grid: tuple[int, int]) -> None:
    frames = boxed()
    points = 40320  # of a side: as many in each cell of every grid
    fine = np.arange(points) * SIZE / points
    found = frames.inside(grid, torch.device("cpu")).numpy()
    for row, (left, top, right, bottom) in enumerate(frames.boxes or ()):
        shares = []
        for start, stop, cells in ((top, bottom, grid[0]), (left, right, grid[1])):
            within = ((fine >= start) & (fine < stop)).reshape(cells, -1).mean(1)
            shares.append(within >= 0.5 if (within >= 0.5).any() else within == within.max())
        np.testing.assert_array_equal(found[row], shares[0][:, None] & shares[1])


def test_outside_maps_are_cut_or_go_on_with_the_edge() -> None:
    frames, maps = boxed(), noise(4, SIZE, SIZE)
    cut, repeated = frames.cut(maps), frames.repeat_edges(maps)
    for row, (left, top, right, bottom) in enumerate(frames.boxes or ()):
        for y in range(SIZE):
            for x in range(SIZE):
                within = top <= y < bottom and left <= x < right
                near = maps[row, min(max(y, top), bottom - 1), min(max(x, left), right - 1)]
                assert cut[row, y, x] == (maps[row, y, x] if within else 0)
                assert repeated[row, y, x] == near
    assert frames.cut(maps > 0.5).dtype == torch.bool
    assert WHOLE.cut(maps) is maps and WHOLE.repeat_edges(maps) is maps


def test_a_mirrored_square_has_its_picture_on_the_other_side() -> None:
    frames = boxed()
    there = frames.mirrored().inside((SIZE, SIZE), torch.device("cpu"))
    assert torch.equal(there.flip(-1), frames.inside((SIZE, SIZE), torch.device("cpu")))
    assert torch.equal(
        WHOLE.mirrored().inside((3, 4), torch.device("cpu")), torch.ones(1, 3, 4, dtype=torch.bool)
    )


def test_smoothing_knows_the_picture_only() -> None:
    frames, maps = boxed(), noise(4, SIZE, SIZE)
    found = smooth(frames.repeat_edges(maps), 2.5)
    for row, where in enumerate(frames.boxes or ()):
        part = inside(maps[row].numpy(), where)
        wanted = ndimage.gaussian_filter(part, 2.5, mode="nearest")
        np.testing.assert_allclose(inside(found[row].numpy(), where), wanted, rtol=1e-5)
    assert torch.equal(found[2], smooth(maps, 2.5)[2])  # a full box: not a bit is another


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_baseline_is_the_image_outside_and_knows_the_picture_only(name: str) -> None:
    frames, mean = boxed(), torch.tensor([10.0, 20.0, 30.0])
    images = (255 * noise(4, 3, SIZE, SIZE)).round()
    others = (255 * noise(4, 3, SIZE, SIZE, seed=1)).round()  # in the bars
    picture = frames.inside((SIZE, SIZE), images.device)[:, None]
    made = make_baseline(name, images, mean, frames)
    assert torch.equal(made.where(~picture, 0), images.where(~picture, 0))
    again = make_baseline(name, images.where(picture, others), mean, frames)
    assert torch.equal(made.where(picture, 0), again.where(picture, 0))
    assert torch.equal(made[1:2], make_baseline(name, images[1:2], mean, frames.of([1])))
    for row, where in enumerate((frames.boxes or ())[:3]):
        wanted = plain_baseline(name, inside(images[row], where), mean)
        torch.testing.assert_close(inside(made[row], where), wanted)
    full = make_baseline(name, images[2:3], mean, WHOLE)
    assert torch.equal(made[2:3], full)  # a full box: not a bit is another
    shared = name in ("black", "white", "mean")
    assert len(make_baseline(name, images, mean, WHOLE)) == (1 if shared else 4)


def plain_baseline(name: str, picture: Tensor, mean: Tensor) -> Tensor:
    if name == "blur":
        blurred: Tensor = functional.gaussian_blur(picture[None], [11, 11], [2.5, 2.5])[0]
        return blurred
    edge = torch.ones(picture.shape[1:], dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    levels = {
        "border": torch.stack([channel[edge].median() for channel in picture]),
        "black": torch.zeros(3),
        "white": torch.full((3,), 255.0),
        "mean": mean,
        "median": torch.stack([channel.flatten().median() for channel in picture]),
    }
    return levels[name][:, None, None].expand_as(picture)


def test_noise_and_its_strength_are_of_the_picture() -> None:
    frames = boxed()
    images = noise(4, 1, SIZE, SIZE)
    picture = frames.inside((SIZE, SIZE), images.device)[:, None]
    images = images.where(picture, -5.0)  # a bar far from the picture's values
    names = list("abcd")
    (copy,) = noisy_copies(images, names, NoiseConfig(samples=1, stdev=0.2), 0, frames)
    assert torch.equal(copy.where(~picture, 0), images.where(~picture, 0))
    (plain,) = noisy_copies(images[2:3], ["c"], NoiseConfig(samples=1, stdev=0.2), 0)
    assert torch.equal(copy[2:3], plain)
    added = inside((copy - images)[0, 0], (frames.boxes or ())[0])
    values = inside(images[0, 0], (frames.boxes or ())[0])
    assert float(added.std()) == pytest.approx(0.2 * float(values.max() - values.min()), rel=0.1)


def framed(given: Features, where: Box, grid: tuple[int, int], bars: Tensor) -> Features:
    """A scene as the picture of a larger grid, with features of bars around it."""
    values = bars.expand(1, *grid, given.values.shape[-1]).clone()
    left, top, right, bottom = where
    values[:, top:bottom, left:right] = given.values.reshape(1, *given.grid, -1)
    attention = torch.zeros(1, 1, *grid)  # FOUND would take a bar for its background
    attention[..., top:bottom, left:right] = given.attention.reshape(1, 1, *given.grid)
    return Features(values=values.flatten(1, 2), attention=attention.flatten(2), grid=grid)


RULES: list[Callable[[Features], Tensor]] = [token_maps, mask_maps, background_maps, strength]


@pytest.mark.parametrize("rule", RULES)
def test_bars_are_no_nodes(rule: Callable[[Features], Tensor]) -> None:
    given = scene(SMALL, noise=0.05)
    tall, where = (16, 8), (0, 4, 8, 12)
    frames = Frames(((0, 4, 16, 12), (0, 4, 16, 12)), 16)
    bars = [torch.tensor([0.0, 0.0, 3.0]), noise(*tall, 3, seed=5)]
    both = [framed(given, where, tall, each) for each in bars]
    together = Features(
        values=torch.cat([one.values for one in both]),
        attention=torch.cat([one.attention for one in both]),
        grid=tall,
    )
    found = of_pictures(together, frames, rule)
    assert torch.equal(inside(found[0], where), rule(given)[0])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0, :4], found[0, 4:5].expand(4, -1))  # the edge goes on
    assert not torch.equal(inside(rule(both[0])[0], where), rule(given)[0])  # as nodes they matter
    assert torch.equal(of_pictures(together, WHOLE, rule), rule(together))


def test_corners_are_those_of_the_picture() -> None:
    """MaskCut turns a cut round that holds the corners, here of the picture inside bars."""
    around = ~square((slice(2, 6), slice(2, 6)))
    values = torch.zeros(*GRID, 3)
    values[..., 1], values[..., 2] = 1, -0.001
    values[torch.from_numpy(around)] = torch.tensor([1.0, 0, 0])
    given = Features(values=values.reshape(1, 64, 3), attention=torch.ones(1, 1, 64), grid=GRID)
    inner = framed(given, (4, 0, 12, 8), (8, 16), torch.tensor([0.0, 1.0, 0.0]))
    frames = Frames(((4, 0, 12, 16),), 16)
    found = of_pictures(inner, frames, lambda one: mask_maps(one, masks=1))[0]
    assert ((inside(found, (4, 0, 12, 8)) > 0.5).numpy() == ~around).all()
