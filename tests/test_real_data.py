"""The shipped configurations on the real images that they describe, where these are at hand.

Looked for in the folders named by DOLLMAKER_DATA and DOLLMAKER_WEIGHTS, in data/ and weights/ of
the project, and in a folder shared/ beside it.
"""

import os
from pathlib import Path

import pytest
import torch

from dollmaker.adapt.tasks import read_task
from dollmaker.config import settings as configuration
from dollmaker.evaluate.stage import load_truth
from dollmaker.fetch.stage import fetch
from dollmaker.networks.classifiers import create_network, head_name
from dollmaker.networks.weights import Normalisation, load_weights, read_normalisation, read_weights
from dollmaker.prepare import stage
from dollmaker.store.tables import read_index

ROOT = Path(__file__).parents[1]


def find(variable: str, name: str, *inside: str) -> Path:
    places = [Path(os.environ.get(variable, name)), ROOT / name, ROOT.parent / "shared" / name]
    for place in places:
        if all((place / part).exists() for part in inside):
            return place
    pytest.skip(f"no {', '.join(inside)} in {variable} or {name}/: real images are not at hand")


def test_blood_cells_are_read_with_their_truth(tmp_path: Path) -> None:
    root = find("DOLLMAKER_DATA", "data", "wbc/labels.csv")
    config = configuration.loaded(str(ROOT / "workflow/configs/wbc.yaml")).dump()
    config["prepare"]["shards"] = 1
    whole = configuration.resolved(config)
    stage.list_images(whole, root, tmp_path / "listing.parquet")
    stage.decode_shard(
        whole, stage.Inputs(listing=tmp_path / "listing.parquet", data_root=root), "0000",
        tmp_path / "0000.h5", tmp_path / "rows.parquet", workers=2,
    )  # fmt: skip
    stage.build_index(
        whole, tmp_path / "listing.parquet", [tmp_path / "rows.parquet"],
        tmp_path / "index.parquet", tmp_path / "quarantine.csv",
    )  # fmt: skip
    index, names = read_index(tmp_path / "index.parquet")
    assert (len(index), names[-1]) == (299, "neutrophil")
    # one file lies there twice, under two names: it must not be in two splits
    assert "d1_139.png,the same file belongs to patient d1_112" in (
        (tmp_path / "quarantine.csv").read_text()
    )
    truth = load_truth(configuration.resolved(config), root, names)
    assert truth is not None and truth.targets == ["nucleus", "cell"]
    row = index.row(0, named=True)
    finding = next(name for name in names if row[name] == 1)
    nucleus, cell = (truth.mask(row, finding, target) for target in truth.targets)
    assert nucleus is not None and cell is not None
    assert 0 < nucleus.sum() < cell.sum() and not (nucleus & ~cell).any()


def test_lungs_are_read_and_their_patients_keep_their_split() -> None:
    root = find("DOLLMAKER_DATA", "data", "cxr/labels.csv", "cxr/lung_masks", "cxr_anatomy/masks")
    config = configuration.loaded(str(ROOT / "workflow/configs/cxr.yaml")).dump()
    task = read_task("lungs", configuration.resolved(config), root)
    assert len(task.image_ids) == 148
    from dollmaker.prepare.sources import list_source

    plan, _ = list_source(configuration.resolved(config), root)
    splits = dict(plan.select("patient_id", "split").rows())
    assert all(splits[p] == s for p, s in zip(task.patients, task.splits, strict=True))
    assert 0.1 < (task.masks == 1).mean() < 0.5


def test_imagenet_weights_fit_grey_and_colour_networks() -> None:
    root = find("DOLLMAKER_WEIGHTS", "weights", "mobilenet_v2_imagenet.safetensors")
    state = read_weights(root / "mobilenet_v2_imagenet.safetensors")
    outputs = []
    grey = torch.rand(1, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    for channels in (1, 3):
        torch.manual_seed(0)
        network, _ = create_network("mobilenet_v2", outputs=5, channels=channels, size=96)
        load_weights(network, state, optional=(head_name(network, 5),), source="weights")
        features = network.eval().features  # type: ignore[union-attr,operator]
        outputs.append(features(grey.expand(-1, channels, -1, -1)))  # type: ignore[operator]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-3, atol=1e-3)


def test_a_transformer_that_was_put_by_hand_comes_with_imagenets_normalisation(
    tmp_path: Path,
) -> None:
    root = find("DOLLMAKER_WEIGHTS", "weights", "dinov2_vits14.safetensors")
    original = root / "dinov2_vits14.safetensors"
    place = tmp_path / "timm--vit_small_patch14_dinov2.lvd142m/model.safetensors"
    place.parent.mkdir()
    place.symlink_to(original.resolve())
    file = fetch("timm:vit_small_patch14_dinov2.lvd142m", tmp_path)
    state, theirs = read_weights(file), read_weights(original)
    assert state.keys() == theirs.keys() and original.is_file()
    assert all(torch.equal(state[key], theirs[key].float()) for key in theirs)
    found = read_normalisation(file)
    assert found == Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    network, _ = create_network("timm:vit_small_patch14_dinov2", outputs=3, channels=1, size=70)
    load_weights(network, state, optional=("head",), source="weights")
    assert network(torch.zeros(1, 1, 70, 70)).shape == (1, 3)
