"""Sizes that are no whole number of patches are refused by the architecture's name."""

from typing import Any

import pytest

from dollmaker.config import patch_sizes
from dollmaker.config import settings as configuration
from dollmaker.runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("timm:vit_small_patch14_dinov2", 14),
        ("timm:vit_small_patch14_reg4_dinov2.lvd142m", 14),
        ("vit_small_patch8_224", 8),
        ("timm:deit_tiny_distilled_patch16_224", 16),
        ("swin_tiny_patch4_window7_224", 4),
        ("torchvision:vit_b_16", 16),
        ("torchvision:vit_h_14", 14),
        ("timm:tnt_s_patch16_224", None),
        ("mobilenet_v2", None),
        ("timm:resnet50d", None),
        ("timm:vit_base_r50_s16_224", None),
        ("xrv:densenet121-res224-all", None),
    ],
)
def test_names_say_the_side_of_patches(name: str, side: int | None) -> None:
    assert patch_sizes.side_of(name) == side


@pytest.mark.parametrize(("patch", "side"), [(14, 476), (16, 480), (8, 480), (32, 480), (500, 500)])
def test_the_published_side_is_a_whole_number_of_patches(patch: int, side: int) -> None:
    assert patch_sizes.published_side(patch) == side


def configured(size: int, member: dict[str, Any], **attribute: Any) -> dict[str, Any]:
    recipe = {"attribute": attribute, "binarize": [{"gate": {}}, {"otsu": {}}]}
    return configuration.resolved(
        {
            "dataset": "x",
            "source": {"kind": "phantoms"},
            "prepare": {"size": size},
            "classify": {"members": {"a": {}, "b": member}},
            "recipes": {"doll": recipe},
        }
    ).dump()


VIT = {"architecture": "timm:vit_small_patch14_dinov2"}


@pytest.mark.parametrize(
    ("size", "member", "attribute", "said"),
    [
        (
            237,
            VIT,
            {},
            r"members\.b: .* sees 237 .* last 13 of .*; set prepare\.size to 224 or 238",
        ),
        (225, {"architecture": "vit_b_16"}, {}, r"last 1 of 225 .* to 224 or 240"),
        (16, {"architecture": "vit_b_32"}, {}, r"last 16 of 16 .* to 32\."),
        (
            224,
            {**VIT, "input": {"size": 100}},
            {},
            r"set classify\.members\.b\.input\.size to 98 or",
        ),
        (
            224,
            VIT,
            {"method": "tokencut", "side": 480},
            r"^recipes\.doll\.attribute\.side: .* 476 or",
        ),
        (
            224,
            VIT,
            {"fuse": True, "side": 480},
            r"set recipes\.doll\.attribute\.side to 476 or 490",
        ),
    ],
)
def test_a_size_that_is_no_whole_number_of_patches_is_refused(
    size: int, member: dict[str, Any], attribute: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        configured(size, member, **attribute)


@pytest.mark.parametrize("side", [None, "published", 476])
def test_a_side_of_whole_patches_is_taken(side: int | str | None) -> None:
    configured(238, VIT, method="maskcut", side=side)
    configured(237, {"architecture": "mobilenet_v2"}, method="maskcut", side=side)
    other = {**VIT, "committee": "others"}  # whose maps the recipe does not make
    configured(224, other, method="maskcut", side=480)
