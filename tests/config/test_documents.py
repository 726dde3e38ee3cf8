"""The models and what is generated of them say the same."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dollmaker.config import documents
from dollmaker.config import settings as config
from dollmaker.config.base import Section
from dollmaker.config.whole import Config
from dollmaker.runtime.errors import ConfigError

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "config.yaml", *sorted((ROOT / "workflow/configs").glob("*.yaml"))]
SCHEMA = jsonschema.Draft202012Validator(documents.schema())


def test_the_generated_files_are_those_of_the_models() -> None:
    """Else run python -m dollmaker.config.documents."""
    assert documents.SCHEMA.read_text(encoding="utf-8") == documents.schema_text()
    assert documents.TABLE.read_text(encoding="utf-8") == documents.table()
    assert yaml.safe_load(documents.schema_text()) == documents.schema()


def test_every_key_is_described_on_the_page() -> None:
    page = documents.table()
    models, keys = [Section], 0
    while models:
        model = models.pop()
        models += model.__subclasses__()
        for key, field in model.model_fields.items():
            text = " ".join((field.description or "").split())
            assert text and text.replace("|", "&#124;") in page, (model, key)
            keys += 1
    assert keys > 200


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_schema_takes_what_the_models_take(file: Path) -> None:
    given = config.read(str(file))
    if "source" not in given:  # it is laid over the default
        given = {**config.read(str(ROOT / "config.yaml")), **given}
    SCHEMA.validate(given)
    full = config.resolved(given)
    assert config.resolved(full.dump()) == full
    assert config.resolved(given).dump() == full.dump()


#: Section -> a value that only one of the two might refuse.
DOUBTS: list[dict[str, Any]] = [
    {},
    {"prepare": {"size": 15}},
    {"prepare": {"size": 16}},
    {"prepare": {"size": 16.5}},
    {"prepare": {"valid": 1}},
    {"prepare": {"bits": 16}},
    {"prepare": {"bits": 12}},
    {"prepare": {"sise": 16}},
    {"seed": -1},
    {"seed": 2**53},
    {"classify": {"members": {"a": {"architecture": "timm:test_resnet", "seed": 2**53}}}},
    {"seed": True},
    {"dataset": "a b"},
    {"dataset": "a\n"},
    {"source": {"kind": "msd"}},
    {"source": {"kind": "msd", "msd": {}}},
    {"source": {"kind": "msd", "msd": {"channels": "all", "window": [1, 99]}}},
    {"source": {"kind": "msd", "msd": {"channels": ["a", "a"]}}},
    {"source": {"kind": "msd", "msd": {"window": [1]}}},
    {"source": {"kind": "msd", "msd": {"findings": {"t": [256]}}}},
    {"classify": {"members": {}}},
    {"classify": {"members": {"a": {"std": 0}}}},
    {"classify": {"members": {"a": {"std": [0.5], "epochs": 0}}}},
    {"classify": {"uncertain": {"X": "maybe"}}},
    {"recipes": {"doll": {"attribute": {"side": "published"}, "binarize": [{"otsu": {}}]}}},
    {"recipes": {"doll": {"attribute": {"side": 8}, "binarize": [{"otsu": {}}]}}},
    {"recipes": {"doll": {"binarize": [{"otsu": {}, "gate": {}}]}}},
    {"recipes": {"doll": {"binarize": [{"otsu": None}]}}},
    {"recipes": {"doll": {"attribute": {"noise": {"stdev": 0}}, "binarize": [{"otsu": {}}]}}},
    {"explain": {"pixels": None, "point": [1, 2]}},
    {"explain": {"point": [1, -2]}},
    {"tasks": {"t": {"images": "i", "masks": "m", "classes": {"c": [0]}}}},
    {"tasks": {"t": {"images": "i", "masks": "m", "classes": {"c": [1, "x"]}}}},
    {"adapt": {"runs": ["doll/all"]}},
    {"adapt": {"n": [1, "all"], "learning_rate": [0.1, 0.01]}},
    {"adapt": {"learning_rate": []}},
    {"study": {"tunings": {"long": {"tuning": "full", "steps": 3}}}},
    {"study": {"tunings": {"long": {"tuning": "fully"}}}},
    {"study": {"tunings": []}},
    {"study": {"architectures": {"a/b": {}}}},
    {"truth": {"kind": "boxes"}},
    {"truth": {"kind": "boxes", "file": "f.csv", "space": None}},
    {"release": {"version": "1.0"}},
]


@pytest.mark.parametrize("change", DOUBTS, ids=str)
def test_both_refuse_the_same(change: dict[str, Any]) -> None:
    given = {"dataset": "x", "source": {"kind": "phantoms"}, **change}
    try:
        config._check(given)
    except ConfigError:
        assert not SCHEMA.is_valid(given)
    else:
        assert SCHEMA.is_valid(given)


def test_sections_are_frozen_and_typed() -> None:
    full = config.resolved({"dataset": "x", "source": {"kind": "phantoms"}})
    assert isinstance(full, Config) and full.prepare.size == 224
    with pytest.raises(ValueError, match="frozen"):
        full.prepare.size = 3  # type: ignore[misc]
