"""How much of a pre-trained decoder the doll start keeps."""

from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from dollmaker.adapt.starts import Beginning, blocks, make_network
from dollmaker.config.networks import SegmentConfig
from dollmaker.networks.inputs import Input


def test_the_last_blocks_of_a_trained_decoder_start_anew(config: dict[str, Any]) -> None:
    options = SegmentConfig(**config["segment"])
    spec = Input(channels=1, size=32)

    def network(anew: int, parts: dict[str, Any], seed: int) -> Any:
        start = Beginning(parts=parts, input=spec, sha256="", source="test")
        return make_network(start, options, ["a", "b"], seed, anew)

    def state(network: Any, part: str) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = network.get_submodule(part).state_dict()
        return tensors

    trained, fresh = network(0, {}, 7), network(0, {}, 8)
    for buffer in trained.decoder.buffers():
        buffer.fill_(3)  # statistics that differ from those of a new network
    parts = {part: state(trained, part) for part in ("encoder", "decoder")}
    names = [name for name, _ in blocks(trained.decoder)]
    assert len(names) > 2
    for anew in (0, 1, 2, 99):
        made = network(anew, parts, 8)
        new = tuple(f"{name}." for name in names[-anew:]) if anew else ()
        for name, tensor in state(made, "decoder").items():
            source = fresh if name.startswith(new) else trained
            assert torch.equal(tensor, state(source, "decoder")[name]), (anew, name)
        for name, tensor in state(made, "encoder").items():
            assert torch.equal(tensor, parts["encoder"][name])


def test_a_class_that_was_pre_trained_keeps_its_part_of_the_head(config: dict[str, Any]) -> None:
    """A start that knows the finding draws as its segmenter does; others draw by chance."""
    options, spec = SegmentConfig(**config["segment"]), Input(channels=1, size=32)
    plain = Beginning(parts={}, input=spec, sha256="", source="test")
    trained = make_network(plain, options, ["tumour", "oedema"], 7).eval()
    parts = {part: trained.get_submodule(part).state_dict() for part in ("encoder", "decoder")}
    layer: Any = trained.get_submodule("segmentation_head.0")
    layer.bias.data = torch.tensor([3.0, -2.0])  # a new head has zeros
    head = {
        name: {"weight": layer.weight[k], "bias": layer.bias[k]}
        for k, name in enumerate(("tumour", "oedema"))
    }
    start = Beginning(parts=parts, input=spec, sha256="", source="test", head=head)
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = trained(x)

    def drawn(classes: list[str], anew: int | None, **more: bool) -> Tensor:
        return make_network(start, options, classes, 8, anew, **more).eval()(x)

    for anew in (0, None):  # by itself a known head keeps the blocks under it
        assert torch.equal(drawn(["oedema", "tumour"], anew), wanted[:, [1, 0]])
    mixed = drawn(["lung", "tumour"], 0)
    assert torch.equal(mixed[:, 1], wanted[:, 0]) and not torch.equal(mixed[:, 0], wanted[:, 0])
    for strange in (drawn(["tumour"], 0, new_head=True), drawn(["tumour"], 1)):
        assert not torch.allclose(strange[:, 0], wanted[:, 0], atol=0.1)
    assert not torch.allclose(drawn(["lung", "tumour"], None)[:, 1], wanted[:, 0], atol=0.1)


@pytest.mark.parametrize(
    ("architecture", "count", "last"),
    [("Unet", 5, "blocks.4"), ("Linknet", 5, "blocks.4"), ("UnetPlusPlus", 11, "blocks.x_0_4"),
     ("FPN", 8, "seg_blocks.3"), ("DeepLabV3Plus", 3, "block2"), ("PSPNet", 2, "conv"),
     ("MAnet", 6, "blocks.4"), ("PAN", 4, "gau1")],
)  # fmt: skip
def test_the_blocks_of_a_decoder_from_coarse_to_fine(
    architecture: str, count: int, last: str
) -> None:
    model: Any = smp.create_model(architecture, "resnet18", encoder_weights=None)
    found = blocks(model.decoder)
    assert (len(found), found[-1][0]) == (count, last)
    held = sum(p.numel() for _, block in found for p in block.parameters())
    assert held == sum(p.numel() for p in model.decoder.parameters())
