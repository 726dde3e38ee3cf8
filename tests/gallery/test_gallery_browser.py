"""The page in a browser: what a reader does, and that nothing is taken for markup."""

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from dollmaker.gallery import data
from gallery.chromium import Page
from gallery.fake_pairs import FINDINGS, HOSTILE, make_rows

ROWS = data.arrange(make_rows(), 1000)


def opened(page: Page) -> bool:
    return bool(page.js("return document.getElementById('large').open"))


def title(page: Page) -> tuple[str, str]:
    """Finding and image of the large view."""
    image = page.js(
        "return [...document.querySelectorAll('#facts dt')].find(d => d.textContent === 'Image')"
        ".nextSibling.textContent"
    )
    return page.text("#large-title"), str(image)


def test_it_shows_all_pairs_from_the_best_with_pictures_and_masks(full: Page) -> None:
    full.open()
    assert full.text("#count") == "120 pairs" and full.text("h1") == "Gallery <i>one</i>"
    tiles = full.tiles()
    assert 12 <= len(tiles) < 120  # only those near the window
    best = ROWS.head(len(tiles))
    assert [t["id"] for t in tiles] == best["image_id"].to_list()
    assert [t["finding"] for t in tiles] == best["finding"].to_list()
    assert [t["quality"] for t in tiles] == [f"{q:.2f}" for q in best["quality"]]
    assert full.ink() > 0
    shown = full.js(
        "return [...document.querySelectorAll('.tile img')].every(i => i.naturalWidth > 0 &&"
        " getComputedStyle(i).visibility === 'visible')"
    )
    assert shown is True


def test_scrolling_makes_tiles_and_drops_them(full: Page) -> None:
    full.open()
    count = len(full.tiles())
    full.js("scrollTo(0, document.body.scrollHeight)")
    last = ROWS.row(-1, named=True)["image_id"]
    full.wait(lambda: full.tiles()[-1]["id"] == last)
    full.settle()
    assert len(full.tiles()) <= count + 12 and full.tiles()[0]["id"] != ROWS["image_id"][0]
    assert full.js("return document.querySelectorAll('.cell').length") < 120
    full.until("return [...document.querySelectorAll('.tile img')].some(i => !i.hidden)")


def test_filters(full: Page) -> None:
    full.open()
    full.click(".finding:nth-child(1) input")
    assert full.text("#count") == "60 of 120 pairs"
    assert {t["finding"] for t in full.tiles()} == {sorted(FINDINGS)[0]}
    full.click("#splits button:nth-child(3)")
    assert full.text("#count") == "15 of 120 pairs"
    full.set("#source", "root/b")
    expected = ROWS.filter(finding="Edema", split="test")
    wanted = [i for i, p in expected.select("image_id", "path").iter_rows() if "root/b" in p]
    assert [t["id"] for t in full.tiles()] == wanted and len(wanted) == 5
    full.click("#reset")
    assert full.text("#count") == "120 pairs"
    full.set("#low", "0.25")
    full.set("#high", "0.5")
    assert full.text("#count") == "30 of 120 pairs"
    assert full.text("#quality-text") == "0.25 to 0.50"
    full.set("#low", "0.75")  # not beyond the other end
    assert full.text("#quality-text") == "0.50 to 0.50"
    full.click("#reset")
    full.set("#find", "E00")
    ids = {t["id"] for t in full.tiles()}
    assert ids == {f"image00{k}" for k in range(10) if k != 7}
    full.set("#find", "nowhere")
    assert full.tiles() == [] and full.text("#count") == "0 of 120 pairs"
    assert full.js("return document.getElementById('empty').offsetHeight") > 0
    full.click("#empty-reset")
    assert full.text("#count") == "120 pairs"


def test_sorts_in_both_directions(full: Page) -> None:
    full.open()
    for name, key, sign in (
        ("quality", "quality", 1),
        ("quality-", "quality", -1),
        ("area", "area", 1),
        ("area-", "area", -1),
    ):
        full.set("#sort", name)
        values = [float(t[key].removesuffix(" %")) * sign for t in full.tiles()]
        assert values == sorted(values) and len(values) > 10 and values[0] != values[-1]


def test_a_bar_of_a_histogram_filters_and_clears(full: Page) -> None:
    full.open()
    heights = full.js(
        "return [...document.querySelectorAll('.finding:nth-child(1) .bars i')]"
        ".map(i => parseFloat(i.style.height))"
    )
    assert len(heights) == 20 and heights[0] == 100 and min(heights) > 0
    full.click(".finding:nth-child(2) .bars button:nth-child(11)")
    low, high = 0.5, 0.55
    expected = [
        i
        for i, q in ROWS.filter(finding=FINDINGS[1]).select("image_id", "quality").iter_rows()
        if low <= q < high
    ]
    assert [t["id"] for t in full.tiles()] == expected and len(expected) == 3
    bar = ".finding:nth-child(2) .bars button:nth-child(11)"
    assert full.js("return document.querySelector(arguments[0]).ariaPressed", bar) == "true"
    full.click(bar)
    assert full.text("#count") == "120 pairs"
    full.js("document.querySelector('.finding .bars button').focus()")
    full.press("ARROW_RIGHT", "ARROW_RIGHT", "ENTER")
    assert full.text("#quality-text") == "0.10 to 0.15" and not opened(full)


def test_keys(full: Page) -> None:
    full.open()
    order = list(ROWS.select("finding", "image_id").iter_rows())
    full.press("ARROW_RIGHT")  # takes the focus to the first tile
    full.press("ARROW_RIGHT", "ARROW_RIGHT", "ARROW_LEFT", "ENTER")
    assert opened(full) and title(full) == order[1]
    assert full.text("#large-place") == "2 of 120"
    full.press("ARROW_RIGHT", "ARROW_DOWN")
    assert title(full) == order[3]
    full.press("ARROW_LEFT")
    assert title(full) == order[2]
    full.press("ESCAPE")
    full.wait(lambda: not opened(full))
    full.until("return !location.hash.includes('image=')")
    focus = "return document.activeElement.closest('.cell').ariaPosInSet"
    assert full.js(focus) == "3"
    full.press("END")
    full.until("return document.activeElement.closest('.cell')?.ariaPosInSet === '120'")
    assert full.js("return scrollY") > 0
    full.press("HOME")
    full.until("return document.activeElement.closest('.cell')?.ariaPosInSet === '1'")
    full.press("ARROW_DOWN")
    columns = int(full.js(focus)) - 1
    assert 1 < columns < 10
    full.press("?")
    assert full.js("return document.getElementById('keys').open") is True
    full.press("ESCAPE")
    assert full.js("return document.getElementById('keys').open") is False
    full.press("/", "i", "m", "a", "g", "e", "0", "1", "2")
    assert full.js("return document.getElementById('find').value") == "image012"
    assert full.text("#count") == "2 of 120 pairs"


def test_a_link_brings_back_the_same_view(full: Page) -> None:
    full.open()
    full.click(".finding:nth-child(2) input")
    full.click("#splits button:nth-child(1)")
    full.set("#low", "0.2")
    full.set("#sort", "area")
    full.set("#fill", "65")
    full.set("#tile", "128")
    full.click("#recipes")
    full.press("ARROW_RIGHT", "ARROW_RIGHT", "ENTER")
    full.press("ARROW_RIGHT")
    full.settle()
    before = (full.tiles(), title(full), full.text("#count"), full.text("#large-place"))
    fragment = full.js("return location.hash")
    full.open(fragment)
    assert opened(full)
    assert (full.tiles(), title(full), full.text("#count"), full.text("#large-place")) == before
    assert full.js("return location.hash") == fragment
    state = full.js(
        "return ['sort', 'fill', 'tile', 'low'].map(i => document.getElementById(i).value)"
    )
    assert state == ["area", "65", "128", "0.2"]
    assert full.js("return document.getElementById('recipes').checked") is True


def test_back_closes_the_large_view_and_a_new_address_is_followed(full: Page) -> None:
    full.open()
    full.click(".tile")
    assert opened(full) and "image=" in full.js("return location.hash")
    full.driver.back()
    full.wait(lambda: not opened(full))
    full.js("location.hash = '#quality=0~0.1&sort=nonsense&fill=abc&finding=none&image=none&of=x'")
    full.wait(lambda: full.text("#count") == "12 of 120 pairs")
    assert not opened(full) and full.js("return document.getElementById('fill').value") == "30"


def test_the_fill_changes_the_pixels(full: Page) -> None:
    full.open()
    inks = []
    for fill in ("0", "30", "100"):
        full.set("#fill", fill)
        inks.append(full.ink())
    assert 0 < inks[0] < inks[1] < inks[2]
    full.press("m")
    assert full.ink() == 0
    full.press("m", "[")
    assert 0 < full.ink() < inks[2]
    full.click(".tile")
    full.settle()
    one = full.ink("#panels canvas")
    full.set("#large-fill", "0")
    assert 0 < full.ink("#panels canvas") < one


def test_recipes_side_by_side(full: Page) -> None:
    full.open("#recipes=on")
    labels = full.js(
        "return [...document.querySelectorAll('.cell')].slice(0, 2).map(c =>"
        " [...c.querySelectorAll('.recipe')].map(r => r.textContent))"
    )
    assert labels == [["released", "corner: no mask"], ["released", "corner"]]
    assert full.ink(".cell .panel:nth-child(2) canvas") == 0
    assert full.ink(".cell:nth-child(2) .panel:nth-child(2) canvas") > 0
    full.click(".cell:nth-child(2) .tile")
    row = ROWS.row(1, named=True)
    side = row["box"][2]
    both = max(0, min(16, 6 + side) - 6) * max(0, min(16, 4 + side) - 4)
    iou = both / (side * side + 256 - both)
    assert f"IoU with released {iou:.2f}" in full.text("#panels .panel:nth-child(2)")
    tops = full.js("return [...document.querySelectorAll('#panels .panel')].map(p => p.offsetTop)")
    assert len(tops) == 2 and tops[0] == tops[1]


def test_the_ground_can_be_the_relevance_map(full: Page) -> None:
    full.open()
    assert "/image-small" in full.js("return document.querySelector('.tile img').src")
    full.press("r")
    assert "/relevance-small" in full.js("return document.querySelector('.tile img').src")
    full.open("#find=image005")  # has no picture: its map is shown
    assert "/relevance-small" in full.js("return document.querySelector('.tile img').src")


def test_the_window_of_the_large_view(full: Page) -> None:
    full.open()
    full.click(".tile")
    full.set("#brightness", "150")
    full.press("i")
    look = "return document.querySelector('#panels img').style.filter"
    assert full.js(look) == "invert(1) brightness(150%) contrast(100%)"
    full.click("#window-reset")
    assert full.js(look) == "brightness(100%) contrast(100%)"


def test_findings_of_the_same_image_are_one_click_away(full: Page) -> None:
    full.open("#image=image020&of=Edema")
    assert title(full) == ("Edema", "image020")
    assert full.js("return document.querySelectorAll('#same button').length") == 2
    full.click("#same button[aria-pressed=false]")
    assert title(full) == (FINDINGS[1], "image020")


def test_hostile_text_stays_text(full: Page) -> None:
    full.open()
    full.js("window.alert = () => { document.title = 'run' }")
    full.set("#find", "<script>")
    assert {t["id"] for t in full.tiles()} == {HOSTILE}
    assert {t["finding"] for t in full.tiles()} == set(FINDINGS)
    full.click(".tile")
    assert title(full)[1] == HOSTILE
    fragment = full.js("return location.hash")
    full.open(fragment)
    assert opened(full) and title(full)[1] == HOSTILE
    assert full.driver.title == "Gallery <i>one</i> 1.2.3: gallery"
    assert (
        full.js("return document.querySelectorAll('#grid script, #facts script, b b').length") == 0
    )
    assert full.js("return document.querySelector('.tile .id').dir") == "auto"


def test_the_policy_keeps_the_network_out(full: Page) -> None:
    full.open()
    blocked = full.driver.execute_async_script(
        """const done = arguments[0], found = [];
        document.addEventListener("securitypolicyviolation", event => {
          found.push(event.effectiveDirective);
          if (found.length === 4) done(found.sort());
        });
        new Image().src = "https://example.org/x.png";
        fetch("https://example.org/x.json").catch(() => 0);
        const outside = document.createElement("script");
        outside.src = "https://example.org/x.js";
        const inside = document.createElement("script");
        inside.textContent = "document.title = 'run'";
        document.head.append(outside, inside);"""
    )
    assert blocked == ["connect-src", "img-src", "script-src-elem", "script-src-elem"]
    assert full.driver.title.endswith("gallery") and len(full.errors()) >= 4


def test_without_pictures_there_is_the_mask_on_a_plain_field(plain: Page) -> None:
    plain.open()
    assert plain.ink() > 0
    assert plain.js("return [...document.querySelectorAll('.tile img')].every(i => i.hidden)")
    for control in ("show-row", "side-row"):
        assert plain.js("return document.getElementById(arguments[0]).hidden", control) is True
    plain.press("r", "s")
    assert plain.js("return location.hash") in ("", "#")


def test_light_and_dark(full: Page) -> None:
    def paper(scheme: str) -> str:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        full.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        return str(full.js("return getComputedStyle(document.body).backgroundColor"))

    full.open()
    light, dark = paper("light"), paper("dark")
    assert light == "rgb(246, 247, 249)" and dark == "rgb(15, 18, 23)"
    full.click("#theme")  # the reader's choice wins, and is kept
    assert paper("dark") == light
    full.open()
    assert paper("dark") == light
    full.press("t")
    assert paper("light") == dark
    full.js("localStorage.clear()")


@pytest.mark.parametrize("width", [320, 390, 1600])
def test_nothing_is_wider_than_the_window(full: Page, width: int) -> None:
    wide = "return document.scrollingElement.scrollWidth - innerWidth"
    for fragment in ("", "#recipes=on", "#tile=320&image=image020&of=Edema"):
        full.open(fragment, width=width, height=800)
        assert full.js(wide) <= 0
        assert full.js("const d = document.getElementById('large');"
                       "return d.scrollWidth - d.clientWidth") <= 0  # fmt: skip
    if width < 760:
        full.open("", width=width, height=800)
        assert full.js("return document.getElementById('side').offsetHeight") == 0
        full.click("#filters-open")
        assert full.js("return document.getElementById('side').offsetHeight") > 0
        assert full.js(wide) <= 0


def test_every_control_has_a_name_and_focus_is_seen(full: Page) -> None:
    full.open()
    nameless = full.js(
        "return [...document.querySelectorAll('button, input, select')].filter(e =>"
        " !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.id)"
    )
    assert nameless == []
    full.press("ARROW_RIGHT")
    style = "const s = getComputedStyle(document.activeElement); return s.outlineStyle"
    assert full.js(style) == "solid"
    assert full.js("return document.activeElement.ariaLabel").startswith(ROWS["finding"][0])
    stops = full.js(
        "return [...document.querySelectorAll('.tile')].filter(t => !t.tabIndex).length"
    )
    assert stops == 1


def test_a_mouse_opens_a_tile(full: Page) -> None:
    full.open()
    tile = full.driver.find_element(By.CSS_SELECTOR, ".cell:nth-child(3) .tile")
    ActionChains(full.driver).move_to_element(tile).click().perform()
    assert opened(full) and title(full) == ROWS.select("finding", "image_id").row(2)


FACT = (
    "return [...document.querySelectorAll('#facts dt')].find(d => d.textContent === 'IoU')"
    ".nextSibling.textContent"
)


def test_bounds_are_shown_and_sort_and_what_has_none_ranks_only(bounded: Page) -> None:
    bounded.open("#sort=bound-")
    first = bounded.tiles()[0]
    assert first["finding"] == FINDINGS[1] and first["quality"] == "1.00"
    text = bounded.js("return document.querySelector('.tile .caption .number').textContent")
    assert text == "IoU ≥ 0.74"  # 0.7458, rounded down; no share of the area reads as confidence
    assert "90\u00a0%" in bounded.text("#promise")
    bounded.click(".tile")
    bounded.until("return document.querySelectorAll('#facts dt').length > 0")
    assert bounded.js(FACT) == "at least 0.74 (90\u00a0%)"
    bounded.open("#finding=Edema")
    bounded.click(".tile")
    bounded.until("return document.querySelectorAll('#facts dt').length > 0")
    assert bounded.js(FACT) == "rank only"


def test_without_bounds_the_page_says_that_quality_only_ranks(plain: Page) -> None:
    plain.open("#sort=bound-")
    assert plain.text("#promise") == "No bounds of the IoU: quality only ranks."
    sort = "return [document.getElementById('sort').value, document.getElementById('sort').length]"
    assert plain.js(sort) == ["quality-", 4]
    assert plain.tiles()[0]["quality"] == "1.00"
