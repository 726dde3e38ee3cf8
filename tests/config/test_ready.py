"""Ready classifiers: names that match, configurations that are refused, outputs put in order."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from classify.test_classify import FINDINGS, make_config, make_dataset, train
from dollmaker.config import ready, xrv
from dollmaker.config import settings as configuration
from dollmaker.config.networks import InputConfig, MemberConfig
from dollmaker.config.whole import Config
from dollmaker.launch import network_checks, preflight
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.member import load_member
from dollmaker.runtime.errors import ConfigError, ModelError
from dollmaker.store import tables
from dollmaker.store.shards import ImageShards

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("outputs", "findings", "wanted"),
    [
        (["Effusion", "Mass"], ["Mass", "Pleural Effusion"], {0: 1, 1: 0}),
        (["Pleural_Thickening", None], ["pleural thickening", "Other"], {0: 0}),
        (["Effusion"], ["Pleural Effusion", "Effusion"], {1: 0}),  # its own name goes first
        (["Lung Opacity", "Opacity"], ["Opacity", "Lung Opacity"], {0: 1, 1: 0}),
        (["Lung Lesion"], ["Mass", "Nodule"], {}),  # three things
        (["a"], ["b"], {}),
    ],
)
def test_outputs_are_matched_by_name(outputs: Any, findings: Any, wanted: dict[int, int]) -> None:
    assert ready.match(outputs, findings) == wanted


def test_two_outputs_for_one_finding_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'MASS' and 'mass' of a ready .* 'Mass'; put null"):
        ready.match(["MASS", "mass"], ["Other", "Mass"])


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("densenet121-res224-chex", 11),
        ("densenet121-res224-rsna", 2),
        ("densenet121-res224-nih", 14),
        ("resnet50-res512-all", 16),
    ],
)
def test_untrained_outputs_are_no_findings(name: str, known: int) -> None:
    member = MemberConfig(architecture=f"xrv:{name}")
    names = ready.outputs(member.architecture, member.findings)
    assert len(names) == 18 and sum(map(bool, names)) == known
    assert len(ready.unknown_to(member, xrv.OUTPUTS)) == 18 - known


def resolve(fit: str = "crop", epochs: int | None = 0, **member: Any) -> dict[str, Any]:
    return configuration.resolved(
        {
            "dataset": "x",
            "source": {"kind": "phantoms"},
            "prepare": {"fit": fit},
            "classify": {"members": {"a": {"epochs": epochs, **member}}},
        }
    ).dump()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": None}, "members.a is a ready classifier and not trained here; set its epochs"),
        ({"fit": "letterbox"}, "centre square of each image; set prepare.fit to crop"),
        ({"input": {"size": 64}}, "expect is known; leave input, mean and std out"),
        ({"mean": 0.5}, "expect is known; leave input, mean and std out"),
        ({"findings": ["A", "B"]}, "findings has 2 names; .* have 18 outputs"),
        ({"architecture": "xrv:densenet121"}, r"unknown architecture .*use one of: xrv:densenet12"),
        ({"architecture": "resnet18", "findings": ["A"]}, "outputs are but no weights; add its"),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve(**{"architecture": "xrv:densenet121-res224-pc", **changes})


@pytest.mark.parametrize("weights", [None, "pretrained"])
def test_a_missing_file_is_named_with_what_goes_there(weights: str | None) -> None:
    config = resolve(architecture="xrv:densenet121-res224-pc", weights=weights)
    with pytest.raises(ModelError) as caught:
        preflight._require_ready(Config.model_validate({**config, "weights_root": "nowhere"}))
    said = str(caught.value)
    assert "nowhere/xrv-densenet121-res224-pc.safetensors" in said and "docs/how-to/ready-" in said
    named = resolve(architecture="xrv:densenet121-res224-pc", weights="hf:lab/lungs/pc.safetensors")
    preflight._require_ready(Config.model_validate(named))  # it may be fetched yet


def test_a_finding_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    config = resolve(architecture="xrv:densenet121-res224-rsna")
    names = ["Mass", "Pneumonia", "No Finding"]

    def look(*wanted: str) -> None:
        config["attribute"]["findings"] = list(wanted)
        preflight._check_recipes(Config.model_validate(config), names)

    with pytest.raises(ConfigError, match=r"\(a\) knows the finding 'Mass'; set .* \[Pneumonia\]"):
        look("Mass", "Pneumonia")
    look("Pneumonia")
    config["classify"]["members"]["b"] = {"architecture": "resnet18"}
    look("Mass", "Pneumonia")


def test_the_probe_and_micranet_do_not_inherit_what_is_ready() -> None:
    config = resolve(architecture="resnet18", weights="w", findings=["A"], input={"size": 64})
    config["compare"]["recipes"] = ["found", "micranet"]
    members = configuration.complete(Config.model_validate(config)).classify.members
    assert list(members) == ["a", "micranet"]  # the ready one stands in for the probe
    assert (members["micranet"].findings, members["micranet"].input) == (None, InputConfig())


def below(folder: Path, config: dict[str, Any]) -> Config:
    return Config.model_validate({**config, "weights_root": str(folder)})


def write(folder: Path, architecture: str, outputs: int, channels: int, size: int) -> Any:
    torch.manual_seed(3)
    network, _ = create_network(
        architecture, outputs=outputs, channels=channels, size=size, tried=False
    )
    save_file(network.state_dict(), folder / "w.safetensors")
    return network.eval()


@pytest.mark.parametrize(
    ("architecture", "channels", "size"),
    [
        ("timm:test_resnet", 3, 32),
        ("timm:test_vit", 1, 64),
        ("torchvision:mobilenet_v2", 3, 64),
        ("timm:test_byobnet", 1, 48),
    ],
)
def test_any_checkpoint_with_names_explains_at_once(
    tmp_path: Path, architecture: str, channels: int, size: int
) -> None:
    make_dataset(tmp_path)
    network = write(tmp_path, architecture, 4, channels, size)
    member = {
        "architecture": architecture,
        "weights": "w.safetensors",
        "epochs": 0,
        "findings": ["other", None, "Dark", "unseen"],
        "input": {"channels": channels, "size": size},
        "mean": 0.4,
        "std": 0.2,
    }
    config = make_config(members={"a": member}, calibrate="temperature")
    network_checks.run_checks(
        network_checks.of_members(below(tmp_path, config), 2, None),
        tmp_path / "l",
    )
    folder = train(config, tmp_path, "a")
    loaded = load_member(folder, CPU)
    assert loaded.findings == FINDINGS and loaded.unknown == {"bright"}
    assert [loaded.knows(k) for k in range(2)] == [False, True]
    stored = torch.from_numpy(ImageShards(tmp_path / "images").read("0000", 24)[None])
    x = loaded.prepare(stored)
    assert x.shape == (1, channels, size, size)
    found, wanted = loaded.network(x), network(x)
    torch.testing.assert_close(found[:, 1], wanted[:, 2], rtol=1e-5, atol=1e-5)
    assert (found[:, 0] == 0).all()
    table = tables.read(folder / "predictions.parquet")
    assert table["bright"].null_count() == len(table) and table["dark"].null_count() == 0
    probability = torch.sigmoid(found[0, 1] / loaded.calibration.temperature)
    assert table["dark"][0] == pytest.approx(float(probability.detach()), abs=1e-5)
    description = json.loads((folder / "model.json").read_text())
    assert description["outputs"] == {"dark": "Dark"}
    assert description["metrics"]["findings"]["bright"]["auroc"] is None
    alone = description["metrics"]["findings"]["dark"]["auroc"]
    assert description["metrics"]["macro_auroc"] == pytest.approx(alone)


def test_named_weights_bring_their_mean_and_deviation(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    torch.manual_seed(3)
    network, _ = create_network("timm:test_resnet", outputs=2, channels=3, size=32)
    said = {"mean": "[0.3, 0.4, 0.8]", "std": "[0.1, 0.2, 0.3]"}
    own = {"architecture": "timm:test_resnet", "weights": "hf:lab/eyes/w.safetensors", "epochs": 0}
    own["findings"], own["input"] = ["Bright", "dark"], {"channels": 3}

    def given(member: dict[str, Any], **classify: Any) -> Any:
        config = make_config(members={"a": {**own, **member}}, **classify)
        wanted = network_checks.of_members(below(tmp_path, config), 2, None)
        network_checks.run_checks(wanted, tmp_path / "checks")
        return load_member(train(config, tmp_path, "a"), CPU).input.mean

    with pytest.raises(ModelError, match=r"hf--lab--eyes--w\.safetensors does not exist"):
        given({})  # the check has let it pass: it may be fetched yet
    save_file(dict(network.state_dict()), tmp_path / "hf--lab--eyes--w.safetensors", metadata=said)
    assert given({}) == (0.3, 0.4, 0.8)
    assert given({}, mean=0.7) == (0.7, 0.7, 0.7)
    assert given({"mean": [0.1, 0.2, 0.6]}, mean=0.7) == (0.1, 0.2, 0.6)


def test_a_last_layer_of_another_width_is_refused_before_and_in_the_run(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    write(tmp_path, "timm:test_resnet", 5, 1, 32)
    member = {
        "architecture": "timm:test_resnet",
        "weights": "w.safetensors",
        "epochs": 0,
        "findings": ["bright", "dark"],
    }
    config = make_config(members={"a": member})
    said = r"w\.safetensors has 5 outputs \('fc\.\w+'\), and 2 are named; name each"
    with pytest.raises(ModelError, match=said):
        train(config, tmp_path, "a")
    with pytest.raises(ModelError, match=said):
        network_checks.run_checks(
            network_checks.of_members(below(tmp_path, config), 2, None),
            tmp_path / "l",
        )
    config["classify"]["members"]["a"]["architecture"] = "timm:test_vit"
    with pytest.raises(ModelError, match="does not fit the network"):
        train(config, tmp_path, "a")


def test_scores_are_of_those_who_know(tmp_path: Path) -> None:
    from dollmaker.evaluate.classifiers import score_classifiers

    make_dataset(tmp_path)
    write(tmp_path, "timm:test_resnet", 2, 1, 32)
    member = {
        "architecture": "timm:test_resnet",
        "weights": "w.safetensors",
        "epochs": 0,
        "findings": ["bright", None],
    }
    config = make_config(members={"a": member})
    folders = [train(config, tmp_path, "a")]
    folders.append(train(make_config(epochs=1), tmp_path, "b"))
    index = tables.read(tmp_path / "index.parquet")
    config["evaluate"]["bootstrap"] = 20
    rows = score_classifiers(configuration.resolved(config), index, FINDINGS, folders).filter(
        pl.col("split") == "test"
    )
    area = {(r["member"], r["finding"]): r["auroc"] for r in rows.to_dicts()}
    assert np.isnan(area["a", "dark"]) and area["a", "macro"] == pytest.approx(area["a", "bright"])
    assert area["committee", "dark"] == pytest.approx(area["b", "dark"])
    counts = {(r["member"], r["finding"]): r["n_positive"] for r in rows.to_dicts()}
    assert (counts["a", "dark"], counts["committee", "dark"]) == (0, 6)
