"""Class activation maps against Captum, rules by hand, and theorems."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn
from torch.nn import functional as F

from attribute.test_passes import PAIRS, check_manners, network, pictures, relative
from dollmaker.attribute.cams import (
    grad_cam,
    hires_cam,
    layer_cam,
    multi_layer_cam,
    principal_component,
)
from dollmaker.attribute.passes import Question, enlarge
from dollmaker.runtime.errors import ConfigError, ModelError

CAMS = [grad_cam, hires_cam, layer_cam, multi_layer_cam]


class Small(nn.Module):
    """MICRA-Net's kind of network, small, with the ReLU of the last layer behind a hook's back."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Conv2d(3, 6, 3, padding=1)
        self.two = nn.Conv2d(6, 6, 3, padding=1)
        self.three = nn.Conv2d(6, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.one(x).relu(), 2)
        x = F.max_pool2d(self.two(x).relu_(), 2)
        result: Tensor = self.head(self.three(x).relu_().mean((2, 3)))
        return result


def by_hand(net: nn.Module, x: Tensor, output: int, layer: str) -> tuple[Tensor, Tensor]:
    """Feature maps of a layer as it gave them out, and their gradients, (K, h, w)."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, y: Tensor) -> Tensor:
        kept.append(y.requires_grad_() if y.is_leaf else y)
        return y * 1.0

    handle = net.get_submodule(layer).register_forward_hook(keep)
    logit = net(x[None])[0, output]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, kept[-1])
    return kept[-1].detach()[0], gradient[0]


@pytest.mark.parametrize("layer", ["layer2.1.bn2", "layer3", "layer2.0.conv1", "conv1"])
def test_grad_cam_is_captums(layer: str) -> None:
    net, x = network("torchvision:resnet18"), pictures()
    maps = grad_cam(Question(net, x, PAIRS, 3), layer=layer)
    # Captum looks at the tensor after ReLU and sum have changed it in place: not at bn2's output.
    for part in net.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    for number, (image, output) in enumerate(PAIRS):
        if layer.endswith("bn2"):
            a, g = by_hand(net, x[image], output, layer)
            cam = (g.mean((1, 2))[:, None, None] * a).sum(0)[None, None]
        else:
            cam = LayerGradCam(net, net.get_submodule(layer)).attribute(x[[image]], output).detach()
        expected = enlarge(cam.relu(), (64, 64))[0]
        assert relative(maps[number], expected) < 1e-4


@pytest.mark.parametrize("layer", ["two", "three", "layer2.1.bn2"])
def test_rules_by_hand(layer: str) -> None:
    net, x = Small() if layer in ("two", "three") else network("torchvision:resnet18"), pictures()
    seen = dict.fromkeys((grad_cam, hires_cam, layer_cam), 0.0)
    for number, (image, output) in enumerate(PAIRS):
        a, g = by_hand(net, x[image], output, layer)
        rules = {
            grad_cam: (g.mean((1, 2), keepdim=True) * a).sum(0).clamp(min=0),
            hires_cam: (g * a).sum(0).clamp(min=0),
            layer_cam: (g.clamp(min=0) * a).sum(0).clamp(min=0),
        }
        for method, cam in rules.items():
            maps = method(Question(net, x, PAIRS, 4), layer=layer)
            expected = F.interpolate(cam[None, None], size=(64, 64), mode="bilinear")[0]
            torch.testing.assert_close(maps[number], expected, rtol=1e-3, atol=1e-6)
            seen[method] += float(expected.sum())
    assert min(seen.values()) > 0


def test_behind_global_pooling_and_a_linear_head_hires_cam_is_grad_cam() -> None:
    net, x = network("torchvision:resnet18"), pictures()
    one, other = (method(Question(net, x, PAIRS, 4)) for method in (hires_cam, grad_cam))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    one, other = (m(Question(net, x, PAIRS, 4), layer="layer2") for m in (hires_cam, grad_cam))
    assert relative(one, other) > 0.1


def test_hires_cam_of_the_last_layer_holds_the_whole_logit() -> None:
    """The sum of the map before the ReLU is the logit without its bias."""
    net, x = Small(), pictures(5, 32)
    net.head.weight.abs_()  # every contribution is positive
    maps = hires_cam(Question(net, x, PAIRS, 4))
    logits = net(x) - net.head.bias
    for number, (image, output) in enumerate(PAIRS):
        total = float(maps[number].sum()) / 16  # 8 x 8 places became 32 x 32
        assert total == pytest.approx(float(logits[image, output]), rel=0.02)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("torchvision:resnet18", "layer4"),
        ("torchvision:mobilenet_v2", "features"),
        ("torchvision:efficientnet_b0", "features"),
        ("timm:resnet18", "layer4"),
        ("timm:densenet121", "features"),
        ("timm:mobilenetv3_small_100", "blocks"),
        ("timm:efficientnet_b0", "bn2"),
        ("timm:test_vit", "blocks.5.norm1"),
        ("timm:test_vit3", "norm"),
        ("timm:convnext_atto", "stages"),
    ],
)
def test_the_layer_that_is_chosen(name: str, layer: str) -> None:
    net, x = network(name), pictures()
    for method in (grad_cam, layer_cam):
        chosen = method(Question(net, x, PAIRS, 4))
        assert torch.equal(chosen, method(Question(net, x, PAIRS, 4), layer=layer))
        assert chosen.any()


def test_densenets_map_is_taken_behind_its_functional_relu() -> None:
    net, x = network("torchvision:densenet121"), pictures()
    maps = grad_cam(Question(net, x, PAIRS, 4))
    for number, (image, output) in enumerate(PAIRS):
        a = F.relu(net.features(x[[image]]))
        weights = net.classifier.weight[output][:, None, None] / 4  # 2 x 2 places
        expected = enlarge((weights * a[0]).sum(0).relu()[None, None], (64, 64))[0]
        torch.testing.assert_close(maps[number], expected, rtol=1e-4, atol=1e-6)
    assert relative(grad_cam(Question(net, x, PAIRS, 4), layer="features"), maps) > 0.1


def test_tokens_become_a_square_of_patches() -> None:
    net, x = network("timm:test_vit"), pictures()
    maps = grad_cam(Question(net, x, [(1, 2)], 1), layer="blocks.2.norm1")
    a, g = (t[1:].T.unflatten(1, (4, 4)) for t in by_hand(net, x[1], 2, "blocks.2.norm1"))
    cam = (g.mean((1, 2), keepdim=True) * a).sum(0).relu()
    assert relative(maps[0], enlarge(cam[None, None], (64, 64))[0]) < 1e-5


def test_maps_with_the_channels_last() -> None:
    net = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=4, img_size=64, window_size=2
    )
    net, x = net.eval().requires_grad_(False), pictures()
    maps = hires_cam(Question(net, x, [(1, 2)], 2))
    a, g = by_hand(net, x[1], 2, "norm")
    assert a.shape == (2, 2, 768)
    assert relative(maps[0], enlarge((a * g).sum(-1).relu()[None, None], (64, 64))[0]) < 1e-5


def test_a_principal_component_by_hand() -> None:
    torch.manual_seed(0)
    base = torch.rand(10, 10)
    deepest = (base - 0.3).clamp(min=0)
    maps = torch.stack([base, 1 - base, base * 0.5 + 0.1 * torch.rand(10, 10), deepest])
    result = principal_component(maps).flatten()
    values = maps[:3].flatten(1).T.double().numpy()
    _, _, directions = np.linalg.svd(values - values.mean(0))
    scores = (values - values.mean(0)) @ directions[0]
    scores *= np.sign((scores * deepest.flatten().numpy()).sum())
    assert np.allclose(result, scores - scores.min(), atol=1e-6)
    assert np.corrcoef(result, base.flatten())[0, 1] > 0.9  # not upside down
    assert not principal_component(torch.zeros(3, 4, 4)).any()


def test_the_sign_of_a_principal_component_is_the_deepest_maps() -> None:
    """Maps and their negatives have the same directions: one of the two must be turned round."""
    torch.manual_seed(1)
    deepest = torch.rand(8, 8) + 0.1
    for sign in (1, -1):
        shallow = 0.5 + sign * 0.4 * (torch.stack([deepest, deepest**2]) - 0.5)
        result = principal_component(torch.cat([shallow, deepest[None]]))
        assert np.corrcoef(result.flatten(), deepest.flatten())[0, 1] > 0.95
        assert result.min() == 0


@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_micra_net_by_hand(upsample: Any) -> None:
    net, x = Small(), pictures(5, 32)
    layers = ["three", "one", "two"]
    maps = multi_layer_cam(Question(net, x, PAIRS, 4), layers=layers, upsample=upsample)
    for number, (image, output) in enumerate(PAIRS):
        cams = []
        for layer in ("one", "two", "three"):
            a, g = by_hand(net, x[image], output, layer)
            cam = (g.mean((1, 2), keepdim=True) * a).sum(0)
            cam = cam.relu() if layer == "three" else cam
            cam = ((cam - cam.min()) / (cam.max() - cam.min())).nan_to_num()
            factor = 32 // cam.shape[-1]
            wide = enlarge(cam[None, None], (32, 32))[0, 0]
            near = cam.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
            cams.append(near if upsample == "nearest" else wide)
        expected = principal_component(torch.stack(cams))
        torch.testing.assert_close(maps[number, 0], expected, rtol=1e-3, atol=1e-4)


def test_the_layers_that_multi_layer_cam_chooses() -> None:
    net, x = Small(), pictures(5, 32)
    chosen = multi_layer_cam(Question(net, x, PAIRS, 4))

    class Modules(nn.Module):
        """The same network, whose activations are modules that can be named."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.acts = net, nn.ModuleList(nn.ReLU() for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(self.acts[0](net.one(x)), 2)
            x = F.max_pool2d(self.acts[1](net.two(x)), 2)
            result: Tensor = net.head(self.acts[2](net.three(x)).mean((2, 3)))
            return result

    twin = Modules().eval()
    named = multi_layer_cam(Question(twin, x, PAIRS, 4), layers=["acts.0", "acts.1", "acts.2"])
    torch.testing.assert_close(multi_layer_cam(Question(twin, x, PAIRS, 4)), named)
    # `one` is followed by a ReLU that is not in place, so its map is the one before.
    mixed = multi_layer_cam(Question(twin, x, PAIRS, 4), layers=["net.one", "acts.1", "acts.2"])
    torch.testing.assert_close(chosen, mixed, rtol=1e-3, atol=1e-4)
    deep, x = network("timm:resnet18"), pictures()  # 20 convolutions: one map of each size
    stages = ["act1", "layer1", "layer2", "layer3", "layer4"]
    named = multi_layer_cam(Question(deep, x, PAIRS, 4), layers=stages)
    assert torch.equal(multi_layer_cam(Question(deep, x, PAIRS, 4)), named)


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize("name", ["timm:test_resnet", "timm:test_vit"])
def test_manners(method: Any, name: str) -> None:
    options = {}
    if "vit" in name and method is multi_layer_cam:
        options = {"layers": [f"blocks.{k}.norm1" for k in (1, 3, 5)]}
    check_manners(method, network(name), 1, tolerance=1e-4, **options)


@pytest.mark.parametrize("method", CAMS)
def test_layers_that_cannot_be_used_are_refused(method: Any) -> None:
    net, x = network("torchvision:resnet18"), pictures()
    key = "layers" if method is multi_layer_cam else "layer"

    def explain(layer: str) -> None:
        method(Question(net, x, PAIRS, 4), **{key: [layer] if key == "layers" else layer})

    with pytest.raises(ConfigError, match=r"unknown layer 'layer3.2'; did you mean .*layer3.1"):
        explain("layer3.2")
    with pytest.raises(ConfigError, match=r"'avgpool' has no feature map; .*: .*layer4\.$"):
        explain("avgpool")
    with pytest.raises(ConfigError, match="'fc' has no feature map"):
        explain("fc")
    assert not any(part._forward_hooks for part in net.modules())


def test_networks_without_feature_maps_are_refused() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).requires_grad_(False)
    with pytest.raises(ModelError, match="no layer of this network has a feature map"):
        grad_cam(Question(net, pictures(5, 4), PAIRS, 4))
    with pytest.raises(ModelError, match="chooses its layers in convolutional networks only"):
        multi_layer_cam(Question(network("timm:test_vit"), pictures(), PAIRS, 4))


def test_a_layer_without_influence_has_an_empty_map() -> None:
    class Aside(Small):
        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            self.three(F.avg_pool2d(self.two(x), 4))
            result: Tensor = self.head(x.mean((2, 3)) @ torch.ones(6, 8))
            return result

    net, x = Aside(), pictures(5, 32)
    assert not grad_cam(Question(net, x, PAIRS, 4), layer="three").any()
    assert grad_cam(Question(net, x, PAIRS, 4), layer="one").any()
    assert not multi_layer_cam(Question(net, x, PAIRS, 4), layers=["one", "three"]).any()


def test_nothing_stays_behind_when_the_network_fails() -> None:
    net = Small()
    net.head = nn.Linear(9, 4)
    with pytest.raises(RuntimeError):
        grad_cam(Question(net, pictures(5, 32), PAIRS, 4), layer="one")
    assert not any(part._forward_hooks for part in net.modules())
