"""A head on every patch, against its formula written out."""

import pytest
import torch
from torch import nn

from dollmaker.attribute import cams
from dollmaker.attribute.passes import Question
from dollmaker.config import weight_names
from dollmaker.networks.classifiers import create_network, head_name, published_normalisation
from dollmaker.networks.patch_heads import PatchHead, begin
from dollmaker.runtime.errors import ModelError

TINY = "mil:vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    made, title = create_network(TINY, outputs=2, channels=3, size=64)
    assert title == TINY
    return made.eval().requires_grad_(False)


def over_the_mean(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Logits of the patches without the bias, (B, N, K): the last layer on centred tokens."""
    tokens = network.forward_features(images)[:, 1:]  # type: ignore[operator]
    tokens = tokens - tokens.mean(1, keepdim=True)
    weight: torch.Tensor = network.get_parameter("head.linear.weight")
    return tokens @ weight.T


def test_an_image_has_the_soft_maximum_of_its_patches(network: nn.Module) -> None:
    images = torch.randn(3, 3, 64, 64)
    each = over_the_mean(network, images) + network.get_parameter("head.linear.bias")
    assert torch.allclose(network(images), (8 * each).exp().mean(1).log() / 8, atol=1e-5)
    assert head_name(network, 2) == "head.linear"


def test_grad_cam_is_what_the_patches_say_over_their_mean(network: nn.Module) -> None:
    images, pairs = torch.randn(3, 3, 64, 64), [(0, 0), (1, 1), (2, 0)]
    maps = cams.grad_cam(Question(network=network, images=images, pairs=pairs, chunk=2))
    each = over_the_mean(network, images).relu() / 16
    grids = torch.stack([each[image, :, output] for image, output in pairs]).view(3, 1, 4, 4)
    wanted = nn.functional.interpolate(grids, size=(64, 64), mode="bilinear")
    assert maps.max() > 0
    assert torch.allclose(maps, wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "test_vit3"])
def test_transformers_that_pool_otherwise_pool_so_too(name: str) -> None:
    """By a class token, and by attention."""
    torch.manual_seed(0)
    made, _ = create_network(f"mil:{name}", outputs=2, channels=3, size=32)
    made.eval().requires_grad_(False)
    images = torch.randn(2, 3, 32, 32)
    tokens = made.forward_features(images)  # type: ignore[operator]
    assert torch.allclose(made(images), made.get_submodule("head")(tokens), atol=1e-5)


def test_what_all_patches_share_says_nothing() -> None:
    torch.manual_seed(0)
    head, tokens = PatchHead(4, 2, prefix=1), torch.randn(3, 10, 4)
    assert torch.allclose(head(tokens), head(tokens + torch.randn(3, 1, 4)), atol=1e-6)


def bags() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens of images, whether each has the finding, and which of its patches shows it.

    Every patch of a positive image is marked alike, and one of them in another way, too.
    """
    torch.manual_seed(0)
    tokens, labels = 0.3 * torch.randn(256, 10, 4), torch.arange(256) % 2
    places = torch.randint(1, 10, (256,))
    tokens[labels == 1, :, 0] += 3
    tokens[torch.arange(256), places, 1] += 3.0 * labels
    return tokens, labels, places


class Bare(nn.Module):
    """A network whose images are tokens."""

    def __init__(self, head: PatchHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(tokens)
        return logits


@pytest.mark.parametrize("seed", range(4))
def test_the_patch_that_shows_it_is_found_from_labels_alone(seed: int) -> None:
    tokens, labels, places = bags()
    torch.manual_seed(seed)
    head = PatchHead(4, 2, prefix=1)
    before = head.linear.weight[1].clone()
    values = torch.stack([labels, torch.ones_like(labels)], 1).float()
    batches = zip(tokens.split(100), values.split(100), torch.ones(256, 2).split(100), strict=True)
    begin(Bare(head), batches)
    assert torch.equal(head.linear.weight[1], before)  # all have the second one: nothing is learned
    for steps in (0, 100):
        optimizer = torch.optim.Adam(head.parameters(), 0.05)
        for _ in range(steps):
            logits = head(tokens)[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        said = head.linear(head.centre(tokens))[:, 1:, 0].argmax(1) + 1
        assert (said == places)[labels == 1].float().mean() > 0.99


def test_unknown_labels_do_not_decide_where_a_head_begins() -> None:
    tokens, labels, _ = bags()
    heads = []
    for wrong in (False, True):
        torch.manual_seed(0)
        heads.append(PatchHead(4, 1, prefix=1))
        values, weights = labels.float()[:, None].clone(), torch.ones(256, 1)
        weights[128:] = 0
        values[128:] = 1 - values[128:] if wrong else values[128:]
        begin(Bare(heads[-1]), [(tokens, values, weights)])
    assert torch.equal(heads[0].linear.weight, heads[1].linear.weight)


def test_networks_of_other_kinds_are_left_alone() -> None:
    begin(nn.Linear(2, 2), iter(()))


def test_other_networks_are_refused() -> None:
    others = ("resnet18", "swin_tiny_patch4_window7_224", "deit_tiny_distilled_patch16_224")
    for name in (f"mil:{other}" for other in others):
        with pytest.raises(ModelError, match=f"{name} has no head on every patch"):
            create_network(name, outputs=1, channels=3, size=224)


def test_its_weights_are_those_of_timm() -> None:
    name = "mil:vit_small_patch14_dinov2"
    assert published_normalisation(name) == published_normalisation(name.replace("mil", "timm"))
    assert weight_names.parse("pretrained", name) == f"pretrained:{name}"
