"""Volumes of the Decathlon, made here, and what is made of them."""

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import polars as pl
from PIL import Image

from dollmaker.config import settings as configuration
from dollmaker.pixels.pictures import read_channels
from dollmaker.prepare.convert import convert

SHAPE = (5, 7, 6)


def resolved(prepare: dict[str, Any] | None = None, **msd: Any) -> Any:
    source = {"kind": "msd", "msd": {"folder": "task", **msd}}
    return configuration.resolved({"dataset": "x", "source": source, "prepare": prepare or {}})


def save(path: Path, values: Any, affine: Any = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)


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


def describe(root: Path, **content: Any) -> None:
    (root / "task/dataset.json").write_text(json.dumps(content))


def pair(root: Path, image: Any, label: Any, affine: Any = None, **content: Any) -> None:
    """One volume and its label as the Decathlon lists them."""
    save(root / "task/imagesTr/P1.nii.gz", image, affine)
    save(root / "task/labelsTr/P1.nii.gz", label, affine)
    entry = {kind: f"./{kind}sTr/P1.nii.gz" for kind in ("image", "label")}
    describe(root, modality={"0": "MR"}, training=[entry], **content)


def head() -> tuple[Any, Any]:
    """A volume without symmetry in a black surround, and a label of two values in it."""
    image = np.zeros((4, 5, 3), np.float32)
    image[1:, 1:4, :2] = np.arange(18).reshape(3, 3, 2) + 1
    return image, (image > 12).astype(np.uint8) + (image > 15)


def pictures(root: Path) -> list[list[Any]]:
    """Name, picture and mask of each slice that was written."""
    paths = sorted((root / "out/images").iterdir())
    both = ("images", "masks")
    return [
        [path.name, *(np.asarray(Image.open(root / "out" / f / path.name)).tolist() for f in both)]
        for path in paths
    ]


def decoded(root: Path, name: str, channels: int, bits: Any) -> Any:
    done = read_channels(root / "out/images" / name, channels=channels, bits=bits, max_pixels=10**6)
    return done.pixels
