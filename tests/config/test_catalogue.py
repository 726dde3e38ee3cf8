"""The catalogue: names, what is lent, and the committees that come by themselves."""

from typing import Any

import pytest

from dollmaker.binarize import steps
from dollmaker.config import catalogue
from dollmaker.config import settings as config
from dollmaker.config.masks import RecipeConfig
from dollmaker.runtime.errors import ConfigError

BASE: dict[str, Any] = {"dataset": "x", "source": {"kind": "phantoms"}}
OWN = {"attribute": {"baselines": ["mean"], "smoothing": 2.0}, "binarize": [{"otsu": {}}]}


def test_every_recipe_of_the_catalogue_is_a_valid_recipe() -> None:
    full = config.complete(config.resolved(BASE))
    assert set(catalogue.catalogue()) <= set(full.recipes)
    for name in ("explainseg-a", "explainseg-b", "explainseg-c", "xncut", "tokencut", "maskcut"):
        assert catalogue.committee(full, name)
    for name in ("found", "micranet", "guided-backprop", "grad-cam", "hires-cam", "layer-cam"):
        assert name in full.recipes
    for name in ("saliency", "deep-lift", "occlusion"):
        assert name in full.recipes


def test_an_empty_recipe_is_the_one_of_that_name_with_its_donor() -> None:
    full = config.resolved({**BASE, "recipes": {"doll": OWN, "xncut": {}}})
    assert set(full.recipes) == {"doll", "xncut", "explainseg-c"}
    assert full.recipes["xncut"].attribute == "explainseg-c"
    lent = full.maps("explainseg-c")
    assert (lent.baselines, lent.smoothing, lent.committee) == (["mean"], 2.0, "probe")


def test_an_empty_doll_has_the_steps_of_the_default() -> None:
    empty, none = (config.resolved({**BASE, "recipes": r}) for r in ({"doll": {}}, {"doll": OWN}))
    assert (
        empty.recipes["doll"].binarize == RecipeConfig().binarize != none.recipes["doll"].binarize
    )


def test_unknown_names_are_refused_with_the_list() -> None:
    with pytest.raises(ConfigError, match=r"unknown recipe 'magic'; use one of: doll, .*tokencut"):
        config.resolved({**BASE, "recipes": {"doll": OWN, "magic": {}}})
    some = config.resolved({**BASE, "compare": {"recipes": ["doll", "magik"]}})
    with pytest.raises(ConfigError, match=r"unknown recipe 'magik'; use one of: .*micranet"):
        config.complete(some)


def test_a_comparison_of_some_recipes_has_no_others() -> None:
    some = config.resolved({**BASE, "recipes": {"doll": OWN}, "compare": {"recipes": ["found"]}})
    assert set(config.complete(some).recipes) == {"doll", "found"}


def test_the_probe_freezes_the_first_members_weights() -> None:
    members = {"a": {"architecture": "resnet18", "weights": "w.safetensors"}}
    full = config.resolved({**BASE, "classify": {"members": members}, "recipes": {"tokencut": {}},
                           "release": {"recipe": "tokencut"}})  # fmt: skip
    probe = full.classify.members["probe"]
    assert probe.linear_probe and probe.weights == "w.safetensors"
    assert (probe.optimizer, probe.learning_rate) == ("sgd", 0.005)
    assert catalogue.committee(full, "tokencut") == ["probe"]


def test_without_weights_the_first_member_stands_in_for_the_probe() -> None:
    full = config.complete(config.resolved({**BASE, "compare": {"recipes": ["found", "micranet"]}}))
    assert catalogue.committee(full, "found") == ["member0"]
    assert catalogue.committee(full, "micranet") == ["micranet"]
    assert full.classify.members["micranet"].architecture == "dollmaker:micranet"


def test_a_name_that_is_taken_or_a_committee_without_members_is_refused() -> None:
    taken = {"a": {"weights": "w"}, "probe": {"committee": "doll"}}
    with pytest.raises(ConfigError, match="rename the member"):
        config.resolved(
            {**BASE, "classify": {"members": taken}, "recipes": {"doll": OWN, "found": {}}}
        )
    lost = {"doll": {"attribute": {"committee": "nobody"}, "binarize": [{"otsu": {}}]}}
    with pytest.raises(ConfigError, match="'nobody', which has no members"):
        catalogue.committee(config.resolved({**BASE, "recipes": lost}), "doll")


def test_maps_of_cutters_are_cut_where_they_say_and_have_the_published_options() -> None:
    full = config.complete(config.resolved({**BASE, "recipes": {"doll": OWN}})).dump()["recipes"]
    for name in ("tokencut", "maskcut", "found"):
        assert {"at": {"level": 0.5}} in full[name]["binarize"]
        options = full[name]["attribute"]
        assert options["smoothing"] == 0  # or the cut would not be the published one
        assert (options["tau"], options["centred"]) == (None, False)
        assert (options["part"], options["block"]) == ("key", -1)
    assert full["micranet"]["attribute"]["upsample"] == "nearest"


def test_every_chain_of_the_catalogue_can_be_made() -> None:
    for entry in catalogue.catalogue().values():
        steps.check_order(entry["binarize"])
        steps.make_chain(entry["binarize"])
