"""What the models say of a configuration that is not valid, as one sentence."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from dollmaker.config.base import SPELLINGS, Section

Place = tuple[str | int, ...]

#: Type -> its name in JSON; sections are objects, too.
_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", list: "array"}

#: Kind of a complaint -> what to do, with its facts.
_LIMITS = {
    "greater_than_equal": "give at least {ge:.12g}",
    "greater_than": "give more than {gt:.12g}",
    "less_than_equal": "give at most {le:.12g}",
    "less_than": "give less than {lt:.12g}",
    "string_too_short": "give a text",
    "too_short": "give at least {min_length}",
    "too_long": "give at most {max_length}",
    "twice": "it has {value} twice, keep one",
}

#: A number that YAML takes for text, unless it has a point and a sign: 1.0e-3.
_EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")

#: Longest value that a message shows, in characters.
_SHOWN = 80


def mend(config: dict[str, Any], error: ValidationError) -> bool:
    """Put numbers in place where the models ask for them: 4 for 4.0, and 0.001 for the text 1e-3.

    Returns:
        Whether anything was mended.
    """
    mended = False
    for complaint in error.errors():
        place = _place(config, complaint)
        value, better = _at(config, place), None
        if complaint["type"] == "int_type":
            better = _whole(_number(value))
        elif complaint["type"] == "literal_error":
            better = _whole(value)
        elif complaint["type"] == "float_type":
            better = _number(value)
        if better is not None and better is not value:
            _at(config, place[:-1])[place[-1]] = better
            mended = True
    return mended


def _number(value: Any) -> Any:
    """The number that a text with an exponent shows, else the value."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value) and math.isfinite(float(value)):
        return float(value)
    return value


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else None


def sentence(config: Mapping[str, Any], model: type[Section], error: ValidationError) -> str:
    """The first mistake, in one sentence.

    Of alternatives, the complaint that got furthest into the value counts, and a limit before a
    type.
    """
    found = [(_place(config, complaint), complaint) for complaint in error.errors()]
    found.sort(key=lambda pair: ([str(part) for part in pair[0]], pair[1]["type"] not in _LIMITS))
    places = [place for place, _ in found]
    place, first = next(pair for pair in found if not _goes_on(pair[0], places))
    value, kind, facts = _at(config, place), first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(model, place)
    if kind == "missing":
        return f"{named(place[:-1])} lacks the key {place[-1]!r}; add it."
    if kind == "lacks":
        return f"{named(place)} {first['msg']}."
    if kind == "string_pattern_mismatch":
        text = first["input"]
        where = place[:-1] if first["loc"][-1] == "[key]" else place
        return f"{named(where)} has {text!r}; use {SPELLINGS[facts['pattern']]}."
    shown, kinds = f"{named(place)} is {_short(value)}", _kinds(model, place)
    if kind in _LIMITS:
        return f"{shown}; {_LIMITS[kind].format(**facts)}."
    closed = [word for one in kinds if get_origin(one) is Literal for word in get_args(one)]
    words = [json.dumps(word) for word in closed] + ["null"] * (NoneType in kinds)
    others = [get_origin(one) or one for one in kinds]
    types = [_TYPES.get(one, "object") for one in others if one not in (Literal, NoneType)]
    if types and (kind.endswith("_type") or kind == "literal_error"):
        legal = " or ".join(dict.fromkeys([*types, *words]))
        return f"{shown}; it must be of type {legal}.{_hint(value, legal)}"
    if kind == "literal_error":
        return f"{shown}; use one of: {', '.join(words)}."
    return f"{shown}, which is not valid ({first['msg']}); correct it."


def _goes_on(place: Place, places: Sequence[Place]) -> bool:
    """Whether there is a complaint of something within a place."""
    return any(len(other) > len(place) and other[: len(place)] == place for other in places)


def named(place: Sequence[str | int]) -> str:
    """A place in the configuration, for messages."""
    where = ".".join(map(str, place))
    return f"configuration key {where!r}" if where else "the configuration"


def _unknown_key(model: type[Section], place: Place) -> str:
    known = sorted({key for kind in _kinds(model, place[:-1]) for key in _keys(kind)})
    near = get_close_matches(str(place[-1]), known, 1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    return (
        f"{named(place[:-1])} has an unknown key {str(place[-1])!r}{meant}; known keys: "
        f"{', '.join(known)}."
    )


def _keys(kind: Any) -> Iterable[str]:
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, Section) else ()


def _kinds(model: type[Section], place: Place) -> list[Any]:
    """The types that a value at a place may have."""
    kinds: list[Any] = [model]
    for key in place:
        kinds = [kind for outer in kinds for kind in _inside(outer, key)]
    return kinds


def _inside(kind: Any, key: str | int) -> list[Any]:
    if str(key) in _keys(kind):
        return _alternatives(kind.model_fields[key].annotation)
    if get_origin(kind) in (dict, list):
        return _alternatives(get_args(kind)[-1])
    return []


def _alternatives(annotation: Any) -> list[Any]:
    """A type without its limits, or those of a union."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for one in get_args(annotation) for kind in _alternatives(one)]
    return [annotation]


def _place(config: Any, complaint: Any) -> Place:
    """Where a complaint is in the configuration: without the names of alternatives."""
    place: list[str | int] = []
    value, keys = config, [key for key in complaint["loc"] if key != "[key]"]
    for number, key in enumerate(keys):
        last = number == len(keys) - 1
        if isinstance(value, dict) and (key in value or (last and complaint["type"] == "missing")):
            place.append(key)
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            place.append(key)
            value = value[key]
    return tuple(place)


def _at(config: Any, place: Place) -> Any:
    for key in place:
        config = config.get(key) if isinstance(config, dict) else config[key]
    return config


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def _hint(value: Any, legal: str) -> str:
    """Why a value has another type than its writer may have thought, as a sentence; often empty."""
    if isinstance(value, str):
        number = _as_number(value)
        if number and (
            "number" in legal or ("integer" in legal and number.lstrip("-").isdecimal())
        ):
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
    elif legal == "array" and isinstance(value, int | float):
        return f" Write a list: [{_short(value)}]."
    return ""


def _as_number(text: str) -> str:
    """How YAML has the number that a text shows; empty if it shows none."""
    try:
        value = float(text.replace(",", ".", 1))
    except ValueError:
        return ""
    return f"{value:.15g}" if math.isfinite(value) else ""
