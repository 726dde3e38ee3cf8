"""SIGTERM: the state is written after the step, the run goes on inside the epoch."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from attribute.test_attribute import explain
from classify.test_classify import make_config, make_dataset, train
from dollmaker.attribute import stage as attribute_stage
from dollmaker.classify.train import ClassifierTraining
from dollmaker.runtime import cli
from dollmaker.runtime.stopping import STOPPED, Terminated, on_sigterm
from faults.watch import stop_and_watch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stopping")
    make_dataset(path)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def flipping(folder: Path) -> dict[str, Any]:
    """A configuration with augmentation; its member is ``whole``."""
    config = make_config(epochs=3)
    config["classify"]["augment"] = "flip"
    train(config, folder, "whole")
    return config


@pytest.mark.parametrize("at", [(0, 0), (1, 1)])
def test_a_classifier_goes_on_inside_the_epoch_with_the_same_bytes(
    folder: Path, flipping: dict[str, Any], monkeypatch: pytest.MonkeyPatch, at: tuple[int, int]
) -> None:
    seen = stop_and_watch(monkeypatch, ClassifierTraining, at)
    name = f"stopped{at[0]}"
    with pytest.raises(Terminated):
        train(flipping, folder, name)
    assert seen[-1] == at, "it went on after the step"
    assert list(folder.glob(f".{name}-*.work/state-*.ckpt"))
    steps = len(seen)
    train(flipping, folder, name)
    assert seen[steps] == (at[0], at[1] + 1), "a step was repeated or left out"
    assert content(folder / name) == content(folder / "whole")
    assert not list(folder.glob(f".{name}*"))


def test_a_damaged_state_is_left_for_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(epochs=4)
    train(config, folder, "sound")
    seen = stop_and_watch(monkeypatch, ClassifierTraining, (2, 0))
    with pytest.raises(Terminated):
        train(config, folder, "damaged")
    newest = max(folder.glob(".damaged-*.work/state-*.ckpt"))
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    steps = len(seen)
    train(config, folder, "damaged")
    assert seen[steps] == (2, 0), "more than the last epoch was repeated"
    assert content(folder / "damaged") == content(folder / "sound")


def test_an_explanation_leaves_its_blocks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(epochs=1)
    train(config, folder, "m")
    monkeypatch.setitem(attribute_stage.BLOCK, "cpu", 8)
    whole = explain(config, folder, [folder / "m"], "whole.h5").read_bytes()
    real, blocks = attribute_stage._explain_block, []

    def stops(*arguments: Any) -> Any:
        blocks.append(len(arguments[1]))
        if len(blocks) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(attribute_stage, "_explain_block", stops)
    with pytest.raises(Terminated), on_sigterm():
        explain(config, folder, [folder / "m"], "stopped.h5")
    (work,) = folder.glob(".stopped.h5-*.work")
    assert len(list(work.glob("*.h5"))) == 3
    assert explain(config, folder, [folder / "m"], "stopped.h5").read_bytes() == whole
    assert len(blocks) == 4 + 3


def test_the_command_says_so_and_exits_143(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dollmaker.release import verify

    def stopped(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(verify, "require_whole", stopped)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["verify", "absent"]) == STOPPED
    assert "stopped by SIGTERM" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_process_leaves_no_part_behind(tmp_path: Path) -> None:
    """Also when what reads its words was stopped first, as in ``2>&1 | tee``."""
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from dollmaker.store.files import atomic_path\nfrom dollmaker.release import verify\n"
        "from dollmaker.runtime import cli\n"
        "def run(*_, **__):\n"
        f"    with atomic_path(Path({str(tmp_path)!r}) / 'out') as part:\n"
        "        part.write_text('half')\n        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "verify.require_whole = run\nsys.exit(cli.main(['verify', 'absent']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.stderr.close()
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    assert process.wait(timeout=30) == STOPPED
    assert time.monotonic() - started < 30
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []
