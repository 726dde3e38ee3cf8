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

from dollmaker.attribute.layers import count_prefix_tokens
from dollmaker.attribute.passes import Question, enlarge, share_passes
from dollmaker.attribute.rectifiers import Intercept
from dollmaker.runtime.errors import ModelError


def attention_rollout(asked: Question) -> Tensor:
    """How much each patch contributes to the token that is classified, through all layers.

    The attention A of a layer, averaged over its heads, becomes (A + I) / 2 for the skip
    connection; the product over the layers says how the last tokens are mixed from the patches. The
    map is the row of the class token, or, in a network that averages its patches, the mean of their
    rows: float32 (P, 1, H, W), shares of attention. The network is a vision transformer of timm or
    torchvision.

    The method knows no findings: all findings of an image get the SAME map.

    Raises:
        ModelError: If the network has no attention, or not between all tokens (windows, pooling).
    """
    size = asked.images.shape[2:]
    if not asked.pairs:
        return asked.blank(1)
    maps: dict[int, Tensor] = {}
    for one in share_passes([(image, 0) for image in sorted(set(asked.rows))], asked.chunk):
        patches = _patches(asked.network, _rollout(asked.network, asked.images[one.images]))
        maps.update((one.images[row], patches[row]) for row in one.rounds[0].rows)
    grids = torch.stack([maps[image] for image in asked.rows])
    return enlarge(asked.frames.of(asked.rows).repeat_edges(grids)[:, None], size)


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

    def fused(*args: Any, **kwargs: Any) -> Tensor:
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if given.get("is_causal") or given.get("enable_gqa"):
            raise ModelError(
                "attention_rollout knows only full attention between all tokens; use another "
                "attribution method."
            )
        query, mask = given["query"], given.get("attn_mask")
        scale = given.get("scale") or query.shape[-1] ** -0.5
        scores = query @ given["key"].transpose(-2, -1) * scale
        if mask is not None:
            allowed = mask.dtype == torch.bool
            scores = scores.masked_fill(~mask, -math.inf) if allowed else scores + mask
        note(scores.softmax(-1))
        return functional.scaled_dot_product_attention(*args, **kwargs)

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
