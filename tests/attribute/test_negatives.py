"""Images without the finding as baselines, and what is brighter than they are."""

import polars as pl
import pytest
import torch
from torch import Tensor, nn

from dollmaker.attribute.baselines import put_negative
from dollmaker.attribute.committee import Committee, Setup
from dollmaker.attribute.selection import draw_negatives
from dollmaker.config.masks import MapsConfig
from dollmaker.networks.frames import WHOLE, Frames
from dollmaker.networks.inputs import Input
from dollmaker.networks.member import Member
from dollmaker.runtime.errors import DataError

SIZE = 16


class Linear(nn.Module):
    """Logits that are sums of weighted pixels, so that integrated gradients are known."""

    def __init__(self) -> None:
        super().__init__()
        drawn = torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
        self.weight = nn.Parameter(drawn, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, None] * self.weight).sum((2, 3, 4))


def pictures(count: int, seed: int) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, SIZE, SIZE), generator=drawn).float()


def committee(negatives: list[Tensor], **options: object) -> tuple[Committee, Tensor]:
    spec, network = Input(channels=1, size=SIZE), Linear().eval()
    member = Member(name="m", network=network, findings=["a", "b"], input=spec)
    setup = Setup(channel_mean=torch.tensor([99.0]), size=SIZE, chunk=4, negatives=negatives)
    maps = {"baselines": ["negatives"], "reduction": "brighter", "smoothing": 0.0, "nodes": 2}
    return Committee([member], MapsConfig(**{**maps, **options}), setup), network.weight


@pytest.mark.parametrize("adaptive", [None, {"criterion": "completeness", "target": 0.5}])
def test_brighter_is_the_rule_written_out(adaptive: object) -> None:
    images, negatives = pictures(2, 3), list(pictures(3, 4))
    experts, weight = committee(negatives, adaptive=adaptive)
    found = experts.explain(images, ["p", "q"], [(0, 1), (1, 0)])
    spec = Input(channels=1, size=SIZE)
    x, starts = spec.prepare(images), spec.prepare(torch.stack(negatives))
    for place, (row, output) in enumerate([(0, 1), (1, 0)]):
        each = [(weight[output] * (x[row] - b)).clamp(min=0) * (x[row] > b) for b in starts]
        wanted = torch.stack(each).mean(0)[0]
        scale = found.consensus.scale[place]
        torch.testing.assert_close(found.consensus.maps[place] * scale, wanted)
        assert not found.consensus.maps[place][
            (images[row] <= torch.stack(negatives)).all(0)[0]
        ].any()
    assert (found.completeness < 1e-4).all()  # of the whole attributions


def test_baselines_are_mirrored_with_the_image() -> None:
    images, frames = pictures(2, 5), Frames(((0, 3, 16, 12), (2, 0, 14, 16)), SIZE)
    experts, _ = committee(list(pictures(2, 6)), baselines=["negatives", "mean"])
    plain = experts.baselines(images, frames)
    turned = experts.baselines(images.flip(-1), frames.mirrored(), turned=True)
    assert len(plain) == 3
    for one, other in zip(plain, turned, strict=True):
        back = other.flip(-1).expand_as(images)
        torch.testing.assert_close(back, one.expand_as(images), rtol=0, atol=1e-3)  # of 255


def test_negatives_fill_the_picture_and_leave_the_bars() -> None:
    images, frames = pictures(1, 7), Frames(((0, 3, 16, 12),), SIZE)
    found = put_negative(torch.full((1, 5, 9), 40.0), images, frames)
    assert (found[0, 0, 3:12] == 40).all()
    assert found[0, 0, :3].equal(images[0, 0, :3]) and found[0, 0, 12:].equal(images[0, 0, 12:])
    assert (put_negative(torch.full((1, 5, 9), 40.0), images, WHOLE) == 40).all()


def index(**labels: list[int | None]) -> pl.DataFrame:
    count = len(next(iter(labels.values())))
    rows = {
        "image_id": [f"i{k}" for k in range(count)],
        "split": ["train"] * (count - 1) + ["test"],
    }
    return pl.DataFrame(rows | labels)


def test_negatives_are_training_images_without_the_findings() -> None:
    table = index(a=[0, 1, 0, None, 0, 0], b=[0, 0, 1, None, None, 0])
    assert draw_negatives(table, ["a", "b"], 6, 0)["image_id"].to_list() == ["i0", "i4"]
    assert draw_negatives(table, ["a"], 6, 0)["image_id"].to_list() == ["i0", "i2", "i4"]
    few = draw_negatives(table, ["a"], 2, 0)["image_id"].to_list()
    assert len(few) == 2 and few == draw_negatives(table, ["a"], 2, 0)["image_id"].to_list()


def test_images_of_which_nothing_is_known_are_the_last_resort() -> None:
    table = index(a=[1, None, 1, 0])
    assert draw_negatives(table, ["a"], 6, 0)["image_id"].to_list() == ["i1"]
    with pytest.raises(DataError, match="every training image has one of a, so that"):
        draw_negatives(index(a=[1, 1, 0]), ["a"], 6, 0)
