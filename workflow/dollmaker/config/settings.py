"""The configuration: read it, check it against the models, complete it.

A configuration is given as a file (YAML or JSON) or as inline JSON that starts with ``{``.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dollmaker.config import catalogue, checks, mistakes
from dollmaker.config.base import Tree
from dollmaker.config.whole import Config
from dollmaker.runtime import encoding
from dollmaker.runtime.errors import ConfigError

#: More values than any configuration needs.
_MOST_VALUES = 100_000


def loaded(source: str) -> Config:
    """Read a configuration, a YAML or JSON file or inline JSON, and resolve it.

    Raises:
        ConfigError: If it cannot be read or is not valid.
    """
    return resolved(read(source))


def read(source: str) -> Tree:
    """Read a configuration as it was written, without defaults.

    Raises:
        ConfigError: If it cannot be read, is no mapping, or has a key twice.
    """
    if source.lstrip().startswith("{"):
        value = _json(source, "the inline configuration")
    elif source.endswith(".json"):
        value = _json(_text(source), source)
    else:
        from dollmaker.config import yaml_text  # jobs have JSON, and need not wait for YAML

        try:
            value = yaml_text.parse(_text(source))
        except ValueError as error:
            raise ConfigError(
                f"{source} cannot be read as YAML ({error}); correct the file."
            ) from None
    if not isinstance(value, dict):
        raise ConfigError(f"the configuration {source} is not a mapping of keys; see config.yaml.")
    return value


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not JSON ({error}); correct it.") from None


def _once(pairs: list[tuple[str, Any]]) -> Tree:
    """A mapping, in which no key is twice."""
    for key, times in Counter(key for key, _ in pairs).items():
        if times > 1:
            raise ValueError(f"{key!r} is there {times} times; keep one")
    return dict(pairs)


def _text(source: str) -> str:
    try:
        return encoding.decode(Path(source).read_bytes())
    except OSError as error:
        raise ConfigError(
            f"cannot read the configuration {source} ({error.strerror}); give an existing file."
        ) from None
    except ValueError as error:
        raise ConfigError(f"{source} cannot be read as YAML ({error}); save it in UTF-8.") from None


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
    """The models of a configuration, whose numbers are put right in place."""
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
