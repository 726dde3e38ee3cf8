"""Four MR sequences of 16 bits through the stages, from the volume to a verified release."""

import json
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import polars as pl
import pytest
from PIL import Image

from dollmaker.adapt.results import score_baselines
from dollmaker.adapt.tasks import read_task
from dollmaker.attribute import stage as attribute
from dollmaker.attribute.sample import explain_sample
from dollmaker.binarize.stage import binarize_shard
from dollmaker.classify import stage as classify
from dollmaker.config import settings as configuration
from dollmaker.config.settings import resolved
from dollmaker.evaluate.means import MASKS, PAIRS
from dollmaker.pixels.pictures import read_channels
from dollmaker.prepare import stage as prepare
from dollmaker.prepare.audit import audit_images
from dollmaker.prepare.convert import convert
from dollmaker.release import labels
from dollmaker.release import stage as release
from dollmaker.release.browse import show
from dollmaker.release.export import export
from dollmaker.release.load import PseudoLabels
from dollmaker.release.verify import verify
from dollmaker.runtime.errors import ConfigError
from dollmaker.sanity import stage as sanity
from dollmaker.segment import stage as segment
from dollmaker.store import tables
from dollmaker.store.files import safe_name
from dollmaker.store.shards import Shard

CASES, SIDE = 12, 32


def make_volumes(root: Path) -> None:
    """Brains of four sequences; every second one has a tumour, bright in FLAIR (0) and T2w (3)."""
    rng = np.random.default_rng(0)
    training = []
    for number in range(CASES):
        name = f"P{number:02d}"
        volume = np.zeros((SIDE, SIDE, 2, 4), np.float32)
        volume[3:-3, 3:-3] = rng.integers(200, 900, (SIDE - 6, SIDE - 6, 2, 4))
        label = np.zeros((SIDE, SIDE, 2), np.uint8)
        if number % 2:
            x, y = rng.integers(6, 16, 2)
            volume[x : x + 9, y : y + 9, :, ::3] += 3000
            label[x : x + 9, y : y + 9] = 1
        for kind, content in (("image", volume), ("label", label)):
            file = root / f"task/{kind}sTr/{name}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(content, np.eye(4)), file)
        training.append({kind: f"./{kind}sTr/{name}.nii.gz" for kind in ("image", "label")})
    names = dict(enumerate(("FLAIR", "T1w", "T1gd", "T2w")))
    content = {"modality": names, "training": training}
    (root / "task/dataset.json").write_text(json.dumps(content))


def settings() -> dict[str, Any]:
    return configuration.resolved(
        {
            "dataset": "brains",
            "source": {
                "kind": "msd",
                "msd": {"folder": "task", "channels": "all", "findings": {"tumour": [1]}},
            },
            "device": "cpu",
            "prepare": {"size": SIDE, "channels": 4, "bits": 16, "valid": 0.2, "test": 0.2},
            "classify": {
                "members": {"a": {"architecture": "micranet"}},
                "epochs": 2,
                "batch_size": 4,
                "augment": "flip",
            },
            "sample": {"positives": 4, "checks": 2},
            "recipes": {
                "doll": {
                    "attribute": {"nodes": 3, "baselines": ["white", "mean", "blur"]},
                    "binarize": [{"gate": {}}, {"otsu": {}}, {"dense_crf": {}}],
                }
            },
            "release": {"pictures": True, "allow_failed_sanity": True},
            "segment": {
                "encoder": "tu-mobilenetv3_small_050",
                "arguments": {"decoder_channels": [8, 8, 8, 8, 8]},
                "epochs": 1,
                "batch_size": 4,
            },
            "tasks": {
                "tumour": {
                    **{"table": "labels.csv", "images": "images", "masks": "masks"},
                    **{"image_column": "image", "mask_column": "mask"},
                    **{"patient_column": "patient", "classes": {"tumour": [1]}},
                    **{"valid": 0.2, "test": 0.3},
                }
            },
        }
    ).dump()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a run."""
    root = tmp_path_factory.mktemp("brains")
    make_volumes(root)
    config, index, images = settings(), root / "index.parquet", root / "images"
    whole = configuration.resolved(config)
    convert(whole, root, root / "source", 1)
    prepare.list_images(whole, root / "source", root / "listing.parquet")
    prepare.decode_shard(
        whole,
        prepare.Inputs(listing=root / "listing.parquet", data_root=root / "source"),
        "0000",
        images / "0000.h5",
        root / "rows.parquet",
    )
    prepare.build_index(
        whole, root / "listing.parquet", [root / "rows.parquet"], index, root / "quarantine.csv"
    )
    audit_images(whole, index, images, root / "audit.parquet")
    member = classify.Inputs(index=index, images=images, weights_root=root)
    classify.train_member(configuration.resolved(config), "a", member, root / "a")
    maps, masks = root / "relevance.h5", root / "masks.h5"
    explained = attribute.Inputs(index=index, images=images, committee=[root / "a"])
    attribute.explain_shard(whole, explained, "doll", "0000", maps)
    explain_sample(whole, explained, "doll", root / "sample.h5")
    binarize_shard(whole, images / "0000.h5", maps, "doll", masks)
    checked = sanity.Inputs(index=index, images=images, sample=root / "sample.h5")
    sanity.check_recipe(whole, checked, "doll", root / "sanity.json")
    labels.collect_labels(
        resolved(config),
        labels.Inputs(
            index=index,
            masks=[masks],
            relevance=[maps],
            committee=[root / "a"],
            sanity=root / "sanity.json",
        ),
        root / "labels",
    )
    learnt = segment.Inputs(
        index=index,
        images=images,
        labels=root / "labels",
        weights_root=root,
        committee=[root / "a"],
    )
    segment.train_segmenter(configuration.resolved(config), learnt, root / "segmenter")
    tables.write(pl.DataFrame(schema=MASKS), root / "scores.parquet", {})
    tables.write(pl.DataFrame(schema=PAIRS), root / "pairs.parquet", {})
    release.build_release(
        resolved(config),
        release.Inputs(
            index=index,
            images=images,
            labels=root / "labels",
            segmenter=root / "segmenter",
            committee=[root / "a"],
            sanity=root / "sanity.json",
            scores=root / "scores.parquet",
            pairs=root / "pairs.parquet",
        ),
        root / "release",
    )
    return root


def test_shards_hold_sixteen_bits_that_come_as_levels(world: Path) -> None:
    with h5py.File(world / "images/0000.h5") as file:
        stored = file["arrays/image"]
        assert stored.dtype == np.uint16 and stored.shape == (2 * CASES, 4, SIDE, SIDE)
    with Shard(world / "images/0000.h5", "images") as shard:
        levels = shard.read("image", 0)
    assert levels.dtype == np.float32 and levels.shape == (4, SIDE, SIDE) and levels.max() == 255
    assert (np.abs(levels - np.rint(levels)) > 0.01).mean() > 0.5  # parts of a level are kept
    mean = tables.read_header(world / "index.parquet")["channel_mean"]
    assert len(mean) == 4 and all(0 < one < 255 for one in mean)
    index = tables.read(world / "index.parquet")
    assert index["hash"].n_unique() == 2 * CASES


def test_the_release_is_sound_and_can_be_looked_at(world: Path) -> None:
    assert verify(world / "release", world / "source") == []
    assert (world / "release/contact-sheet.png").stat().st_size > 1000
    assert list((world / "release/gallery/sheets").glob("image-small-*.jpg"))
    spec = json.loads((world / "segmenter/segmenter.json").read_text())["input"]
    assert spec["channels"] == 4 and len(spec["mean"]) == 4


def test_a_release_is_joined_with_images_of_any_channels(world: Path) -> None:
    data = PseudoLabels(world / "release", world / "source", channels=4)
    assert len(data) > 0
    image = data[0]["image"].numpy()
    assert image.shape == (4, SIDE, SIDE) and image.dtype == np.float32 and image.max() == 1
    row = tables.read(world / "index.parquet").filter(image_id=data[0]["image_id"])["row"][0]
    with Shard(world / "images/0000.h5", "images") as shard:
        np.testing.assert_allclose(image, shard.read("image", int(row)) / 255, rtol=1e-6)


def test_tasks_and_their_baselines_take_sixteen_bits(world: Path) -> None:
    task = read_task("tumour", configuration.resolved(settings()), world / "source")
    assert task.images.dtype == np.float32 and task.images.shape[1:] == (4, SIDE, SIDE)
    with Shard(world / "images/0000.h5", "images") as shard:
        row = tables.read(world / "index.parquet").filter(image_id=task.image_ids[3])["row"][0]
        assert np.array_equal(task.images[3], shard.read("image", int(row)))
    scores = score_baselines(task)
    assert set(scores["baseline"]) == {"empty", "centre", "intensity", "whole"}


def test_people_see_the_first_channel_and_other_tools_each(world: Path, tmp_path: Path) -> None:
    table = tables.read(world / "index.parquet")
    path = next(p for p in table["path"] if p.endswith("P01_z000.tif"))
    name = table.filter(path=path)["image_id"][0]
    pixels = read_channels(world / "source" / path, channels=4, bits=8, max_pixels=10**6).pixels
    show(world / "release", name, tmp_path / "x.png", world / "source")
    drawn = np.asarray(Image.open(tmp_path / "x.png"))[: pixels.shape[1], : pixels.shape[2]]
    assert (drawn == pixels[0][..., None]).all(-1).mean() > 0.5  # but for outlines and text
    export(world / "release", "nnunet", tmp_path / "nn", world / "source")
    (folder,) = (tmp_path / "nn").iterdir()
    for number in range(4):
        (file,) = folder.glob(f"images*/{safe_name(name)}_{number:04d}.png")
        assert np.array_equal(np.asarray(Image.open(file)), pixels[number])
    assert len(json.loads((folder / "dataset.json").read_text())["channel_names"]) == 4
    with pytest.raises(ConfigError, match="these images have 4 channels; leave --images out"):
        export(world / "release", "yolo", tmp_path / "yolo", world / "source")
    export(world / "release", "yolo", tmp_path / "yolo")
