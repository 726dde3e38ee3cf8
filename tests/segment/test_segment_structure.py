"""Clusters of an encoder's features: they find regions, and a segmenter learns them on the side."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file, save_file
from segment_network import NETWORK
from torch import Tensor, nn

from dollmaker.config.networks import SegmentConfig
from dollmaker.config.settings import resolved
from dollmaker.networks.frames import Frames
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import create, narrow
from dollmaker.runtime.errors import ModelError
from dollmaker.segment import stage
from dollmaker.segment.structure import Structure, make_structure
from dollmaker.segment.train import SegmenterTraining

OPTIONS = SegmentConfig(**NETWORK)
SPEC = Input(channels=1, size=64)
WHOLE = [(0, 0, 64, 64)]


class Pyramid(nn.Module):
    """An encoder that sees brightness and contrast at strides 1, 4 and 8."""

    def forward(self, x: Tensor) -> list[Tensor]:
        rough = (x - nn.functional.avg_pool2d(x, 3, 1, 1)).abs()
        both = torch.cat([x, 5 * rough, torch.ones_like(x)], 1)
        return [both, *(nn.functional.avg_pool2d(both, stride) for stride in (4, 8))]


def scenes(count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Dark, bright and rough regions whose borders move from image to image."""
    rng = np.random.default_rng(0)
    images, regions = [], []
    for _ in range(count):
        left, top = rng.integers(20, 44, 2)
        region = np.zeros((64, 64), int)
        region[:, left:] = 1
        region[top:, :left] = 2
        image = np.choose(region, [30.0, 220.0, 110.0])
        image += (region == 2) * rng.choice([-60.0, 60.0], (64, 64))
        images.append(image[None].astype(np.uint8))
        regions.append(region)
    return np.stack(images), np.stack(regions)


def test_clusters_are_the_regions_of_the_images() -> None:
    images, regions = scenes()
    structure = make_structure(Pyramid(), torch.from_numpy(images), WHOLE * 12, SPEC, 3, 0)
    found = structure(SPEC.prepare(torch.from_numpy(images))).numpy()
    assert found.shape == (12, 64, 64)
    pure = sum(max((found[regions == r] == k).sum() for k in range(3)) for r in range(3))
    assert pure / found.size > 0.9
    best = [np.bincount(found[regions == r]).argmax() for r in range(3)]
    assert sorted(best) == [0, 1, 2]


def test_clusters_are_found_from_what_is_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def places(_: Structure, x: Tensor) -> Tensor:
        """Row and column of each of 16 x 16 cells."""
        return torch.stack(torch.meshgrid([torch.arange(16.0)] * 2, indexing="ij"))[None].expand(
            len(x), -1, -1, -1
        )

    monkeypatch.setattr(Structure, "features", places)
    images = np.zeros((40, 1, 64, 64), np.uint8)
    boxes = [(0, 20, 64, 44)] * 33 + [(8, 0, 24, 64)] * 7  # over two batches
    structure = make_structure(Pyramid(), torch.from_numpy(images), boxes, SPEC, 2, 0)
    wide = [(row, column) for row in range(5, 11) for column in range(16)]
    high = [(row, column) for row in range(16) for column in range(2, 6)]
    expected = np.mean(wide * 33 + high * 7, axis=0)
    np.testing.assert_allclose(structure.mean.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("where", "rows", "columns"),
    [
        ((0, 0, 64, 64), range(16), range(16)),
        ((0, 20, 64, 44), range(5, 11), range(16)),  # centres at 22, 26 ... 42
        ((3, 0, 61, 64), range(16), range(1, 15)),  # centres at 6 ... 58
        ((2, 0, 63, 64), range(16), range(16)),  # the centre at 2 is inside
    ],
)
def test_cells_count_by_their_centres(where: Any, rows: Any, columns: Any) -> None:
    expected = np.zeros((16, 16), bool)
    expected[np.ix_(list(rows), list(columns))] = True
    left, top, right, bottom = Frames((where,), 64).cells(0, (16, 16))
    found = np.zeros((16, 16), bool)
    found[top:bottom, left:right] = True
    np.testing.assert_array_equal(found, expected)


def test_the_same_seed_gives_the_same_clusters() -> None:
    images, _ = scenes(6)
    make = [
        make_structure(Pyramid(), torch.from_numpy(images), WHOLE * 6, SPEC, 4, seed)
        for seed in (1, 1, 2)
    ]
    first, same, other = (structure.centres for structure in make)
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_the_teacher_is_a_frozen_copy() -> None:
    model = create(OPTIONS, channels=1, classes=1, size=64, seed=0)
    encoder = model.get_submodule("encoder")
    teacher = Structure(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1)
    theirs = dict(encoder.named_parameters())
    assert all(not torch.equal(p, theirs[name]) for name, p in teacher.encoder.named_parameters())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.train().training and not teacher.encoder.training


def test_a_narrowed_network_has_the_first_outputs() -> None:
    wide = create(OPTIONS, channels=1, classes=7, size=32, seed=3).eval()
    slim = narrow(wide, OPTIONS, channels=1, classes=2, size=32).eval()
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(slim(x), wide(x)[:, :2])


def start(world: Path) -> str:
    """A weights file of the network's encoder."""
    encoder = create(OPTIONS, channels=1, classes=1, size=32, seed=5).get_submodule("encoder")
    state = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    (world / "weights").mkdir(exist_ok=True)
    save_file(state, world / "weights/start.safetensors")
    return "start.safetensors"


def train(config: dict[str, Any], world: Path, output: str) -> Path:
    inputs = stage.Inputs(
        index=world / "index.parquet",
        images=world / "images",
        labels=world / "labels",
        weights_root=world / "weights",
    )
    stage.train_segmenter(resolved(config), inputs, world / output)
    return world / output


def test_structure_and_labels_are_learned_beside_the_masks(
    config: dict[str, Any], world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SegmenterTraining] = []
    step = SegmenterTraining.training_step

    def spy(self: SegmenterTraining, batch: Any, number: int) -> Any:
        seen.append(self)
        return step(self, batch, number)

    monkeypatch.setattr(SegmenterTraining, "training_step", spy)
    objectives = {"masks": 1, "structure": 1, "classification": 1}
    config["segment"].update(init=start(world), objectives=objectives, clusters=3, epochs=6)
    config["segment"].update(learning_rate=0.01)
    folder = train(config, world, "both")
    description = json.loads((folder / "segmenter.json").read_text())
    assert description["findings"] == ["Bright", "Dark"]
    model = smp.from_pretrained(folder).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 2, 32, 32)
    curve = [point["loss"] for point in description["curve"]]
    assert curve[-1] < curve[0]
    assert seen[0].structure is not None and seen[0].classifier is not None
    assert not torch.equal(seen[0].classifier.bias.detach(), torch.zeros(2))
    assert not any(name.startswith(("structure", "classifier")) for name in model.state_dict())

    config["segment"]["objectives"] = {"masks": 1, "structure": 0, "classification": 0}
    alone = load_file(train(config, world, "alone") / "model.safetensors")
    together = load_file(folder / "model.safetensors")
    assert set(alone) == set(together)
    assert not torch.equal(
        alone["decoder.blocks.0.conv1.0.weight"], together["decoder.blocks.0.conv1.0.weight"]
    )


def test_structure_of_a_random_encoder_is_refused(config: dict[str, Any], world: Path) -> None:
    config["segment"]["objectives"]["structure"] = 1
    with pytest.raises(ModelError, match="learned something"):
        train(config, world, "segmenter")
