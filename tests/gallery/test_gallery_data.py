"""What the page is told: order, codes, escapes, blocks."""

import json
from typing import Any

import polars as pl
import pytest

from dollmaker.gallery import data
from dollmaker.store import rle
from gallery.fake_pairs import FINDINGS, HOSTILE, make_others, make_rows


def value_of(text: str) -> Any:
    """What a script hands over."""
    assert text.startswith("dollmakerGallery(") and text.endswith(");\n")
    return json.loads("[" + text[len("dollmakerGallery(") : -3] + "]")[2]


def test_a_script_holds_no_markup_and_only_ascii() -> None:
    value = {"a": [HOSTILE, "</script>", "<!--", "\u2028", "é"], "b": [1, None, 0.25]}
    text = data.script("pairs", 0, value)
    assert "<" not in text and text.isascii()
    assert value_of(text) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        data.script("pairs", 0, float("nan"))


def test_pairs_come_in_falling_quality_and_unknown_quality_last() -> None:
    rows = make_rows(4).with_columns(
        quality=pl.Series([0.5, float("nan"), 0.9, 0.5, None, 0.1, 0.2, 0.3], dtype=pl.Float32)
    )
    shown = data.arrange(rows, 100)
    known = shown["quality"].fill_nan(None).drop_nulls().to_list()
    assert known == sorted(known, reverse=True) and len(known) == 6
    assert shown["quality"].fill_nan(None)[-2:].to_list() == [None, None]
    assert data.arrange(rows.reverse(), 100).equals(shown)


def test_too_many_pairs_are_drawn_the_same_way_whatever_their_order() -> None:
    rows = make_rows(40)
    few = data.arrange(rows, 30)
    assert len(few) == 30 and few.equals(data.arrange(rows.sample(fraction=1, shuffle=True), 30))
    more = data.arrange(rows, 31)
    assert len(few.join(more, on=["image_id", "finding"])) == 30
    drawn = few["quality"].mean()
    assert isinstance(drawn, float) and 0.3 < drawn < 0.7


def test_columns_are_codes_of_short_lists() -> None:
    rows = data.arrange(make_rows(), 1000)
    facts = data.pairs(rows, total=500, recipes=["corner"])
    assert facts["findings"] == sorted(FINDINGS) and facts["splits"] == ["train", "valid", "test"]
    assert facts["sources"] == ["root/a", "root/b", "root/c"]
    assert facts["total"] == 500 and facts["recipes"] == ["corner"]
    for k, row in enumerate(rows.iter_rows(named=True)):
        assert facts["images"][facts["image"][k]] == row["image_id"]
        assert facts["findings"][facts["finding"][k]] == row["finding"]
        assert facts["splits"][facts["split"][k]] == row["split"]
        assert facts["area"][k] == pytest.approx(row["area"] / 1024, abs=1e-5)
        assert facts["quality"][k] == pytest.approx(row["quality"], abs=1e-4)
    assert len(facts["images"]) == 60


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a/x.png", "b/y.png"], ["a", "b"]),
        (["r/a/1/x.png", "r/b/2/y.png"], ["r/a", "r/b"]),
        (["x.png", "sub/y.png"], [".", "sub"]),
        (["r/x.png", "r/y.png"], ["", ""]),
        ([f"p{k}/x.png" for k in range(60)], [""] * 60),
        ([], []),
    ],
)
def test_a_source_is_the_first_folder_at_which_paths_differ(
    paths: list[str], expected: list[str]
) -> None:
    assert data.sources(paths) == expected


def test_blocks_hold_every_mask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "BLOCK", 50)
    rows = data.arrange(make_rows(), 1000)
    blocks = dict(data.details(rows, make_others(rows)))
    assert sorted(blocks) == [0, 1, 2] and len(blocks[2]["counts"]) == 20
    counts = [code for k in sorted(blocks) for code in blocks[k]["counts"]]
    areas = [int(rle.decode(code, 32, 32).sum()) for code in counts]
    assert areas == rows["area"].to_list()
    assert blocks[0]["completeness"][0] is None and blocks[0]["probability"][0] == 0.75
    (corner,) = [blocks[0]["others"][0]]
    assert corner["counts"][0] is None and corner["quality"][0] is None
    assert rle.decode(corner["counts"][1], *corner["size"][1]).sum() == 256
    text = data.script("masks", 0, blocks[0])
    assert value_of(text) == json.loads(json.dumps(blocks[0]))


def test_a_gallery_of_nothing_is_well_formed() -> None:
    rows = make_rows(0)
    facts = data.pairs(data.arrange(rows, 10), total=0, recipes=[])
    assert facts["images"] == [] and facts["findings"] == []
    assert list(data.details(rows, {})) == []


def test_bounds_are_told_only_with_their_confidence() -> None:
    rows = make_rows(2).with_columns(
        iou_bound=pl.Series([0.42, None, 0.0, 0.1234], dtype=pl.Float32)
    )
    facts = data.pairs(rows, total=4, recipes=[], confidence=0.9)
    assert facts["bound"] == [0.42, None, 0.0, 0.1234] and facts["confidence"] == 0.9
    plain = data.pairs(rows, total=4, recipes=[])
    assert "bound" not in plain and "confidence" not in plain
    assert data.pairs(make_rows(2), total=4, recipes=[]) == plain
