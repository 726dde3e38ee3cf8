"""Volumes of the Decathlon, made here: slices, orientation, window, channels and damage."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import polars as pl
import pytest
from PIL import Image

from dollmaker import config as configuration
from dollmaker.errors import ConfigError, DataError
from dollmaker.preflight import preflight
from dollmaker.prepare.convert import convert

SHAPE = (5, 7, 6)


def resolved(prepare: dict[str, Any] | None = None, **msd: Any) -> Any:
    source = {"kind": "msd", "msd": {"folder": "task", **msd}}
    return configuration.resolve({"dataset": "x", "source": source, "prepare": prepare or {}})


def save(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


def tree(root: Path, names: tuple[str, ...] = ("BRATS_001",)) -> tuple[Any, Any]:
    """Brain in slices 1 to 4; label 1 in slice 2 (one voxel), 3 in slice 3 (ten voxels)."""
    volume = np.zeros((*SHAPE, 2), np.float32)
    volume[1:4, 1:6, 1:5, 0] = np.arange(3 * 5 * 4).reshape(3, 5, 4) + 1
    volume[1:4, 1:6, 1:5, 1] = 100
    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 5, 2] = 1
    labels[1:3, 1:6, 3] = 3
    training = []
    for name in names:
        save(root / f"task/imagesTr/{name}.nii.gz", volume)
        save(root / f"task/labelsTr/{name}.nii.gz", labels)
        entry = {kind: f"./{kind}sTr/{name}.nii.gz" for kind in ("image", "label")}
        training.append(entry)
    content = {"modality": {"0": "FLAIR", "1": "T1w"}, "training": training}
    (root / "task/dataset.json").write_text(json.dumps(content))
    return volume, labels


def run(config: Any, root: Path) -> pl.DataFrame:
    convert(config, root, root / "out", 2)
    return pl.read_csv(root / "out/labels.csv")


def test_slices_with_brain_are_labelled_by_their_voxels(tmp_path: Path) -> None:
    volume, labels = tree(tmp_path, ("BRATS_001", "BRATS_002"))
    table = run(resolved(window=[0, 100], findings={"tumour": [1, 2, 3], "core": [3]}), tmp_path)
    assert table["image"].to_list()[:4] == [f"BRATS_001_z00{z}.png" for z in (1, 2, 3, 4)]
    assert table["patient"].to_list() == ["BRATS_001"] * 4 + ["BRATS_002"] * 4
    assert table["tumour"].to_list()[:4] == [0, 1, 1, 0]
    assert table["core"].to_list()[:4] == [0, 0, 1, 0]
    image = np.asarray(Image.open(tmp_path / "out/images/BRATS_001_z002.png"))
    mask = np.asarray(Image.open(tmp_path / "out/masks/BRATS_001_z002.png"))
    # The first axis runs to the right, the second upwards: voxel (1, 5) is column 1, row 7 - 1 - 5.
    assert image.shape == mask.shape == (7, 5)
    assert np.argwhere(mask).tolist() == [[1, 1]]
    assert image[1, 1] == round((volume[1, 5, 2, 0] - 1) * 255 / 59)
    assert image[0, 0] == 0
    assert Image.open(tmp_path / "out/masks/BRATS_001_z003.png").getextrema() == (0, 3)
    assert (labels[:, :, 3] == 3).sum() == 10


def test_channel_every_and_share(tmp_path: Path) -> None:
    tree(tmp_path)
    assert run(resolved(every=2), tmp_path)["image"].to_list() == [
        "BRATS_001_z002.png",
        "BRATS_001_z004.png",
    ]
    assert run(resolved(min_share=2 / 35), tmp_path)["tumour"].to_list() == [0, 0, 1, 0]
    run(resolved(channel="t1W"), tmp_path)
    image = np.asarray(Image.open(tmp_path / "out/images/BRATS_001_z002.png"))
    assert set(image.ravel().tolist()) == {0}  # a flat brain has no range to stretch
    with pytest.raises(ConfigError, match="unknown channel 'T2w'; use one of: 0, 1, FLAIR, T1w"):
        run(resolved(channel="T2w"), tmp_path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("nan", "holds values that are not finite"),
        ("shape", r"labels have the shape \(5, 7, 5\), the volume \(5, 7, 6\)"),
        ("axes", r"has the shape \(5, 7\)"),
        ("missing", r"BRATS_001\.nii\.gz is missing"),
        ("bytes", "is not NIfTI"),
        ("empty", "holds zeros only"),
        ("cut", "is damaged"),
    ],
)
def test_damaged_volumes_are_refused_with_the_reason(
    tmp_path: Path, damage: str, said: str
) -> None:
    volume, labels = tree(tmp_path)
    image = tmp_path / "task/imagesTr/BRATS_001.nii.gz"
    if damage == "nan":
        volume[2, 2, 2, 0] = np.nan
        save(image, volume)
    elif damage == "shape":
        save(tmp_path / "task/labelsTr/BRATS_001.nii.gz", labels[:, :, :5])
    elif damage == "axes":
        save(image, volume[:, :, 0, 0])
    elif damage == "missing":
        image.unlink()
    elif damage == "bytes":
        image.write_bytes(b"no volume")
    elif damage == "empty":
        save(image, volume * 0)
    else:
        noise = np.random.default_rng(0).random((20, 20, 20, 2), dtype=np.float32)
        save(image, noise)
        image.write_bytes(image.read_bytes()[:20_000])
    with pytest.raises(DataError, match=f"{said}.*mend them or raise") as caught:
        run(resolved(), tmp_path)
    assert "1 of 1" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_large_volumes_and_wrong_descriptions_are_refused(tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(DataError, match="over 100 voxels"):
        run(resolved({"max_pixels": 100}), tmp_path)
    config = {**resolved(), "data_root": str(tmp_path)}
    preflight(config)
    (tmp_path / "task/dataset.json").write_text('{"modality": []}')
    with pytest.raises(DataError, match=r"lacks modality or training.*unpack the task again"):
        preflight(config)
    with pytest.raises(DataError, match=r"correct source\.msd\.folder"):
        run(resolved(folder="nowhere"), tmp_path)
    content = {"modality": {"0": "A"}, "training": [{"image": "../../x", "label": "y"}]}
    (tmp_path / "task/dataset.json").write_text(json.dumps(content))
    (tmp_path / "task/y").write_bytes(b"")
    with pytest.raises(DataError, match="1 of 1"):
        run(resolved(), tmp_path)
