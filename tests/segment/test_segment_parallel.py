"""Two processes pre-train the segmenter that one pre-trains."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dollmaker.config.networks import SegmentConfig
from dollmaker.networks.segmenters import create

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_train_the_segmenter_that_one_trains(
    config: dict[str, Any], world: Path
) -> None:
    # Without batch normalisation, whose statistics are each process's own on CPUs.
    config["segment"]["arguments"]["decoder_use_norm"] = False
    model = create(SegmentConfig(**config["segment"]), channels=1, classes=1, size=32, seed=5)
    encoder = model.get_submodule("encoder").state_dict()
    save_file({name: each.contiguous() for name, each in encoder.items()}, world / "w.safetensors")
    config["segment"].update(init="w.safetensors", freeze_batch_norm=True)
    config["segment"]["objectives"]["classification"] = 0.5
    models = []
    for processes in (1, 2):
        words = ["--config", json.dumps(config), "--index", "index.parquet", "--images", "images"]
        words += ["--labels", "labels", "--weights-root", ".", "--output", f"with{processes}"]
        subprocess.run(
            [sys.executable, "-m", "dollmaker", "segment", *words, "--gpus", str(processes)],
            cwd=world,
            env={**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"},
            check=True,
        )
        models.append(load_file(world / f"with{processes}" / "model.safetensors"))
    for name, tensor in models[0].items():
        torch.testing.assert_close(models[1][name], tensor, rtol=1e-3, atol=5e-4)
