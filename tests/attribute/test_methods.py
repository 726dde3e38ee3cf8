"""Gradients against finite differences and Captum."""

import pytest
import torch
from captum.attr import InputXGradient, Saliency
from torch import Tensor

from attribute.test_passes import PAIRS, check_manners, network, pictures, relative
from dollmaker.attribute.methods import input_x_gradient, saliency
from dollmaker.attribute.passes import Question


def test_saliency_is_the_slope_of_the_logit() -> None:
    net, x = network("timm:test_resnet").double(), pictures().double()
    maps = saliency(Question(net, x, PAIRS, 2))
    for number in (0, 3, 6):
        image, output = PAIRS[number]
        for place in ((0, 0, 0), (1, 20, 33), (2, 63, 40)):
            step = torch.zeros_like(x[image])
            step[place] = 1e-6
            ends = net(torch.stack([x[image] + step, x[image] - step]))[:, output]
            slope = float(ends[0] - ends[1]) / 2e-6
            assert float(maps[number][place]) == pytest.approx(slope, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v2", "timm:test_vit"])
def test_the_same_maps_as_captum(name: str) -> None:
    net, x = network(name).double(), pictures().double()
    slopes, products = (f(Question(net, x, PAIRS, 3)) for f in (saliency, input_x_gradient))
    for number, (image, output) in enumerate(PAIRS):
        one = x[[image]].clone().requires_grad_()
        slope = Saliency(net).attribute(one, target=output, abs=False)
        product = InputXGradient(net).attribute(one, target=output)
        assert relative(slopes[number], slope[0].float()) < 1e-6
        assert relative(products[number], product[0].detach().float()) < 1e-6


@pytest.mark.parametrize("method", [saliency, input_x_gradient])
def test_manners(method: object) -> None:
    assert callable(method)
    check_manners(method, network("timm:test_resnet"), 3)


def test_images_without_influence_have_empty_maps() -> None:
    class Deaf(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), 2)

    assert not saliency(Question(Deaf(), pictures(2, 2), [(0, 1), (0, 0)], 2)).any()


def test_an_output_without_influence_has_an_empty_map() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)).requires_grad_(False)
    net[1].weight[1] = 0
    maps = saliency(Question(net, pictures(2, 2), [(0, 1), (0, 0)], 2))
    assert not maps[0].any()
    assert torch.equal(maps[1].flatten(), net[1].weight[0])
