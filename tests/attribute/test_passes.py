"""Which images share a pass; and what every attribution method must keep to (used by others)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dollmaker.attribute.layers import count_prefix_tokens
from dollmaker.attribute.passes import Question, enlarge, share_passes
from dollmaker.networks.classifiers import create_network

# Several findings of an image, in no order, one of them twice, and an image (3) without any.
PAIRS = [(0, 2), (1, 0), (0, 0), (2, 3), (4, 1), (0, 3), (1, 2), (0, 2)]


def network(name: str, *, size: int = 64, seed: int = 0) -> nn.Module:
    """An untrained network in which nothing is trivially zero or one: statistics and biases too."""
    torch.manual_seed(seed)
    net, _ = create_network(name, outputs=4, channels=3, size=size, tried=False)
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    net.eval()
    with torch.no_grad():
        for norm in norms:
            norm.train()
            norm.momentum = 1.0
            norm.weight.uniform_(0.7, 1.3)
            norm.bias.normal_(0, 0.2)
        net(torch.randn(8, 3, size, size))
        for norm in norms:
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean += 0.1 * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.2)
            norm.running_var.clamp_(min=norm.running_var.max() / 2)  # else float32 is not enough
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                layer.bias.normal_(0, 0.1)
    return net.eval().requires_grad_(False)


def pictures(count: int = 5, size: int = 64, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator)


def relative(ours: Tensor, expected: Tensor) -> float:
    return float((ours - expected).norm() / expected.norm())


def state(net: nn.Module) -> list[Any]:
    """Everything that a method could leave behind on a network."""
    return [
        (
            name,
            part.training,
            {key: value for key, value in vars(part).items() if not key.startswith("_")},
            {key: len(value) for key, value in vars(part).items() if key.endswith("_hooks")},
            [(p.data_ptr(), p._version, p.requires_grad, p.grad) for p in part.parameters(False)],
            [(b.data_ptr(), b._version) for b in part.buffers(False)],
        )
        for name, part in net.named_modules()
    ]


def check_manners(
    method: Callable[..., Tensor],
    net: nn.Module,
    channels: int,
    *,
    tolerance: float = 1e-5,
    **options: Any,
) -> None:
    """Shape and order of the result, independence of company, and a network left as it was."""
    x = pictures()
    options = {
        key: value.expand_as(x) if isinstance(value, Tensor) else value
        for key, value in options.items()
    }
    before = state(net)
    with torch.no_grad():  # the caller's mode does not matter
        together = method(Question(net, x, PAIRS, 4), **options)
    assert state(net) == before
    assert together.shape == (len(PAIRS), channels, 64, 64)
    assert together.dtype == torch.float32 and not together.requires_grad
    assert together.isfinite().all() and (together.flatten(1).norm(dim=1) > 0).all()
    assert torch.equal(together[0], together[7])  # the same pair twice
    back = method(Question(net, x, PAIRS[::-1], 4), **options)
    assert torch.equal(back.flip(0), together)
    for number in (1, 2, 3):
        image, output = PAIRS[number]
        single = {k: v[[image]] if isinstance(v, Tensor) else v for k, v in options.items()}
        alone = method(Question(net, x[[image]], [(0, output)], 4), **single)
        assert torch.equal(alone[0], together[number])
    for chunk in (1, 3, 16):
        other = method(Question(net, x, PAIRS, chunk), **options)
        assert max(map(relative, other, together)) < tolerance
    assert method(Question(net, x, [], 4), **options).shape == (0, channels, 64, 64)


def test_images_with_equally_many_findings_share_a_pass() -> None:
    passes = share_passes(PAIRS, 2)
    assert [one.images for one in passes] == [[0, 1], [2, 4]]
    first, second = passes
    assert [(r.rows, r.pairs, r.outputs) for r in first.rounds] == [
        ([0, 1], [0, 1], [2, 0]),
        ([0, 1], [2, 6], [0, 2]),
        ([0], [5], [3]),
        ([0], [7], [2]),
    ]
    assert [(r.rows, r.pairs, r.outputs) for r in second.rounds] == [([0, 1], [3, 4], [3, 1])]


def test_the_order_of_the_images_does_not_matter() -> None:
    passes = share_passes([(0, 1), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)], 2)
    assert [one.images for one in passes] == [[2, 3], [0, 1]]
    assert sum(len(one.rounds) for one in passes) == 3  # backward passes; unsorted they are 4


def test_passes_are_padded_and_every_pair_is_in_one() -> None:
    passes = share_passes(PAIRS, 3)
    assert [one.images for one in passes] == [[0, 1, 2], [4, 4, 4]]
    served = sorted(pair for one in passes for r in one.rounds for pair in r.pairs)
    assert served == list(range(len(PAIRS)))
    assert share_passes([], 3) == []


def test_maps_are_enlarged_without_a_shift() -> None:
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    large = enlarge(ramp, (16, 8))
    assert large.shape == (1, 1, 16, 8)
    torch.testing.assert_close(
        large[0, 0, 5], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    )


@pytest.mark.parametrize(
    ("tokens", "prefix"),
    [(16, 0), (17, 1), (18, 2), (5, 1), (21, 5), (24, 8), (35, None), (2, None)],
)
def test_patches_form_a_square(tokens: int, prefix: int | None) -> None:
    assert count_prefix_tokens(nn.Identity(), tokens) == prefix


def test_a_network_knows_its_prefix_tokens() -> None:
    net = nn.Sequential(nn.Identity())
    net[0].num_prefix_tokens = 4
    assert count_prefix_tokens(net, 20) == 4
    assert count_prefix_tokens(net, 17) is None
