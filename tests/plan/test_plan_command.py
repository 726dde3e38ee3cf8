"""The command from end to end: on the micro configuration, without images, on wrong input."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dollmaker.attribute.committee import Committee
from dollmaker.config import settings as configuration
from dollmaker.plan.committee import find_committee, untrained_member
from dollmaker.runtime import cli
from dollmaker.store.files import read_json

ROOT = Path(__file__).parents[2]
MICRO = str(ROOT / "tests/micro.yaml")


def micro(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = yaml.safe_load(Path(MICRO).read_text())
    return {**given, "device": "cpu", **changes}


def test_the_micro_configuration_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["plan", "--config", MICRO, "--seconds", "5", "--devices", "2", "4"]
    assert cli.main([*words, "--json", "out/plan.json"]) == 0
    shown = capsys.readouterr()
    plan = read_json(tmp_path / "out/plan.json")
    config = configuration.load(MICRO)

    counts = plan["counts"]
    assert counts["pairs"] == sum(counts["maps"].values()) == counts["most"] > 0
    assert counts["explained"] <= 3 * config["attribute"]["max_images"]
    assert sum(counts["tasks"]["organs"].values()) == 24

    stages = {stage["stage"]: stage for stage in plan["stages"]}
    assert {name: stage["jobs"] for name, stage in stages.items()} == {
        **{"generate": 1, "decode": 2, "audit": 1, "classify": 1, "attribute": 2, "binarize": 4},
        **{"release": 1, "segment": 1, "adapt": 2},
    }
    assert stages["attribute"]["units"] == counts["pairs"]  # the recipe band has no own maps
    assert stages["binarize"]["units"] == 2 * counts["pairs"]
    assert stages["adapt"]["units"] == 2 * 2
    for stage in stages.values():
        one, two, four = (stage["seconds"][n] for n in ("1", "2", "4"))
        assert 0 < four <= two <= one <= four * stage["jobs"] * 1.001
    assert plan["seconds"]["1"] == pytest.approx(sum(s["seconds"]["1"] for s in stages.values()))
    measured = {rate["what"] for rate in plan["calibration"]["rates"]}
    assert measured >= {
        "decode",
        "audit",
        "classify a",
        "attribute doll",
        "binarize band",
        "adapt adapter",
    }
    assert plan["calibration"]["real_images"] and not plan["calibration"]["trained_committee"]

    assert plan["shards"]["suggested"] == 4
    assert "2 shards keep 2 of 4 devices idle; set prepare.shards to about 4" in shown.out
    assert "1 untrained member" in shown.out and "4 devices" in shown.out
    assert "plan:" in shown.err and "plan:" not in shown.out
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]  # nothing else is left


def test_a_table_is_enough_and_adaptive_nodes_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"i{number}.png" for number in range(40)]
    # Paths that leave the root are broken images like others.
    names[7] = "../../outside.png"
    rows = "".join(f"{name},{'xy'[k % 2]}\n" for k, name in enumerate(names))
    (tmp_path / "t.csv").write_text("file,class\n" + rows)
    table = {"file": "t.csv", "images": ".", "image_column": "file", "label_column": "class"}
    adaptive = {"target": 0.5, "first": 2, "max_nodes": 11}
    recipes = {
        "doll": {"attribute": {"adaptive": adaptive}, "binarize": [{"otsu": {}}]},
        "slow": {
            "attribute": {"nodes": 400, "noise": {"samples": 3}},
            "binarize": [{"quantile": {}}],
        },
    }
    given = micro(
        source={"kind": "table", "table": table},
        **{"data_root": str(tmp_path), "tasks": {}, "recipes": recipes, "truth": None},
    )
    given["attribute"] = {"min_probability": 0.5}
    given["prepare"] |= {"channels": 3}
    assert cli.main(["plan", "--config", json.dumps(given), "--seconds", "1"]) == 0
    shown = capsys.readouterr()
    assert "no sampled image can be read" in shown.err
    assert "made-up JPEG files" in shown.out and "decoding is a guess" in shown.out
    assert "Adaptive nodes were" in shown.out
    assert "of 400 nodes" in shown.out and "1 of 3 noisy copies" in shown.out
    assert "40 positive labels are the lower bound, 80 pairs the upper one" in shown.out
    assert "at least 40 pairs" in shown.out
    assert "adapt" not in shown.out


@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        ({}, ["--devices", "0"], "--devices has a number under 1"),
        ({}, ["--seconds", "0"], "--seconds must be over 0"),
        ({}, ["--seconds", "nan"], "--seconds must be over 0"),
        ({"epochs": 3}, [], "unknown key 'epochs'"),
        ({"source": {"kind": "chexpert"}, "data_root": "nowhere"}, [], "set data_root"),
        ({"source": {"kind": "chexpert"}}, ["--data-root", "other"], "data folder other does not"),
        ({"attribute": {"findings": ["Oedema"]}}, [], "unknown finding 'Oedema'"),
        (
            {"classify": {"members": {"a": {"architecture": "resnet81"}}}},
            ["--seconds", "1"],
            "unknown architecture 'resnet81'",
        ),
        (
            {"recipes": {"doll": {"binarize": [{"gate": {"labels": [0]}}, {"otsu": {}}]}}},
            ["--seconds", "1"],
            "loosen its gates",
        ),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_1(
    changes: dict[str, Any],
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = micro(**changes)
    if given["source"]["kind"] == "phantoms":
        given["source"] = {**given["source"], "phantoms": {"images": 20, "size": 32}}
        given["tasks"] = {}
    assert cli.main(["plan", "--config", json.dumps(given), *words]) == 1
    shown = capsys.readouterr()
    last = shown.err.splitlines()[-1]
    assert last.startswith("dollmaker: error: ") and said in last
    assert "Traceback" not in shown.err and not shown.out


def test_a_trained_committee_is_used_only_if_it_fits(tmp_path: Path) -> None:
    from dollmaker.networks.member import save_member

    config = configuration.resolve(micro())
    device, findings = torch.device("cpu"), ["A", "B"]
    size = config["prepare"]["size"]
    images = torch.randint(0, 255, (4, 1, size, size), dtype=torch.uint8)
    untrained, trained = find_committee(config, findings, tmp_path, images, device)
    assert not trained and not untrained[0].network.training
    with torch.no_grad():  # its signal has not faded
        logits = untrained[0].network(untrained[0].prepare(images))
    assert float(logits.std(0).max()) > 1e-3
    options = config["classify"]["members"]["a"]
    member, architecture = untrained_member(config, "a", options, findings, device)
    folder = tmp_path / "committee/a"
    folder.mkdir(parents=True)
    save_member(folder, member.network, architecture, findings, member.input)
    found, trained = find_committee(config, findings, tmp_path, images, device)
    assert trained and found[0].sha256
    assert not find_committee(config, ["A", "C"], tmp_path, images, device)[1]
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert not find_committee(config, findings, tmp_path, images, device)[1]


def test_a_committee_takes_other_nodes_when_told(tmp_path: Path) -> None:
    """Trials of a slow device change the options between two measurements."""
    config = configuration.resolve(micro())
    options = config["recipes"]["doll"]["attribute"]
    device = torch.device("cpu")
    member, _ = untrained_member(config, "a", config["classify"]["members"]["a"], ["A"], device)
    size = config["prepare"]["size"]
    mean, images = torch.tensor([0.0]), torch.full((1, 1, size, size), 9, dtype=torch.uint8)
    experts = Committee([member], options, channel_mean=mean, size=size, chunk=4)
    assert experts.explain(images, ["x"], [(0, 0)]).nodes.tolist() == [2]
    experts.options = {**options, "nodes": 4}
    assert experts.explain(images, ["x"], [(0, 0)]).nodes.tolist() == [4]
