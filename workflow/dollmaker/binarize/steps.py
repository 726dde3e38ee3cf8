"""The registry of steps, and chains made of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import TypeAdapter, ValidationError

from dollmaker.binarize.crf import dense_crf
from dollmaker.binarize.fields import require_lattice
from dollmaker.binarize.morphology import clean, morphology
from dollmaker.binarize.ncut import ncut
from dollmaker.binarize.pair import Pair, Step
from dollmaker.binarize.thresholds import (
    at,
    fraction_of_maximum,
    gate,
    ignore_band,
    label_free,
    otsu,
    quantile,
    two_threshold,
)
from dollmaker.config.masks import Steps
from dollmaker.runtime.errors import ConfigError, unknown

#: Every step by name. A new one is a function and a line here.
STEPS: dict[str, Step] = {
    "gate": gate,
    "otsu": otsu,
    "label_free": label_free,
    "quantile": quantile,
    "at": at,
    "fraction_of_maximum": fraction_of_maximum,
    "two_threshold": two_threshold,
    "ignore_band": ignore_band,
    "morphology": morphology,
    "ncut": ncut,
    "clean": clean,
    "dense_crf": dense_crf,
}


#: Steps that need the mask of an earlier one, and those that neither need nor make one.
_NEEDS_MASK = ("ignore_band", "clean", "dense_crf")
_NO_MASK = ("gate",)


def check_order(steps: Steps) -> None:
    """Refuse a chain in which nothing makes the mask, before any map is computed for it.

    Raises:
        ConfigError: If there is no threshold, or one comes too late.
    """
    found = False
    for name, options in _named(steps):
        needs = name in _NEEDS_MASK and options.get("unary") != "map"
        if needs and not found:
            raise ConfigError(
                f"step {name} comes before any threshold; put otsu or another one first."
            )
        found = found or not (needs or name in _NO_MASK)
    if not found:
        raise ConfigError("the chain of binarize has no threshold; add otsu or another one.")


def make_chain(steps: Steps) -> Callable[[Pair], Pair]:
    """One function from the configured steps.

    Returns:
        A function that takes a pair and returns it with a mask. A pair that a gate let go skips
        the rest and gets an empty mask. One with :func:`nothing_to_see` goes through the gates
        only: its mask is empty, its threshold NaN, and ``kept`` is what they say.

    Raises:
        ConfigError: For an unknown step or argument, or an argument out of range.
        ModelError: If a step needs a library that is not installed.
    """
    functions = [_bind(name, options) for name, options in _named(steps)]
    gates = [_bind(name, options) for name, options in _named(steps) if name in _NO_MASK]

    def run(pair: Pair) -> Pair:
        if nothing_to_see(pair):
            for function in gates:
                pair = function(pair)
            return _empty(pair)
        for function in functions:
            pair = function(pair)
            if not pair.kept:
                return _empty(pair)
        if pair.mask is None:
            raise ConfigError("the chain of binarize has no threshold; add otsu or another one.")
        return pair

    return run


def nothing_to_see(pair: Pair) -> bool:
    """Whether a pair has nothing that a mask could be of.

    That is a picture of one value, or a map that is constant or nowhere positive, up to the
    rounding of stored maps (float16). Methods that compare places find noise even there.
    """
    low, peak = float(pair.map.min()), float(pair.map.max())
    rounding = np.finfo(np.float16).eps * max(abs(low), abs(peak))
    drawn = peak > rounding and peak - low > rounding
    return not drawn or bool((pair.image == pair.image[:, :1, :1]).all())


def _empty(pair: Pair) -> Pair:
    return replace(pair, mask=np.zeros(pair.map.shape, np.uint8))


def _named(steps: Steps) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for step in steps:
        for name, options in step.items():
            yield name, options or {}


def _bind(name: str, options: Mapping[str, Any]) -> Callable[[Pair], Pair]:
    if name not in STEPS:
        raise ConfigError(unknown("step", name, STEPS))
    if name == "dense_crf" and options.get("solver", "lattice") == "lattice":
        require_lattice()  # before the first job, not after the last map
    hints = get_type_hints(STEPS[name], include_extras=True)
    known = [key for key in hints if key not in ("pair", "return")]
    for key, value in options.items():
        if key not in known:
            raise ConfigError(unknown(f"argument of step {name}", key, known or ["(none)"]))
        if get_origin(hints[key]) is Literal and value not in get_args(hints[key]):
            raise ConfigError(unknown(f"{key} of step {name}", value, get_args(hints[key])))
        try:
            TypeAdapter(hints[key]).validate_python(value, strict=True)
        except ValidationError as error:
            wanted = error.errors()[-1]["msg"].replace("Input should", "it should")
            raise ConfigError(f"step {name} has {key} = {str(value)[:100]}; {wanted}.") from None
    return partial(STEPS[name], **options)
