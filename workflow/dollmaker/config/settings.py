"""The configuration: read, check against the closed schema, fill in defaults.

A configuration is given as a file (YAML or JSON) or as inline JSON that starts with ``{``: the
workflow passes each rule its own sections inline, so that a change reruns the stages it concerns.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dollmaker.config import catalogue, channels, patch_sizes, ready, source_options
from dollmaker.runtime import encoding
from dollmaker.runtime.errors import ConfigError

Config = dict[str, Any]

#: More values than any configuration needs.
_MOST_VALUES = 100_000

#: A number that YAML takes for text, unless it has a point and a sign: 1.0e-3.
_EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")

#: Numbers that YAML 1.1 reads to the base 8 or 60.
_OTHER_BASE = re.compile(r"[-+]?0[0-7_]+|[-+]?[0-9_]+(:[0-9_]+)+(\.[0-9_]*)?")

#: What JSON calls the values of closed lists.
_JSON_TYPES = {str: "string", int: "integer", type(None): "null"}

_WITHOUT_NOISE = ("occlusion", "attention_rollout", "tokencut", "maskcut", "found")


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of the configuration."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "schemas", here.parent / "schemas"):
        path = folder / "config.schema.yaml"
        if path.exists():
            loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
            return loaded
    raise ConfigError("the configuration schema is not installed; reinstall dollmaker.")


def load(source: str) -> Config:
    """Read a configuration and resolve it.

    Args:
        source: Path of a YAML or JSON file, or inline JSON.

    Raises:
        ConfigError: If it cannot be read or is not valid.
    """
    return resolve(read(source))


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


def read(source: str) -> Config:
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


def resolve(config: Mapping[str, Any]) -> Config:
    """Check a configuration and return a copy with every default filled in.

    Raises:
        ConfigError: With the first mistake, in one sentence.
    """
    copy: Config = json.loads(json.dumps(_checked(config)))
    if "recipes" in copy:
        released = (copy.get("release") or {}).get("recipe", "doll")
        copy["recipes"] = catalogue.add_recipes(copy["recipes"], [], released)
    full: Config = _filled(copy, schema())
    wanted = [r["attribute"]["committee"] for r in full["recipes"].values() if _explains(r)]
    members = catalogue.add_members(full["classify"]["members"], wanted)
    full["classify"]["members"] = ready.complete(members)
    _check_combinations(full)
    return full


def complete(config: Config) -> Config:
    """A resolved configuration with all recipes of the comparison, and the members they ask for.

    Raises:
        ConfigError: If ``compare.recipes`` has an unknown name.
    """
    names = config["compare"]["recipes"] or catalogue.known(config)
    released = config["release"]["recipe"]
    return resolve({**config, "recipes": catalogue.add_recipes(config["recipes"], names, released)})


def _explains(recipe: Config) -> bool:
    return isinstance(recipe["attribute"], dict)


def _checked(config: Mapping[str, Any]) -> Config:
    """A configuration with numbers as the schema asks for them; refuse what it does not allow."""
    import jsonschema

    _check_values(config)
    read: Config = _numbers(dict(config), schema())
    validator = jsonschema.Draft202012Validator(schema())
    errors = sorted(validator.iter_errors(read), key=lambda e: [str(p) for p in e.path])
    if errors:
        raise ConfigError(_sentence(_deepest(errors[0])))
    return read


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
                    raise ConfigError(
                        f"{_place(where)} has the key {json.dumps(key)}, which YAML takes on, off, "
                        "yes and no for; put it in quotes."
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


def _deepest(error: Any) -> Any:
    """Of alternatives (oneOf, anyOf), the complaint that got furthest into the value."""
    while error.context:
        error = max(error.context, key=lambda e: (len(e.absolute_path), e.validator != "type"))
    return error


def _sentence(error: Any) -> str:
    place = _place(".".join(str(part) for part in error.absolute_path))
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = sorted(error.schema.get("properties", {}))
        extra = sorted(str(key) for key in error.instance if key not in known)
        return f"{place} has an unknown key {extra[0]!r}; known keys: {', '.join(known)}."
    if error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        return f"{place} lacks the key {missing[0]!r}; add it."
    if error.validator == "enum":
        legal = ", ".join(json.dumps(value) for value in error.validator_value)
        return f"{place} is {json.dumps(error.instance)}; use one of: {legal}."
    if error.validator == "type":
        alternatives = error.parent.context if error.parent else [error]
        found = [e.validator_value for e in alternatives if e.validator == "type"]
        kinds = [[kind] if isinstance(kind, str) else kind for kind in found]
        legal = " or ".join(dict.fromkeys(kind for several in kinds for kind in several))
        hint = _hint(error.instance, legal)
        return f"{place} is {json.dumps(error.instance)}; it must be of type {legal}.{hint}"
    if error.validator == "pattern" and "$comment" in error.schema:
        return f"{place} has {error.instance!r}; use {error.schema['$comment']}."
    return f"{place} is not valid: {error.message}; correct it."


def _place(where: str) -> str:
    return f"configuration key {where!r}" if where else "the configuration"


def _hint(value: Any, legal: str) -> str:
    """Why a value has another type than its writer may have thought, as a sentence; often empty."""
    if isinstance(value, str):
        number = _as_number(value)
        if number and ("number" in legal or ("integer" in legal and "." not in number)):
            return f" YAML takes 0,1 and quoted numbers for text: write {number}."
        if "boolean" in legal:
            return " Write true or false, without quotes."
    elif "string" in legal:
        if isinstance(value, bool):
            return " YAML takes yes, no, on and off for true and false: put the word in quotes."
        if value is None:
            return " YAML takes ~ and a missing value for null."
        if isinstance(value, int | float):
            return " Put it in quotes."
    return ""


def _as_number(text: str) -> str:
    """How YAML has the number that a text shows; empty if it shows none."""
    try:
        value = float(text.replace(",", ".", 1))
    except ValueError:
        return ""
    if not math.isfinite(value):
        return ""
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    shown = repr(value)
    return shown if "." in shown else shown.replace("e", ".0e")


def _numbers(value: Any, rules: Mapping[str, Any]) -> Any:
    """A value with the numbers that its part of the schema asks for, recursively.

    A whole float is an integer (4.0 is 4), and 1e-3, which YAML takes for text, is a number, where
    text is not allowed.
    """
    kinds = _kinds(rules)
    if isinstance(value, str):
        if "string" in kinds or not kinds & {"integer", "number"} or not _EXPONENT.fullmatch(value):
            return value
        value = float(value) if math.isfinite(float(value)) else value
    if isinstance(value, float):
        return int(value) if "integer" in kinds and value.is_integer() else value
    for option in _options(rules):
        value = _numbers(value, option)
    if isinstance(value, list) and "items" in rules:
        return [_numbers(item, rules["items"]) for item in value]
    if isinstance(value, dict) and "object" in kinds:
        own, others = rules.get("properties", {}), rules.get("additionalProperties")
        rest = others if isinstance(others, dict) else {}
        return {key: _numbers(item, own.get(key, rest)) for key, item in value.items()}
    return value


def _kinds(rules: Mapping[str, Any]) -> set[str]:
    """The types that a part of the schema allows."""
    given, listed = rules.get("type", ()), rules.get("enum", ())
    kinds = {given} if isinstance(given, str) else set(given)
    kinds |= {_JSON_TYPES[type(known)] for known in listed}
    return kinds.union(*map(_kinds, _options(rules)))


def _options(rules: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*rules.get("oneOf", ()), *rules.get("anyOf", ())]


def _filled(value: Any, rules: Mapping[str, Any]) -> Any:
    """Fill defaults of a value from its part of the schema, recursively."""
    for option in rules.get("oneOf", ()):
        if option.get("type") == "object" and isinstance(value, dict):
            return _filled(value, option)
    if not isinstance(value, dict) or rules.get("type") != "object":
        return value
    filled = dict(value)
    for key, rule in rules.get("properties", {}).items():
        if key not in filled and "default" in rule:
            filled[key] = json.loads(json.dumps(rule["default"]))
        if key in filled:
            filled[key] = _filled(filled[key], rule)
    others = rules.get("additionalProperties")
    if isinstance(others, dict):
        for key in filled:
            if key not in rules.get("properties", {}):
                filled[key] = _filled(filled[key], others)
    return filled


def _check_combinations(config: Config) -> None:
    prepare = config["prepare"]
    for key in ("data_root", "weights_root"):
        if config[key].startswith(("~", "$")):
            raise ConfigError(
                f"{key} is {config[key]!r}, whose beginning only a shell knows; write the whole "
                "path, or one relative to where you run."
            )
    source_options.check(config)
    if prepare["valid"] + prepare["test"] >= 1:
        raise ConfigError("prepare.valid + prepare.test leave no patients to train; lower them.")
    ready.check(config)
    channels.check(config)
    patch_sizes.check(config)
    recipes = config["recipes"]
    for name, recipe in recipes.items():
        if "binarize" not in recipe:
            raise ConfigError(f"recipes.{name} lacks the key 'binarize'; add its steps.")
        donor = recipe["attribute"]
        if isinstance(donor, str) and (
            donor not in recipes or isinstance(recipes[donor]["attribute"], str)
        ):
            own = [key for key, value in recipes.items() if isinstance(value["attribute"], dict)]
            raise ConfigError(
                f"recipes.{name}.attribute names {donor!r}, which has no maps of its own; "
                f"use one of: {', '.join(own)}."
            )
        if isinstance(donor, dict):
            _check_method(name, donor)
    if config["release"]["recipe"] not in recipes:
        raise ConfigError(
            f"release.recipe is {config['release']['recipe']!r}; use one of: {', '.join(recipes)}."
        )
    release = config["release"]
    if release["changes"] and release["version"] not in release["changes"]:
        raise ConfigError(
            f"release.changes does not say what is new in version {release['version']}; add it."
        )
    truth = config["truth"]
    if truth is not None and truth["kind"] == "masks":
        for key in ("folder", "column", "targets"):
            if key not in truth:
                raise ConfigError(f"truth.kind is masks but truth.{key} is missing; add it.")
    imagenet = any(run.startswith("imagenet/") for run in config["adapt"]["runs"])
    if config["tasks"] and imagenet and config["adapt"]["imagenet"] is None:
        raise ConfigError(
            "adapt.runs has imagenet but adapt.imagenet names no weights file; add it."
        )


def _check_method(recipe: str, options: Config) -> None:
    method = options["method"]
    if options["adaptive"] and method != "integrated_gradients":
        raise ConfigError(
            f"recipes.{recipe}.attribute: {method} has no nodes to adapt; remove adaptive."
        )
    if options["noise"] and method in _WITHOUT_NOISE:
        raise ConfigError(f"recipes.{recipe}.attribute: {method} takes no noise; remove it.")


def relevance_recipe(config: Config, recipe: str) -> str:
    """The recipe whose relevance maps a recipe uses (often its own)."""
    donor = config["recipes"][recipe]["attribute"]
    return donor if isinstance(donor, str) else recipe


def sections(config: Config, names: Iterable[str]) -> str:
    """Some sections as inline JSON, with what every command needs.

    That is the data set, its source, and ``allow_links`` where it is true: without it, the text
    that says which stages must run again stays that of configurations that do not know the key.
    """
    chosen = {"dataset", "source", "allow_links", *names}
    if not config.get("allow_links"):
        chosen.remove("allow_links")
    part = {key: config[key] for key in sorted(chosen) if key in config}
    return json.dumps(part, ensure_ascii=False)
