"""The configuration: closed, with defaults, and errors in one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dollmaker.config import documents
from dollmaker.config import settings as config
from dollmaker.config.sources import TEST
from dollmaker.launch import pipeline
from dollmaker.runtime.errors import ConfigError

ROOT = Path(__file__).parents[2]
MINIMAL: dict[str, Any] = {"dataset": "x", "source": {"kind": "phantoms"}}


def test_a_recipe_that_names_no_steps_is_cut_as_one_that_is_left_out() -> None:
    source = {"dataset": "d", "source": {"kind": "folder", "folder": {"root": "r"}}}
    mine = config.resolved({**source, "recipes": {"doll": {"attribute": {"baselines": ["mean"]}}}})
    assert mine.maps("doll").baselines == ["mean"]
    assert mine.recipes["doll"].binarize == config.resolved(source).recipes["doll"].binarize
    assert "dense_crf" in mine.recipes["doll"].binarize[-1]


def test_defaults_reach_every_depth() -> None:
    full = config.resolved({**MINIMAL, "recipes": {"doll": {"binarize": [{"otsu": {}}]}}}).dump()
    assert full["classify"]["members"] == {
        "member0": {
            "architecture": "mobilenet_v2",
            "weights": None,
            "findings": None,
            "input": {},
            "linear_probe": False,
            "mean": None,
            "std": None,
            "seed": 0,
            "committee": "doll",
            "optimizer": "adamw",
            "epochs": None,
            "learning_rate": None,
        }
    }
    assert full["recipes"]["doll"]["attribute"]["nodes"] == 16


def test_a_null_says_no_more_than_a_key_that_is_left_out() -> None:
    change = {"classify": {"members": {"a": {"input": {"size": None}}}}}
    assert config.resolved({**MINIMAL, **change}).dump()["classify"]["members"]["a"]["input"] == {}
    truth = {"kind": "masks", "folder": "m", "column": None, "targets": {"a": [1]}}
    full = config.resolved({**MINIMAL, "truth": {**truth, "file": None}}).dump()
    assert not {"column", "file"} & set(full["truth"])
    assert config.resolved(full).dump() == full


def test_resolving_twice_changes_nothing() -> None:
    once = config.resolved(MINIMAL).dump()
    assert config.resolved(once).dump() == once


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochz": 3}, ["unknown key 'epochz'", "known keys", "classify"]),
        ({"classify": {"epochz": 3}}, ["'classify'", "unknown key 'epochz'"]),
        ({"classify": {"members": {"a": {"arch": "x"}}}}, ["members.a", "unknown key 'arch'"]),
        ({"classify": {"epochs": "many"}}, ["classify.epochs", "must be of type integer"]),
        ({"adapt": {"n": 5}}, ["'adapt.n' is 5", "must be of type array. Write a list: [5]."]),
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
        ({"classify": {"learning_rate": "0,001"}}, ["of type number", "write 0.001"]),
        ({"seed": 2**53}, ["'seed' is 9007199254740992; give less than 9"]),
        ({"seed": 4.5}, ["'seed' is 4.5", "of type integer."]),
        ({"seed": "1e-3"}, ["of type integer."]),
        ({"seed": "12"}, ["of type integer", "quoted numbers for text: write 12"]),
        ({"seed": True}, ["of type integer."]),
        ({"seed": "1e999"}, ["of type integer"]),
        ({"dataset": 2024}, ["'dataset' is 2024", "Put it in quotes."]),
        ({"data_root": None}, ["'data_root' is null", "takes ~ and a missing value for null"]),
        ({"data_root": "~/x"}, ["data_root is '~/x'", "write the whole path"]),
        ({"weights_root": "$HOME/x"}, ["weights_root is '$HOME/x'", "write the whole path"]),
        ({"allow_links": "yes"}, ["'allow_links' is \"yes\"", "Write true or false"]),
        ({"attribute": {"findings": [True]}}, ["attribute.findings.0", "put the word in quotes"]),
        ({"classify": {"members": {True: {}}}}, ["'classify.members' has the key true", "quotes"]),
        ({"source": {"kind": "table", "table": None}}, ["source.table is missing"]),
        ({"source": {"kind": "dicom", "dicom": None}}, ["'source' lacks the key 'dicom'"]),
        ({"truth": {"kind": "masks", "folder": None}}, ["truth.folder is missing"]),
        ({"truth": {"kind": "masks", "folder": "m"}}, ["truth.targets is missing"]),
        ({"recipes": {"doll": {"attribute": {}, "binarize": None}}}, ["binarize' is null"]),
        ({"classify": {"epochz": 3}}, ["did you mean 'epochs'?"]),
        ({"prepare": {"size": 8}}, ["'prepare.size' is 8; give at least 16."]),
        ({"prepare": {"test": 1}}, ["'prepare.test' is 1; give less than 1."]),
        ({"adapt": {"learning_rate": -1}}, ["learning_rate' is -1; give more than 0."]),
        ({"prepare": {"bits": 12}}, ["'prepare.bits' is 12; use one of: 8, 16."]),
        ({"attribute": {"max_images": "few"}}, ["must be of type integer or null."]),
        ({"attribute": {"splits": []}}, ["attribute.splits' is []; give at least 1."]),
        ({"attribute": {"splits": ["test", "test"]}}, ['has "test" twice, keep one']),
        ({"adapt": {"n": [4.5]}}, ["'adapt.n.0' is 4.5", 'of type integer or "all".']),
        ({"explain": {"pixels": "some"}}, ['"image", "class", "truth", "point", "zero", null.']),
        ({"source": {"kind": "msd"}}, ["'source' lacks the key 'msd'; add it."]),
        ({"truth": {"kind": "boxes"}}, ["'truth' lacks the key 'file'; add it."]),
        ({"tasks": {"t": {"images": "i"}}}, ["'tasks.t' lacks the key", "add it."]),
        ({"recipes": {"d": {"attribute": []}}}, ["recipes.d.attribute", "string or object."]),
        ({"recipes": {"d": {"attribute": {"noise": 3}}}}, ["attribute.noise", "object or null."]),
        ({"study": {"tunings": {"x": {"tuning": "all"}}}}, ["study.tunings.x.tuning", '"bias"']),
        ({"release": {"changes": {"1": ["x"]}}}, ["'release.changes' has '1'", "such as 1.0.0"]),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_key(
    change: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.resolved({**MINIMAL, **change})
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "file", [ROOT / "config.yaml", *(ROOT / "workflow/configs").glob("*.yaml")]
)
def test_shipped_configurations_are_valid_and_name_no_local_folder(file: Path) -> None:
    config.complete(pipeline.configure(config.read(str(file)), ROOT / "config.yaml"))
    assert "shared" not in file.read_text()


TABLE = {"file": "t.csv", "images": "i", "image_column": "image", "label_column": "class"}
MASKS = {"kind": "masks", "folder": "m", "column": None, "targets": {"a": [1]}}


@pytest.mark.parametrize(
    ("change", "test"),
    [
        ({}, 0.0),
        ({"source": {"kind": "chexpert"}}, 0.0),
        ({"source": {"kind": "folder", "folder": {"root": "r"}}}, TEST),
        ({"source": {"kind": "nih", "nih": {}}}, TEST),
        ({"source": {"kind": "msd", "msd": {}}, "prepare": {"valid": 0.3}}, TEST),
        ({"source": {"kind": "jsrt", "jsrt": {"images": "i"}}, "prepare": {"test": 0}}, 0),
        ({"source": {"kind": "table", "table": TABLE}}, TEST),
        ({"source": {"kind": "table", "table": {**TABLE, "split_column": "split"}}}, 0.0),
        (
            {
                "source": {"kind": "table", "table": TABLE},
                "prepare": {"hold_out_truth": True},
                "truth": MASKS,
            },
            0.0,
        ),
    ],
)
def test_some_patients_are_held_out_unless_the_source_says_which(
    change: dict[str, Any], test: float
) -> None:
    """Every stage that reads the share has the value, not that it was left out."""
    full = config.resolved({**MINIMAL, **change})
    assert repr(full.prepare.test) == repr(full.dump()["prepare"]["test"]) == repr(test)
    for stage in ("convert", "list", "index", "labels", "adapt", "release"):
        given = json.loads(pipeline.stage_config(full, stage))
        assert repr(given["prepare"]["test"]) == repr(test)
        assert config.resolved(given).prepare.test == test
    said = documents.schema()["$defs"]["PrepareConfig"]["properties"]["test"]
    assert "default" not in said and f"Left out, it is {TEST};" in said["description"]


def test_inline_json_and_files_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(MINIMAL))
    assert (
        config.loaded(str(file)).dump()
        == config.loaded('{"dataset": "x", "source": {"kind": "phantoms"}}').dump()
    )


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("dataset: x\nsource: {kind: phantoms}\ntruth: null\nseed: 1\ntruth: null\n")
    with pytest.raises(ConfigError, match="'truth' is in lines 3 and 5"):
        config.loaded(str(file))
    file.write_text("dataset: x\nsource: {kind: phantoms}\nprepare: {size: 32,\n  size: 64}\n")
    with pytest.raises(ConfigError, match="'size' is in lines 3 and 4"):
        pipeline.configure({**MINIMAL, "prepare": {"size": 64}}, ROOT / "config.yaml", [file])


def test_numbers_are_what_the_schema_asks_for_at_every_depth() -> None:
    noise = {"samples": 2.0, "stdev": 1.0}
    doll = {"attribute": {"nodes": 8.0, "noise": noise}, "binarize": [{"otsu": {}}]}
    change = {
        "seed": 3.0,
        "prepare": {"channels": 3.0, "max_pixels": "1e6", "valid": "1e-1", "test": 0.0},
        "classify": {"members": {"a": {"epochs": 4.0, "learning_rate": "1.0e-3"}}, "std": 1.0},
        "recipes": {"doll": doll},
        "tasks": {"t": {"images": "i", "masks": "m", "classes": {"c": [1.0, "1e3"]}}},
        "study": {"n": [5.0, "all"]},
        "adapt": {"learning_rate": ["1e-3", 1.0]},
    }
    full = config.resolved({**MINIMAL, **change}).dump()
    member, attribute = full["classify"]["members"]["a"], full["recipes"]["doll"]["attribute"]
    found = [
        (full["seed"], 3),
        (full["prepare"]["channels"], 3),
        (full["prepare"]["max_pixels"], 1_000_000),
        (full["prepare"]["valid"], 0.1),
        (full["prepare"]["test"], 0.0),
        (member["epochs"], 4),
        (member["learning_rate"], 0.001),
        (full["classify"]["std"], 1.0),
        (attribute["nodes"], 8),
        (attribute["noise"]["samples"], 2),
        (attribute["noise"]["stdev"], 1.0),
        (full["tasks"]["t"]["classes"]["c"], [1, "1e3"]),
        (full["study"]["n"], [5, "all"]),
        (full["adapt"]["learning_rate"], [0.001, 1.0]),
    ]
    assert [repr(value) for value, _ in found] == [repr(wanted) for _, wanted in found]


@pytest.mark.parametrize(
    ("key", "meant"),
    [("on", "True"), ("No", "False"), ("010", "8"), ("1.10", "1.1"), ("2024-01-01", "2024-01-01")],
)
def test_a_key_that_yaml_takes_for_something_else_is_refused(
    tmp_path: Path, key: str, meant: str
) -> None:
    file = tmp_path / "c.yaml"
    text = "dataset: x\nsource: {kind: phantoms}\nclassify:\n  members:\n    KEY: {}\n"
    file.write_text(text.replace("KEY", key))
    with pytest.raises(
        ConfigError, match=f"line 5: YAML takes (the key )?{key} for {meant}; put it"
    ):
        config.loaded(str(file))
    file.write_text(text.replace("KEY", f'"{key}"'))
    assert list(config.loaded(str(file)).classify.members) == [key]


@pytest.mark.parametrize(
    ("written", "meant"), [("010", "8"), ("-017", "-15"), ("1:30", "90"), ("1:30.5", "90.5")]
)
def test_a_number_to_another_base_is_refused(tmp_path: Path, written: str, meant: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"dataset: x\nsource: {{kind: phantoms}}\nclassify: {{epochs: {written}}}\n")
    with pytest.raises(ConfigError, match=f"line 3: YAML takes {written} for {meant}; put it in"):
        config.loaded(str(file))
    file.write_text(f'dataset: "{written}"\nsource: {{kind: phantoms}}\nseed: 0x10\n')
    assert config.read(str(file))["dataset"] == written


def test_a_number_as_key_is_its_text(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("dataset: x\nsource: {kind: phantoms}\nclassify: {members: {1: {}, 2.5: {}}}\n")
    assert list(config.loaded(str(file)).classify.members) == ["1", "2.5"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_may_have_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes("# ü\r\ndataset: x\r\nsource: {kind: phantoms}\r\n".encode(encoding))
    assert config.loaded(str(file)).dump() == config.resolved(MINIMAL).dump()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            "dataset: x\n# ü\n".encode("latin-1"),
            r"line 2 is not UTF-8: .* 'ü' .*; save it in UTF-8",
        ),
        (b"source:\n\tkind: x\n", r"line 2: found character '\\t' .*; indent with blanks"),
        (b"dataset: x\nsource: {kind: phantoms\n", "line 3: expected ',' or '}'"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_the_line(
    tmp_path: Path, data: bytes, words: str
) -> None:
    (tmp_path / "c.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=words) as caught:
        config.loaded(str(tmp_path / "c.yaml"))
    assert "\n" not in str(caught.value)


def test_every_command_knows_that_links_are_allowed_and_only_then() -> None:
    closed = config.resolved(MINIMAL)
    opened = config.resolved({**MINIMAL, "allow_links": True})
    assert closed.allow_links is False
    for text in (pipeline.stage_config(closed, "decode"), pipeline.report_config(closed)):
        assert "allow_links" not in text
    for text in (pipeline.stage_config(opened, "decode"), pipeline.report_config(opened)):
        assert config.loaded(text).allow_links


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "", "key: !!python/object:os.system x"])
def test_files_that_are_no_mapping_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        config.loaded(str(file))
    with pytest.raises(ConfigError, match="cannot read"):
        config.loaded(str(tmp_path / "absent.yaml"))
