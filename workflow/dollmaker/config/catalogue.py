"""The catalogue of recipes, and the committees that recipes ask for.

A recipe of the configuration that is empty is the one of that name in ``catalogue.yaml``. Recipes
name a committee; two of them come by themselves when no member is configured for them:

- ``probe``: the first member's network and weights, frozen but for its last layer (ExplainSeg's
  linear probe with its rate, for 30 epochs: our choice; the cutters take its features). Without a
  weights file there is nothing to freeze: the first trained member stands in. So does a first
  member that is a ready classifier.
- ``micranet``: MICRA-Net's own network, trained from random weights.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dollmaker.config.ready import is_ready
from dollmaker.runtime.errors import ConfigError, unknown

Config = dict[str, Any]

#: What a recipe of the catalogue takes from the released recipe when it says nothing.
_INHERITED = ("baselines", "reduction", "smoothing")


@cache
def catalogue() -> dict[str, Any]:
    """Recipe name -> recipe, as written in ``catalogue.yaml``."""
    text = (Path(__file__).parent / "catalogue.yaml").read_text(encoding="utf-8")
    entries: dict[str, Any] = yaml.safe_load(text)
    return entries


def known(config: Mapping[str, Any]) -> list[str]:
    """Names of all recipes: those of the configuration, then those of the catalogue."""
    configured = list(config["recipes"])
    return [*configured, *(name for name in catalogue() if name not in configured)]


def add_recipes(recipes: Mapping[str, Any], names: Iterable[str], released: str) -> Config:
    """Recipes with more of them from the catalogue, and with the donors of their maps.

    Args:
        recipes: As configured; an empty one is taken from the catalogue.
        names: More names.
        released: Name of the released recipe, which lends what the catalogue leaves open.

    Raises:
        ConfigError: If a name is in neither, with the list.
    """
    full: Config = {name: dict(recipe or {}) for name, recipe in recipes.items()}
    lender = full.get(released, {})
    while isinstance(lender.get("attribute"), str):
        lender = full.get(lender["attribute"], {})
    lent = {k: v for k, v in lender.get("attribute", {}).items() if k in _INHERITED}
    missing = [name for name, recipe in full.items() if not recipe]
    missing += [name for name in names if name not in full]
    while missing:
        name = missing.pop(0)
        if name not in catalogue():
            every = [*(n for n, recipe in recipes.items() if recipe), *catalogue()]
            raise ConfigError(unknown("recipe", name, dict.fromkeys(every)))
        entry = catalogue()[name]
        attribute = entry["attribute"]
        if isinstance(attribute, str):
            if not full.get(attribute):
                missing.append(attribute)
        else:
            attribute = {**lent, **attribute}
        full[name] = {"attribute": attribute, "binarize": entry["binarize"]}
    return full


def add_members(members: Mapping[str, Any], wanted: Iterable[str]) -> Config:
    """Members with those of committees that come by themselves.

    Args:
        members: As configured, resolved.
        wanted: Names of the committees that recipes ask for.
    """
    full = dict(members)
    there = {member["committee"] for member in members.values()}
    first = next(iter(members.values()))
    own = {"committee": None, "linear_probe": True, "optimizer": "sgd"}
    probe = {**first, **own, "learning_rate": 0.005, "epochs": 30}
    micranet = {**first, "architecture": "dollmaker:micranet"}
    micranet |= {"weights": None, "mean": None, "std": None}
    micranet |= {"linear_probe": False, "optimizer": "adam", "learning_rate": 0.001, "epochs": None}
    micranet |= {"findings": None, "input": {}}
    made = {"micranet": micranet, **({"probe": probe} if _is_frozen(first) else {})}
    for name in dict.fromkeys(wanted):
        if name in made and name not in there:
            if name in full:
                raise ConfigError(
                    f"classify.members.{name} is in committee {full[name]['committee']!r}, but "
                    f"recipes ask for a committee {name!r}; rename the member or set its committee."
                )
            full[name] = {**made[name], "committee": name}
    return full


def _is_frozen(first: Config) -> bool:
    """Whether a linear probe could be trained on a member's weights."""
    return bool(first["weights"]) and not is_ready(first)


def committee(config: Mapping[str, Any], recipe: str) -> list[str]:
    """Names of the members that explain a recipe's maps.

    Raises:
        ConfigError: If no member is in the committee that the recipe names.
    """
    options = config["recipes"][recipe]["attribute"]
    while isinstance(options, str):
        options = config["recipes"][options]["attribute"]
    members = config["classify"]["members"]
    wanted = options["committee"]
    found = [name for name, member in members.items() if member["committee"] == wanted]
    if not found and wanted == "probe":
        found = [next(iter(members))]
    if not found:
        there = sorted({member["committee"] for member in members.values()})
        raise ConfigError(
            f"recipes.{recipe}.attribute.committee is {wanted!r}, which has no members; set the "
            f"committee of a member or use one of: {', '.join(there)}."
        )
    return found
