"""The notebook runs from its first cell to its last."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image

from release.small_release import FINDINGS, build

NOTEBOOK = Path(__file__).parents[2] / "docs/notebooks/release.ipynb"


@pytest.mark.slow
def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "results/phantoms"
    results.mkdir(parents=True)
    build(tmp_path / "made").rename(results / "release")
    for number in range(12):
        path = results / f"phantoms/a/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30), 20 * number, np.uint8)).save(path)
    network = smp.Unet(
        "tu-test_resnet", 3, None, decoder_channels=(16, 8, 8), in_channels=1, classes=len(FINDINGS)
    )
    network.save_pretrained(results / "release/models/segmenter")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    losses = torch.stack(names["losses"])
    assert len(losses) > 0 and torch.isfinite(losses).all()
