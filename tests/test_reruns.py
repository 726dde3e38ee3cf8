"""What runs again: one key or one file is another, and exactly the rules that read it run.

The results are made up, and Snakemake plans in this very process.
"""

import copy
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from snakemake.cli import main

from dollmaker.config import settings as configuration
from dollmaker.launch import pipeline
from dollmaker.store import sums
from dollmaker.study import grid
from rerun_settings import SETTINGS

ROOT = Path(__file__).parents[1]

#: Larger than the files that Snakemake compares by itself.
LARGE = 3_000_000

FILES = {
    **{f"data/{name}": name for name in ("t.csv", "images/a.png", "masks/a.png", "more/a.png")},
    **{f"data/{name}": name for name in ("ti/a.png", "tm/a.png")},
    **{f"weights/{name}": name for name in ("a.st", "i.st")},
}

REPORT = {"write_report"}
RELEASE = {"build_release", "verify_release", *REPORT}
SCORES = {"evaluate", *RELEASE}
ADAPT = {"adapt_segmenter", *SCORES}
SEGMENT = {"pretrain_segmenter", *ADAPT}
LABELS = {"collect_labels", *SEGMENT}
MASKS = {"make_masks", *LABELS}
SAMPLE = {"explain_sample", "choose_thresholds", "check_recipe", *MASKS}
CLASSIFY = {"train_member", "explain_images", *SAMPLE}
AUDIT = {"audit_images", *REPORT}
INDEX = {"build_index", *AUDIT, *CLASSIFY}
DECODE = {"decode_images", *INDEX}
LIST = {"list_images", *DECODE}
CONVERT = {"convert_source", *LIST}


def run(settings: dict[str, Any], *words: str) -> str:
    """Call Snakemake in the working directory, as a new process would."""
    sums._content.cache_clear()
    Path("c.json").write_text(json.dumps(settings))
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said), pytest.raises(SystemExit) as ended:
        main(["-s", str(ROOT / "Snakefile"), "--configfile", "c.json", "--cores", "2", *words])
    assert not ended.value.code, said.getvalue()[-3000:]
    return said.getvalue()


def planned(settings: dict[str, Any], *words: str) -> dict[str, int]:
    """Rule -> its jobs that would run."""
    said = run(settings, "-n", *words)
    jobs = re.findall(r"^(?:local)?rule (\w+):$", said, re.MULTILINE)
    return dict(Counter(name for name in jobs if name not in ("all", "compare", "study")))


def make_up(settings: dict[str, Any], *words: str) -> None:
    """Make files and folders of the names that a run would make, and have Snakemake note them."""
    said = run(settings, "-n", *words)
    for line in re.findall(r"^    output: (.*)$", said, re.MULTILINE):
        for name in line.split(", "):
            make_one(Path(name))
    run(settings, "--touch", "--forceall", *words)


def write(files: dict[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def make_one(path: Path) -> None:
    if "." not in path.name and path.name != "SHA256SUMS":
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(path))
    if path.suffix == ".h5":
        os.truncate(path, LARGE)


@pytest.fixture(scope="module")
def blind() -> Iterator[None]:
    """Without looks at data and networks before the first job: there are none."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("preflight", "preflight_segmenter", "preflight_study"):
            patch.setattr(f"dollmaker.launch.preflight.{name}", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, blind: None) -> Iterator[Path]:
    """A folder with made-up data and the made-up results of a run of SETTINGS."""
    folder = tmp_path_factory.mktemp("reruns")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write(FILES)
        make_up(SETTINGS)
        yield folder


def changed(key: str, value: Any) -> dict[str, Any]:
    """SETTINGS with another value at a key, written with slashes."""
    settings = copy.deepcopy(SETTINGS)
    part = settings
    *sections, last = key.split("/")
    for section in sections:
        part = part.setdefault(section, {})
    part[last] = value
    return settings


def test_a_second_call_has_nothing_to_do(place: Path) -> None:
    assert planned(SETTINGS) == {}


@pytest.mark.parametrize(
    ("key", "value", "rules"),
    [
        ("truth/targets", {"m": [1, 2]}, SCORES),
        ("truth/folder", "more", SCORES),
        ("truth/when_labelled", False, SCORES),
        ("truth/column", "other", LIST),
        ("evaluate/bootstrap", 20, SCORES),
        ("evaluate/confidence", 0.8, SCORES),
        ("report/gallery", 3, REPORT),
        ("study/seeds", 9, REPORT),
        ("explain/images", 3, REPORT),
        ("compare/few", 3, REPORT),
        ("release/name", "Other", RELEASE),
        ("release/models", ["committee", "t/doll/full"], RELEASE),
        ("release/relevance", True, LABELS),
        ("recipes/band/binarize", [{"otsu": {}}], SCORES | {"make_masks"}),
        ("recipes/doll/binarize", [{"label_free": {}}, {"clean": {}}], MASKS | {"check_recipe"}),
        ("recipes/doll/attribute", {"nodes": 3}, SAMPLE | {"explain_images"}),
        ("recipes/new", {"attribute": "doll", "binarize": [{"otsu": {}}]}, SCORES | {"make_masks"}),
        ("prepare/valid", 0.3, LIST),
        ("prepare/hold_out_truth", True, LIST),
        ("prepare/fit", "resize", DECODE),
        ("prepare/fit", "crop", DECODE),
        ("prepare/bits", 16, DECODE),
        ("prepare/max_quarantined", 0.5, INDEX),
        ("seed", 1, AUDIT | CLASSIFY),
        ("classify/epochs", 3, CLASSIFY),
        ("classify/blank", "ignore", AUDIT | CLASSIFY),
        ("classify/members/b/seed", 3, CLASSIFY),
        ("attribute/max_images", 3, MASKS | {"explain_images"}),
        ("attribute/findings", ["x"], SAMPLE | {"explain_images"}),
        ("sample/positives", 3, SAMPLE),
        ("segment/epochs", 3, SEGMENT),
        ("tasks/t/test", 0.4, ADAPT),
        ("adapt/steps", 3, ADAPT),
        ("adapt/runs", ["doll/full", "imagenet/full", "random/full"], ADAPT),
    ],
)
def test_a_key_reruns_the_rules_that_read_it(
    place: Path, key: str, value: Any, rules: set[str]
) -> None:
    assert set(planned(changed(key, value))) == rules


def test_of_many_jobs_of_a_rule_only_those_run_that_read_the_key(place: Path) -> None:
    assert planned(changed("classify/members/b/seed", 3))["train_member"] == 1
    assert planned(changed("recipes/band/binarize", [{"otsu": {}}]))["make_masks"] == 2
    more = changed("adapt/runs", ["doll/full", "imagenet/full", "random/full"])
    assert planned(more)["adapt_segmenter"] == 1
    assert "train_member" not in planned(more)


def test_a_recipe_with_a_committee_of_its_own_trains_that_alone(place: Path) -> None:
    jobs = planned(changed("recipes/micranet", {}))
    assert jobs["train_member"] == 1
    assert not jobs.keys() & {"collect_labels", "pretrain_segmenter", "adapt_segmenter"}


@pytest.mark.parametrize(
    ("file", "rules"),
    [
        ("data/t.csv", LIST),
        ("data/masks/a.png", SCORES),
        ("data/images/a.png", set()),
        ("data/tm/a.png", ADAPT),
        ("weights/a.st", CLASSIFY),
        ("weights/i.st", ADAPT),
        ("results/x/prepare/0000.parquet", INDEX),
        ("results/x/images/0001.h5", AUDIT | CLASSIFY),
        ("results/x/audit.parquet", REPORT),
        ("results/x/relevance/doll/0000.h5", MASKS),
        ("results/x/masks/band/0000.h5", SCORES),
        ("results/x/sums/committee/b.sha256", CLASSIFY - {"train_member"}),
        ("results/x/sums/segmenter.sha256", ADAPT),
        ("results/x/labels/SHA256SUMS", SEGMENT),
    ],
)
def test_other_bytes_of_equal_size_rerun_the_rules_that_read_them(
    place: Path, file: str, rules: set[str]
) -> None:
    before, times = Path(file).read_bytes(), Path(file).stat()
    Path(file).write_bytes(bytes([before[0] ^ 1]) + before[1:])
    try:
        assert set(planned(SETTINGS)) == rules
    finally:
        Path(file).write_bytes(before)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_only_the_fine_tunings_from_a_file_read_it(place: Path) -> None:
    file = Path("weights/i.st")
    file.write_text("I.st")
    try:
        assert planned(SETTINGS)["adapt_segmenter"] == 1
    finally:
        file.write_text("i.st")


def test_only_the_fine_tunings_of_a_start_wait_for_it(place: Path) -> None:
    """Those from random and ImageNet's weights may run while the committee is trained."""
    assert planned(changed("segment/epochs", 3))["adapt_segmenter"] == 1
    runs = ["doll/full", "imagenet/full", "classifier/full", "random/full"]
    jobs = planned(changed("adapt/runs", runs), "--forcerun", "train_member")
    assert jobs["adapt_segmenter"] == 3
    plain = changed("adapt/runs", ["random/full", "imagenet/full"])
    plain["segment"]["epochs"] = 3
    assert planned(plain, "--until", "adapt_segmenter") == {"adapt_segmenter": 1}


def test_weights_by_name_are_fetched_once_and_followed_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: None
) -> None:
    monkeypatch.chdir(tmp_path)
    write(FILES)
    members = {"a": {"architecture": "resnet18", "weights": "pretrained"}, "b": {"seed": 1}}
    settings = {**SETTINGS, "classify": {"members": members}}
    settings["segment"] = {"init": "timm:test_vit.r160_in1k"}
    settings["adapt"] = {"runs": ["doll/full", "imagenet/full"], "imagenet": "pretrained"}
    jobs = planned(settings)
    assert jobs["fetch_weights"] == 3  # of the member, the segmenter and the start imagenet
    make_up(settings)
    assert planned(settings) == {}
    names = ("pretrained--resnet18", "timm--test_vit.r160_in1k", "pretrained--smp--mobilenet_v2")
    of_member, of_segmenter, of_imagenet = (Path(f"weights/{n}.safetensors") for n in names)
    os.utime(of_member, (2**31, 2**31))
    assert planned(settings) == {}
    for file, rules, number in (
        (of_imagenet, ADAPT, ("adapt_segmenter", 1)),
        (of_segmenter, SEGMENT, ("pretrain_segmenter", 1)),
        (of_member, CLASSIFY, ("train_member", 1)),
    ):
        before, times = file.read_bytes(), file.stat()
        file.write_bytes(bytes(len(before)))
        os.utime(file, (2**31, 2**31))
        again = planned(settings)
        assert set(again) == rules and again[number[0]] == number[1]
        file.write_bytes(before)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert planned(settings) == {}


def test_newer_files_and_folders_rerun_nothing(place: Path) -> None:
    paths = [path for top in ("data", "weights", "results") for path in Path(top).rglob("*")]
    shard, folder = Path("results/x/images/0000.h5"), Path("results/x/committee/a")
    assert shard in paths and shard.stat().st_size == LARGE and folder.is_dir()
    for path in paths:
        os.utime(path)
    for path in (shard, folder, folder / ".snakemake_timestamp", Path("data/t.csv")):
        os.utime(path, (2**31, 2**31))
    assert planned(SETTINGS) == {}


def test_a_folder_that_is_gone_is_made_anew(place: Path) -> None:
    folder, aside = Path("results/x/segmenter"), Path("results/x/aside")
    folder.rename(aside)
    try:
        assert set(planned(SETTINGS)) == SEGMENT
    finally:
        aside.rename(folder)


PATCHES = {
    **{"table": "t.csv", "images": "i", "masks": "m", "finding": "cell"},
    **{"image_column": "image", "mask_column": "mask"},
}
STUDIES = {"folder": "n", "labels": "t.csv", "by": "study", "finding_columns": ["f"], "key": "k"}
BY_NAME = {"kind": "masks", "folder": "m", "column": None, "targets": {"m": [1]}}
TABLE = {"kind": "table", "table": SETTINGS["source"]["table"]}


@pytest.mark.parametrize(
    ("changes", "files"),
    [
        ({"source": {"kind": "nih", "nih": {"folder": "n"}}}, {"n/test_list.txt": LIST}),
        ({"source": {"kind": "msd", "msd": {"folder": "n"}}}, {"n/labelsTr/a.nii": CONVERT}),
        ({"source": {"kind": "patches", "patches": PATCHES}}, {"m/a.png": CONVERT}),
        (
            {"source": {"kind": "dicom", "dicom": STUDIES}},
            {"t.csv": CONVERT, "k": CONVERT, "n/new.dcm": CONVERT},
        ),
        (
            {"source": {"kind": "folder", "folder": {"root": "n"}}},
            {"n/imagesTr/new.png": LIST},
        ),
        ({"source": TABLE, "truth": BY_NAME}, {"m/a.png": SCORES, "m/new.png": LIST}),
        ({"source": TABLE, "truth": {"kind": "boxes", "file": "b.csv"}}, {"b.csv": SCORES}),
    ],
)
def test_every_source_and_truth_notices_its_files(
    changes: dict[str, Any],
    files: dict[str, set[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    blind: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["n/Data_Entry_2017_v2020.csv", "n/train_val_list.txt", "n/test_list.txt", "t.csv"]
    names += ["n/dataset.json", "n/labelsTr/a.nii", "n/imagesTr/a.nii", "i/a.png", "m/a.png"]
    write({f"data/{name}": name for name in (*names, "b.csv", "k")})
    settings = {"dataset": "x", "data_root": "data", **changes}
    make_up(settings)
    assert planned(settings) == {}
    for name, rules in files.items():
        file = Path("data", name)
        before = (file.read_bytes(), file.stat()) if file.exists() else None
        file.write_text("X" * len(name))
        assert set(planned(settings)) == rules - {"adapt_segmenter"}, name
        if before:
            file.write_bytes(before[0])
            os.utime(file, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))
        else:
            file.unlink()


def test_a_comparison_is_made_anew_for_corrected_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: None
) -> None:
    monkeypatch.chdir(tmp_path)
    write({"data/t.csv": "t", "data/m/a.png": "a"})
    settings = {"dataset": "x", "data_root": "data", "source": TABLE, "truth": BY_NAME}
    settings["compare"] = {"recipes": ["doll"]}
    make_up(settings, "compare")
    write({"data/m/a.png": "b"})
    assert planned(settings, "compare") == {"compare_recipes": 1}


def test_a_study_follows_what_each_of_its_jobs_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: None
) -> None:
    monkeypatch.chdir(tmp_path)
    write(FILES)
    starts = {"one": {}, "two": {"segment": {"init": "b"}}, "three": {"segment": {"init": "i.st"}}}
    study = {"pretrainings": starts, "inits": ["random", "one", "two", "three"]}
    settings = {**SETTINGS, "study": study}
    make_up(settings, "study")
    write({"weights/i.st": "I.st"})
    again = {"pretrain_variant": 1, "adapt_variant": 1, "gather_study": 1}
    assert planned(settings, "study") == again
    full = configuration.resolved(settings)
    variants = [grid.pretraining_config(full, "default", name) for name in starts]
    members = [pipeline.start_members(one) for one in variants]
    assert members == [["results/x/committee/a"], ["results/x/committee/b"], []]
