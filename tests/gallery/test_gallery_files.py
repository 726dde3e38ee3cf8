"""The folder: sheets, page, the same bytes for the same input."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dollmaker.gallery import page
from dollmaker.gallery.page import Content, write_gallery
from dollmaker.gallery.sprites import Sheets, as_heat, as_image, write_sheets
from dollmaker.runtime.errors import DataError
from gallery.fake_pairs import counting, make_others, make_rows, picture, relevance

WORDS: dict[str, Any] = {"title": "A <b>title</b>", "version": "1.0.0", "source": "S & <i>T</i>"}


def files(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def facts_of(folder: Path) -> dict[str, Any]:
    text = (folder / "data/pairs.js").read_text()
    found: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return found


def test_same_input_same_bytes(tmp_path: Path) -> None:
    rows = make_rows()
    for name, given in (("a", rows), ("b", rows.reverse())):
        shown = {"picture": picture, "relevance": relevance, "others": make_others(rows)}
        write_gallery(given, tmp_path / name, Content(**WORDS, **shown))
    one, two = files(tmp_path / "a"), files(tmp_path / "b")
    assert one == two
    assert set(one) == {
        "index.html",
        "data/pairs.js",
        "data/masks-0000.js",
        *(f"sheets/image-small-{k:04d}.jpg" for k in range(2)),
        *(f"sheets/relevance-small-{k:04d}.jpg" for k in range(4)),
    }
    assert all(b"<" not in content for name, content in one.items() if name.endswith(".js"))


def test_each_image_is_read_once_and_its_cell_holds_it(tmp_path: Path) -> None:
    calls: list[Any] = []
    content = Content(picture=counting(picture, calls), **WORDS)
    write_gallery(make_rows(), tmp_path / "g", content)
    facts = facts_of(tmp_path / "g")
    assert sorted(calls) == sorted((name,) for name in facts["images"])
    sheet = facts["pictures"]["image"]
    assert facts["pictures"]["relevance"] is None
    assert sheet["count"] == 59 and sheet["small"] == {"side": 32, "pitch": 48, "columns": 6}
    for name, slot in zip(facts["images"], sheet["slots"], strict=True):
        expected = picture(name)
        if expected is None:
            assert slot == -1
            continue
        number, cell = divmod(slot, 36)
        with Image.open(tmp_path / f"g/sheets/image-small-{number:04d}.jpg") as opened:
            y, x = divmod(cell, 6)
            shown = np.asarray(opened)[y * 48 : y * 48 + 32, x * 48 : x * 48 + 32]
        assert np.abs(shown.astype(int) - int(expected[0, 0, 0])).max() <= 3


def test_no_picture_no_sheet(tmp_path: Path) -> None:
    write_gallery(make_rows(), tmp_path / "g", Content(**WORDS))
    assert facts_of(tmp_path / "g")["pictures"] == {"image": None, "relevance": None}
    write_gallery(make_rows(), tmp_path / "h", Content(picture=lambda _: None, **WORDS))
    assert files(tmp_path / "g") == files(tmp_path / "h")
    assert not (tmp_path / "g/sheets").exists()


def test_large_pictures_have_sheets_of_their_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (17, 3, 200, 200), dtype=np.uint8)
    found = write_sheets(tmp_path, "image", range(17), lambda k: pictures[k], as_image)
    assert found is not None and found["large"] == {"side": 200, "pitch": 208, "columns": 4}
    assert found["small"] == {"side": 128, "pitch": 144, "columns": 6}
    sizes = {p.name: Image.open(p).size for p in tmp_path.iterdir()}
    assert sizes == {
        "image-small-0000.jpg": (864, 432),
        "image-large-0000.jpg": (832, 832),
        "image-large-0001.jpg": (208, 208),
    }
    assert Image.open(tmp_path / "image-large-0000.jpg").mode == "RGB"


def test_a_cells_border_goes_on_to_its_edge(tmp_path: Path) -> None:
    sheets = Sheets(tmp_path / "x", 30, 2, 95)
    for grey in (200, 40):
        sheets.add(Image.new("L", (30, 30), grey))
    assert sheets.close() == {"side": 30, "pitch": 32, "columns": 2}
    pixels = np.asarray(Image.open(tmp_path / "x-0000.jpg")).astype(int)
    assert pixels.shape == (32, 64)
    assert np.abs(pixels[:, :32] - 200).max() <= 1 and np.abs(pixels[:, 32:] - 40).max() <= 1


def test_channels() -> None:
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert as_image(grey, "x").mode == "L"
    assert as_image(np.stack([grey] * 3), "x").mode == "L"
    assert (np.asarray(as_image(np.stack([grey, 0 * grey]), "x")) == grey).all()
    colours = np.asarray(as_image(np.stack([grey, 2 * grey, 0 * grey]), "x"))
    assert colours.shape == (4, 4, 3) and (colours[..., 1] == 2 * grey).all()
    heat = np.asarray(as_heat(np.array([[0, 255], [128, 0]], np.uint8), "x")).astype(int)
    assert heat[0, 0].sum() < heat[1, 0].sum() < heat[0, 1].sum()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 5), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 0), np.uint8),
    ],
)
def test_wrong_pixels_are_named(pixels: Any) -> None:
    with pytest.raises(DataError, match=r"the image of 'i' is \w+ \(.*; give uint8 of a square"):
        as_image(pixels, "image of 'i'")
    with pytest.raises(DataError, match="the map"):
        as_heat(pixels, "map")


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        content = Content(picture=lambda _: np.zeros((2, 3), np.uint8), **WORDS)
        write_gallery(make_rows(), tmp_path / "g", content)
    assert list(tmp_path.iterdir()) == []


def test_the_page_says_how_many_were_drawn(tmp_path: Path) -> None:
    write_gallery(make_rows(), tmp_path / "g", Content(**WORDS), limit=10)
    facts = facts_of(tmp_path / "g")
    assert facts["total"] == 120 and len(facts["image"]) == 10


@pytest.mark.parametrize("failed", [True, False])
def test_the_header_says_what_the_sanity_checks_say(failed: bool) -> None:
    text = page.render(Content(**WORDS, sanity="ignores <i>it</i>", failed=failed))
    header = text[text.index("<header") : text.index("</header>")]
    assert "ignores &lt;i&gt;it&lt;/i&gt;</p>" in header
    assert ("Sanity check failed" in header) == ('class="sanity failed"' in header) == failed
    assert "anity" not in page.render(Content(**WORDS)).split("</style>")[1].split("<script>")[0]


def test_the_policy_names_the_script_and_style_by_hash_and_no_network() -> None:
    text = page.render(Content(**WORDS))
    assert "A &lt;b&gt;title&lt;/b&gt;" in text and "S &amp; &lt;i&gt;T&lt;/i&gt;" in text
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    for tag in ("script", "style"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert body is not None
        digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
        assert f"{tag}-src" in policy[1] and f"sha256-{digest}" in policy[1].replace("&#43;", "+")
    assert policy[1].startswith("default-src &#39;none&#39;;")
    assert not re.search(r"https?:|unsafe|\*|connect-src|data:", policy[1])
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|eval\(|fetch\(|https?://", text)
    assert not re.search(r"\son\w+=|\sstyle=", text.split("<script>")[0].split("</style>")[1])
