"""What is known of each pixel, from labels and released masks, inside the picture."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dollmaker.config.networks import SegmentConfig
from dollmaker.runtime.errors import ArtifactError
from dollmaker.segment.data import PseudoLabelled, list_targets, read_mask
from dollmaker.store.shards import ImageShards, ShardSeries, create_shard

# image: A, B labels; what is released of it; what must become of A and B ("m" mask, 0, 255)
CASES = [
    ("masked", 1, 0, [("A", True)], ("m", 0)),
    ("gated", 1, 0, [("A", False)], (255, 0)),
    ("half", 1, 1, [("A", True)], ("m", 255)),
    ("negative", 0, 0, [], (0, 0)),
    ("blank", None, 0, [], ("blank", 0)),
    ("uncertain", -1, 0, [("A", True)], (255, 0)),
    ("never looked at", 1, 0, [], None),
    ("nothing known", 1, -1, [("A", False)], None),
]


@pytest.fixture
def release(tmp_path: Path) -> tuple[pl.DataFrame, Path]:
    index = pl.DataFrame(
        [
            {"image_id": name, "shard": "0000", "row": i, "width": 60, "height": 60, "A": a, "B": b}
            for i, (name, a, b, _, _) in enumerate(CASES)
        ],
        schema_overrides={"A": pl.Int8, "B": pl.Int8},
    )
    rows = [(case[0], finding, kept) for case in CASES for finding, kept in case[3]]
    ids, names, kept = zip(*rows, strict=True)
    quality = np.linspace(0.2, 0.9, len(rows)).astype(np.float32)
    masks = np.stack([np.full((8, 8), n % 2, np.uint8) for n in range(len(rows))])
    masks[:, 0, : len(rows)] = np.eye(len(rows), dtype=np.uint8)
    masks[:, 7, 7] = 255
    with create_shard(tmp_path / "masks.h5", "masks", {"format": 1}) as writer:
        table = {"image_id": ids, "finding": names, "kept": kept, "quality": quality}
        writer.append(table, mask=masks)
    with create_shard(tmp_path / "0000.h5", "images", {"format": 1}) as writer:
        images = np.arange(len(CASES), dtype=np.uint8)[:, None, None, None]
        writer.append(
            {"image_id": [case[0] for case in CASES]}, image=np.tile(images, (1, 1, 8, 8))
        )
    return index, tmp_path / "masks.h5"


@pytest.mark.parametrize("blank", ["zeros", "ignore"])
def test_each_case(release: tuple[pl.DataFrame, Path], blank: str) -> None:
    index, path = release
    table = ShardSeries([path]).table()
    targets = list_targets(index, ["A", "B"], table, blank=blank, source="s")  # type: ignore[arg-type]
    data = PseudoLabelled(
        targets,
        ImageShards(path.parent),
        ShardSeries([path]),
        SegmentConfig(augment="none"),
        fit="letterbox",
        seed=0,
    )
    used = [case for case in CASES if case[4] is not None]
    assert targets.index["image_id"].to_list() == [case[0] for case in used]
    for i, (name, _, _, _, expected) in enumerate(used):
        image, masks, weights, labels, picture = data[(0, i)]
        assert picture.all()
        assert int(image[0, 0, 0]) == [case[0] for case in CASES].index(name)
        assert expected is not None
        for k, want in enumerate(expected):
            if want == "m":
                number = int(np.flatnonzero(table["image_id"] == name)[0])
                assert int(masks[k, 0, number]) == 1 and int(masks[k, 7, 7]) == 255
                assert float(weights[k]) == pytest.approx(float(table["quality"][number]))
            else:
                value = (0 if blank == "zeros" else 255) if want == "blank" else want
                assert (masks[k] == value).all()
                assert float(weights[k]) == 1
        stored = targets.index.select("A", "B").row(i)
        zero = 0.0 if blank == "zeros" else None
        for found, label in zip(labels.tolist(), stored, strict=True):
            known = {1: 1.0, 0: 0.0, None: zero}.get(label)
            assert np.isnan(found) if known is None else found == known


def test_every_image_is_kept_for_its_structure(release: tuple[pl.DataFrame, Path]) -> None:
    index, path = release
    table = ShardSeries([path]).table()
    known = {"blank": "ignore", "source": "s"}
    some = list_targets(index, ["A", "B"], table, **known)  # type: ignore[arg-type]
    every = list_targets(index, ["A", "B"], table, everything=True, **known)  # type: ignore[arg-type]
    assert len(some) < len(every) == len(index)
    left_out = every.index.join(some.index, on="image_id", how="anti")["image_id"].to_list()
    rows = [i for i, name in enumerate(every.index["image_id"]) if name in left_out]
    assert (every.row[rows] == -1).all()


def test_other_grid_is_refused(release: tuple[pl.DataFrame, Path]) -> None:
    _, path = release
    with pytest.raises(ArtifactError, match="8 pixels wide, images 16"):
        read_mask(ShardSeries([path]), 0, 16)


def test_missing_quality_is_refused(release: tuple[pl.DataFrame, Path]) -> None:
    index, path = release
    table = ShardSeries([path]).table()
    del table["quality"]
    with pytest.raises(ArtifactError, match="no column 'quality'"):
        list_targets(index, ["A"], table, blank="zeros", source="s")


@pytest.mark.parametrize("fit", ["letterbox", "resize", "crop"])
@pytest.mark.parametrize("kind", ["none", "flip"])
def test_outside_the_picture_nothing_is_taught(
    release: tuple[pl.DataFrame, Path], fit: Any, kind: Any
) -> None:
    index, path = release
    wide = index.with_columns(width=pl.lit(80), height=pl.lit(40))  # rows 2 to 5 of 8
    table = ShardSeries([path]).table()
    targets = list_targets(wide, ["A", "B"], table, blank="zeros", source="s")
    data = PseudoLabelled(
        targets, ImageShards(path.parent), ShardSeries([path]),
        SegmentConfig(augment=kind, quality_weight=False), fit=fit, seed=0,
    )  # fmt: skip
    bars = [0, 1, 6, 7] if fit == "letterbox" else []
    rows = [row for row in range(8) if row not in bars]
    before = list_targets(index, ["A", "B"], table, blank="zeros", source="s")
    square = PseudoLabelled(
        before, ImageShards(path.parent), ShardSeries([path]),
        SegmentConfig(augment=kind, quality_weight=False), fit="resize", seed=0,
    )  # fmt: skip
    places = set()
    for i in range(len(data)):
        stored, whole = data.read(i)[1], square.read(i)[1]
        assert (stored[:, bars] == 255).all()
        np.testing.assert_array_equal(stored[:, rows], whole[:, rows])
        for epoch in range(5):
            _, masks, _, _, picture = data[(epoch, i)]
            moved = square[(epoch, i)][1]
            np.testing.assert_array_equal(masks[:, picture], moved[:, picture])
            # Bars are unknown, what augmentation moved in is background.
            assert ((masks[:, ~picture] == 255) | (masks[:, ~picture] == 0)).all()
            assert kind == "flip" or (masks[:, ~picture] == 255).all()
            places.add(tuple(picture.flatten().tolist()))
    plain = np.zeros((8, 8), bool)
    plain[rows] = True
    assert kind == "flip" or places == {tuple(plain.ravel().tolist())}
