"""Patches: counts by hand, a known pixel, splits and balance, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from dollmaker.config import settings as configuration
from dollmaker.evaluate.stage import load_truth
from dollmaker.launch import pipeline
from dollmaker.launch.preflight import preflight
from dollmaker.prepare.convert import convert
from dollmaker.prepare.listing import assign
from dollmaker.prepare.sources import list_source
from dollmaker.runtime.errors import DataError

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "table": "d/t.csv",
    "images": "d/images",
    "masks": "d/masks",
    "image_column": "image",
    "mask_column": "mask",
    "finding": "nuclei",
    "side": 8,
}
TRUTH = {"kind": "masks", "folder": "masks", "column": "mask", "targets": {"nuclei": [1]}}


def resolved(prepare: dict[str, Any] | None = None, seed: int = 0, **patches: Any) -> Any:
    return configuration.resolved(
        {
            "dataset": "x",
            "seed": seed,
            "source": {"kind": "patches", "patches": {**OPTIONS, **patches}},
            "prepare": prepare or {},
            "truth": TRUTH,
        }
    )


def tree(root: Path, masks: dict[str, Any], suffix: str = ".png") -> None:
    """Images whose pixels count upwards, with the given masks."""
    for name in ("images", "masks"):
        (root / "d" / name).mkdir(parents=True, exist_ok=True)
    lines = ["image,mask,who"]
    for number, (name, mask) in enumerate(masks.items()):
        values = np.arange(mask.size, dtype=np.uint32).reshape(mask.shape) % 251
        Image.fromarray(values.astype(np.uint8)).save(root / "d/images" / f"{name}.png")
        Image.fromarray(mask).save(root / "d/masks" / f"{name}{suffix}")
        lines.append(f"{name}.png,{name}{suffix},p{number // 2}")
    (root / "d/t.csv").write_text("\n".join(lines) + "\n")


def mask_of(height: int, width: int, *areas: tuple[int, int, int, int], value: int = 255) -> Any:
    mask = np.zeros((height, width), np.uint8)
    for top, left, bottom, right in areas:
        mask[top:bottom, left:right] = value
    return mask


def run(config: Any, root: Path, out: str = "out", workers: int = 1) -> pl.DataFrame:
    convert(config, root, root / out, workers)
    return pl.read_csv(root / out / "labels.csv")


def test_labels_and_pixels_are_those_of_the_grid(tmp_path: Path) -> None:
    # 20x27 holds 2x3 patches of 8; the object touches the upper left and the lower right one.
    tree(tmp_path, {"a": mask_of(20, 27, (7, 7, 8, 8), (15, 16, 20, 27))})
    table = run(resolved(balance=False), tmp_path)
    assert table["image"].to_list() == [
        f"a_y{top:04d}_x{left:04d}.png" for top in (0, 8) for left in (0, 8, 16)
    ]
    assert table["nuclei"].to_list() == [1, 0, 0, 0, 0, 1]
    assert set(table["patient"]) == {"a"}
    image = np.asarray(Image.open(tmp_path / "out/images/a_y0008_x0016.png"))
    assert image.shape == (8, 8) and image[0, 0] == (8 * 27 + 16) % 251
    assert np.asarray(Image.open(tmp_path / "out/masks/a_y0000_x0000.png")).sum() == 1
    assert np.asarray(Image.open(tmp_path / "out/masks/a_y0008_x0016.png")).tolist()[-1] == [1] * 8
    plan, names = list_source(resolved(balance=False), tmp_path / "out")
    assert names == ["nuclei"] and plan["mask"].to_list() == table["mask"].to_list()
    row = plan.row(0, named=True) | {"width": 8, "height": 8}
    truth = load_truth(resolved(), tmp_path / "out", names)
    assert truth is not None
    area = truth.mask(row, "nuclei", "nuclei")
    assert area is not None and np.argwhere(area).tolist() == [[7, 7]]


def test_stride_share_values_and_scale(tmp_path: Path) -> None:
    mask = mask_of(16, 16, (0, 0, 4, 8), value=3)
    mask[12:, 12:] = 9
    tree(tmp_path, {"a": mask})
    table = run(resolved(balance=False, stride=4), tmp_path)
    assert len(table) == 9
    assert table["nuclei"].to_list() == [1, 1, 0, 0, 0, 0, 0, 0, 1]
    half = run(resolved(balance=False, min_share=0.5), tmp_path)
    assert half["nuclei"].to_list() == [1, 0, 0, 0]  # 32 of 64 pixels reach it, 16 do not
    only = run(resolved(balance=False, values=[9]), tmp_path)
    assert only["nuclei"].to_list() == [0, 0, 0, 1]
    small = run(resolved(balance=False, scale=2.0, side=16), tmp_path)
    assert small["nuclei"].to_list() == [1, 0, 0, 1]
    assert np.asarray(Image.open(tmp_path / "out/masks" / small["mask"][0])).sum() == 4 * 32


def test_masks_of_jpeg_and_of_equal_channels(tmp_path: Path) -> None:
    grey = mask_of(16, 16, (0, 0, 8, 8))
    tree(tmp_path, {"a": np.stack([grey] * 3, axis=-1)[..., 0]}, suffix=".jpg")
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "d/masks/a.jpg", quality=70)
    table = run(resolved(balance=False), tmp_path)
    assert table["nuclei"].to_list() == [1, 0, 0, 0]


def many() -> dict[str, Any]:
    """40 images of four patches: one positive, three negative."""
    return {f"i{number:02d}": mask_of(16, 16, (0, 0, 3, 3)) for number in range(40)}


def test_each_split_is_balanced_and_no_image_is_divided(tmp_path: Path) -> None:
    tree(tmp_path, many())
    config = resolved({"valid": 0.2, "test": 0.3}, patient_column="who")
    table = run(config, tmp_path)
    assert len(table) == 80 and table["nuclei"].sum() == 40
    assert len(list((tmp_path / "out/images").iterdir())) == 80
    splits = [assign(patient, 0.2, 0.3) for patient in table["patient"]]
    shares = table.with_columns(split=pl.Series(splits)).group_by("split")
    assert set(shares.agg(pl.col("nuclei").mean())["nuclei"]) == {0.5}
    plan, _ = list_source(config, tmp_path / "out")
    assert plan["split"].to_list() == splits
    assert plan["patient_id"].n_unique() == 20
    other = run(resolved(patient_column="who", seed=1), tmp_path, "other")
    assert set(other["image"]) != set(table["image"]) and len(other) == 80


def test_the_folder_does_not_depend_on_workers(tmp_path: Path) -> None:
    tree(tmp_path, many())
    for out, workers in (("one", 1), ("three", 3)):
        run(resolved(), tmp_path, out, workers)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 2 * 80 + 3
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "three" / file).read_bytes()


def test_what_cannot_be_read_is_left_out_with_its_reason(tmp_path: Path) -> None:
    tree(tmp_path, {**many(), "small": mask_of(7, 30)})
    (tmp_path / "d/images/i00.png").write_bytes(b"no image")
    Image.fromarray(mask_of(16, 15)).save(tmp_path / "d/masks/i01.png")
    Image.new("RGB", (16, 16), (1, 2, 3)).save(tmp_path / "d/masks/i02.png")
    Image.new("L", (40, 40)).save(tmp_path / "d/images/i03.png")
    config = resolved({"max_quarantined": 0.2, "max_pixels": 1000})
    assert len(run(config, tmp_path)) == 2 * 36
    left = dict(pl.read_csv(tmp_path / "out/left_out.csv").rows())
    assert "not a readable image" in left["i00.png"]
    assert left["i01.png"] == "mask 'i01.png': is 15x16, its image 16x16 pixels"
    assert "has colours" in left["i02.png"]
    assert "over 1000 pixels" in left["i03.png"]
    assert "less than one patch of 8" in left["small.png"]
    assert len(left) == 5
    with pytest.raises(DataError, match=r"5 of 41 .*mend them or raise prepare\.max_quarantined"):
        run(resolved({"max_pixels": 1000}), tmp_path, "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"table": "d/absent.csv"}, "does not exist; correct data_root"),
        ({"mask_column": "masque"}, "lacks the column 'masque'; it has: image, mask, who"),
        ({"masks": "d/nowhere"}, r"nowhere does not exist; correct source\.patches\.masks"),
        ({"images": "../d"}, "leaves the data root"),
        ({"values": [7]}, r"'nuclei' \(values \[7\]\) is in no mask; values there: 0, 255"),
        ({"side": 16}, r"each of 40 patches holds nuclei; lower source\.patches\.side"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    tree(tmp_path, many())
    with pytest.raises(DataError, match=said):
        run(resolved(**options), tmp_path)


def test_names_too_long_for_a_file_are_left_out(tmp_path: Path) -> None:
    deep = f"{'a' * 120}/{'b' * 120}"
    tree(tmp_path, many())
    for kind in ("images", "masks"):
        place = tmp_path / f"d/{kind}/{deep}"
        place.mkdir(parents=True)
        shutil.copy(tmp_path / f"d/{kind}/i00.png", place)
    with (tmp_path / "d/t.csv").open("a") as file:
        file.write(f"{deep}/i00.png,{deep}/i00.png,p0\n")
    assert len(run(resolved({"max_quarantined": 0.2}), tmp_path)) == 2 * 40
    (left,) = pl.read_csv(tmp_path / "out/left_out.csv")["reason"]
    assert left.endswith("bytes, folders included, over 240; give it a short name")


def test_an_image_listed_twice_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, many())
    with (tmp_path / "d/t.csv").open("a") as file:
        file.write("i00.png,i00.png,p0\n")
    with pytest.raises(DataError, match="two pictures 'i00_y0000_x0000"):
        run(resolved(), tmp_path)


def test_the_pipeline_reads_the_converted_folder_and_checks_the_original(tmp_path: Path) -> None:
    tree(tmp_path, many())
    config = resolved().replace(data_root=str(tmp_path))
    assert pipeline.data_root(config) == "results/x/source"
    assert pipeline.source_files(config) == ["results/x/source"]
    assert pipeline.original_files(config) == [f"{tmp_path}/d/t.csv"]
    preflight(config)
    assert not (tmp_path / "results").exists()
    given = configuration.loaded(pipeline.stage_config(config, "convert")).dump()
    assert given["source"] == config.source.dump()
    other = config.replace(prepare=config.prepare.replace(size=99))
    assert pipeline.stage_config(config, "convert") == pipeline.stage_config(other, "convert")
    with pytest.raises(DataError, match="lacks the column 'b'"):
        patches = config.source.own.replace(image_column="b")
        preflight(config.replace(source=config.source.replace(patches=patches)))
    with pytest.raises(DataError, match="convert the source first"):
        list_source(resolved(), tmp_path / "results/x/source")


def test_the_configurations_resolve() -> None:
    for name in ("nuclei", "nih", "brain-tumour", "jsrt", "cxr"):
        config = configuration.loaded(str(ROOT / f"workflow/configs/{name}.yaml")).dump()
        assert config["dataset"] == name
