"""The patch sizes of transformers, by the names of their architectures.

An image that is no whole number of patches has a rim that is never seen. Nothing here imports
torch: configurations are checked with it.
"""

import re
from typing import TYPE_CHECKING

from dollmaker.runtime.errors import ConfigError

if TYPE_CHECKING:  # who predicts with a release has no pydantic
    from dollmaker.config.networks import MemberConfig
    from dollmaker.config.whole import Config

#: How timm's and torchvision's names say it: ``vit_small_patch14_dinov2``, ``vit_b_16``.
_NAMES = (re.compile(r"[a-z].*_patch(\d+)(?![0-9])"), re.compile(r"vit_[a-z]_(\d+)"))

#: Has patches in its name, but takes images of any size.
_ANY = "tnt_"

#: The side at which TokenCut and MaskCut show images to a transformer, in pixels.
PUBLISHED = 480

#: Methods that look at features at a side of their own.
_CUTS = ("tokencut", "maskcut", "found")


def side_of(architecture: str) -> int | None:
    """Side of the patches in pixels, if the architecture's name says it."""
    name = architecture.rpartition(":")[2]
    if name.startswith(_ANY):
        return None
    found = _NAMES[0].match(name) or _NAMES[1].fullmatch(name)
    return int(found[1]) if found else None


def published_side(patch: int) -> int:
    """The largest whole number of patches within the published side: 476 for patches of 14."""
    return max(1, PUBLISHED // patch) * patch


def complaint(side: int, patch: int) -> str:
    """What is wrong with a side that is no whole number of patches, and which are near."""
    below, rest = divmod(side, patch)
    near = f"{below * patch} or {(below + 1) * patch}" if below else str(patch)
    return (
        f"its patches have {patch} pixels, so that the last {rest} of {side} pixels would never be "
        f"seen; set {{key}} to {near}"
    )


def check_sides(config: "Config") -> None:
    """Refuse sizes that are no whole number of patches, where a member's name says them."""
    members = config.classify.members
    for name, member in members.items():
        own = member.input.size
        key = "prepare.size" if own is None else f"classify.members.{name}.input.size"
        _require(f"classify.members.{name}", member, own or config.prepare.size, key)
    for recipe, options in config.recipes.items():
        attribute = options.attribute
        if isinstance(attribute, str) or not isinstance(attribute.side, int):
            continue
        if attribute.method in _CUTS or attribute.fuse:
            key = f"recipes.{recipe}.attribute.side"
            for member in members.values():
                if member.committee == attribute.committee:
                    _require(key, member, attribute.side, key)


def _require(place: str, member: "MemberConfig", side: int, key: str) -> None:
    patch = side_of(member.architecture)
    if patch and side % patch:
        wrong = complaint(side, patch).format(key=key)
        raise ConfigError(f"{place}: {member.architecture} sees {side} pixels, but {wrong}.")
