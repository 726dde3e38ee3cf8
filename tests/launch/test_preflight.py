"""What is refused before the first job: settings that exclude each other, weights, networks."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from safetensors.numpy import save, save_file

from dollmaker.config import settings as config
from dollmaker.config.whole import Config, TruthConfig
from dollmaker.fetch import needed
from dollmaker.launch import preflight
from dollmaker.launch.network_checks import MEMORY
from dollmaker.runtime.errors import ConfigError, DataError, ModelError

MASKS = {"kind": "masks", "folder": "masks", "column": "mask", "targets": {"x": [1]}}
WHOLE = save({"a": np.zeros((2, 3), np.float32)})


def resolved(**changes: Any) -> Config:
    small = {"members": {"a": {"architecture": "timm:test_resnet"}}}
    plain: dict[str, Any] = {"classify": small, "segment": {"encoder": "tu-test_resnet"}}
    plain |= {"dataset": "x", "source": {"kind": "phantoms"}, "prepare": {"size": 64}}
    return config.resolved({**plain, **changes})


def listing(*rows: tuple[str, str | None, int | None]) -> pl.DataFrame:
    """Images with their split, mask and label of A; B is present nowhere."""
    schema = {"split": pl.String, "mask": pl.String, "A": pl.Int8}
    table = pl.DataFrame(list(rows), schema=schema, orient="row")
    return table.with_columns(B=pl.lit(-1, pl.Int8))


@pytest.mark.parametrize(
    ("changes", "rows", "said"),
    [
        ({}, [("valid", None, 1), ("test", None, 1)], "none of the 2 images is in the split train"),
        (
            {"truth": MASKS, "attribute": {"with_truth": True, "splits": ["test"]}},
            [("train", "m.png", 1), ("test", None, 1)],
            r"no image of attribute\.splits \(test\) has one; name other splits",
        ),
        ({}, [("train", None, 0), ("test", None, 1)], r"sample\.splits \(train, valid\) has a pos"),
        ({"sample": {"splits": ["test"]}}, [("train", None, 0), ("test", None, 1)], None),
        ({"attribute": {"findings": ["B"]}}, [("train", None, 1)], "positive label of a finding"),
        ({}, [("train", None, 1)], None),
    ],
)
def test_what_no_run_could_end_with(changes: Any, rows: Any, said: str | None) -> None:
    untrained = {"members": {"a": {"architecture": "timm:test_resnet", "epochs": 0}}}
    given = resolved(**{"classify": untrained, **changes})
    with pytest.raises(ConfigError, match=said) if said else nullcontext():
        preflight.require_images(given, listing(*rows), ["A", "B"])


def test_findings_with_few_labels_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    table = listing(*[("train", None, int(n > 20)) for n in range(30)], ("test", None, 0))
    table = table.with_columns(B=pl.lit(1), C=pl.Series([1] + [0] * 30))
    preflight.require_images(resolved(), table, ["A", "B", "C"])
    told = capsys.readouterr().err
    assert "'B' has no negative training images, 'C' has 1 positive training image;" in told
    assert "'A'" not in told
    preflight.require_images(resolved(attribute={"findings": ["A"]}), table, ["A", "B", "C"])
    assert not capsys.readouterr().err
    only = resolved(attribute={"findings": ["B"]})
    with pytest.raises(ConfigError, match=r"'B' has no negative .* No finding can be learned"):
        preflight.require_images(only, table, ["A", "B", "C"])


TRUE = {"truth": MASKS, "attribute": {"with_truth": True}}


@pytest.mark.parametrize(
    ("changes", "rows", "said"),
    [
        ({"attribute": {"splits": ["valid", "test"]}}, None, r"attribute\.splits leaves train out"),
        ({**TRUE, "prepare": {"hold_out_truth": True}}, None, "keeps them all from training"),
        (TRUE, [("train", None, 1), ("test", "m", 1)], "no training image has one"),
        (TRUE, [("train", None, 1), ("train", "m", 0)], "no training image that is explained"),
        (TRUE, [("train", None, 0), ("train", "m", 1)], None),
        (TRUE, None, None),
        ({}, [("train", None, 0), ("valid", None, 1)], "no training image that is explained"),
        ({}, [("train", None, None), ("train", None, 1)], None),
    ],
)
def test_what_the_segmenter_could_not_learn_from(changes: Any, rows: Any, said: str | None) -> None:
    listed = None if rows is None else listing(*rows)
    settings = resolved(**changes)
    with pytest.raises(ConfigError, match=said) if said else nullcontext():
        preflight.require_lessons(settings, listed, ["A", "B"])
    if said:
        with pytest.raises(ConfigError, match=said):
            preflight.preflight_segmenter(settings, (listed, ["A", "B"]))
        with pytest.raises(ConfigError, match=said):
            task = {"images": "i", "masks": "m", "classes": {"c": [1]}}
            studied = resolved(**changes, tasks={"t": task}, study={"inits": ["doll"]})
            preflight.preflight_study(studied, (listed, ["A", "B"]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (WHOLE[:-1], r"is no whole safetensors file \(.*\); get it again"),
        (WHOLE[:12], "is no whole safetensors file"),
        (b"", "is no whole safetensors file"),
        (b"PK\x03\x04" + bytes(60), "is a pickle of PyTorch, which is never loaded"),
        (b"\x80\x04\x95\x10" + bytes(60), "is a pickle, which is never loaded"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\n", "pointer of Git LFS"),
        (b"<!doctype html><title>404</title>", "is a web page"),
        (save({}), "holds no weights"),
    ],
)
def test_weights_that_are_none(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "w.st").write_bytes(content)
    with pytest.raises(ModelError, match=said) as caught:
        needed.check_weights(tmp_path / "w.st")
    assert str(caught.value).startswith(f"weights file {tmp_path / 'w.st'} ")


def test_weights_whose_header_looks_like_something_else(tmp_path: Path) -> None:
    file = tmp_path / "w.st"
    for length in range(1, 200):
        save_file({"a" * length: np.zeros(1, np.float32)}, file)
        if file.read_bytes()[0] == 0x80:
            break
    assert file.read_bytes()[0] == 0x80
    needed.check_weights(file)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"classify": {"members": {"b": {"architecture": "resnet999"}}}},
            r"classify\.members\.b: ",
        ),
        ({"segment": {"encoder": "resnet999"}}, "^segment: unknown encoder 'resnet999'"),
        ({"segment": {"architecture": "Anet"}}, "^segment: unknown architecture 'Anet'"),
        (
            {"study": {"architectures": {"a": {}, "b": {"encoder": "tu-nonet"}}}},
            r"^study\.architectures\.b: unknown encoder 'tu-nonet'",
        ),
        ({"segment": {"init": "w.st"}}, r"w\.st is a pickle"),
    ],
)
def test_names_and_files_are_looked_at(
    changes: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.st").write_bytes(b"PK\x03\x04" + bytes(60))
    with pytest.raises(ModelError, match=said):
        preflight.preflight(resolved(weights_root=".", **changes))
    assert not (tmp_path / "results").exists()


def test_networks_of_segmenter_and_study_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = {"images": "i", "masks": "m", "classes": {"c": [1]}}
    adapt = {"batch_size": 1, "runs": ["random/head", "random/full"]}
    upernet = {"architecture": "UPerNet", "encoder": "tu-test_resnet"}
    study = {"architectures": {"u": upernet}, "inits": ["random"], "tunings": ["decoder"]}
    given = resolved(tasks={"t": task}, adapt=adapt, study=study)
    listed = preflight.preflight(given)
    assert listed[0] is None and (tmp_path / MEMORY).is_file()
    preflight.preflight_segmenter(given, listed)
    with pytest.raises(ModelError, match=r"^study\.architectures\.u, study\.tunings decoder: UPer"):
        preflight.preflight_study(given, listed)
    other = resolved(tasks={"t": task}, adapt=adapt, segment=upernet)
    with pytest.raises(ModelError, match=r"^adapt\.runs random/full: UPerNet with .*batch_size"):
        preflight.preflight_segmenter(other, listed)
    preflight.preflight_segmenter(resolved(adapt=adapt, segment=upernet), listed)  # no task
    init = {"study": {"pretrainings": {"p": {"segment": {"init": "w.st"}}}, "inits": ["p"]}}
    with pytest.raises(ModelError, match=r"segment\.init is 'w\.st'"):
        preflight.preflight_study(resolved(tasks={"t": task}, **init), listed)


def test_a_table_is_listed_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = {"file": "t.csv", "images": ".", "image_column": "i", "split_column": "s"}
    source = {"kind": "table", "table": {**table, "finding_columns": ["A"]}}
    given = resolved(source=source, data_root=".")
    (tmp_path / "t.csv").write_text("i,A,s\na.png,1,train\nb.png,0,train\n")
    with pytest.raises(
        DataError, match=r"none of 2 images that were looked at is there, first a\.p"
    ):
        preflight.preflight(given)
    (tmp_path / "b.png").touch()
    listed, names = preflight.preflight(given)
    assert listed is not None and len(listed) == 2 and names == ["A"]
    (tmp_path / "t.csv").write_text("i,A,s\na.png,1,train\nb.png,1,train\n")
    with pytest.raises(ConfigError, match="'A' has no negative training image"):
        preflight.preflight(given)
    (tmp_path / "t.csv").write_text("i,A,s\na.png,1,test\nb.png,0,valid\n")
    with pytest.raises(ConfigError, match="split train"):
        preflight.preflight(given)


def with_masks(root: Path, value: int, **changes: Any) -> Config:
    """A table of 12 images whose masks hold one value, as truth and as a task."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    values = np.zeros((20, 24), np.uint8)
    values[4:9, 5:12] = value
    rows = ["image,mask,A,split"]
    for number in range(12):
        Image.new("L", (24, 20), number).save(root / f"images/{number}.png")
        Image.fromarray(values).save(root / f"masks/{number}.png")
        split = ("train", "valid", "test")[number // 4]
        rows.append(f"{number}.png,{number}.png,{number % 2},{split}")
    (root / "t.csv").write_text("\n".join(rows) + "\n")
    columns = {"image_column": "image", "split_column": "split", "finding_columns": ["A"]}
    table = {"file": "t.csv", "images": "images", **columns}
    source = {"kind": "table", "table": table}
    return resolved(source=source, data_root=str(root), **changes)


TASK = {"images": "images", "masks": "masks", "classes": {"x": [1]}}


@pytest.mark.parametrize(
    ("value", "changes", "said"),
    [
        (
            7,
            {"truth": MASKS},
            r"'x' \(values \[1\]\) is in none of .* at; values there: 0, 7\. Correct tr",
        ),
        (
            7,
            {"tasks": {"t": TASK}},
            r"task t: class 'x' \(values \[1\]\) is in none .*tasks\.t\.cl",
        ),
        (255, {"truth": MASKS, "tasks": {"t": TASK}}, None),
        (0, {"truth": MASKS, "tasks": {"t": TASK}}, None),
        (1, {"truth": {**MASKS, "targets": {"x": [1], "rare": [9]}}}, None),
    ],
)
def test_a_handful_of_masks_is_looked_at(
    tmp_path: Path, value: int, changes: Any, said: str | None
) -> None:
    settings = with_masks(tmp_path, value, **changes)
    if said is None:
        preflight.preflight(settings)
    else:
        with pytest.raises(DataError, match=said):
            preflight.preflight(settings)


def test_a_class_that_a_handful_of_masks_lacks_may_be_rare(tmp_path: Path) -> None:
    task, targets = {**TASK, "classes": {"x": [9]}}, {**MASKS, "targets": {"x": [9]}}
    settings = with_masks(tmp_path, 1, tasks={"t": task}, truth=targets)
    with pytest.raises(DataError, match="is in none of the masks that were looked at"):
        preflight.preflight(settings)
    values = np.array(Image.open(tmp_path / "masks/6.png"))
    values[15:18, 15:18] = 9
    Image.fromarray(values).save(tmp_path / "masks/6.png")
    preflight.preflight(settings)


def test_pictures_without_a_mask_are_left_out_of_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = with_masks(tmp_path, 1, tasks={"t": TASK})
    for number in range(3):
        (tmp_path / f"masks/{number}.png").unlink()
    preflight.preflight(settings)
    assert "task t: 3 of 12 pictures have no mask and are left out" in capsys.readouterr().err
    for file in (tmp_path / "masks").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="file is missing"):
        preflight.preflight(settings)


@pytest.mark.parametrize(
    ("channels", "colour", "said"), [(1, 90, True), (3, 90, False), (1, 0, False)]
)
def test_colours_that_become_grey_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], channels: int, colour: int, said: bool
) -> None:
    settings = with_masks(tmp_path, 1, prepare={"channels": channels})
    for file in (tmp_path / "images").iterdir():
        Image.new("RGB", (24, 20), (100 + colour, 100, 100)).save(file)
    preflight.preflight(settings)
    assert ("set prepare.channels to 3" in capsys.readouterr().err) == said


def test_masks_of_another_size_or_colour_are_said_before_the_run(tmp_path: Path) -> None:
    settings = with_masks(tmp_path, 1, tasks={"t": TASK}, truth=MASKS)
    Image.new("L", (9, 9)).save(tmp_path / "masks/0.png")
    with pytest.raises(DataError, match=r"true mask '0\.png' of '0': is 9x9, its image 24x20"):
        preflight.preflight(settings)
    with pytest.raises(DataError, match=r"mask 'of 0\.png' in 'masks': is 9x9, its image 24x20"):
        preflight.preflight(settings.replace(truth=None))
    Image.new("RGB", (24, 20), "red").save(tmp_path / "masks/0.png")
    with pytest.raises(DataError, match=r"true mask '0\.png' of '0': has colours"):
        preflight.preflight(settings)


def json_of(root: Path, names: list[str], finding: str, size: tuple[int, int]) -> dict[str, Any]:
    """Truth in CheXlocalize's form, of the images of :func:`with_masks`."""
    code = {"size": list(size), "counts": [size[0] * size[1]]}
    (root / "t.json").write_text(json.dumps({name: {finding: code} for name in names}))
    return {"kind": "chexlocalize", "files": ["t.json"]}


@pytest.mark.parametrize(
    ("images", "finding", "size", "said"),
    [
        ("{}", "a", (20, 24), None),
        ("{}", "Edema", (20, 24), "tells of Edema, of none of the findings A"),
        ("scan{}", "A", (20, 24), "truth is of no image of the source, e.g. 'images/0.png'"),
        ("{}", "A", (24, 20), "20x24 pixels, its image has 24x20"),
    ],
)
def test_truth_in_one_file_is_looked_at(
    tmp_path: Path, images: str, finding: str, size: tuple[int, int], said: str | None
) -> None:
    truth = json_of(tmp_path, [images.format(number) for number in range(12)], finding, size)
    settings = with_masks(tmp_path, 1, truth=truth)
    if said is None:
        preflight.preflight(settings)
    else:
        with pytest.raises(DataError, match=said):
            preflight.preflight(settings)


def test_every_mask_that_is_named_is_there(tmp_path: Path) -> None:
    settings = with_masks(tmp_path, 1, tasks={"t": TASK}, truth=MASKS)
    (tmp_path / "masks/7.png").unlink()
    with pytest.raises(DataError, match=r"true mask '7\.png' of '7': file is missing"):
        preflight.preflight(settings)
    task = {**TASK, "table": "t.csv", "mask_column": "mask"}
    named = with_masks(tmp_path / "named", 1, tasks={"t": task})
    (tmp_path / "named/masks/7.png").unlink()
    with pytest.raises(DataError, match=r"task t: mask '7\.png' in 'masks': file is missing"):
        preflight.preflight(named)


def test_truth_of_no_mask_or_of_no_finding_is_refused(tmp_path: Path) -> None:
    settings = with_masks(tmp_path, 1, truth={**MASKS, "findings": ["B"]})
    with pytest.raises(ConfigError, match=r"truth\.findings: unknown finding 'B'; use one of: A"):
        preflight.preflight(settings)
    table = (tmp_path / "t.csv").read_text().splitlines()
    rows = [row.replace(".png,", ".png;", 1).split(",", 1) for row in table[1:]]
    cells = [f"{row[0].split(';')[0]},NA,{row[1]}" for row in rows]
    (tmp_path / "t.csv").write_text("\n".join([table[0], *cells]) + "\n")
    with pytest.raises(DataError, match=r"column 'mask' of truth\.column names no mask"):
        preflight.preflight(settings.replace(truth=TruthConfig(**MASKS)))
