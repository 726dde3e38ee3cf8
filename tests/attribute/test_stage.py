"""The stage: killed and resumed, in blocks, by every method, with certificates in the shard."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attribute.test_attribute import explain
from classify.test_classify import make_config, make_dataset, train
from dollmaker.attribute import stage
from dollmaker.attribute.committee import Committee, Setup
from dollmaker.attribute.methods import METHODS
from dollmaker.attribute.passes import Question
from dollmaker.config.masks import MapsConfig, NoiseConfig
from dollmaker.config.settings import loaded
from dollmaker.runtime.errors import ConfigError
from dollmaker.store.shards import Shard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with two members."""
    path = tmp_path_factory.mktemp("stage")
    make_dataset(path)
    config = make_config(epochs=2)
    config["classify"]["members"]["b"] = {**config["classify"]["members"]["a"], "seed": 5}
    for name in ("a", "b"):
        train(config, path, name)
    return path


def configured(**options: Any) -> dict[str, Any]:
    config = make_config(epochs=2)
    config["attribute"]["max_images"] = 8  # of each of three splits
    config["recipes"]["doll"]["attribute"].update(options)
    return config


def committee(folder: Path) -> list[Path]:
    return [folder / "a", folder / "b"]


ADAPTIVE = {"criterion": "convergence", "target": 0.999, "first": 2, "max_nodes": 20}


def test_a_killed_job_goes_on_and_ends_with_the_same_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(stage.BLOCK, "cpu", 4)
    config = configured(adaptive=ADAPTIVE)
    whole = explain(config, folder, committee(folder), "whole.h5").read_bytes()
    written: list[str] = []
    real = stage._write

    def dies(path: Path, *rest: Any) -> float:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.name)
        return real(path, *rest)

    monkeypatch.setattr(stage, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        explain(config, folder, committee(folder), "killed.h5")
    assert not (folder / "killed.h5").exists()
    (work,) = folder.glob(".killed.h5-*.work")
    damaged = sorted(work.glob("*.h5"))[1]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 255
    damaged.write_bytes(bytes(content[:-100]))
    again: list[str] = []

    def counts(path: Path, *rest: Any) -> float:
        again.append(path.name)
        return real(path, *rest)

    monkeypatch.setattr(stage, "_write", counts)
    assert explain(config, folder, committee(folder), "killed.h5").read_bytes() == whole
    assert written == ["000000.h5", "000001.h5", "000002.h5"]
    assert again == ["000001.h5", "000003.h5", "000004.h5", "000005.h5"]
    assert not list(folder.glob(".killed.h5-*.work"))


def test_blocks_change_no_map(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(adaptive=ADAPTIVE, noise={"kind": "smoothgrad", "samples": 2, "stdev": 0.1})
    found = []
    for length in (5, 24):
        monkeypatch.setitem(stage.BLOCK, "cpu", length)
        with Shard(explain(config, folder, committee(folder), "r.h5"), "relevance") as shard:
            found.append((shard.read("map"), shard.table()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    for name, column in found[0][1].items():
        np.testing.assert_array_equal(column, found[1][1][name])


def test_the_shard_carries_its_certificates(folder: Path) -> None:
    strict = {**ADAPTIVE, "criterion": "completeness", "target": 0.01, "max_nodes": 9}
    with Shard(
        explain(configured(adaptive=strict), folder, committee(folder), "r.h5"), "relevance"
    ) as shard:
        table, header = shard.table(), shard.header
    assert header["pairs"] == len(table["met"])
    assert header["missed"] == int((~table["met"]).sum())
    np.testing.assert_array_equal(table["met"], table["completeness"] <= 0.01)
    assert set(table["nodes"]) <= {2, 5, 9}
    assert np.isfinite(table["convergence"][table["nodes"] > 2]).all()


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"attention_rollout"}))
def test_every_method_by_name(folder: Path, name: str) -> None:
    config = configured(method=name, baselines=["mean"], smoothing=1.0)
    with Shard(explain(config, folder, committee(folder), "r.h5"), "relevance") as shard:
        table, maps = shard.table(), shard.read("map").astype(np.float32)
    assert len(maps) == 24
    assert np.isfinite(maps).all()
    assert (maps.max((1, 2)) > 0).mean() > 0.5
    assert np.isnan(table["completeness"]).all()
    assert table["met"].all()


def test_noise_wraps_other_methods_and_smoothgrad_is_the_mean(folder: Path) -> None:
    from dollmaker.networks.member import load_member

    members = [load_member(path, torch.device("cpu")) for path in committee(folder)[:1]]
    images = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    options = configured(method="saliency", reduction="signed", smoothing=0.0)
    options["recipes"]["doll"]["attribute"]["noise"] = {
        "kind": "smoothgrad", "samples": 3, "stdev": 0.2,
    }  # fmt: skip
    made = Committee(
        members,
        MapsConfig(**options["recipes"]["doll"]["attribute"]),
        Setup(channel_mean=torch.tensor([100.0]), size=32, chunk=4),
    )
    found = made.explain(images, ["p", "q"], [(1, 0), (0, 1)])
    from dollmaker.attribute.committee import noisy_copies
    from dollmaker.attribute.methods import saliency

    x = members[0].prepare(images)
    copies = noisy_copies(x, ["p", "q"], NoiseConfig(samples=3, stdev=0.2), 0)
    maps = [saliency(Question(members[0].network, c, [(1, 0), (0, 1)], 4)) for c in copies]
    wanted = torch.stack(maps).mean(0).sum(1)
    scale = found.consensus.scale[:, None, None]
    torch.testing.assert_close(found.consensus.maps * scale, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, '"magic"; use one of: "integrated_gradients", "saliency"'),
        ({"method": "saliency", "adaptive": {}}, "saliency has no nodes to adapt"),
        ({"method": "occlusion", "noise": {}}, "occlusion takes no noise"),
        ({"adaptive": {"target": 2}}, "target"),
    ],
)
def test_recipes_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    import json

    recipe = {"attribute": options, "binarize": [{"otsu": {}}]}
    config = {"dataset": "x", "source": {"kind": "phantoms"}, "recipes": {"doll": recipe}}
    with pytest.raises(ConfigError, match=message):
        loaded(json.dumps(config))
