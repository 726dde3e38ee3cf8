"""The report of the fake tree: what it says, what it must never do, and what it leaves out."""

import html.parser
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from numpy.testing import assert_allclose
from PIL import Image

import fake_results as fake
from dollmaker.config.settings import resolved
from dollmaker.evaluate.stage import Inputs, evaluate, load_truth
from dollmaker.pictures import charts
from dollmaker.pixels.truth import Truth
from dollmaker.report import gather
from dollmaker.report.gather import read_seconds
from dollmaker.report.stage import report
from dollmaker.runtime import cli
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store import tables
from dollmaker.store.files import write_json
from release.small_release import SANITY


class Report(NamedTuple):
    """What the stage wrote."""

    page: str
    summary: dict[str, Any]
    figures: Path


def _report(config: dict[str, Any], results: Path, data: Path, output: Path) -> Report:
    report(
        resolved(config),
        results_folder=results,
        data_root=data,
        output=output / "report.html",
        summary_file=output / "summary.json",
        figures_folder=output / "figures",
    )
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    return Report((output / "report.html").read_text(encoding="utf-8"), summary, output / "figures")


@pytest.fixture(scope="module")
def scored(tree: Any) -> Any:
    """The tree with scores."""
    inputs = Inputs(**fake.scored_things(tree.results, tree.data))
    evaluate(resolved(tree.config), inputs, tree.results / "scores")
    return tree


@pytest.fixture(scope="module")
def made(scored: Any, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The full report."""
    return _report(scored.config, scored.results, scored.data, tmp_path_factory.mktemp("report"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the drawing of charts, most of the time of a report, where they are not looked at."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    monkeypatch.setattr(charts, "_render", lambda *_: buffer.getvalue())


class _Parser(html.parser.HTMLParser):
    """Collects tags, addresses and text; counts what is open."""

    VOID = frozenset({"meta", "img", "br", "source", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _parse(page: str) -> _Parser:
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_whole_and_needs_nothing(made: Report) -> None:
    parser = _parse(made.page)
    assert parser.addresses
    for address in parser.addresses:
        assert address.startswith(("data:image/png;base64,", "#"))
    assert len(made.page.encode()) < 6_000_000


def test_hostile_names_are_text(made: Report) -> None:
    parser = _parse(made.page)
    assert "script" not in parser.tags and "b>.png" not in parser.tags and not parser.handlers
    assert fake.HOSTILE not in made.page
    assert sum(fake.HOSTILE in text for text in parser.text) >= 5
    assert "images/<b>.png" in "".join(parser.text)


def test_the_page_says_what_it_must(made: Report) -> None:
    text = " ".join(" ".join(_parse(made.page).text).split())
    for phrase in ("Not for diagnosis", "no patient is in more than one split", "Best", "Worst"):
        assert phrase in text
    for name in ("centre", "intensity", "whole", "doll", "tight", "against random"):
        assert name in text
    assert "few labels: 'Cardiomegaly' has 2 positive training images, 'Card" in text
    assert "prefers-color-scheme: dark" in made.page
    assert f"{made.summary['masks']['doll']['miou']:.3f}" in text


def test_every_number_of_the_summary_is_finite(made: Report) -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for child in value.values():
                walk(child)
        elif isinstance(value, list):
            for child in value:
                walk(child)
        elif isinstance(value, float):
            assert math.isfinite(value)

    walk(made.summary)


def test_summary_by_hand(made: Report) -> None:
    summary = made.summary
    assert summary["dataset"] == "fake"
    assert list(summary["masks"]) == ["doll", "tight", "mean-map", "centre", "intensity", "whole"]
    doll = summary["masks"]["doll"]
    assert (doll["split"], doll["slice"], doll["target"], doll["pairs"]) == (
        "test",
        "full",
        "finding",
        16,
    )
    assert_allclose(doll["miou"], np.mean(list(doll["findings"].values())))
    assert_allclose(
        doll["findings"]["Cardiomegaly"],
        np.mean([fake.expected_iou("Cardiomegaly", n) for n in (8, 10, 12, 14)]),
    )
    assert doll["targets"]["finding"]["miou"] == doll["miou"]
    assert doll["low"] < doll["miou"] < doll["high"]
    best = summary["tasks"]["organs"]["doll"]["full"]["all"]
    assert_allclose(best["miou"], np.mean(best["seeds"]))
    assert set(summary["tasks"]["organs"]) == {"random", "doll", "empty", "centre", "whole"}
    assert_allclose(summary["tasks"]["organs"]["empty"]["-"]["-"]["miou"], 1 / 12)
    assert set(summary["classifier"]["members"]) == {"first", "second"}
    assert summary["classifier"]["split"] == "test" and 0 <= summary["classifier"]["ece"] <= 1
    seconds = summary["seconds"]
    assert (seconds["classify"], seconds["attribute"], seconds["evaluate"]) == (22.0, 3.0, 2.0)
    assert seconds["segment"] is None


def test_figures_are_pictures_of_the_expected_names(made: Report) -> None:
    names = {file.name for file in made.figures.iterdir()}
    assert names == {
        "classifier-curves.png",
        "reliability.png",
        "recipes.png",
        "segmenter.png",
        "task-organs.png",
        "examples-organs.png",
        "gallery-doll.png",
        "gallery-tight.png",
    }
    for file in made.figures.iterdir():
        with Image.open(file) as picture:
            picture.load()
            assert min(picture.size) > 100


def test_the_same_report_twice(scored: Any, made: Report, tmp_path: Path) -> None:
    again = _report(scored.config, scored.results, scored.data, tmp_path)
    assert again.page == made.page
    assert again.summary == made.summary


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "absent", ["tasks", "segmenter", "explained", "scores", "benchmarks", "masks"]
)
def test_what_is_absent_is_left_out(scored: Any, tmp_path: Path, absent: str) -> None:
    results = tmp_path / "results"
    shutil.copytree(scored.results, results)
    shutil.rmtree(results / absent)
    made = _report(scored.config, results, scored.data, tmp_path / "out")
    text = " ".join(_parse(made.page).text)
    sign = {
        "tasks": "Test images",
        "segmenter": "Pre-trained segmenter",
        "explained": "Where the segmenter looks",
        "scores": "Masks against truth",
        "benchmarks": "all jobs together",
        "masks": "Recipe doll",
    }[absent]
    assert sign not in text


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("checks", "words", "red"),
    [
        ({}, "Sanity of the released recipe doll: <i>so.", False),
        ({"uninformative": True}, "leaves doubts. doll: <i>so.", False),
        ({"ignores_model": True}, "fails its sanity check. doll: <i>so.", True),
        (None, "", False),
    ],
)
def test_the_sanity_of_the_released_recipe_stands_at_the_top(
    scored: Any, tmp_path: Path, checks: dict[str, Any] | None, words: str, red: bool
) -> None:
    results = tmp_path / "results"
    (results / "sanity").mkdir(parents=True)
    shutil.copy(scored.results / "index.parquet", results)
    if checks is not None:
        facts = {**SANITY, **checks, "verdict": "<i>so"}
        for recipe, more in (("doll", {}), ("tight", {"ignores_model": True})):
            write_json(results / f"sanity/{recipe}.json", facts | more)
    made = _report(fake.make_config(truth=None), results, scored.data, tmp_path / "out")
    top = made.page[made.page.index("<header>") : made.page.index("<nav")]
    text = " ".join(" ".join(_parse(top).text).split())
    assert words in text and ("anity" in text) == bool(words)
    assert ('class="note failed"' in top) == red and "<i>so" not in made.page


@pytest.mark.usefixtures("quick")
def test_only_the_index_is_enough(scored: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    shutil.copy(scored.results / "index.parquet", results)
    made = _report(fake.make_config(truth=None), results, scored.data, tmp_path / "out")
    assert made.summary["masks"] == made.summary["classifier"] == made.summary["tasks"] == {}
    assert "quality is the recipe's own opinion" in " ".join(
        " ".join(_parse(made.page).text).split()
    )
    assert list(made.figures.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_without_truth_the_gallery_ranks_by_quality(scored: Any, tmp_path: Path) -> None:
    made = _report(fake.make_config(truth=None), scored.results, scored.data, tmp_path)
    text = " ".join(" ".join(_parse(made.page).text).split())
    assert "own quality" in text and "quality 0.80" in text and "· IoU" not in text


@pytest.mark.usefixtures("quick")
def test_the_command(scored: Any, tmp_path: Path) -> None:
    words = ["report", "--config", fake.inline(scored.config), "--results", str(scored.results)]
    words += ["--data-root", str(scored.data), "--output", str(tmp_path / "r.html")]
    words += ["--summary", str(tmp_path / "s.json"), "--figures", str(tmp_path / "f")]
    assert cli.main(words) == 0
    words[4] = str(tmp_path / "nothing")
    assert cli.main(words) == 1


def test_explanations_by_hand(made: Report) -> None:
    text = " ".join(" ".join(_parse(made.page).text).split())
    assert "Maps of layer encoder.-1 for the pixel set class" in text
    # The pair that one method does not map counts for neither.
    assert "Cardiomegaly seg_grad_cam 1 0.500 of 1 0.250 of 1 1.000 of 1 0.125 of 1" in text
    assert "seg_hires_cam 2 0.750 of 1 0.375 of 1 0.000 of 1 – of 0" in text  # noqa: RUF001


@pytest.mark.usefixtures("quick")
def test_explanations_without_their_picture_are_refused(scored: Any, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(scored.results, results)
    (results / "explained" / "overlays.png").unlink()
    with pytest.raises(ArtifactError, match="overlays"):
        _report(scored.config, results, scored.data, tmp_path / "out")


def test_seconds_of_rules(tmp_path: Path) -> None:
    def write(name: str, *lines: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("s\th:m:s\n" + "".join(f"{line}\t-\n" for line in lines), encoding="utf-8")

    write("decode_images-0000.tsv", "1.5")
    write("decode_images-0001.tsv", "2.5")
    write("build_index.tsv", "1.0", "3.0")  # a repeated benchmark counts once, with its mean
    write("make_masks-doll-0000.tsv", "-")
    write("deep/adapt_segmenter-organs-doll-full.tsv", "4")
    write("somebody_else.tsv", "100")
    seconds = read_seconds(tmp_path)
    assert {name: value for name, value in seconds.items() if value} == {
        "prepare": 6.0,
        "adapt": 4.0,
    }
    assert read_seconds(tmp_path / "none")["prepare"] is None


def test_differences_reach_the_task_table(made: Report, scored: Any) -> None:
    table = pl.read_parquet(scored.results / "scores" / "differences.parquet")
    assert not table.is_empty()
    assert "+0.200" in " ".join(_parse(made.page).text)


@pytest.mark.usefixtures("quick")
def test_the_headline_has_every_target_beside_its_trivial_baseline(
    scored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(scored.results, tmp_path / "results")
    file = tmp_path / "results/scores/masks.parquet"
    table, header = tables.read(file), tables.read_header(file)
    whole = pl.col("recipe").replace_strict({"doll": 0.41, "centre": 0.56}, default=0.1)
    more = table.with_columns(pl.lit("<b>cell").alias("target"), miou=whole)
    tables.write(pl.concat([table, more]), file, header)

    def two(*given: Any) -> Truth | None:
        truth = load_truth(*given)
        return truth and replace(truth, targets=["finding", "<b>cell"])

    monkeypatch.setattr(gather, "load_truth", two)
    made = _report(scored.config, tmp_path / "results", scored.data, tmp_path / "out")
    text = " ".join(" ".join(_parse(made.page).text).split())
    first = made.summary["masks"]["doll"]["miou"]
    assert f"{first:.3f} mIoU of doll masks, target finding test, all pairs" in text
    told = "0.410 mIoU of doll masks, target <b>cell test, all pairs, mean over findings; best"
    assert f"{told} trivial baseline (centre) 0.560" in text and "<b>cell" not in made.page
    assert "Other splits (mIoU, all pairs, target finding; mean over" in text
    assert "trivial baselines with intervals, target finding" in made.page


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("others", "value", "told"),
    [
        ({}, "2 of 2", "random in 2; full tuning, 95 % interval of the difference above 0; under"),
        ({"imagenet": (-0.1, -0.2, -0.01)}, "1 of 2", "imagenet in 1, random in 1; full tuning"),
        ({"imagenet": (0.3, 0.2, 0.4)}, "2 of 2", "random in 2; full tuning"),
        ({"classifier": (0.01, -0.1, 0.1)}, "1 of 2", "classifier in 1, random in 1; full tuning"),
        ({"random": (0.2, math.nan, math.nan)}, "0 of 1", "random in 1; full tuning"),
    ],
)
def test_the_headline_compares_the_doll_start_with_the_best_other(
    scored: Any,
    tmp_path: Path,
    others: dict[str, tuple[float, float, float]],
    value: str,
    told: str,
) -> None:
    shutil.copytree(scored.results, tmp_path / "results")
    file = tmp_path / "results/scores/differences.parquet"
    table, header = tables.read(file), tables.read_header(file)
    row = table.filter(pl.col("class") == "mean").row(0, named=True)
    more = [
        row | {"reference": other, "difference": point, "low": low, "high": high}
        for other, (point, low, high) in others.items()
    ]
    kept = table.filter(~pl.col("reference").is_in(list(others)))
    tables.write(pl.concat([kept, pl.DataFrame(more, schema=table.schema)]), file, header)
    made = _report(scored.config, tmp_path / "results", scored.data, tmp_path / "out")
    text = " ".join(" ".join(_parse(made.page).text).split())
    title = "settings where the doll start beats the best other start"
    assert f"{value} {title} best other: {told}" in text
    assert f"; under 0 in {int('imagenet' in told)}; 6 test images" in text


def test_trivial_masks_and_means_where_present_reach_the_task_table(made: Report) -> None:
    text = " ".join(" ".join(_parse(made.page).text).split())
    assert "where present" in text and "empty, -" not in text
    # Lungs 0.125 in six images, the heart 0.125 in five and 0 where it is not: 0.115.
    row = text[text.index("where present") :].rsplit(" whole ", 2)[1]
    assert row.index("0.115 [") < row.index("0.125 [") < row.index("(6)")
