"""Attention rollout against a matrix product by hand, fused or not, timm or torchvision."""

import math
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from attribute.test_passes import PAIRS, check_manners, network, pictures, relative
from dollmaker.attribute.attention import attention_rollout
from dollmaker.attribute.passes import Question, enlarge
from dollmaker.runtime.errors import ModelError


def sharpen(net: nn.Module) -> None:
    """Make the attention of an untrained network less even."""
    for name, parameter in net.named_parameters():
        if "qkv" in name or "in_proj" in name:
            parameter.data *= 10


def vit(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    net: nn.Module = timm.create_model("test_vit", num_classes=4, img_size=64, **options)
    sharpen(net)
    return net.eval().requires_grad_(False)


def by_hand(net: Any, x: Tensor) -> Tensor:
    """The product of (A + I) / 2 over a timm transformer's blocks, (N, N), in its own words."""
    tokens = net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(x[None]))))
    product = torch.eye(tokens.shape[1])
    for block in net.blocks:
        attention = block.attn
        n, heads = tokens.shape[1], attention.num_heads
        qkv = attention.qkv(block.norm1(tokens)).view(n, 3, heads, -1)
        mean = torch.zeros(n, n)
        for head in range(heads):
            q, k = qkv[:, 0, head], qkv[:, 1, head]
            mean += (q @ k.T / math.sqrt(q.shape[1])).softmax(1) / heads
        product = (0.5 * mean + 0.5 * torch.eye(n)) @ product
        tokens = block(tokens)
    return product


@pytest.mark.parametrize("fused", [True, False])
def test_rollout_by_hand(fused: bool) -> None:
    net, x = vit(), pictures()
    for block in net.blocks:
        block.attn.fused_attn = fused
    maps = attention_rollout(Question(net, x, PAIRS, 3))
    for number, (image, _) in enumerate(PAIRS):
        row = by_hand(net, x[image])[0, 1:].view(1, 1, 4, 4)
        assert float(row.std()) > 0.005  # something to see
        torch.testing.assert_close(maps[number], enlarge(row, (64, 64))[0], rtol=1e-4, atol=1e-7)


def test_all_findings_of_an_image_have_the_same_map() -> None:
    maps = attention_rollout(Question(vit(), pictures(), PAIRS, 4))
    assert torch.equal(maps[0], maps[2]) and torch.equal(maps[1], maps[6])
    assert not torch.equal(maps[0], maps[1])


def test_where_patches_are_averaged_so_are_their_rows() -> None:
    net, x = vit(global_pool="avg", class_token=True), pictures()
    maps = attention_rollout(Question(net, x, [(2, 0)], 1))
    expected = by_hand(net, x[2])[1:, 1:].mean(0).view(1, 1, 4, 4)
    assert relative(maps[0], enlarge(expected, (64, 64))[0]) < 1e-5


def test_registers_are_no_patches() -> None:
    net, x = vit(reg_tokens=3), pictures()
    maps = attention_rollout(Question(net, x, [(2, 0)], 1))
    expected = by_hand(net, x[2])[0, 4:].view(1, 1, 4, 4)
    assert relative(maps[0], enlarge(expected, (64, 64))[0]) < 1e-5


def test_torchvision_has_the_same_rollout() -> None:
    torch.manual_seed(0)
    net = VisionTransformer(64, 16, 3, 4, 24, 48, num_classes=4).eval().requires_grad_(False)
    sharpen(net)
    x = pictures()
    maps = attention_rollout(Question(net, x, PAIRS, 4))
    weights: list[Tensor] = []

    def keep(module: Any, inputs: Any) -> None:
        weights.append(module(*inputs, need_weights=True, average_attn_weights=True)[1])

    for layer in net.encoder.layers:
        attention = layer.self_attention
        attention.register_forward_pre_hook(
            lambda module, inputs: None if module.busy else asks(module, inputs)
        )
        attention.busy = False

    def asks(module: Any, inputs: Any) -> None:
        module.busy = True
        keep(module, inputs)
        module.busy = False

    for number, (image, _) in enumerate(PAIRS):
        weights.clear()
        with torch.no_grad():
            net(x[[image]])
        assert len(weights) == 3
        product = torch.eye(17)
        for weight in weights:
            product = (weight[0] + torch.eye(17)) / 2 @ product
        assert relative(maps[number], enlarge(product[0, 1:].view(1, 1, 4, 4), (64, 64))[0]) < 1e-4


def test_a_bias_on_the_attention_counts() -> None:
    net = timm.create_model("beit_base_patch16_224", num_classes=4, img_size=64, depth=2)
    net, x = net.eval().requires_grad_(False), pictures()
    for block in net.blocks:
        block.attn.relative_position_bias_table.normal_(0, 9)
    fused = attention_rollout(Question(net, x, PAIRS, 4))
    for block in net.blocks:
        block.attn.fused_attn = False
    assert relative(attention_rollout(Question(net, x, PAIRS, 4)), fused) < 1e-5
    for block in net.blocks:
        block.attn.relative_position_bias_table.zero_()
    assert relative(attention_rollout(Question(net, x, PAIRS, 4)), fused) > 0.03


def test_the_networks_output_does_not_change() -> None:
    net, x = network("timm:test_vit"), pictures()
    before = net(x)
    attention_rollout(Question(net, x, PAIRS, 4))
    assert torch.equal(net(x), before)
    assert all(block.attn.fused_attn for block in net.blocks)


def test_manners() -> None:
    check_manners(attention_rollout, vit(), 1)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("torchvision:resnet18", "this network has no attention; use another"),
        ("timm:test_maxvit", "between all tokens in every layer, which this network has not"),
        ("timm:swin_tiny_patch4_window7_224", "between all tokens in every layer"),
        ("timm:cait_xxs24_224", "between all tokens in every layer"),
    ],
)
def test_networks_without_full_attention_are_refused(name: str, reason: str) -> None:
    options = {} if "resnet" in name else {"img_size": 64}
    library, _, short = name.partition(":")
    net = timm.create_model(short, num_classes=4, **options) if library == "timm" else network(name)
    with pytest.raises(ModelError, match=reason):
        attention_rollout(Question(net.eval(), pictures(), PAIRS, 4))
