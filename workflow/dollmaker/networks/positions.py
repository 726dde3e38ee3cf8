"""Positions of a transformer's patches, interpolated to another grid.

A table of positions (1, tokens, D) has one row for each token before the patches (such as the class
token) and one for each patch of a square, row by row. A table for another square is interpolated
bicubically, by the rule of those who trained it:

- timm, and DINOv2 with registers: to the number of patches, with antialiasing.
- DINOv2 without registers: by the factor (new patches + 0.1) / old patches, without antialiasing
  (``interpolate_pos_encoding`` of facebookresearch/dinov2). The factor also moves the new places.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

#: The buffer that keeps positions as they were trained. It is no part of a network's state.
KEPT = "trained_positions"

#: Tokens before the patches that tables of networks are known to have.
_PREFIXES = (0, 1, 2, 5)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How positions are interpolated.

    A coarser grid averages over the finer one (``antialias``) or not. ``offset`` is added to the
    new number of patches a side for the factor; 0 goes by the number.
    """

    antialias: bool = True
    offset: float = 0.0


_TIMMS = Rule()
_DINOV2 = Rule(antialias=False, offset=0.1)


def rule_of(network: nn.Module) -> Rule:
    """The rule for a network, by the name of its architecture that timm gives it."""
    for part in network.modules():
        described = getattr(part, "pretrained_cfg", None)
        name = str(described.get("architecture", "")) if isinstance(described, Mapping) else ""
        if name:
            return _DINOV2 if "dinov2" in name and "_reg" not in name else _TIMMS
    return _TIMMS


def interpolate(positions: Tensor, side: int, *, prefix: int, rule: Rule) -> Tensor:
    """Positions (1, prefix + n * n, D) for a square of ``side`` x ``side`` patches.

    The ``prefix`` tokens before the patches stay as they are.
    """
    before = math.isqrt(positions.shape[1] - prefix)
    if before == side:
        return positions
    rows = positions[:, prefix:].float()
    grid = rows.reshape(1, before, before, -1).permute(0, 3, 1, 2)
    factor = (side + rule.offset) / before
    where: dict[str, Any] = {"scale_factor": (factor, factor)} if rule.offset else {"size": side}
    new = functional.interpolate(grid, mode="bicubic", antialias=rule.antialias, **where)
    new = new.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return torch.cat([positions[:, :prefix], new], 1)


def fit(found: Tensor, wanted: Tensor, rule: Rule) -> Tensor | None:
    """A table of positions in the shape and type of another; ``None`` if they are of no squares."""
    if found.ndim != 3 or wanted.ndim != 3 or found.shape[2] != wanted.shape[2]:
        return None
    for prefix in _PREFIXES:
        sides = [math.isqrt(max(t.shape[1] - prefix, 0)) for t in (found, wanted)]
        if all(s * s == t.shape[1] - prefix for s, t in zip(sides, (found, wanted), strict=True)):
            return interpolate(found, sides[1], prefix=prefix, rule=rule).to(wanted.dtype)
    return None


# --- the same network at another side -----------------------------------------------------------


def own_side(network: nn.Module) -> int | None:
    """The side in pixels of the images that a network takes; ``None`` if it cannot take another.

    Only timm's plain vision transformers can: others have windows or positions of other kinds.
    """
    from timm.models.vision_transformer import VisionTransformer

    return int(network.patch_embed.img_size[0]) if isinstance(network, VisionTransformer) else None


def patch_side(network: nn.Module) -> int:
    """Side of the patches of such a network, in pixels."""
    return int(network.get_submodule("patch_embed").patch_size[0])  # type: ignore[index]


def keep(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Keep the positions as the weights have them, where the network has another grid.

    :func:`at_side` then interpolates once, not twice. Only for networks whose positions are not
    trained further.
    """
    if own_side(network) is None:
        return
    mine = getattr(network, "pos_embed", None)
    for name, tensor in state.items():
        if mine is not None and name.endswith("pos_embed") and tensor.shape != mine.shape:
            put(network, tensor)


def put(network: nn.Module, positions: Tensor) -> None:
    """Give a network the positions that :func:`keep` kept."""
    network.register_buffer(KEPT, positions.detach().float(), persistent=False)


def at_side(network: nn.Module, side: int) -> nn.Module:
    """The network for images of another side in pixels, a whole number of patches.

    It shares all parameters but the positions, and must have an :func:`own_side`.
    """
    if own_side(network) == side:
        return network
    shared = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
    twin: Any = copy.deepcopy(network, shared)
    twin.patch_embed.set_input_size(img_size=(side, side))
    if twin.pos_embed is not None:
        positions = getattr(twin, KEPT, twin.pos_embed).detach()
        prefix = 0 if twin.no_embed_class else twin.num_prefix_tokens
        places = twin.patch_embed.grid_size[0]
        new = interpolate(positions, places, prefix=prefix, rule=rule_of(twin))
        twin.pos_embed = nn.Parameter(new.to(twin.pos_embed), requires_grad=False)
    return cast(nn.Module, twin)
