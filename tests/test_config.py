"""The configuration: closed, with defaults, and errors in one sentence."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from dollmaker import config, pipeline
from dollmaker.errors import ConfigError

ROOT = Path(__file__).parents[1]
MINIMAL: dict[str, Any] = {"dataset": "x", "source": {"kind": "phantoms"}}


def test_defaults_reach_every_depth() -> None:
    full = config.resolve({**MINIMAL, "recipes": {"doll": {"binarize": [{"otsu": {}}]}}})
    assert full["classify"]["members"] == {
        "member0": {
            "architecture": "mobilenet_v2",
            "weights": None,
            "linear_probe": False,
            "seed": 0,
            "committee": "doll",
            "optimizer": "adamw",
            "epochs": None,
            "learning_rate": None,
        }
    }
    assert full["recipes"]["doll"]["attribute"]["nodes"] == 16


def test_resolving_twice_changes_nothing() -> None:
    once = config.resolve(MINIMAL)
    assert config.resolve(once) == once


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochz": 3}, ["unknown key 'epochz'", "known keys", "classify"]),
        ({"classify": {"epochz": 3}}, ["'classify'", "unknown key 'epochz'"]),
        ({"classify": {"members": {"a": {"arch": "x"}}}}, ["members.a", "unknown key 'arch'"]),
        ({"classify": {"epochs": "many"}}, ["classify.epochs", "must be of type integer"]),
        ({"adapt": {"learning_rate": None}}, ["adapt.learning_rate", "of type number or array."]),
        ({"study": {"tunings": "full"}}, ["study.tunings", "must be of type array or object."]),
        ({"device": "tpu"}, ["device", '"auto", "cpu", "cuda"']),
        ({"source": {"kind": "table"}}, ["source.table is missing"]),
        ({"source": {}}, ["'source' lacks the key 'kind'"]),
        ({"prepare": {"valid": 0.6, "test": 0.5}}, ["no patients to train"]),
        ({"release": {"recipe": "dolls"}}, ["'dolls'", "use one of: doll"]),
        (
            {"recipes": {"doll": {"attribute": "other", "binarize": [{"otsu": {}}]}}},
            ["no maps of its own"],
        ),
        ({"recipes": {"doll": {"attribute": {"nodez": 3}, "binarize": [{"otsu": {}}]}}}, ["nodez"]),
        ({"dataset": "../evil"}, ["dataset"]),
        ({"truth": {"kind": "masks"}}, ["truth.folder is missing"]),
        ({"dataset": "my data"}, ["'dataset' has 'my data'", "use letters, digits"]),
        ({"adapt": {"runs": ["dol/full"]}}, ["has 'dol/full'", "random, imagenet, classifier"]),
        ({"study": {"pretrainings": {"x\n": {}}}}, ["use letters, digits"]),
        ({"classify": {"learning_rate": "1e-3"}}, ["of type number", "write 0.001"]),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_key(
    change: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.resolve({**MINIMAL, **change})
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "file", [ROOT / "config.yaml", *(ROOT / "workflow/configs").glob("*.yaml")]
)
def test_shipped_configurations_are_valid_and_name_no_local_folder(file: Path) -> None:
    pipeline.compared(pipeline.configure(config.read(str(file)), ROOT / "config.yaml"))
    assert "shared" not in file.read_text()


def test_every_key_of_the_schema_is_described() -> None:
    def walk(rules: Any, where: str) -> list[str]:
        missing = []
        if isinstance(rules, dict):
            for key, rule in rules.get("properties", {}).items():
                if "description" not in rule:
                    missing.append(f"{where}.{key}")
                missing += walk(rule, f"{where}.{key}")
            for option in rules.get("oneOf", ()):
                missing += walk(option, where)
            missing += walk(rules.get("additionalProperties"), f"{where}.*")
        return missing

    assert walk(config.schema(), "") == []


def test_inline_json_and_files_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(MINIMAL))
    assert config.load(str(file)) == config.load('{"dataset": "x", "source": {"kind": "phantoms"}}')


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("dataset: x\nsource: {kind: phantoms}\ntruth: null\nseed: 1\ntruth: null\n")
    with pytest.raises(ConfigError, match="'truth' is in lines 3 and 5"):
        config.load(str(file))
    file.write_text("dataset: x\nsource: {kind: phantoms}\nprepare: {size: 32,\n  size: 64}\n")
    with pytest.raises(ConfigError, match="'size' is in lines 3 and 4"):
        pipeline.configure({**MINIMAL, "prepare": {"size": 64}}, ROOT / "config.yaml", [file])


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "", "key: !!python/object:os.system x"])
def test_files_that_are_no_mapping_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        config.load(str(file))
    with pytest.raises(ConfigError, match="cannot read"):
        config.load(str(tmp_path / "absent.yaml"))
