"""What stages declare that they read, and what is remembered of the files."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dollmaker.classify import stage
from dollmaker.config import reads
from dollmaker.config import settings as configuration
from dollmaker.config.whole import Config
from dollmaker.launch import pipeline
from dollmaker.store import provenance, sums, tables
from dollmaker.store.shards import create_shard
from rerun_settings import SETTINGS

ROOT = Path(__file__).parents[1]


class Noted(Exception):
    """Ends what need not go on: all was seen."""


def test_a_file_is_read_again_only_when_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, memory = tmp_path / "a.png", tmp_path / "memory.json"
    file.write_text("old")
    os.utime(file, (1, 1))

    def content() -> str:
        sums._content.cache_clear()
        return sums.content([str(file)], memory=memory)

    first = content()
    monkeypatch.setattr(sums, "sha256_file", lambda _: pytest.fail("it was read again"))
    assert content() == first
    monkeypatch.undo()
    file.write_text("new")
    assert content() != first
    memory.write_text("damaged")
    assert content() != first


def test_a_file_that_may_still_be_written_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("young")
    sums.content([str(tmp_path / "a")], memory=tmp_path / "memory.json")
    assert not (tmp_path / "memory.json").exists()


#: Rooms whose code takes its settings by name from the configuration, and their stages.
ROOMS = {
    "classify": ("classify",),
    "attribute": ("attribute", "sample"),
    "binarize": ("binarize",),
    "sanity": ("sanity",),
    "segment": ("segment",),
    "evaluate": ("evaluate",),
    "compare": ("compare",),
    "study": ("study",),
    "adapt": ("adapt",),
}


@pytest.mark.parametrize("room", ROOMS)
def test_code_reads_no_key_that_its_stage_does_not_declare(room: str) -> None:
    declared = {key for stage in ROOMS[room] for key in reads.READS[stage].keys}
    whole = {key.partition(".")[0] for key in declared}
    files = sorted((ROOT / "workflow/dollmaker" / room).glob("*.py"))
    code = "\n".join(file.read_text() for file in files if file.name != "release.py")
    named = re.findall(r"""config\["(\w+)"\](?:\["(\w+)"\])?""", code)
    typed = re.findall(r"""(?<!dollmaker\.)\bconfig\.(\w+)(?:\.(\w+)\b(?!\())?""", code)
    named += [(section, key) for section, key in typed if section in Config.model_fields]
    assert named
    for section, key in named:
        assert section in whole | {"dataset", "source", "allow_links"}, section
        if key and section not in declared | {"source"}:
            assert f"{section}.{key}" in declared


def test_what_a_stage_reads_is_a_configuration() -> None:
    full = configuration.resolved(SETTINGS)
    for name, declared in reads.READS.items():
        again = configuration.loaded(pipeline.stage_config(full, name)).dump()
        for key in declared.keys:
            section, _, below = key.partition(".")
            if section != "truth":
                pair = again[section], full.dump()[section]
                given, wanted = (one[below] if below else one for one in pair)
                assert given == wanted, (name, key)


def test_labels_name_only_what_the_masks_are_made_by() -> None:
    recipes = {"micranet": {}, "explainseg-b": {}, "band": SETTINGS["recipes"]["band"]}
    settings = {**SETTINGS, "recipes": {**SETTINGS["recipes"], **recipes}}
    full = configuration.resolved({**settings, "release": {"recipe": "band"}})
    assert "micranet" in full.classify.members
    made_by = reads.of_labels(full)
    assert list(made_by.recipes) == ["doll", "band"]
    assert list(made_by.classify.members) == ["a", "b"]
    assert pipeline.labels_config(full) == pipeline.labels_config(
        configuration.resolved({**SETTINGS, "release": {"recipe": "band"}})
    )


def test_the_contracts_hold_the_declaration() -> None:
    assert reads.table() in (ROOT / "docs/reference/contracts.md").read_text()


def test_every_rule_with_settings_has_a_declaration() -> None:
    rules = {rule for stage in reads.READS.values() for rule in stage.rules}
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^rule ", file.read_text(), flags=re.MULTILINE)[1:]:
            name = rule.partition(":")[0]
            settings = "--config {input.config:q}" in rule
            assert settings == (name in rules or name == "write_report"), name


def test_the_state_of_a_training_knows_how_images_were_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, ids = provenance.header("prepare", {}), ["a", "b", "c", "d"]
    with create_shard(tmp_path / "images/0000.h5", "images", header) as writer:
        writer.append({"image_id": ids}, image=np.zeros((4, 1, 32, 32), np.uint8))
    index = {"image_id": ids, "patient_id": ids, "shard": ["0000"] * 4, "row": range(4)}
    index |= {
        "split": ["train", "train", "valid", "test"],
        "y": pl.Series([1, 0, 1, 0], dtype=pl.Int8),
    }
    facts = {"findings": ["y"], "channel_mean": [0.0]}
    tables.write(pl.DataFrame(index), tmp_path / "index.parquet", {**header, **facts})

    def note(output: Path, key: str) -> None:
        raise Noted(key)

    monkeypatch.setattr(stage, "Work", note)

    def key(**prepare: Any) -> str:
        settings = {
            "dataset": "x",
            "source": {"kind": "phantoms"},
            "prepare": {"size": 32, **prepare},
            "classify": {"members": {"a": {"architecture": "timm:test_resnet"}}},
        }
        config = configuration.resolved(settings).dump()
        with pytest.raises(Noted) as noted:
            files = stage.Inputs(
                index=tmp_path / "index.parquet", images=tmp_path / "images", weights_root=tmp_path
            )
            stage.train_member(configuration.resolved(config), "a", files, tmp_path)
        return str(noted.value)

    assert key() == key(max_quarantined=0.5)
    assert key() != key(fit="resize")
