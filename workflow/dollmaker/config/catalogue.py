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

from dollmaker.config import ready
from dollmaker.config.base import Tree
from dollmaker.config.masks import MapsConfig
from dollmaker.config.networks import InputConfig, MemberConfig
from dollmaker.config.whole import Config
from dollmaker.runtime.errors import ConfigError, unknown

#: What the members of the committees that come by themselves change of the first member.
_PROBE = {
    "linear_probe": True,
    "committee": "probe",
    "optimizer": "sgd",
    "epochs": 30,
    "learning_rate": 0.005,
}
_MICRANET = {
    "architecture": "dollmaker:micranet",
    "weights": None,
    "findings": None,
    "input": InputConfig(),
    "linear_probe": False,
    "committee": "micranet",
    "optimizer": "adam",
    "epochs": None,
    "learning_rate": 0.001,
    "mean": None,
    "std": None,
}

#: What a recipe of the catalogue takes from the released recipe when it says nothing.
_INHERITED = ("baselines", "reduction", "smoothing")


@cache
def catalogue() -> Tree:
    """Recipe name -> recipe, as written in ``catalogue.yaml``."""
    import yaml  # few jobs need it

    text = (Path(__file__).parent / "catalogue.yaml").read_text(encoding="utf-8")
    entries: Tree = yaml.safe_load(text)
    return entries


def add_recipes(recipes: Tree, names: Iterable[str], released: str) -> Tree:
    """Recipes with more of them, by names, from the catalogue, and with the donors of their maps.

    An empty one is taken from the catalogue, too. The released recipe lends what that leaves open.

    Raises:
        ConfigError: If a name is in neither, with the list.
    """
    full: Tree = {name: dict(recipe or {}) for name, recipe in recipes.items()}
    lender = full.get(released, {})
    while isinstance(lender.get("attribute"), str):
        lender = full.get(lender["attribute"], {})
    lent = {k: v for k, v in lender.get("attribute", {}).items() if k in _INHERITED}
    if lent.get("reduction") == "brighter":  # which few methods know
        lent["reduction"] = "positive"
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


def add_members(
    members: Mapping[str, MemberConfig], wanted: Iterable[str]
) -> dict[str, MemberConfig]:
    """Members with those of the wanted committees that come by themselves.

    Raises:
        ConfigError: If a member of another committee has their name.
    """
    first = next(iter(members.values()))
    made = {"micranet": first.replace(**_MICRANET)}
    if first.weights and not ready.is_ready(first):  # there is something to freeze
        made["probe"] = first.replace(**_PROBE)
    there = {member.committee for member in members.values()}
    full = dict(members)
    for name in dict.fromkeys(wanted):
        if name in made and name not in there:
            if name in full:
                raise ConfigError(
                    f"classify.members.{name} is in committee {full[name].committee!r}, but "
                    f"recipes ask for a committee {name!r}; rename the member or set its committee."
                )
            full[name] = made[name]
    return full


def with_members(config: Config) -> Config:
    """A configuration with the members that its recipes ask for, and the files of ready ones."""
    whole = [recipe.attribute for recipe in config.recipes.values()]
    wanted = [maps.committee for maps in whole if isinstance(maps, MapsConfig)]
    members = ready.complete(add_members(config.classify.members, wanted))
    return config.replace(classify=config.classify.replace(members=members))


def committee(config: Config, recipe: str) -> list[str]:
    """Names of the members that explain a recipe's maps.

    Raises:
        ConfigError: If no member is in the committee that the recipe names.
    """
    members, wanted = config.classify.members, config.maps(recipe).committee
    found = [name for name, member in members.items() if member.committee == wanted]
    if not found and wanted == "probe":
        found = [next(iter(members))]
    if not found:
        there = sorted({member.committee for member in members.values()})
        raise ConfigError(
            f"recipes.{recipe}.attribute.committee is {wanted!r}, which has no members; set the "
            f"committee of a member or use one of: {', '.join(there)}."
        )
    return found
