"""Sources, splits, decoding, index and quarantine."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from dollmaker.config import settings as configuration
from dollmaker.config.whole import Config
from dollmaker.pixels.geometry import Fit, window
from dollmaker.pixels.pictures import decode
from dollmaker.prepare import stage
from dollmaker.prepare.listing import assert_disjoint, assign
from dollmaker.prepare.sources import list_source
from dollmaker.runtime.errors import ConfigError, DataError
from dollmaker.store import tables
from dollmaker.store.findings import CHEXPERT
from dollmaker.store.shards import Shard
from dollmaker.store.tables import read_index

TABLE = {"file": "t.csv", "images": "images", "image_column": "name", "label_column": "class"}


def table_config(prepare: dict[str, Any] | None = None, **given: Any) -> Config:
    """A table; what is no section is an option of it."""
    sections = {key: given.pop(key) for key in [*given] if key in Config.model_fields}
    return configuration.resolved(
        {
            "dataset": "x",
            "source": {"kind": "table", "table": {**TABLE, **given}},
            "prepare": {"size": 16, "max_quarantined": 0.5, **(prepare or {})},
            **sections,
        }
    )


def write_images(root: Path, names: list[str]) -> None:
    rng = np.random.default_rng(0)
    for name in names:
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 30), dtype=np.uint8)).save(path)


def run(config: Config, root: Path, out: Path) -> pl.DataFrame:
    stage.list_images(config, root, out / "listing.parquet")
    rows = []
    for number in range(config.prepare.shards):
        rows.append(out / f"{number:04d}.parquet")
        stage.decode_shard(
            config, stage.Inputs(listing=out / "listing.parquet", data_root=root), f"{number:04d}",
            out / "images" / f"{number:04d}.h5", rows[-1], workers=2,
        )  # fmt: skip
    stage.build_index(config, out / "listing.parquet", rows, out / "index.parquet", out / "q.csv")
    return read_index(out / "index.parquet")[0]


def test_splits_follow_the_patient_and_the_shares() -> None:
    splits = [assign(f"p{number}", 0.1, 0.2) for number in range(5000)]
    assert assign("p7", 0.1, 0.2) == splits[7]
    assert abs(splits.count("test") / 5000 - 0.2) < 0.02
    assert abs(splits.count("valid") / 5000 - 0.1) < 0.02
    with pytest.raises(DataError, match="'b'"):
        assert_disjoint(pl.DataFrame({"patient_id": ["b", "b"], "split": ["train", "test"]}))


def test_broken_images_are_quarantined_with_their_reason(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png", "b.png", "sub/c.png", "d.png"])
    (tmp_path / "images/b.png").write_bytes(b"no image")
    (tmp_path / "t.csv").write_text(
        "name,class\na.png,x\nb.png,y\nsub/c.png,x\nd.png,y\nabsent.png,x\n../../etc/passwd,y\n"
        "e.jpg,x\n"
    )
    index = run(table_config(prepare={"max_quarantined": 0.9}), tmp_path, tmp_path / "out")
    assert index["image_id"].to_list() == ["a", "sub_c", "d"]
    quarantine = pl.read_csv(tmp_path / "out/q.csv")
    reasons = dict(quarantine.select("path", "reason").rows())
    assert "not a readable image" in reasons["images/b.png"]
    assert "missing" in reasons["images/absent.png"]
    assert "leaves the data root" in reasons["images/../../etc/passwd"]
    assert len(index) + len(quarantine) == 7
    with Shard(tmp_path / "out/images/0000.h5", "images") as shard:
        for image_id, row in index.select("image_id", "row").iter_rows():
            assert shard.table()["image_id"][row] == image_id


def test_too_many_broken_images_stop_the_run_and_leave_the_list(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png"])
    (tmp_path / "t.csv").write_text("name,class\na.png,x\nb.png,y\nc.png,y\n")
    with pytest.raises(DataError, match="2 of 3 images"):
        run(table_config(), tmp_path, tmp_path / "out")
    assert len(pl.read_csv(tmp_path / "out/q.csv")) == 2


def test_an_image_listed_twice_counts_once(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "t.csv").write_text("name,class\na.png,x\nb.png,y\n.\\a.png,y\n")
    assert run(table_config(), tmp_path, tmp_path / "out")["image_id"].to_list() == ["a", "b"]
    assert pl.read_csv(tmp_path / "out/q.csv")["reason"].to_list() == ["image_id occurs twice"]


@pytest.mark.parametrize("fit", ["letterbox", "resize", "crop"])
@pytest.mark.parametrize("shape", [(20, 30), (31, 20), (20, 20)])
def test_means_are_of_what_the_square_shows(
    shape: tuple[int, int], fit: Fit, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = decode(tmp_path / "a.png", size=16, channels=3, fit=fit, max_pixels=1000)
    assert (found.height, found.width) == shape and found.pixels.shape == (3, 16, 16)
    left, top, right, bottom = window(found.width, found.height, fit)
    assert found.mean == pytest.approx(pixels[top:bottom, left:right].mean(axis=(0, 1)))
    bars = (found.pixels == 0).all(axis=(0, 2)).any() or (found.pixels == 0).all(axis=(0, 1)).any()
    assert bars == (fit == "letterbox" and shape[0] != shape[1])


def test_a_set_is_prepared_with_every_fit(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "t.csv").write_text("name,class\na.png,x\nb.png,y\n")
    shown = {}
    for fit in ("letterbox", "resize", "crop"):
        folder = tmp_path / fit
        index = run(table_config(prepare={"fit": fit}), tmp_path, folder)
        assert index["width"].to_list() == [30, 30] and index["height"].to_list() == [20, 20]
        with Shard(folder / "images/0000.h5", "images") as shard:
            assert shard.table()["width"].tolist() == [30, 30]
            shown[fit] = shard.read("image")
            assert shard.header["config"]["fit"] == fit
    source = Image.open(tmp_path / "images/a.png").crop((5, 0, 25, 20))
    wanted = np.asarray(source.resize((16, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(shown["crop"][0, 0], wanted)
    assert not np.array_equal(shown["crop"], shown["resize"])


def test_images_whose_names_become_one_stay_apart(tmp_path: Path) -> None:
    names = ["s/1.png", "s_1.png", "1.2.840.4", "1.2.840.5", "x.png", "x.tif"]
    (tmp_path / "images/s").mkdir(parents=True)
    for value, name in enumerate(names):
        with (tmp_path / "images" / name).open("wb") as file:
            Image.new("L", (9, 9), 20 * value).save(file, format="PNG")
    (tmp_path / "t.csv").write_text("name,class\n" + "".join(f"{name},c\n" for name in names))
    index = run(table_config(), tmp_path, tmp_path / "out")
    assert index["path"].to_list() == [f"images/{name}" for name in names]
    ids = index["image_id"].to_list()
    assert len(set(ids)) == 6
    assert ids[2:4] == ["1.2.840.4", "1.2.840.5"]
    assert ids[0].startswith("s_1-") and ids[5].startswith("x-")
    with Shard(tmp_path / "out/images/0000.h5", "images") as shard:
        for image_id, row in index.select("image_id", "row").iter_rows():
            assert shard.table()["image_id"][row] == image_id


def test_paths_of_windows_are_paths(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,class,m\n.\\p1\\a.png,x,p1\\a_m.png\np2\\a.png,y,\n")
    truth = {"kind": "masks", "folder": "masks", "column": "m", "targets": {"t": [1]}}
    plan, _ = list_source(table_config(truth=truth), tmp_path)
    assert plan["path"].to_list() == ["images/p1/a.png", "images/p2/a.png"]
    assert plan["image_id"].to_list() == ["p1_a", "p2_a"]
    assert plan["mask"].to_list() == ["p1/a_m.png", None]


def test_patients_of_tables_with_gaps_are_the_same_patients(tmp_path: Path) -> None:
    people = [1, 2, 30, 30]
    rows = pl.DataFrame({"name": [f"{n}.png" for n in range(4)], "class": ["x"] * 4, "who": people})
    plans = []
    for who in (people, [float(number) for number in people]):
        rows.with_columns(pl.Series("who", who)).write_parquet(tmp_path / "t.parquet")
        plans.append(list_source(table_config(file="t.parquet", patient_column="who"), tmp_path)[0])
    rows.with_columns(pl.Series("who", ["1.0", "2.00", "30.0", "30"])).write_csv(tmp_path / "t.csv")
    plans.append(list_source(table_config(patient_column="who"), tmp_path)[0])
    assert plans[0]["patient_id"].to_list() == ["1", "2", "30", "30"]
    assert plans[1].equals(plans[0]) and plans[2].equals(plans[0])


@pytest.mark.parametrize("who", ["1.23457E+11", "1,23457e+11", "1e+05"])
def test_shortened_numbers_are_no_patients(tmp_path: Path, who: str) -> None:
    (tmp_path / "t.csv").write_text(f'name,class,who\na.png,x,12\nb.png,y,"{who}"\n')
    with pytest.raises(DataError, match=f"line 3: 'who' is '{re.escape(who)}', a long number"):
        list_source(table_config(patient_column="who"), tmp_path)


@pytest.mark.parametrize("absent", ["NA", "nan", "<NA>", "NULL", "N/A"])
def test_a_missing_value_is_neither_a_patient_nor_a_class(tmp_path: Path, absent: str) -> None:
    (tmp_path / "t.csv").write_text(f"name,class,who\na.png,x,1\nb.png,{absent},{absent}\n")
    for column, key in (("class", None), ("who", "class")):
        config = table_config(label_column=key or column, patient_column="who")
        with pytest.raises(DataError, match=f"line 3: '[a-z]+' is '{absent}', a missing value"):
            list_source(config, tmp_path)


@pytest.mark.parametrize("classes", [("Mass", "mass"), ("No Finding", "no_finding"), ("1", "1.0")])
def test_one_class_by_two_spellings_is_refused(tmp_path: Path, classes: tuple[str, str]) -> None:
    one, other = classes
    (tmp_path / "t.csv").write_text(f"name,class\na.png,{one}\nb.png,{other}\nc.png,z\n")
    with pytest.raises(DataError, match=f"the classes '{one}' and '{other}' of the column 'class'"):
        list_source(table_config(), tmp_path)


@pytest.mark.parametrize("people", [("P1", "p1"), ("007", "7"), ("Ann B", "Ann  B")])
def test_a_patient_by_two_spellings_is_in_one_split(
    tmp_path: Path, people: tuple[str, str]
) -> None:
    one, other = people
    for parts, refused in (("train,test", True), ("test,test", False)):
        first, second = parts.split(",")
        rows = f"name,class,who,part\na.png,x,{one},{first}\nb.png,y,{other},{second}\n"
        (tmp_path / "t.csv").write_text(rows + "A.png,x,9,train\n")
        config = table_config(patient_column="who", split_column="part")
        if refused:
            with pytest.raises(DataError, match="differ in case, blanks or leading zeros only"):
                list_source(config, tmp_path)
        else:
            assert len(list_source(config, tmp_path)[0]) == 3
    config = table_config(split_column="part")  # images of such names are not one patient
    (tmp_path / "t.csv").write_text("name,class,part\na.png,x,train\nA.png,y,test\n")
    assert len(list_source(config, tmp_path)[0]) == 2


def test_a_patient_in_two_splits_of_a_table_is_refused_by_the_listing(tmp_path: Path) -> None:
    rows = "name,class,who,part\na.png,x,7,train\nb.png,y,7.0,test\nc.png,y,8,test\n"
    (tmp_path / "t.csv").write_text(rows)
    with pytest.raises(DataError, match=r"patient '7' is in more than one split"):
        list_source(table_config(patient_column="who", split_column="part"), tmp_path)


def label_plan(root: Path, cells: list[str]) -> list[int | None]:
    text = "".join(f'{number}.png,"{cell}"\n' for number, cell in enumerate(cells))
    (root / "t.csv").write_text("name,A\n" + text)
    config = table_config(label_column=None, finding_columns=["A"])
    return list_source(config, root)[0]["A"].to_list()


def test_labels_are_read_as_other_programs_write_them(tmp_path: Path) -> None:
    written = {
        1: ["1", "1.00", "1,0", "1.", "1.000e+00", "TRUE", "true"],
        0: ["0", "0.0", "0,00", "-0.0", "False"],
        -1: ["-1", "-1.0", "-1,0"],
        None: ["", " ", "NA", "N/A", "nan", "NaN", "<NA>", "NULL"],
    }
    for label, cells in written.items():
        assert label_plan(tmp_path, cells) == [label] * len(cells)


@pytest.mark.parametrize("cell", ["2", "0.5", "yes", "None", "1 0", "1e1", "11", "inf", "x"])
def test_other_labels_are_refused_by_their_line(tmp_path: Path, cell: str) -> None:
    words = f"line 4: label '{cell}' of 'A'; use 1, 0, -1 or blank .or TRUE, FALSE, NA.[.]"
    with pytest.raises(DataError, match=words):
        label_plan(tmp_path, ["1", "NA", cell, "7"])


def test_the_table_of_labels_stays_below_the_data_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "t.csv").write_text("name,class\na.png,x\n")
    with pytest.raises(DataError, match="leaves the data root"):
        list_source(table_config(file="../t.csv"), tmp_path / "root")
    (tmp_path / "root/t.csv").symlink_to(tmp_path / "t.csv")
    with pytest.raises(DataError, match="set allow_links: true"):
        list_source(table_config(), tmp_path / "root")
    config = table_config(allow_links=True)
    assert len(list_source(config, tmp_path / "root")[0]) == 1


def test_the_number_of_shards_changes_nothing_but_the_shards(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(11)]
    write_images(tmp_path, names)
    (tmp_path / "t.csv").write_text("name,class\n" + "".join(f"{n},x\n" for n in names))
    one = run(table_config(), tmp_path, tmp_path / "one")
    three = run(table_config(prepare={"shards": 3}), tmp_path, tmp_path / "three")
    assert one.drop("shard", "row").equals(three.drop("shard", "row"))
    assert three["shard"].unique().to_list().__len__() == 3


def test_patients_stay_together(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(40)]
    write_images(tmp_path, names)
    rows = "".join(f"{n},x,p{i % 8}\n" for i, n in enumerate(names))
    (tmp_path / "t.csv").write_text("name,class,who\n" + rows)
    config = table_config(prepare={"valid": 0.3, "test": 0.3}, patient_column="who")
    index = run(config, tmp_path, tmp_path / "out")
    assert index.group_by("patient_id").agg(pl.col("split").n_unique())["split"].max() == 1


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("name,klass\na,x\n", {}, ["lacks the column 'class'", "name, klass"]),
        ("name,class\na,\n", {}, ["line 2", "'class' is blank"]),
        ("name,class\n", {}, ["has no rows"]),
        ("name,A\na,2\n", {"label_column": None, "finding_columns": ["A"]}, ["label '2' of 'A'"]),
        ("name,class,split\na,x,dev\n", {"split_column": "split"}, ["split 'dev'"]),
        *(
            (f"name,{taken}\na,1\n", {"label_column": None, "finding_columns": [taken]}, [taken])
            for taken in ("path", "hash", "row", "mean", "reason")
        ),
    ],
)
def test_wrong_tables_are_one_sentence(
    tmp_path: Path, text: str, options: dict[str, Any], words: list[str]
) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        list_source(table_config(**options), tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_labels_keep_uncertain_and_blank(tmp_path: Path) -> None:
    # A byte order mark, Windows line ends and blanks around values, as spreadsheets write them.
    text = "\ufeffname,A,B\r\na.png,1.0, -1 \r\nb.png,,0\r\n"
    (tmp_path / "t.csv").write_text(text, newline="")
    config = table_config(label_column=None, finding_columns=["A", "B"])
    plan, names = list_source(config, tmp_path)
    assert names == ["A", "B"]
    assert plan["A"].to_list() == [1, None]
    assert plan["B"].to_list() == [-1, 0]


def test_an_unknown_finding_is_refused_with_the_list(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,class\na,x\nb,y\n")
    config = table_config(attribute={"findings": ["z"]})
    with pytest.raises(ConfigError, match="unknown finding 'z'; use one of: x, y"):
        stage.list_images(config, tmp_path, tmp_path / "listing.parquet")


@pytest.mark.parametrize("folder", ["CheXpert-v1.0-small", "CheXpert-v1.0", "renamed"])
def test_chexpert_is_read_as_released(tmp_path: Path, folder: str) -> None:
    head = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT]
    (tmp_path / folder).mkdir()
    base = "CheXpert-v1.0-small"
    for split, patient in (("train", "patient00001"), ("valid", "patient64541")):
        rows = [
            [f"{base}/{split}/{patient}/study1/view1_frontal.jpg", "Male", "50", "Frontal", "AP"]
            + ["1.0", "", "-1.0", "0.0"] + [""] * 10,
            [f"{base}/{split}/{patient}/study1/view2_lateral.jpg", "Male", "50", "Lateral", ""]
            + [""] * 14,
        ]  # fmt: skip
        lines = [",".join(row) for row in [head, *rows]]
        (tmp_path / folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    source = {"kind": "chexpert", "chexpert": {"folder": folder}}
    config = configuration.resolved({"dataset": "x", "source": source})
    plan, names = list_source(config, tmp_path)
    assert names == list(CHEXPERT)
    assert plan["image_id"].to_list() == [
        "patient00001_study1_view1_frontal",
        "patient64541_study1_view1_frontal",
    ]
    assert plan["path"][0] == f"{folder}/train/patient00001/study1/view1_frontal.jpg"
    assert plan["split"][1] == "test"
    assert plan.select("No Finding", "Cardiomegaly", "Lung Opacity", "Edema").row(0) == (
        1, -1, 0, None,
    )  # fmt: skip


CHEXPERT_HEAD = ",".join(["Path", "Frontal/Lateral", *CHEXPERT])


def chexpert_plan(root: Path, folder: str, *, train: str, valid: str) -> pl.DataFrame:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, path in (("train", train), ("valid", valid)):
        row = f"{path},Frontal," + ",".join(["1.0"] * 14)
        (root / folder / f"{name}.csv").write_text(f"{CHEXPERT_HEAD}\n{row}\n")
    source = {"kind": "chexpert", "chexpert": {"folder": folder}}
    return list_source(configuration.resolved({"dataset": "x", "source": source}), root)[0]


@pytest.mark.parametrize("folder", ["patient9/CheXpert-v1.0-small", "CheXpert data/patients", "."])
@pytest.mark.parametrize("before", ["CheXpert-v1.0-small/", "", "patient7/CheXpert/", "patients/"])
def test_patients_of_chexpert_are_those_of_the_table(
    tmp_path: Path, folder: str, before: str
) -> None:
    plan = chexpert_plan(
        tmp_path,
        folder,
        train=f"{before}train/patient00001/study2/view1_frontal.jpg",
        valid=f"{before}valid/patient64541/study1/view1_frontal.jpg".replace("/", "\\"),
    )
    assert plan["patient_id"].to_list() == ["patient00001", "patient64541"]
    assert plan["image_id"].to_list() == [
        "patient00001_study2_view1_frontal",
        "patient64541_study1_view1_frontal",
    ]
    kept = "patients/" if before == "patients/" else ""
    prefix = "" if folder == "." else f"{folder}/"
    assert plan["path"][0] == f"{prefix}{kept}train/patient00001/study2/view1_frontal.jpg"


def test_a_chexpert_path_without_a_patient_is_refused(tmp_path: Path) -> None:
    path = "patients/train/study1/patient.jpg"
    with pytest.raises(DataError, match=r"in table .*train\.csv names no patient"):
        chexpert_plan(tmp_path, "patient1", train=path, valid=path)


def _decode(path: Path, **options: Any) -> Any:
    return decode(
        path, **{"size": 8, "channels": 1, "fit": "resize", "max_pixels": 10**6, **options}
    )


def test_modes_become_eight_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 4000], [2000, 4000]], np.uint16)).save(path)
    assert sorted(set(_decode(path, size=2).pixels.ravel().tolist())) == [0, 127, 255]
    Image.new("RGBA", (4, 4), (255, 255, 255, 0)).save(path)
    assert _decode(path).pixels.max() == 0
    Image.new("CMYK", (4, 4), (0, 0, 0, 0)).save(tmp_path / "a.jpg")
    assert _decode(tmp_path / "a.jpg", channels=3).pixels.shape == (3, 8, 8)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_bytes_that_are_no_image_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable image|is empty"):
        _decode(tmp_path / "a.png")


def test_bombs_and_animations_are_refused(tmp_path: Path) -> None:
    Image.new("L", (2000, 2000)).save(tmp_path / "big.png")
    with pytest.raises(DataError, match="2000x2000"):
        _decode(tmp_path / "big.png")
    frames = [Image.new("L", (4, 4), value) for value in (0, 99)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="frames"):
        _decode(tmp_path / "a.gif")


def test_the_index_knows_the_mean_of_the_training_images(tmp_path: Path) -> None:
    for name, value in (("a", 10), ("b", 30)):
        path = tmp_path / "images" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (5, 9), value).save(path)
    (tmp_path / "t.csv").write_text("name,class,s\na.png,x,train\nb.png,y,train\n")
    run(table_config(split_column="s"), tmp_path, tmp_path / "out")
    assert tables.read_header(tmp_path / "out/index.parquet")["channel_mean"] == [20.0]
