"""Attention rollout (Abnar & Zuidema 2020) for vision transformers.

Attention weights are computed from the arguments of the attention functions while the network
runs. Nothing is hooked or switched on the network, whether it uses fused attention or not.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dollmaker.attribute.passes import Pairs, count_prefix_tokens, enlarge, share_passes
from dollmaker.attribute.rectifiers import Intercept
from dollmaker.networks.frames import WHOLE, Frames
from dollmaker.runtime.errors import ModelError


def attention_rollout(
    network: nn.Module, images: Tensor, pairs: Pairs, *, chunk: int, frames: Frames = WHOLE
) -> Tensor:
    """How much each patch contributes to the token that is classified, through all layers.

    The attention A of a layer, averaged over its heads, becomes (A + I) / 2 for the skip
    connection; the product over the layers says how the last tokens are mixed from the patches. The
    map is the row of the class token, or, in a network that averages its patches, the mean of their
    rows.

    The method knows no findings: all findings of an image get the SAME map.

    Args:
        network: float (R, C, H, W) to logits (R, K), a vision transformer of timm or
            torchvision whose attention is between all tokens; evaluation mode.
        images: float (B, C, H, W), prepared for the network.
        pairs: (image, output) numbers, any order.
        chunk: Rows of a forward pass.
        frames: Where the pictures lie; patches outside are not enlarged into them.

    Returns:
        float32 (P, 1, H, W), shares of attention, not negative, in the order of ``pairs``.

    Raises:
        ModelError: If the network has no attention, or not between all tokens (windows, pooling).
    """
    maps: dict[int, Tensor] = {}
    for one in share_passes([(image, 0) for image in sorted({image for image, _ in pairs})], chunk):
        rollout = _rollout(network, images[one.images])
        patches = _patches(network, rollout)
        for wanted in one.rounds:
            for row in wanted.rows:
                maps[one.images[row]] = patches[row]
    if not pairs:
        return enlarge(images.new_zeros((0, 1, 1, 1)), images.shape[2:])
    rows = [image for image, _ in pairs]
    grids = frames.of(rows).repeat_edges(torch.stack([maps[image] for image in rows]))
    return enlarge(grids[:, None], images.shape[2:])


def _rollout(network: nn.Module, rows: Tensor) -> Tensor:
    """Product of the layers' attention, (R, N, N)."""
    layers: list[Tensor] = []
    with torch.no_grad(), Intercept(_replacements(layers)):
        network(rows)
    shapes = {tuple(layer.shape) for layer in layers}
    if not layers:
        raise ModelError(
            "attention_rollout is for vision transformers and this network has no attention; use "
            "another attribution method."
        )
    tokens = layers[0].shape[1]
    if shapes != {(len(rows), tokens, tokens)}:
        raise ModelError(
            "attention_rollout needs attention between all tokens in every layer, which this "
            "network has not (windows, or fewer tokens on the way); use another attribution method."
        )
    identity = torch.eye(tokens, device=rows.device)
    product = identity
    for layer in layers:
        product = (layer + identity) / 2 @ product
    return product


def _patches(network: nn.Module, rollout: Tensor) -> Tensor:
    """The patches' shares in what is classified, (R, h, w)."""
    tokens = rollout.shape[1]
    prefix = count_prefix_tokens(network, tokens)
    if prefix is None:
        raise ModelError(
            f"attention_rollout finds no square of patches among {tokens} tokens; use square "
            "images or another attribution method."
        )
    pooling = [getattr(part, "global_pool", "token") for part in network.modules()]
    class_token = prefix > 0 and all(pool == "token" for pool in pooling if isinstance(pool, str))
    shown = rollout[:, 0] if class_token else rollout[:, prefix:].mean(1)
    side = math.isqrt(tokens - prefix)
    return shown[:, prefix:].reshape(len(shown), side, side)


def _replacements(layers: list[Tensor]) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Attention functions that also note their weights, averaged over heads, (R, N, M)."""

    def fused(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **more: Any,
    ) -> Tensor:
        if is_causal or more.get("enable_gqa"):
            raise ModelError(
                "attention_rollout knows only full attention between all tokens; use another "
                "attribution method."
            )
        scores = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
        if attn_mask is not None:
            allowed = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -math.inf) if allowed else scores + attn_mask
        note(scores.softmax(-1))
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale
        )

    def multi_head(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        wanted = kwargs.get("need_weights", True), kwargs.get("average_attn_weights", True)
        kwargs |= {"need_weights": True, "average_attn_weights": False}
        output, weights = functional.multi_head_attention_forward(*args, **kwargs)
        assert weights is not None  # they were asked for
        note(weights)
        return output, (weights.mean(1) if wanted[1] else weights) if wanted[0] else None

    def note(weights: Tensor) -> None:
        layers.append(weights.float().mean(1))

    def softmax(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def noted(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            weights = function(x, *args, **kwargs)
            if x.dim() == 4 and x.shape[-1] == x.shape[-2]:
                note(weights)
            return weights

        return noted

    return {
        functional.scaled_dot_product_attention: fused,
        functional.multi_head_attention_forward: multi_head,
        **{f: softmax(f) for f in (Tensor.softmax, torch.softmax, functional.softmax)},
    }
