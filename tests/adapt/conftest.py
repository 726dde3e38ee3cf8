"""A small task: bright squares (class 1) and dark discs (class 2), 2 = ignore in the masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dollmaker.config.settings import resolved


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
