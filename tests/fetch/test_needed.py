"""Before the first job: named weights are there, can be had, or one sentence says what to do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dollmaker.config import settings as configuration
from dollmaker.config.whole import Config
from dollmaker.fetch import lock, needed, originals
from dollmaker.fetch.stage import fetch
from dollmaker.launch import preflight
from dollmaker.runtime.errors import ModelError
from fetch.conftest import point_at
from fetch.hub import NAME, REPO, Hub, serving, weights
from snakemake_here import ROOT, snakemake

MEMBER = {"architecture": "timm:test_resnet", "weights": NAME}
FILE = "timm--test_resnet.r160_in1k.safetensors"


def resolved(**member: Any) -> Config:
    members = {"a": {**MEMBER, **member}}
    given = {"dataset": "x", "source": {"kind": "phantoms"}, "classify": {"members": members}}
    return configuration.resolved({**given, "prepare": {"size": 32}})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that configurations name by default."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    return Path("weights")


def look() -> None:
    needed.require_weights(needed.of_config(resolved()), Path("weights"))


def test_what_can_be_reached_passes_and_nothing_is_fetched_yet(hub: Hub, root: Path) -> None:
    look()
    assert {method for method, path in hub.asked if "resolve" in path} == {"HEAD"}
    assert list(root.iterdir()) == []


def test_an_older_repository_has_a_pickle_only(hub: Hub, root: Path) -> None:
    hub.files[f"{REPO}/pytorch_model.bin"] = hub.files.pop(f"{REPO}/model.safetensors")
    look()
    hub.files.clear()
    with pytest.raises(ModelError, match=r"^classify\.members\.a\.weights: .*status 404"):
        look()


def test_what_is_in_the_cache_or_put_by_hand_needs_no_network(
    hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(NAME, root).unlink()
    hub.asked.clear()
    look()
    shutil.rmtree(Path("cache"))
    (root / "timm--test_resnet.r160_in1k").mkdir()
    (root / "timm--test_resnet.r160_in1k/model.safetensors").write_bytes(weights())
    look()
    assert hub.asked == []


def test_without_network_and_file_one_sentence_says_what_to_do(nowhere: None, root: Path) -> None:
    with pytest.raises(ModelError) as caught:
        preflight.preflight(resolved())
    said = str(caught.value)
    assert said.startswith("classify.members.a.weights: the weights timm:test_resnet.r160_in1k ")
    place = "weights/timm--test_resnet.r160_in1k/model.safetensors"
    assert f"{REPO}/resolve/main/model.safetensors at {place}, or run" in said
    assert "\n" not in said and not Path("results").exists()


def test_a_server_that_keeps_silent_is_not_waited_for(
    hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(originals, "_FIRST_WORD", 0.3)
    hub.silent = 1
    with pytest.raises(
        ModelError, match=r"cannot be fetched from here \(.*timed out.*\); put http"
    ):
        look()


def test_a_file_that_is_not_the_locks_is_refused(hub: Hub, root: Path) -> None:
    file = fetch(NAME, root)
    look()
    os.utime(file, (1, 1))
    look()
    file.write_bytes(weights(seed=1))
    with pytest.raises(ModelError, match=r"^classify\.members\.a\.weights: .*get the noted file"):
        look()
    (root / lock.LOCK).unlink()
    look()


def test_a_look_at_what_is_there_loads_no_library(hub: Hub, root: Path) -> None:
    fetch(NAME, root)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dollmaker.config.settings import loaded\n"
        "from dollmaker.fetch import needed\n"
        "needed.require_weights(needed.of_config(loaded(sys.argv[1])), Path('weights'))\n"
        "assert not {'timm', 'torch', 'torchvision', 'huggingface_hub'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(resolved().dump())], check=True)


def test_a_run_fetches_once_and_needs_no_network_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(url: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Call Snakemake with the Hub at an address, for itself and for its jobs."""
        point_at(url, tmp_path, monkeypatch)
        places = {"HF_ENDPOINT": url, "HF_HOME": f"{tmp_path}/home", "HF_HUB_DISABLE_XET": "1"}
        for name, value in places.items():
            monkeypatch.setenv(name, value)
        return snakemake(tmp_path, *words, "--cores", "2", "--configfile", "c.yaml")

    settings = yaml.safe_load((ROOT / "tests/micro.yaml").read_text())
    settings["classify"]["members"] = {"a": {**MEMBER, "weights": "pretrained"}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    target = "weights/pretrained--timm--test_resnet.safetensors"
    none = run("http://127.0.0.1:9", target)
    assert none.returncode == 1 and not (tmp_path / "results").exists()
    (said,) = [line for line in none.stderr.splitlines() if line.startswith("dollmaker: error: ")]
    assert "put http://127.0.0.1:9/timm/test_resnet.r160_in1k/resolve/main/model" in said
    with serving() as hub:
        hub.files[f"{REPO}/model.safetensors"] = weights()
        done = run(hub.url, target)
        assert done.returncode == 0, done.stderr[-3000:]
    assert "localrule fetch_weights" in done.stdout + done.stderr
    noted = yaml.safe_load((tmp_path / "weights/weights.lock.yaml").read_text())
    assert noted["pretrained:timm:test_resnet"]["weights"] == NAME
    member = run("http://127.0.0.1:9", "results/micro/committee/a", "-n")
    assert member.returncode == 0 and "train_member" in member.stdout
    assert "fetch_weights" not in member.stdout
    (tmp_path / target).write_bytes(weights(seed=1))
    other = run("http://127.0.0.1:9", target)
    assert other.returncode == 1 and "get the noted file again" in other.stderr
