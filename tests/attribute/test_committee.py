"""Committees that are mixed: own networks, ready ones, a transformer; not all know all findings."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from classify.test_classify import FINDINGS, make_config, make_dataset, train
from classify.xrv_library import lively
from dollmaker.attribute import sample, stage
from dollmaker.attribute.committee import Committee, Setup, by_experts, experts
from dollmaker.attribute.methods import METHODS
from dollmaker.binarize.label_free import choose_thresholds, read_thresholds
from dollmaker.config.masks import MapsConfig
from dollmaker.config.settings import resolved
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.frames import WHOLE, Frames
from dollmaker.networks.member import Member, load_member
from dollmaker.runtime.errors import ModelError
from dollmaker.store.shards import Shard

CPU = torch.device("cpu")

#: Member -> architecture, findings it knows (null: trained here), and what it expects.
MEMBERS: dict[str, tuple[str, Any, Any]] = {
    "own": ("timm:test_resnet", None, {}),
    "grey": ("torchvision:mobilenet_v3_small", ["dark", None, "Bright"], {"std": 1 / 2048}),
    "vit": ("timm:test_vit", ["dark"], {"input": {"size": 64, "channels": 3}}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with three members; the transformer knows one finding of the two."""
    path = tmp_path_factory.mktemp("mixed")
    make_dataset(path)
    for name, (architecture, known, spec) in MEMBERS.items():
        member: dict[str, Any] = {"architecture": architecture, **spec}
        config = make_config(epochs=2, members={"a": member})
        if known:
            torch.manual_seed(4)
            sees = {"size": 32, "channels": 1, **spec.get("input", {})}
            network, _ = create_network(architecture, outputs=len(known), tried=False, **sees)
            if name == "grey":
                network = lively(network)
            save_file(network.state_dict(), path / f"{name}.safetensors")
            ready = {"epochs": 0, "findings": known, "weights": f"{name}.safetensors"}
            config["classify"]["members"]["a"].update(ready)
        train(config, path, name)
    return path


@functools.cache
def loaded(path: Path) -> Member:
    return load_member(path, CPU)


def load(folder: Path, *names: str) -> list[Member]:
    """Members, each loaded once: no method may change them."""
    return [loaded(folder / name) for name in names]


def committee(members: list[Member], **changes: Any) -> Committee:
    options = {**make_config()["recipes"]["doll"]["attribute"], "smoothing": 0.0, **changes}
    setup = Setup(channel_mean=torch.tensor([125.0]), size=32, chunk=4)
    return Committee(members, MapsConfig(**options), setup)


def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (2, 1, 32, 32), generator=generator, dtype=torch.uint8)


PAIRS = [(0, 1), (0, 0), (1, 1)]

#: Method -> why it refuses one of the members, and those that it takes.
REFUSED = {
    "attention_rollout": ("attention", ["vit"]),
    "deep_lift": ("deep_lift has no rule for NativeLayerNorm", ["own", "grey"]),
    "multi_layer_cam": ("in convolutional networks only", ["own", "grey"]),
}


def test_members_know_what_they_were_taught(folder: Path) -> None:
    own, grey, vit = load(folder, *MEMBERS)
    assert (own.unknown, grey.unknown, vit.unknown) == (set(), set(), {"bright"})
    assert experts([own, grey, vit], 0) == (0, 1)
    assert by_experts([own, vit], [1, 0, 1]) == {(0, 1): [0, 2], (0,): [1]}


@pytest.mark.parametrize("frames", [WHOLE, Frames(((0, 9, 32, 22), (5, 0, 28, 32)), 32)])
def test_a_finding_is_explained_by_those_who_know_it(folder: Path, frames: Frames) -> None:
    members = load(folder, *MEMBERS)
    found = committee(members, nodes=6).explain(images(), ["p", "q"], PAIRS, frames)
    assert (
        frames.of([image for image, _ in PAIRS])
        .cut(found.consensus.maps)
        .equal(found.consensus.maps)
    )
    for place, pair in enumerate(PAIRS):
        knowing = [member for member in members if member.knows(pair[1])]
        alone = committee(knowing, nodes=6).explain(images(), ["p", "q"], [pair], frames)
        for name in ("maps", "scale", "agreement"):
            torch.testing.assert_close(
                getattr(found.consensus, name)[place], getattr(alone.consensus, name)[0]
            )
        for name in ("completeness", "nodes", "met"):
            torch.testing.assert_close(getattr(found, name)[place], getattr(alone, name)[0])
    probabilities = committee(members).probabilities(images())
    each = torch.stack([committee([m]).probabilities(images()) for m in members])
    torch.testing.assert_close(probabilities[:, 1], each[:, :, 1].mean(0))
    torch.testing.assert_close(probabilities[:, 0], each[:2, :, 0].mean(0))
    assert each[2, :, 0].isnan().all()


def test_the_blur_is_a_64th_of_the_side_unless_a_recipe_names_one(folder: Path) -> None:
    members = load(folder, "grey")
    made = [
        committee(members, nodes=2, smoothing=sigma).explain(images(), ["p", "q"], PAIRS)
        for sigma in (None, 32 / 64, 0.0)
    ]
    left, named, sharp = (one.consensus.maps for one in made)
    assert torch.equal(left, named)
    assert not torch.equal(left, sharp)


def test_a_finding_that_nobody_knows_is_refused(folder: Path) -> None:
    alone = committee(load(folder, "vit"))
    with pytest.raises(ModelError, match=r"\(vit\) knows the finding 'bright'; leave it out"):
        alone.explain(images(), ["p", "q"], [(0, 0)])


def test_integrated_gradients_are_complete_in_every_members_own_range(folder: Path) -> None:
    members = load(folder, *MEMBERS)
    adaptive = {"criterion": "completeness", "target": 0.05, "first": 8, "max_nodes": 600}
    found = committee(members, adaptive=adaptive).explain(images(), ["p", "q"], PAIRS)
    assert found.met.all() and float(found.completeness.max()) <= 0.05


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_is_the_consensus_of_its_members_or_refuses(folder: Path, method: str) -> None:
    members = load(folder, *MEMBERS)
    options = {"method": method, "side": 64, "window": 0.5, "stride": 0.5}
    made = committee(members, **options)
    if method in REFUSED:
        reason, right = REFUSED[method]
        with pytest.raises(ModelError, match=reason):
            made.explain(images(), ["p", "q"], PAIRS)
        members = load(folder, *right)
        made = committee(members, **options)
    pairs = [pair for pair in PAIRS if experts(members, pair[1])]
    found = made.explain(images(), ["p", "q"], pairs).consensus
    assert torch.isfinite(found.maps).all() and found.maps.abs().max() == 1
    alone = [committee([member], **options) for member in members]
    for place, pair in enumerate(pairs):
        who = [one for one in alone if one.members[0].knows(pair[1])]
        parts = [one.explain(images(), ["p", "q"], [pair]).consensus for one in who]
        whole = [part.maps.double() * part.scale for part in parts]
        units = [part / part.norm() if part.norm() > 0 else part for part in whole]
        mean = torch.stack(units).mean(0)[0]
        wanted = mean / mean.abs().max() if mean.abs().max() > 0 else mean
        torch.testing.assert_close(found.maps[place].double(), wanted, rtol=1e-4, atol=1e-4)


def test_the_sample_leaves_out_who_does_not_know(folder: Path) -> None:
    config = make_config()
    config["sample"] = {**config["sample"], "positives": 4, "checks": 2}
    config["recipes"]["doll"]["attribute"]["nodes"] = 2
    folders = [folder / name for name in MEMBERS]
    inputs = stage.Inputs(
        index=folder / "index.parquet", images=folder / "images", committee=folders
    )
    sample.explain_sample(resolved(config), inputs, "doll", folder / "s.h5")
    with Shard(folder / "s.h5", "relevance") as shard:
        table, views, scales = shard.table(), shard.read("views"), shard.read("view_scale")
    bright = table["finding"] == "bright"
    assert bright.sum() == (~bright).sum() == 6
    assert np.isnan(views[bright][:, 2]).all() and np.isnan(scales[bright][:, 2]).all()
    assert np.isfinite(scales[bright][:, :2]).all() and np.isfinite(scales[~bright]).all()
    assert np.isfinite(views[bright][:, :2]).all() and np.isfinite(views[~bright]).all()
    checked = np.isfinite(table["randomised"])
    assert checked.sum() == 4 and np.isfinite(table["other"][checked]).all()
    choose_thresholds(folder / "s.h5", folder / "t.parquet")
    chosen = read_thresholds(folder / "t.parquet")
    assert set(chosen) == {*FINDINGS, ""}
    for finding in chosen:
        assert all(np.isfinite(cut.value) for cut in chosen[finding].candidates)


def test_a_shard_of_a_mixed_committee(folder: Path) -> None:
    config = make_config()
    config["attribute"].update(min_probability=0.0, max_images=8)  # of each of three splits
    config["recipes"]["doll"]["attribute"]["nodes"] = 2
    folders = [folder / name for name in MEMBERS]
    inputs = stage.Inputs(
        index=folder / "index.parquet", images=folder / "images", committee=folders
    )
    stage.explain_shard(resolved(config), inputs, "doll", "0000", folder / "r.h5")
    with Shard(folder / "r.h5", "relevance") as shard:
        table, maps = shard.table(), shard.read("map")
    assert len(maps) == 48 and np.isfinite(table["probability"]).all()
    assert (table["image_id"][::2] == table["image_id"][1::2]).all()  # in order, not by experts
