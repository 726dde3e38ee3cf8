"""Two processes train what one trains; they stop, go on and die together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from classify.test_classify import make_config, make_dataset
from dollmaker.networks.training import EpochSampler, train_loader
from dollmaker.runtime import cli
from dollmaker.runtime.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parallel")
    make_dataset(path)
    return path


def words_of(output: str, processes: int, epochs: int) -> list[str]:
    """The training of a network without batch normalisation."""
    config = make_config(epochs=epochs, members={"a": {"architecture": "timm:test_vit"}})
    config["device"] = "cpu"
    config["classify"]["augment"] = "flip"
    words = ["--config", json.dumps(config), "--index", "index.parquet", "--images", "images"]
    words += ["--member", "a", "--weights-root", ".", "--output", output]
    return ["classify", *words, "--gpus", str(processes)]


def classify(folder: Path, output: str, processes: int, epochs: int = 3) -> subprocess.Popen[str]:
    """Start the training."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "dollmaker", *words_of(output, processes, epochs)],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == status, errors
    return errors


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"it ended before it said {words!r}")


def test_every_batch_is_shared_and_none_is_left_out() -> None:
    one = EpochSampler(11, 4, seed=5, processes=1, rank=0)
    two = [EpochSampler(11, 4, seed=5, processes=2, rank=rank) for rank in (0, 1)]
    for epoch in (0, 1):
        for sampler in (one, *two):
            sampler.set_epoch(epoch)
        whole, parts = list(one), [list(sampler) for sampler in two]
        assert len(whole) == len(one) == 8
        assert [len(part) for part in parts] == [len(two[0])] * 2 == [4, 4]
        for batch in (0, 1):
            together = [key for part in parts for key in part[2 * batch : 2 * batch + 2]]
            assert together == whole[4 * batch : 4 * batch + 4]


def test_batches_that_cannot_be_shared_are_refused() -> None:
    cpus = [torch.device("cpu")] * 2
    with pytest.raises(ConfigError, match="multiple of 2"):
        train_loader([0] * 9, batch_size=3, seed=0, devices=cpus)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="or use one device"):
        train_loader([0] * 5, batch_size=8, seed=0, devices=cpus)  # type: ignore[arg-type]


def test_two_processes_train_what_one_trains(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert cli.main(words_of("one", 1, epochs=3)) == 0
    told = finish(classify(folder, "two", 2))
    assert told.count("epoch 1/3") == 1, "the second process speaks, too"
    one, two = (load_file(folder / name / "model.safetensors") for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    curves = [json.loads((folder / n / "model.json").read_text())["curve"] for n in ("one", "two")]
    for left, right in zip(*curves, strict=True):
        assert left == pytest.approx(right, rel=1e-4)
    assert not list(folder.glob(".two*"))


@pytest.mark.slow
def test_two_processes_stop_and_go_on_together(folder: Path) -> None:
    finish(classify(folder, "whole", 2, epochs=12))
    process = classify(folder, "stopped", 2, epochs=12)
    wait_for(process, "epoch 2/12")
    process.send_signal(signal.SIGTERM)
    finish(process, 143)
    assert list(folder.glob(".stopped-*.work/state-*.ckpt"))
    finish(classify(folder, "stopped", 2, epochs=12))
    for name in ("model.safetensors", "predictions.parquet", "model.json"):
        assert (folder / "stopped" / name).read_bytes() == (folder / "whole" / name).read_bytes()


@pytest.mark.slow
def test_no_process_outlives_the_first(folder: Path) -> None:
    process = classify(folder, "killed", 2, epochs=500)
    wait_for(process, "epoch 2/500")
    others = below(process.pid)
    assert others
    process.kill()
    process.wait()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in others):
            return
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError("a process was left alone")


def below(pid: int) -> list[int]:
    """Children of a process."""
    found = (Path(f"/proc/{pid}/task") / str(pid) / "children").read_text()
    return [int(word) for word in found.split()]
