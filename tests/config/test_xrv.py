"""torchxrayvision's networks against the library itself, with random weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from classify.xrv_library import library, logits, own_network, pictures
from dollmaker.attribute.committee import Committee, Setup
from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.methods import METHODS, explain
from dollmaker.attribute.passes import Question
from dollmaker.config import ready, xrv
from dollmaker.config import settings as configuration
from dollmaker.config.masks import MapsConfig
from dollmaker.config.networks import MemberConfig
from dollmaker.config.whole import Config
from dollmaker.networks.inputs import Input
from dollmaker.networks.member import Member, take_ready
from dollmaker.pixels.geometry import fit_image
from dollmaker.runtime.errors import ModelError

CPU = torch.device("cpu")
NIH = ["Mass", "Pleural Effusion", "Lung opacity", "Cardiomegaly", "Pneumonia", "No Finding"]


def take(name: str, network: nn.Module, folder: Path, findings: list[str]) -> Member:
    """The member that the configuration makes of the library's network."""
    file = folder / xrv.file_name(f"xrv:{name}")
    save_file({key: tensor.clone() for key, tensor in network.state_dict().items()}, file)
    config = configuration.resolved(
        {
            "dataset": "x",
            "source": {"kind": "phantoms"},
            "prepare": {"fit": "crop"},
            "classify": {"members": {"a": {"architecture": f"xrv:{name}", "epochs": 0}}},
        }
    ).dump()
    member = config["classify"]["members"]["a"]
    assert member["weights"] == file.name
    mine = MemberConfig(**member)
    spec = Input(**ready.input_options(Config.model_validate(config), mine))
    taken, _ = take_ready("a", mine, spec, findings, file)
    taken.network.requires_grad_(False)
    return taken


@pytest.mark.parametrize("name", sorted(xrv.NETWORKS))
def test_the_facts_are_the_librarys(name: str) -> None:
    facts = library().models.model_urls[name]
    points = zip(facts["labels"], facts["op_threshs"], strict=True)
    assert xrv.NETWORKS[name].outputs == [n if n and np.isfinite(p) else None for n, p in points]
    assert xrv.NETWORKS[name].size == facts["input_resolution"]


@pytest.mark.parametrize("name", ["densenet121-res224-chex", "resnet50-res512-all"])
def test_logits_are_the_librarys_before_its_operating_points(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = own_network(name, tmp_path, monkeypatch)
    member = take(name, network, tmp_path, NIH)
    stored = ((pictures(2, 9, 200) / 1024 + 1) * 127.5).round().to(torch.uint8)
    scaled = np.stack([library().utils.normalize(image.numpy(), 255) for image in stored])
    with torch.no_grad():
        wanted = logits(network, member.prepare(stored))
        resized = logits(network, torch.from_numpy(scaled))  # by itself, to 224 or 512
        found = member.network(member.prepare(stored))
        told = network(member.prepare(stored))
    scale = float(wanted.abs().max())
    assert scale > 0.1 and float((resized - wanted).abs().max()) < 1e-4 * scale
    names = dict(zip(network.pathologies, wanted.T, strict=True))
    for k, theirs in ((1, "Effusion"), (2, "Lung Opacity"), (3, "Cardiomegaly"), (4, "Pneumonia")):
        assert float((found[:, k] - names[theirs]).abs().max()) < 1e-5 * max(1, scale)
    assert member.unknown == ({"No Finding"} | ({"Mass"} if "chex" in name else set()))
    # What it tells is another number: a probability, bent so that the operating point is 0.5.
    again = library().models.op_norm(torch.sigmoid(wanted), network.op_threshs)
    torch.testing.assert_close(told, again)
    ours = member.calibration.probabilities(found)[:, 1]
    assert float((ours - told[:, 7]).abs().max()) > 0.005


def test_a_picture_reaches_the_network_as_the_library_shows_it() -> None:
    """The centre square, made smaller; its resampling (Gauss, then linear) is not ours (PIL's)."""
    datasets = library().datasets
    rows, columns = np.mgrid[:500, :640]
    picture = (127 + 60 * np.sin(rows / 31) + 60 * np.cos(columns / 47)).astype(np.uint8)
    theirs = library().utils.normalize(picture, 255)[None]
    theirs = datasets.XRayResizer(224)(datasets.XRayCenterCrop()(theirs))
    square = fit_image(picture[None], 224, "crop")
    spec = Input(channels=1, size=224, mean=xrv.MEAN, std=xrv.STD)
    ours = spec.prepare(torch.from_numpy(square[None]))[0].numpy()
    assert (ours.min() >= -1024) and (ours.max() <= 1024)
    # A step of the 8 bits that are stored is 8; half of it is lost in rounding at most.
    assert np.abs(ours - theirs).mean() < 4  # of 2048; at the edges up to 66


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Member, nn.Module]:
    """A member, and the library's own network that gives its logits."""
    folder = tmp_path_factory.mktemp("xrv")
    name = "densenet121-res224-chex"
    with pytest.MonkeyPatch.context() as monkeypatch:
        network = own_network(name, folder, monkeypatch)
    member = take(name, network, folder, NIH)
    network.op_threshs = None
    del network.input_resolution  # then it takes small pictures, too
    return member, network


#: Of the member's findings and of the library's outputs.
OURS, THEIRS = [(0, 1), (0, 2), (1, 3)], [(0, 7), (0, 16), (1, 10)]


def test_the_cheaper_backward_pass_holds_for_the_librarys_network(pair: Any) -> None:
    member, network = pair
    for net in (member.network, network):
        rows = pictures(2, 5)
        frozen = FrozenNetwork(net, rows[:1])
        assert frozen.stem and frozen.folded >= 120  # functional rectifiers are seen
        logits_, leaf = frozen.forward(rows.clone())
        found = frozen.pull_back(torch.autograd.grad(logits_[:, 3].sum(), leaf)[0], rows)
        plain = rows.clone().requires_grad_()
        wanted_logits = net(plain)
        (wanted,) = torch.autograd.grad(wanted_logits[:, 3].sum(), plain)
        assert torch.equal(logits_, wanted_logits)
        assert float((found - wanted).norm() / wanted.norm()) < 1e-4


def test_maps_are_complete_by_the_librarys_logits(pair: Any) -> None:
    member, network = pair
    small = replace(member, input=replace(member.input, size=64))
    stored = ((pictures(2, 5) / 1024 + 1) * 127.5).round().to(torch.uint8)
    options = configuration.resolved({"dataset": "x", "source": {"kind": "phantoms"}}).dump()
    recipe = options["recipes"]["doll"]["attribute"]
    recipe.update(reduction="signed", smoothing=0.0, baselines=["mean"])
    recipe["adaptive"] = {
        "criterion": "completeness", "target": 0.03, "first": 16, "max_nodes": 600,
    }  # fmt: skip
    setup = Setup(channel_mean=torch.tensor([127.5]), size=64, chunk=32)
    committee = Committee([small], MapsConfig(**recipe), setup)
    found = committee.explain(stored, ["p", "q"], OURS)
    assert found.met.all() and float(found.completeness.max()) <= 0.03
    x = small.prepare(stored)
    with torch.no_grad():
        change = network(x) - network(torch.zeros_like(x))  # between black and white
    sums = (found.consensus.maps * found.consensus.scale[:, None, None]).sum((1, 2))
    for total, (image, output) in zip(sums.tolist(), THEIRS, strict=True):
        assert total == pytest.approx(float(change[image, output]), rel=0.04)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_is_the_same_on_the_librarys_network_or_refuses(
    pair: Any, method: str
) -> None:
    member, network = pair
    options = MapsConfig(method=method, side=128, window=0.5, stride=0.5)
    black = torch.full((1, 1, 64, 64), -1024.0)

    def maps(net: nn.Module, pairs: Any) -> Tensor:
        return explain(Question(net, pictures(2, 5), pairs, 4), options, [black])

    if method == "attention_rollout":
        for net in (member.network, network):
            with pytest.raises(ModelError, match="attention"):
                maps(net, OURS)
        return
    found, wanted = maps(member.network, OURS), maps(network, THEIRS)
    assert torch.isfinite(found).all() and found.abs().amax() > 0
    # Ours lies in memory channels last: sums round otherwise, and some rectifiers flip.
    assert float((found - wanted).norm() / wanted.norm()) < 0.02
