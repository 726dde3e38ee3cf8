"""Maps against sums by hand, against autograd written out, and against each other."""

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional

from dollmaker.attribute.layers import as_maps, outputs_of
from dollmaker.attribute.passes import Question
from dollmaker.config.networks import SegmentConfig
from dollmaker.explain.seg_cam import METHODS, Explained, choose_pixels, explain_pixels, find_layer
from dollmaker.networks.frames import Frames
from dollmaker.networks.segmenters import create
from dollmaker.runtime.errors import ConfigError


class Pooled(nn.Module):
    """Global average pooling and a linear head, said of every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 5, 4, stride=4)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits[:, :, None, None].expand(-1, -1, *x.shape[2:])


class Tiny(nn.Module):
    """Convolutions with a ReLU in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.third = nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        deep = self.second(functional.relu(self.first(x), inplace=True))
        coarse = self.third(torch.tanh(deep))
        return functional.interpolate(coarse, size=x.shape[2:], mode="bilinear")


def make(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    torch.manual_seed(1)
    network: nn.Module = smp.create_model(
        "unet", "tu-test_resnet", encoder_weights=None, in_channels=1, classes=2,
        decoder_channels=[8, 8, 8, 4, 4],
    )  # fmt: skip
    with torch.no_grad():  # what speaks against one class speaks for the other
        network.segmentation_head[0].weight[1] = -network.segmentation_head[0].weight[0]
    return network.eval().requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(2))


def finished(coarse: Tensor, size: int) -> Tensor:
    """ReLU, division by the maximum, enlargement: of one map (h, w)."""
    positive = coarse.clamp(min=0)
    scaled = positive / positive.max() if positive.max() > 0 else positive
    return functional.interpolate(scaled[None, None], size=(size, size), mode="bilinear")[0, 0]


def test_hires_is_gradient_times_activation_of_a_pooled_linear_head(images: Tensor) -> None:
    network = make(Pooled)
    pixels = torch.zeros(1, 16, 16, dtype=torch.bool)
    pixels[0, 2:5, 7:9] = True
    explained = explain_pixels(
        Question(network, images, [(1, 2)], 8), pixels, method="seg_hires_cam", layer="features"
    )
    activations = network.features(images)[1]
    # d logit_c / d A^k = w_ck / 16 at each of the 4 x 4 places, for each of the 6 pixels of M.
    by_hand = 6 / 16 * sum(network.head.weight[2, k] * activations[k] for k in range(5))
    torch.testing.assert_close(explained.scale[0], by_hand.max())
    torch.testing.assert_close(explained.maps[0], finished(by_hand, 16))
    # The gradient is the same everywhere: pooling changes nothing.
    pooled = explain_pixels(
        Question(network, images, [(1, 2)], 8), pixels, method="seg_grad_cam", layer="features"
    )
    torch.testing.assert_close(pooled.maps, explained.maps)


def test_both_formulas_written_out(images: Tensor) -> None:
    network = make(Tiny)
    pixels = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(3)) > 0.6
    pairs = [(2, 0), (0, 1)]
    maps = {
        method: explain_pixels(
            Question(network, images, pairs, 8), pixels, method=method, layer="second"
        ).maps
        for method in METHODS
    }
    for number, (image, output) in enumerate(pairs):
        x = images[image][None]
        deep = network.second(network.first(x).relu()).requires_grad_()
        logits = functional.interpolate(network.third(deep.tanh()), size=(16, 16), mode="bilinear")
        (gradient,) = torch.autograd.grad(logits[0, output][pixels[number]].sum(), deep)
        a, g = deep.detach()[0], gradient[0]
        grad_cam = sum(g[k].mean() * a[k] for k in range(6))
        hires_cam = sum(g[k] * a[k] for k in range(6))
        torch.testing.assert_close(maps["seg_grad_cam"][number], finished(grad_cam, 16))
        torch.testing.assert_close(maps["seg_hires_cam"][number], finished(hires_cam, 16))
    assert not torch.allclose(maps["seg_grad_cam"], maps["seg_hires_cam"])


@pytest.mark.parametrize("method", METHODS)
def test_the_zero_set_has_the_zero_map(method: str, unet: nn.Module) -> None:
    none = torch.zeros(2, 64, 64, dtype=torch.bool)
    explained = explain_pixels(
        Question(unet, torch.randn(1, 1, 64, 64), [(0, 0), (0, 1)], 8), none, method=method
    )
    assert explained.maps.shape == (2, 64, 64)
    assert not explained.maps.any()
    assert not explained.scale.any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layer", ["encoder.-1", "encoder.1", "decoder.0", "decoder.-2"])
def test_batched_equals_one_by_one(method: str, layer: str, unet: nn.Module) -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(3, 1, 64, 64, generator=generator)
    pairs = [(2, 1), (0, 0), (2, 0), (1, 1)]
    pixels = torch.rand(4, 64, 64, generator=generator) > 0.5
    together = explain_pixels(Question(unet, x, pairs, 2), pixels, method=method, layer=layer)
    alone = [
        explain_pixels(
            Question(unet, x[i : i + 1], [(0, k)], 1), pixels[n : n + 1], method=method, layer=layer
        )
        for n, (i, k) in enumerate(pairs)
    ]
    torch.testing.assert_close(together.maps, torch.cat([one.maps for one in alone]))
    torch.testing.assert_close(together.scale, torch.cat([one.scale for one in alone]))
    assert together.maps.any()
    assert together.maps.max() <= 1


def test_a_point_at_the_last_convolution_shows_itself_only(unet: nn.Module) -> None:
    x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(5))
    logit = unet(x)[0, 1]
    y, x_ = divmod(int(logit.argmax()), 64)
    sign = bool(logit[y, x_] > 0)
    nothing = torch.zeros(1, 64, 64, dtype=torch.bool)
    point = choose_pixels("point", nothing, nothing, (x_, y))
    assert point.nonzero().tolist() == [[0, y, x_]]
    explained = explain_pixels(Question(unet, x, [(0, 1)], 8), point, layer="segmentation_head.0")
    # The last convolution makes the logits: the gradient is 1 at the point, the map the logit.
    expected = torch.zeros(64, 64)
    expected[y, x_] = float(sign)
    torch.testing.assert_close(explained.maps[0], expected)
    torch.testing.assert_close(explained.scale[0], logit[y, x_].clamp(min=0))


def test_a_layer_of_the_decoder_by_name_and_by_depth(unet: nn.Module) -> None:
    x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(6))
    everything = torch.ones(1, 64, 64, dtype=torch.bool)

    def explain(layer: str) -> Explained:
        return explain_pixels(
            Question(unet, x, [(0, 0)], 8), everything, method="seg_grad_cam", layer=layer
        )

    blocks = explain("decoder.blocks.2"), explain("decoder.2")
    torch.testing.assert_close(blocks[0].maps, blocks[1].maps)
    assert not torch.allclose(blocks[0].maps, explain("decoder.0").maps)
    # Written out: from that block on, the rest of the decoder and the head.
    features = unet.encoder(x)[1:][::-1]
    skips, blocks_ = features[1:], unet.decoder.blocks
    deep = features[0]
    for k in range(3):
        deep = blocks_[k](deep, skips[k].shape[-2], skips[k].shape[-1], skip_connection=skips[k])
    deep = deep.detach().requires_grad_()
    y = blocks_[3](deep, 32, 32, skip_connection=skips[3])
    y = blocks_[4](y, 64, 64, skip_connection=None)
    (g,) = torch.autograd.grad(unet.segmentation_head(y)[0, 0].sum(), deep)
    expected = (g.mean((2, 3), keepdim=True) * deep.detach()).sum(1)[0]
    torch.testing.assert_close(blocks[0].maps[0], finished(expected, 64), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", ["tu-test_resnet", "mobilenet_v2", "densenet121"])
def test_depths_are_the_feature_maps_of_the_encoder(encoder: str) -> None:
    network = smp.create_model(
        "unet", encoder, encoder_weights=None, in_channels=1, classes=1,
        decoder_channels=[4, 4, 4, 4, 4],
    ).eval()  # fmt: skip
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        features = network.encoder(x)[1:]
    for depth, feature in enumerate(features):
        for place in (depth, depth - len(features)):
            call, _ = find_layer(network, x, f"encoder.{place}")
            assert call.output == feature.shape
            assert call.name.startswith("encoder.")
    assert find_layer(network, x, "decoder.0")[0].name == "decoder.blocks.0"
    # Maps of a single place say nothing about places: at 32 pixels the fourth is the deepest.
    call, _ = find_layer(network, x[..., :32, :32], "encoder.-1")
    assert call.output[2:] == (2, 2)


def test_depths_of_a_vision_transformer_are_its_blocks() -> None:
    narrow = {"decoder_intermediate_channels": (8, 8, 8, 8), "decoder_fusion_channels": 8}
    options = {"architecture": "dpt", "encoder": "tu-test_vit", "arguments": narrow}
    network = create(SegmentConfig(**options), channels=1, classes=1, size=64, seed=0).eval()
    x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        features, _ = network.get_submodule("encoder")(x)
    for depth, feature in enumerate(features):
        call, exact = find_layer(network, x, f"encoder.{depth}")
        with torch.no_grad(), outputs_of([call.module], exact=exact) as outputs:
            network(x)
        assert torch.equal(as_maps(network, outputs[call.module], call.layout), feature)
    assert find_layer(network, x, "encoder.-1")[0].name == "encoder.model.blocks.5"
    everything = torch.ones(1, 64, 64, dtype=torch.bool)
    for layer in ("encoder.0", "encoder.-1"):
        explained = explain_pixels(Question(network, x, [(0, 0)], 8), everything, layer=layer)
        assert explained.maps.shape == (1, 64, 64)


def test_what_is_unknown_is_refused(unet: nn.Module) -> None:
    x, pixels = torch.zeros(1, 1, 64, 64), torch.ones(1, 64, 64, dtype=torch.bool)
    for layer, said in (
        ("decoder.blok.1", r"unknown layer 'decoder.blok.1'; did you mean .*decoder\.blocks\.1"),
        ("decoder.7", r"the decoder has 5 stages .*use decoder\.0 to decoder\.4"),
        ("encoder.5", r"use encoder\.0 to encoder\.4"),
    ):
        with pytest.raises(ConfigError, match=said):
            explain_pixels(Question(unet, x, [(0, 0)], 8), pixels, layer=layer)


def test_pixel_sets() -> None:
    predicted, truth = torch.rand(2, 4, 5) > 0.5, torch.rand(2, 4, 5) > 0.5
    assert choose_pixels("class", predicted, truth) is predicted
    assert choose_pixels("truth", predicted, truth) is truth
    assert choose_pixels("image", predicted, truth).all()
    assert not choose_pixels("zero", predicted, truth).any()
    assert choose_pixels("point", predicted, truth, (4, 1))[:, 1, 4].all()
    with pytest.raises(ConfigError, match="point 4,4 is outside"):
        choose_pixels("point", predicted, truth, (4, 4))
    with pytest.raises(ConfigError, match="give --point"):
        choose_pixels("point", predicted, truth)


def test_no_pairs_no_maps(unet: nn.Module) -> None:
    none = torch.zeros(0, 64, 64, dtype=torch.bool)
    assert explain_pixels(Question(unet, torch.zeros(1, 1, 64, 64), [], 8), none).maps.shape == (
        0,
        64,
        64,
    )


def test_bars_are_neither_explained_nor_relevant(unet: nn.Module) -> None:
    """Pictures in rows 16 to 48, and in a whole square, of a segmenter that sees all of it."""
    x = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(5))
    frames = Frames(((0, 16, 64, 48), (0, 0, 64, 64)), 64)
    everything = torch.ones(3, 64, 64, dtype=torch.bool)
    pairs = [(0, 0), (1, 1), (0, 1)]
    picture = frames.of([0, 1, 0]).inside((64, 64), x.device)
    for method in METHODS:
        for layer in ("encoder.-1", "decoder.1"):
            found = explain_pixels(
                Question(unet, x, pairs, 8, frames), everything, method=method, layer=layer
            )
            assert not found.maps.where(~picture, 0).any()
            same = explain_pixels(
                Question(unet, x, pairs, 8, frames), picture, method=method, layer=layer
            )
            assert torch.equal(found.maps, same.maps)  # pixels of bars are none of the set
            whole = explain_pixels(Question(unet, x, pairs, 8), picture, method=method, layer=layer)
            assert torch.equal(found.maps[1], whole.maps[1])
            assert torch.equal(found.scale[1], whole.scale[1])
            assert (found.scale <= whole.scale).all()
            assert found.maps.amax() <= 1


def test_cells_of_bars_are_not_enlarged_into_the_picture() -> None:
    class Bars(nn.Module):
        """A feature map of 16 x 16 cells of which the logits see those of rows 0 to 4."""

        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv2d(1, 5, 4, stride=4)

        def forward(self, x: Tensor) -> Tensor:
            seen = self.features(x)[:, :, :4].abs().sum((1, 2, 3))
            logits: Tensor = seen[:, None, None, None].expand(-1, 2, *x.shape[2:])
            return logits

    network, x = make(Bars), torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(5))
    everything = torch.ones(1, 64, 64, dtype=torch.bool)
    for boxes, seen in ((None, True), (((0, 16, 64, 48),), False)):
        found = explain_pixels(
            Question(network, x, [(0, 0)], 8, Frames(boxes, 64)), everything, layer="features"
        )
        assert bool(found.maps.any()) == bool(found.scale.any()) == seen
