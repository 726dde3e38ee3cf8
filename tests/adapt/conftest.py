"""A small task: bright squares (class 1) and dark discs (class 2), 2 = ignore in the masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from dollmaker.config.networks import SegmentConfig
from dollmaker.config.settings import resolved
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import create
from dollmaker.segment.stage import save
from dollmaker.store.files import write_json


@pytest.fixture
def config() -> dict[str, Any]:
    """A configuration with a network that trains in seconds."""
    return resolved(
        {
            "dataset": "fake",
            "source": {"kind": "phantoms"},
            "device": "cpu",
            "prepare": {"size": 32, "channels": 1},
            "segment": {
                "encoder": "tu-test_efficientnet",
                "arguments": {"decoder_channels": [16, 16, 8, 8, 8]},
            },
            "tasks": {
                "squares": {
                    "table": "task/table.csv",
                    "images": "task/images",
                    "masks": "task/masks",
                    "image_column": "image",
                    "mask_column": "mask",
                    "patient_column": "patient",
                    "classes": {"bright": [1], "dark": [3]},
                    "ignore": 2,
                    "valid": 0.2,
                    "test": 0.3,
                }
            },
            "adapt": {"n": [3, "all"], "seeds": 2, "steps": 4, "evaluations": 2, "batch_size": 4},
        }
    ).dump()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folder with the task's 24 images of 48 x 40 pixels, two for each patient."""
    rng = np.random.default_rng(1)
    for name in ("images", "masks"):
        (tmp_path / "task" / name).mkdir(parents=True)
    lines = ["image,mask,patient"]
    for i in range(24):
        image = rng.integers(110, 130, (40, 48)).astype(np.uint8)
        mask = np.zeros((40, 48), np.uint8)
        top, left = rng.integers(2, 20, 2)
        image[top : top + 14, left : left + 14] = 230
        mask[top : top + 14, left : left + 14] = 1
        image[30:38, 34:44] = 20
        mask[30:38, 34:44] = 3
        mask[0, :5] = 2
        Image.fromarray(image).save(tmp_path / "task" / "images" / f"case{i:02d}.png")
        Image.fromarray(mask).save(tmp_path / "task" / "masks" / f"case{i:02d}.png")
        lines.append(f"case{i:02d}.png,case{i:02d}.png,patient{i // 2}")
    lines.append("unlabelled.png,,patient99")
    (tmp_path / "task" / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def starts(config: dict[str, Any], root: Path) -> Path:
    """The root with a segmenter of three findings, a committee member and a weights file."""
    options = SegmentConfig(**config["segment"])
    model = create(options, channels=1, classes=3, size=32, seed=77)
    (root / "segmenter").mkdir()
    spec = Input(channels=1, size=32, mean=0.4, std=0.3)
    save(root / "segmenter", model, options, ["A", "B", "C"], spec, header={})
    encoder = create(options, channels=3, classes=1, size=32, seed=78).get_submodule("encoder")
    state = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(state, root / "imagenet.safetensors")
    (root / "member0").mkdir()
    save_file(state, root / "member0" / "model.safetensors")
    theirs = {"channels": 3, "size": 32, "mean": 0.2, "std": 0.1}
    write_json(root / "member0" / "model.json", {"architecture": "timm:x", "input": theirs})
    config["adapt"]["imagenet"] = "imagenet.safetensors"
    return root
