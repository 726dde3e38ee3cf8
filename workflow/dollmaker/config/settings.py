"""The configuration: read it, check it against the models, complete it.

A configuration is given as a file (YAML or JSON) or as inline JSON that starts with ``{``.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dollmaker.config import catalogue, checks, mistakes
from dollmaker.config.base import Tree
from dollmaker.config.whole import Config
from dollmaker.runtime import encoding
from dollmaker.runtime.errors import ConfigError

#: More values than any configuration needs.
_MOST_VALUES = 100_000

#: Numbers that YAML 1.1 reads to the base 8 or 60.
_OTHER_BASE = re.compile(r"[-+]?0[0-7_]+|[-+]?[0-9_]+(:[0-9_]+)+(\.[0-9_]*)?")


def load(source: str) -> Tree:
    """As :func:`loaded`, as a dictionary."""
    return loaded(source).dump()


def resolve(config: Mapping[str, Any]) -> Tree:
    """As :func:`resolved`, as a dictionary."""
    return resolved(config).dump()


def loaded(source: str) -> Config:
    """Read a configuration and resolve it.

    Args:
        source: Path of a YAML or JSON file, or inline JSON.

    Raises:
        ConfigError: If it cannot be read or is not valid.
    """
    return resolved(read(source))


class _Loader(yaml.SafeLoader):
    """Refuses a key that occurs twice, of which YAML would silently take the last.

    A key that YAML takes for something else than its text, as ``on`` for true and ``010`` for 8, is
    refused too: a member would get another name than was written. So are numbers that YAML reads to
    another base than ten or sixteen: 010 is 8 to it, and 1:30 is 90.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                _check_key(key, self.construct_object(key), lines)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        meant: int = super().construct_yaml_int(node)
        _check_base(node, meant)
        return meant

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        meant: float = super().construct_yaml_float(node)
        _check_base(node, meant)
        return meant


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _check_base(node: yaml.ScalarNode, meant: float) -> None:
    """Refuse a number with a leading zero or with colons, which is not what it looks like."""
    if _OTHER_BASE.fullmatch(node.value):
        raise yaml.YAMLError(
            f"line {node.start_mark.line + 1}: YAML takes {node.value} for {meant}; put it in "
            "quotes if it is text, or write the number without leading zeros and colons"
        )


def _check_key(node: yaml.ScalarNode, meant: Any, lines: dict[str, int]) -> None:
    """Refuse a key that is in ``lines`` already, or not what is written there; note its line."""
    key, line = node.value, node.start_mark.line + 1
    if key in lines:
        raise yaml.YAMLError(f"{key!r} is in lines {lines[key]} and {line}; keep one")
    lines[key] = line
    if key != (meant if isinstance(meant, str) else json.dumps(meant, default=repr)):
        raise yaml.YAMLError(f"line {line}: YAML takes the key {key} for {meant}; put it in quotes")


def read(source: str) -> Tree:
    """Read a configuration as it was written, without defaults.

    Raises:
        ConfigError: If it cannot be read, is no mapping, or has a key twice.
    """
    if source.lstrip().startswith("{"):
        try:
            value = json.loads(source)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigError(
                f"the inline configuration is not JSON ({error}); correct it."
            ) from None
    else:
        try:
            value = yaml.load(_text(source), _Loader)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"{source} cannot be read as YAML ({_detail(error)}); correct the file."
            ) from None
    if not isinstance(value, dict):
        raise ConfigError(f"the configuration {source} is not a mapping of keys; see config.yaml.")
    return value


def _text(source: str) -> str:
    try:
        return encoding.decode(Path(source).read_bytes())
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {source} ({error.strerror}); give an existing file."
        ) from None
    except ValueError as error:
        raise ConfigError(f"{source} cannot be read as YAML ({error}); save it in UTF-8.") from None


def _detail(error: Exception) -> str:
    """What is wrong with a YAML text, with its line first."""
    detail = str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        detail = f"line {error.problem_mark.line + 1}: {error.problem} {error.context or ''}"
        if "'\\t'" in detail:
            detail = f"{detail}; indent with blanks, not with tabs"
    return " ".join(detail.split())[:300]


def resolved(given: Mapping[str, Any]) -> Config:
    """Check a configuration and complete it: defaults, recipes of the catalogue, their members.

    Raises:
        ConfigError: With the first mistake, in one sentence.
    """
    _check_values(given)
    tree: Tree = json.loads(json.dumps(given))
    _check(tree)
    if "recipes" in tree:
        released = tree.get("release", {}).get("recipe", "doll")
        tree["recipes"] = catalogue.add_recipes(tree["recipes"], [], released)
    config = catalogue.with_members(_check(tree))
    checks.check(config)
    return config


def complete(config: Config) -> Config:
    """A configuration with all recipes of the comparison, and the members they ask for.

    Raises:
        ConfigError: If ``compare.recipes`` has an unknown name.
    """
    tree = config.dump()
    names = config.compare.recipes or catalogue.catalogue()
    tree["recipes"] = catalogue.add_recipes(tree["recipes"], names, config.release.recipe)
    return resolved(tree)


def _check(tree: Tree) -> Config:
    """The models of a configuration, whose numbers are put right in place.

    Raises:
        ConfigError: If it is not valid.
    """
    while True:
        try:
            return Config.model_validate(tree)
        except ValidationError as error:
            if not mistakes.mend(tree, error):
                raise ConfigError(mistakes.sentence(tree, Config, error)) from None


def _check_values(config: Mapping[str, Any]) -> None:
    """Refuse what JSON cannot hold, and what is endless: YAML has links to parts of itself."""
    waiting: list[tuple[str, Any]] = [("", config)]
    for _ in range(_MOST_VALUES):
        if not waiting:
            return
        where, value = waiting.pop()
        if isinstance(value, Mapping):
            for key in value:
                if isinstance(key, bool):
                    place = mistakes.named(where.split(".") if where else ())
                    raise ConfigError(
                        f"{place} has the key {json.dumps(key)}, which YAML takes on, off, yes and "
                        "no for; put it in quotes."
                    )
            waiting += [(f"{where}.{key}".lstrip("."), item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{where}.{place}", item) for place, item in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"configuration key {where!r} is {value}; give a finite number.")
        elif not isinstance(value, str | int | float | None):
            raise ConfigError(
                f"configuration key {where!r} is a {type(value).__name__}; put it in quotes."
            )
    raise ConfigError(
        f"the configuration holds more than {_MOST_VALUES} values; shorten it or remove its links."
    )
