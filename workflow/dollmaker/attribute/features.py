"""Features of an image's places: keys of a transformer's attention, or the last feature map.

The cutters group places by them, and ExplainSeg's fusion weighs places by them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dollmaker.attribute.layers import count_prefix_tokens, last_map
from dollmaker.config.patch_sizes import complaint, published_side
from dollmaker.networks.frames import WHOLE, Frames
from dollmaker.networks.positions import at_side, own_side, patch_side
from dollmaker.pixels.geometry import Box, inside
from dollmaker.runtime.errors import ModelError

#: What of a transformer's attention is the feature of a place.
Part = Literal["query", "key", "value"]

#: The side at which images are shown, see :func:`seen_at`.
Side = int | Literal["published"] | None

#: Places across that a convolutional network's last feature map should have.
_ACROSS = 14
#: Groups of channels that stand for the heads of a network without attention.
_HEADS = 6
#: Images of every pass (the last one is filled up, because libraries choose an algorithm by the
#: size of a pass), and what sides of enlarged images are multiples of.
_ROWS, _STEP = 4, 32


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of B images on a grid of h x w places, N = h * w, in row order."""

    values: Tensor  #: float32 (B, N, D).
    #: How much each head looks at each place, float32 (B, heads, N), not negative.
    attention: Tensor
    grid: tuple[int, int]  #: (h, w).


@dataclass(frozen=True, kw_only=True)
class Look:
    """What of a network are the features."""

    side: Side = None  #: Resize the images to this side first (:func:`seen_at`).
    part: Part = "key"  #: Which of a transformer's queries, keys and values.
    block: int = -1  #: Which of its attentions, counted from 0, or from the end: -1 is the last.


#: As TokenCut, MaskCut and FOUND have it.
_PUBLISHED = Look()


def features(
    network: nn.Module, images: Tensor, look: Look = _PUBLISHED, *, frames: Frames = WHOLE
) -> Features:
    """Features of images.

    Of a timm vision transformer: the keys of an attention without those of the class token and
    registers, and the attention of the class token (without one: of all patches). Of any other
    network: the last feature map, as Grad-CAM takes it; six groups of its channels stand for heads,
    and the mean magnitude in a group for its attention (our choice).

    Images are float (B, C, H, W), prepared for the network, which is in evaluation mode. A
    transformer's pictures are enlarged without what is around them.

    Raises:
        ModelError: If the network has no feature map, no such attention, cannot be shown images of
            that side, or a part or a block is asked of a network without attention.
    """
    side, part, block = look.side, look.part, look.block
    if own_side(network):
        images, network = _at_side(network, images, side, frames)
    attentions = _attentions(network)
    if attentions and not -len(attentions) <= block < len(attentions):
        raise ModelError(
            f"block is {block}, but the network has {len(attentions)} attentions; give one of "
            f"{-len(attentions)} to {len(attentions) - 1}."
        )
    if not attentions and (part, block) != ("key", -1):
        raise ModelError(
            "the network has no attention, so that there is no part or block to choose; remove "
            "part and block."
        )
    if attentions and isinstance(side, int) and own_side(network) is None:
        raise ModelError(
            f"side is {side}, but the network is a transformer that takes images of one side only; "
            "remove side."
        )
    count = len(images)
    filled = torch.cat([images, images[-1:].expand(-count % _ROWS, -1, -1, -1)])
    filled = filled.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        if attentions:
            chosen = attentions[block]
            parts = [_tokens(network, chosen, rows, part) for rows in torch.split(filled, _ROWS)]
        else:
            size = side if isinstance(side, int) else _enough(network, images)
            parts = [_maps(network, _enlarge(rows, size)) for rows in torch.split(filled, _ROWS)]
    return Features(
        values=torch.cat([part.values for part in parts])[:count],
        attention=torch.cat([part.attention for part in parts])[:count],
        grid=parts[0].grid,
    )


def seen_at(network: nn.Module, side: Side) -> int | None:
    """The side in pixels at which a network is shown images for its features.

    ``published`` is TokenCut's and MaskCut's, 480, or the largest whole number of patches within.
    ``None`` is the network's own. The answer is ``None`` for networks of other kinds: they are
    enlarged until their last feature map is about 14 across, unless a number says otherwise.

    Raises:
        ModelError: If a number is no whole number of patches.
    """
    own = own_side(network)
    if own is None or side is None:
        return own
    patch = patch_side(network)
    if side == "published":
        return published_side(patch)
    if side % patch:
        raise ModelError(f"side is {side}: {complaint(side, patch).format(key='side')}.")
    return side


def _at_side(
    network: nn.Module, images: Tensor, side: Side, frames: Frames
) -> tuple[Tensor, nn.Module]:
    wanted = seen_at(network, side) or images.shape[-1]
    if images.shape[-1] == wanted:
        return images, at_side(network, wanted)

    def resized(x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, size=wanted, mode="bilinear", antialias=True)

    if frames.boxes is None:
        return resized(images), at_side(network, wanted)
    # The bars must not blend into the picture.
    alone = torch.stack([frames.repeat_edges(channel) for channel in images.unbind(1)], 1)
    picture = frames.inside((wanted, wanted), images.device)[:, None]
    return resized(alone).where(picture, resized(images)), at_side(network, wanted)


def strength(found: Features, frames: Frames = WHOLE) -> Tensor:
    """Lengths of the features, scaled over the places of the pictures to [0, 1], (B, h, w)."""

    def scaled(some: Features) -> Tensor:
        lengths = some.values.norm(dim=-1)
        low, high = lengths.amin(1, keepdim=True), lengths.amax(1, keepdim=True)
        shares = torch.where(high > low, (lengths - low) / (high - low).clamp(min=1e-30), 1.0)
        return shares.reshape(-1, *some.grid)

    return of_pictures(found, frames, scaled)


def of_pictures(given: Features, frames: Frames, rule: Callable[[Features], Tensor]) -> Tensor:
    """Maps float32 (B, h, w) of a rule that sees the places of the pictures only.

    The places of a picture are a rectangle of the grid; a place outside has the value of the
    nearest one inside. The rule goes from features of some images to maps (B, h, w).
    """
    if frames.boxes is None:
        return rule(given)
    maps = given.values.new_zeros((len(given.values), *given.grid))
    for row in range(len(maps)):
        where = frames.cells(row, given.grid)
        inside(maps[row], where)[...] = rule(_places(given, row, where))[0]
    return frames.repeat_edges(maps)


def _places(given: Features, row: int, where: Box) -> Features:
    left, top, right, bottom = where
    number = torch.arange(given.values.shape[1], device=given.values.device).view(given.grid)
    places = inside(number, where).flatten()
    return Features(
        values=given.values[row : row + 1, places],
        attention=given.attention[row : row + 1, :, places],
        grid=(bottom - top, right - left),
    )


def _enough(network: nn.Module, images: Tensor) -> int:
    """The side at which the last feature map is about 14 across."""
    side = images.shape[-1]
    across = last_map(network, images[:1]).shape[-1]
    return max(side, round(side * _ACROSS / across / _STEP) * _STEP)


def _enlarge(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    wide = nn.functional.interpolate(images, size=(side, side), mode="bilinear")
    return wide.contiguous(memory_format=torch.channels_last)


def _maps(network: nn.Module, images: Tensor) -> Features:
    maps = last_map(network, images)
    values = maps.flatten(2).transpose(1, 2).contiguous()
    heads = torch.stack([part.abs().mean(2) for part in values.chunk(_HEADS, dim=2)], 1)
    return Features(values=values, attention=heads, grid=(maps.shape[2], maps.shape[3]))


# --- transformers -------------------------------------------------------------------------------


def _attentions(network: nn.Module) -> list[Any]:
    """The attentions of a timm transformer whose tokens are a square of patches, in order."""
    if not hasattr(network, "patch_embed"):
        return []
    return [m for m in network.modules() if hasattr(m, "qkv") and hasattr(m, "num_heads")]


def _tokens(network: nn.Module, block: Any, images: Tensor, part: Part) -> Features:
    caught: list[Tensor] = []
    handle = block.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    try:
        network(images)
    finally:
        handle.remove()
    tokens = caught[-1]
    rows, count = tokens.shape[:2]
    prefix = count_prefix_tokens(network, count)
    if tokens.ndim != 3 or prefix is None:
        raise ModelError(
            "the network's attention is not over a square of patches; use another network "
            "for tokencut, maskcut, found and fuse."
        )
    qkv = block.qkv(tokens).reshape(rows, count, 3, block.num_heads, -1)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).float().unbind(0)
    query, key = (
        getattr(block, name, nn.Identity())(part)
        for name, part in (("q_norm", query), ("k_norm", key))
    )
    attention = (query @ key.transpose(-2, -1) * key.shape[-1] ** -0.5).softmax(-1)
    looks = attention[:, :, 0, prefix:] if prefix else attention.mean(2)
    side = round((count - prefix) ** 0.5)
    chosen = {"query": query, "key": key, "value": value}[part]
    values = chosen[:, :, prefix:].transpose(1, 2).flatten(2)
    return Features(values=values, attention=looks, grid=(side, side))
