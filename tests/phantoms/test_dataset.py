"""The written tree is CheXpert's, complete and reproducible."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from dollmaker.phantoms.dataset import ORGAN_BITS, write_dataset
from dollmaker.phantoms.patient import OPACITIES
from dollmaker.phantoms.study import FINDINGS
from dollmaker.runtime.errors import ConfigError
from dollmaker.store.findings import CHEXPERT

ROOT = "CheXpert-v1.0-small"
HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,"
    "Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,"
    "Pleural Effusion,Pleural Other,Fracture,Support Devices"
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("phantoms")
    write_dataset(output, images=120, size=64, seed=4, task_images=6)
    return output


def rows(tree: Path, split: str) -> list[dict[str, str]]:
    with (tree / ROOT / f"{split}.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def digests(tree: Path) -> dict[str, str]:
    return {
        str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(tree.rglob("*"))
        if path.is_file()
    }


def test_tables_are_chexperts(tree: Path) -> None:
    for split, legal in (("train", {"1.0", "0.0", "-1.0", ""}), ("valid", {"1.0", "0.0"})):
        text = (tree / ROOT / f"{split}.csv").read_text()
        assert text.splitlines()[0] == HEADER
        table = rows(tree, split)
        assert {row[name] for row in table for name in CHEXPERT} == legal
        assert {row["Sex"] for row in table} <= {"Female", "Male"}
        for row in table:
            lateral = row["Frontal/Lateral"] == "Lateral"
            assert row["Path"].startswith(f"{ROOT}/{split}/patient")
            assert row["Path"].endswith("view2_lateral.jpg" if lateral else "view1_frontal.jpg")
            assert row["AP/PA"] in ({""} if lateral else {"AP", "PA"})
            assert 18 <= int(row["Age"]) <= 90
            with Image.open(tree / row["Path"]) as image:
                assert image.mode == "L"
                assert max(image.size) == 64
    assert len(rows(tree, "train")) == 102
    assert len(rows(tree, "valid")) == 18
    assert len(list((tree / ROOT).rglob("*.jpg"))) == 120


def test_no_patient_is_in_both_splits(tree: Path) -> None:
    patients = [{row["Path"].split("/")[2] for row in rows(tree, s)} for s in ("train", "valid")]
    assert not patients[0] & patients[1]


def test_truth_is_complete_and_follows_the_labels(tree: Path) -> None:
    for split in ("train", "valid"):
        truth = json.loads((tree / "truth" / f"{split}.json").read_text())
        frontal = [row for row in rows(tree, split) if row["Frontal/Lateral"] == "Frontal"]
        keys = ["_".join(row["Path"].removesuffix(".jpg").split("/")[2:]) for row in frontal]
        assert list(truth) == keys
        for key, row in zip(keys, frontal, strict=True):
            with Image.open(tree / row["Path"]) as image:
                width, height = image.size
            assert set(truth[key]) == set(FINDINGS)
            for name, code in truth[key].items():
                mask = coco.decode(code)
                assert code["size"] == [height, width] == list(mask.shape)
                if row[name] == "1.0":
                    assert mask.any(), (key, name)
                if row[name] == "0.0" or row["No Finding"] == "1.0":
                    assert name == "Support Devices" or not mask.any(), (key, name)


def test_labels_are_hierarchical(tree: Path) -> None:
    for row in rows(tree, "valid"):
        if any(row[name] == "1.0" for name in OPACITIES):
            assert row["Lung Opacity"] == "1.0"
        if row["Cardiomegaly"] == "1.0":
            assert row["Enlarged Cardiomediastinum"] == "1.0"
        ill = any(row[name] == "1.0" for name in FINDINGS if name != "Support Devices")
        assert (row["No Finding"] == "1.0") is not ill
    for row in rows(tree, "train"):
        assert row["No Finding"] in {"1.0", ""}


def test_tasks(tree: Path) -> None:
    for task in ("organs", "infection"):
        with (tree / task / "index.csv").open(newline="") as handle:
            table = list(csv.DictReader(handle))
        assert list(table[0]) == ["image", "mask", "patient_id"]
        assert len({row["patient_id"] for row in table}) == len(table) == 6
        for row in table:
            image = np.asarray(Image.open(tree / task / row["image"]))
            mask = np.asarray(Image.open(tree / task / row["mask"]))
            assert image.shape == mask.shape
            if task == "organs":
                for bit in ORGAN_BITS.values():
                    assert (mask & bit).any()
                assert mask.max() < 8
            else:
                assert set(np.unique(mask)) <= {0, 1}


def test_workers_and_length_change_no_byte(tmp_path: Path) -> None:
    for name, images, workers in (("a", 14, 1), ("b", 14, 2), ("c", 20, 1)):
        write_dataset(
            tmp_path / name, images=images, size=32, seed=2, task_images=2, workers=workers
        )
    first, second, longer = (digests(tmp_path / name) for name in "abc")
    assert first == second
    pictures = {path: digest for path, digest in first.items() if path.endswith((".jpg", ".png"))}
    assert pictures.items() <= longer.items()


def test_the_seed_decides(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", images=4, size=32, seed=1, task_images=0)
    write_dataset(tmp_path / "b", images=4, size=32, seed=2, task_images=0)
    assert digests(tmp_path / "a") != digests(tmp_path / "b")
    assert not (tmp_path / "a" / "organs").exists()


@pytest.mark.parametrize("wrong", [{"images": 1}, {"size": 16}, {"seed": -1}, {"workers": 0}])
def test_impossible_numbers_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    options: dict[str, Any] = {
        "images": 4,
        "size": 32,
        "seed": 0,
        "task_images": 0,
        "workers": 1,
    } | wrong
    with pytest.raises(ConfigError):
        write_dataset(tmp_path, **options)
