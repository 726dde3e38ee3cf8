"""Looks at networks before the run: what they refuse, by name, and what they remember."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dollmaker.config import settings as config
from dollmaker.config.whole import Config
from dollmaker.launch import network_checks
from dollmaker.launch.network_checks import NetworkCheck, run_checks
from dollmaker.networks.classifiers import create_network
from dollmaker.runtime.errors import ModelError

UNET = {"encoder": "tu-test_resnet", "arguments": {"decoder_channels": [16, 16, 8, 8, 8]}}
LINKNET = {"architecture": "Linknet", "encoder": "tu-test_resnet"}
SMALL = {"members": {"a": {"architecture": "timm:test_resnet"}}}


def resolved(**changes: Any) -> Config:
    plain = {"dataset": "x", "source": {"kind": "phantoms"}, "prepare": {"size": 32}}
    return config.resolved({**plain, "classify": SMALL, "segment": UNET, **changes})


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "kept/network_checks.json"


def members(memory: Path, images: int | None = None, **classify: Any) -> None:
    given = {**SMALL, **classify.pop("classify", {})}
    run_checks(network_checks.of_members(resolved(classify=given, **classify), 3, images), memory)


def segmenter(memory: Path, images: int | None = None, **changes: Any) -> None:
    run_checks([network_checks.of_segmenter("segment", resolved(**changes), 2, images)], memory)


def tuning(memory: Path, init: str, what: str, **changes: Any) -> None:
    run_checks([network_checks.of_tuning("adapt.runs r", resolved(**changes), init, what)], memory)


def test_what_works_passes(memory: Path) -> None:
    members(memory, images=1, classify={"batch_size": 1}, prepare={"size": 64})
    segmenter(memory, segment={**UNET, "init": "a"})
    tuning(memory, "classifier", "adapter", adapt={"batch_size": 2})


@pytest.mark.parametrize(
    ("member", "size", "said"),
    [
        ({"architecture": "resnet999"}, 32, r"members\.b: unknown architecture 'resnet999'; did"),
        ({"architecture": "torchvision:alexnet"}, 32, r"members\.b: torchvision:alexnet does not"),
        ({"architecture": "timm:test_vit"}, 56, r"members\.b: timm:test_vit does not .* 56 pixels"),
    ],
)
def test_a_member_is_named(member: Any, size: int, said: str, memory: Path) -> None:
    both = {"members": {**SMALL["members"], "b": member}}
    with pytest.raises(ModelError, match=said):
        members(memory, classify=both, prepare={"size": size})


@pytest.mark.parametrize(
    ("member", "images", "batch", "fails"),
    [
        ({}, None, 1, True),
        ({}, 1, 8, True),
        ({}, 2, 8, False),
        ({"linear_probe": True}, 1, 1, False),
    ],
)
def test_a_member_that_learns_from_single_images(
    member: Any, images: int | None, batch: int, fails: bool, memory: Path
) -> None:
    one = {"architecture": "timm:test_resnet", **member}
    given: Any = {"members": {"a": one}, "batch_size": batch}
    if fails:
        with pytest.raises(ModelError, match=r"members\.a: timm:test_resnet at .* set classify\."):
            members(memory, images, classify=given)
    else:
        members(memory, images, classify=given)


def write(path: Path, **changes: Any) -> None:
    options = {"architecture": "timm:test_resnet", "outputs": 5, "channels": 3, **changes}
    network, _ = create_network(**options, size=32)
    save_file(network.state_dict(), path)


def test_weights_of_another_network_are_refused(memory: Path, tmp_path: Path) -> None:
    write(tmp_path / "w.st")
    member = {"architecture": "timm:test_resnet", "weights": "w.st"}
    given: Any = {"classify": {"members": {"a": member}}, "weights_root": str(tmp_path)}
    members(memory, **given)
    write(tmp_path / "w.st", architecture="timm:test_vit")
    with pytest.raises(ModelError, match=r"members\.a: weights file .*w\.st does not fit the netw"):
        members(memory, **given)
    start = {**UNET, "init": "w.st"}
    with pytest.raises(ModelError, match=r"segment: weights file .*w\.st does not fit"):
        segmenter(memory, segment=start, weights_root=str(tmp_path))
    adapt = {"imagenet": "w.st"}
    with pytest.raises(ModelError, match=r"adapt\.runs r: weights file .* does not fit"):
        tuning(memory, "imagenet", "full", adapt=adapt, weights_root=str(tmp_path))
    tuning(memory, "random", "full", adapt=adapt, weights_root=str(tmp_path))


def test_a_member_that_is_no_start_of_the_encoder(memory: Path) -> None:
    given: Any = {"segment": {"encoder": "resnet18", "init": "a"}}
    with pytest.raises(ModelError, match=r"committee member a \(timm:test_resnet\) does not fit"):
        segmenter(memory, **given)
    with pytest.raises(ModelError, match="committee member a"):
        tuning(memory, "classifier", "full", **given)


@pytest.mark.parametrize(
    ("segment", "size", "said"),
    [
        (LINKNET, 40, "segment: Linknet with encoder tu-test_resnet does not take .* 40 pixels"),
        ({"encoder": "resnet9"}, 32, "segment: unknown encoder 'resnet9'; did you mean resnet"),
        ({"architecture": "Vnet"}, 32, "segment: unknown architecture 'Vnet'"),
    ],
)
def test_a_segmenter_is_named(segment: Any, size: int, said: str, memory: Path) -> None:
    with pytest.raises(ModelError, match=said):
        segmenter(memory, segment=segment, prepare={"size": size})
    names = network_checks.of_names(resolved(segment=segment))
    if size == 32:
        with pytest.raises(ModelError, match=said):
            run_checks(names, memory)
    else:
        run_checks(names, memory)


def test_single_images_and_the_parts_that_learn(memory: Path) -> None:
    upernet: Any = {"segment": {"architecture": "UPerNet", "encoder": "tu-test_resnet"}}
    title = "UPerNet with encoder tu-test_resnet"
    with pytest.raises(ModelError, match=rf"segment: {title} cannot .* set segment\.batch_size"):
        segmenter(memory, images=1, **upernet)
    segmenter(memory, images=2, **upernet)
    one = {"batch_size": 1}
    with pytest.raises(ModelError, match=rf"adapt\.runs r: {title} cannot .*\(adapt\.n may be 1"):
        tuning(memory, "random", "decoder", adapt=one, **upernet)
    tuning(memory, "random", "head", adapt=one, **upernet)
    tuning(memory, "random", "decoder", adapt={"batch_size": 2}, **upernet)


def counted(calls: list[Any]) -> Any:
    def check(settings: dict[str, Any]) -> None:
        calls.append(settings)
        if settings.get("bad"):
            raise ModelError("it is bad.")

    return check


def test_what_passed_is_not_looked_at_again(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    good, bad = (
        NetworkCheck(place=name, check=counted(calls), settings={name: True})
        for name in ("good", "bad")
    )
    for _ in range(2):
        with pytest.raises(ModelError, match="bad: it is bad"):
            run_checks([good, bad], memory)
    assert calls == [{"good": True}, {"bad": True}, {"bad": True}]
    run_checks([good], memory)
    monkeypatch.setattr(network_checks, "_base", lambda: ["other libraries"])
    run_checks([good], memory)
    assert len(calls) == 4


@pytest.mark.parametrize("content", ["", "{", "3", '{"a": 1}', "[1, null]", "[" * 5000, "\udce4"])
def test_a_damaged_memory_counts_as_empty(content: str, memory: Path) -> None:
    memory.parent.mkdir()
    memory.write_text(content, encoding="utf-8", errors="surrogateescape")
    calls: list[Any] = []
    good = NetworkCheck(place="good", check=counted(calls), settings={})
    run_checks([good], memory)
    run_checks([good], memory)
    assert len(calls) == 1 and len(json.loads(memory.read_text())) == 1


def test_a_memory_that_cannot_be_written_and_libraries_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    calls: list[Any] = []
    good = NetworkCheck(place="good", check=counted(calls), settings={})
    run_checks([good], tmp_path / "file/network_checks.json")
    assert len(calls) == 1
    monkeypatch.setitem(network_checks._LIBRARIES, "no_such_library", "torch")
    run_checks([good], tmp_path / "network_checks.json")
    assert len(calls) == 1 and not (tmp_path / "network_checks.json").exists()


def test_what_is_remembered_loads_no_library(memory: Path) -> None:
    import subprocess

    wanted = "network_checks.of_members(c, 3, None)"
    code = (
        "import sys; from pathlib import Path; from dollmaker.config import settings; "
        "from dollmaker.launch import network_checks; c = settings.loaded(sys.argv[1]); "
        f"network_checks.run_checks({wanted}, Path(sys.argv[2])); "
        "print('torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, json.dumps(resolved().dump()), str(memory)]
    members(memory)
    assert torch.get_default_device().type == "cpu"
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
