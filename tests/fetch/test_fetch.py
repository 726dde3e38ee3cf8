"""Weights are fetched by the libraries, from a server on loopback that also misbehaves."""

import hashlib
import io
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from safetensors.torch import load, save

from dollmaker.fetch import libraries, lock
from dollmaker.fetch.stage import fetch
from dollmaker.networks.weights import Normalisation, read_normalisation, read_weights
from dollmaker.runtime import cli
from dollmaker.runtime.errors import ModelError
from fetch.hub import COMMIT, NAME, REPO, Hub, weights

FILE = f"{REPO}/model.safetensors"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def entry(root: Path, name: str = NAME) -> dict[str, str]:
    return dict(yaml.safe_load((root / lock.LOCK).read_text())[name])


def test_weights_of_timm_come_with_all_that_is_known_of_them(hub: Hub, root: Path) -> None:
    file = fetch(NAME, root)
    assert file == root / "timm--test_resnet.r160_in1k.safetensors"
    state, theirs = read_weights(file), load(hub.files[FILE])
    assert state.keys() == theirs.keys()
    assert all(torch.equal(state[key], theirs[key]) for key in theirs)
    assert read_normalisation(file) == Normalisation(mean=(0.5,) * 3, std=(0.5,) * 3)
    assert entry(root) == {
        "weights": NAME,
        "revision": COMMIT,
        "licence": "apache-2.0",
        "url": f"{hub.url}/{REPO}/resolve/{COMMIT}/model.safetensors",
        "original_sha256": hashlib.sha256(hub.files[FILE]).hexdigest(),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def test_the_same_weights_have_the_same_bytes_and_are_not_fetched_twice(
    hub: Hub, root: Path
) -> None:
    first = fetch(NAME, root).read_bytes()
    hub.asked.clear()
    fetch(NAME, root)
    (root / "timm--test_resnet.r160_in1k.safetensors").unlink()
    assert fetch(NAME, root).read_bytes() == first
    assert not [path for method, path in hub.asked if method == "GET"]


def test_the_default_is_that_of_the_library_and_stays_what_the_lock_says(
    hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "pretrained:timm:test_resnet"
    file = fetch(name, root)
    assert entry(root, name)["weights"] == NAME
    first = file.read_bytes()
    file.unlink()
    later = {**libraries._DESCRIBE, "pretrained": lambda _: pytest.fail("asked for its default")}
    monkeypatch.setattr(libraries, "_DESCRIBE", later)
    assert fetch(name, root).read_bytes() == first


def test_weights_of_the_same_name_that_changed_are_refused(hub: Hub, root: Path) -> None:
    file = fetch(NAME, root)
    before = entry(root)
    file.unlink()
    shutil.rmtree(root.parent / "cache")
    hub.files[FILE] = weights(seed=1)
    with pytest.raises(ModelError, match=r"have the SHA-256 .*weights\.lock\.yaml notes .*delete"):
        fetch(NAME, root)
    assert not file.exists() and entry(root) == before
    (root / lock.LOCK).unlink()
    fetch(NAME, root)
    assert entry(root)["sha256"] != before["sha256"]


def test_a_file_that_was_exchanged_is_refused(hub: Hub, root: Path) -> None:
    file = fetch(NAME, root)
    file.write_bytes(weights(seed=2))
    with pytest.raises(ModelError, match=r"get the noted file again, or delete its entry"):
        fetch(NAME, root)
    (root / lock.LOCK).unlink()
    fetch(NAME, root)  # copied without its lock: taken as it is
    assert entry(root) == {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def test_a_truncated_file_is_refused_and_fetched_again(hub: Hub, root: Path) -> None:
    hub.short.add(FILE)
    with pytest.raises(ModelError, match=r"came incomplete from http.*fetch it again\.$"):
        fetch(NAME, root)
    assert list(root.iterdir()) == []
    hub.short.clear()
    assert fetch(NAME, root).is_file()


def test_a_damaged_file_of_the_cache_is_refused_and_fetched_again(hub: Hub, root: Path) -> None:
    fetch(NAME, root).unlink()
    (blob,) = (root.parent / "cache/hub").glob("models--*/blobs/*")
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(ModelError, match=r"is incomplete or another than .*SHA-256.*get it again"):
        fetch(NAME, root)
    assert fetch(NAME, root).is_file()


def test_what_is_not_there_is_said(hub: Hub, root: Path) -> None:
    hub.files.clear()
    with pytest.raises(ModelError, match=r"are not there \(.*status 404\); correct the name"):
        fetch(NAME, root)
    with pytest.raises(ModelError, match=r"status 404\); correct the name"):
        fetch("hf:someone/net@v9", root)
    hub.closed.add("someone/net/model.safetensors")
    with pytest.raises(ModelError, match=r"are not given to everybody.*hf auth login"):
        fetch("hf:someone/net", root)


def test_a_slow_answer_is_waited_for(hub: Hub, root: Path) -> None:
    hub.slow["GET", FILE] = 1.6  # longer than one attempt waits
    assert fetch(NAME, root).is_file()
    assert [call for call in hub.asked if call[0] == "GET" and call[1].endswith(".safetensors")][1:]


def test_a_file_put_by_hand_needs_no_network(nowhere: None, root: Path) -> None:
    place = root / "timm--test_resnet.r160_in1k/model.safetensors"
    place.parent.mkdir()
    place.write_bytes(weights())
    assert fetch(NAME, root).is_file()
    assert "revision" not in entry(root)
    place.write_bytes(weights()[:-9])
    (root / "timm--test_resnet.r160_in1k.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be read as weights"):
        fetch(NAME, root)
    assert place.is_file()  # it is not ours to remove


def test_a_file_put_by_hand_has_the_bytes_of_a_fetched_one(
    hub: Hub, root: Path, tmp_path: Path
) -> None:
    fetched = fetch(NAME, root).read_bytes()
    other = tmp_path / "other"
    place = other / "timm--test_resnet.r160_in1k/model.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(weights())
    shutil.copy(root / lock.LOCK, other)
    hub.asked.clear()
    assert fetch(NAME, other).read_bytes() == fetched and hub.asked == []
    assert entry(other)["revision"] == COMMIT


def pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("exploded"),)  # type: ignore[return-value]


def test_a_pickle_is_read_as_tensors_only(
    hub: Hub, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = {"module.a": torch.ones(3), "module.b": torch.zeros(2, 2)}
    hub.files["someone/net/pytorch_model.bin"] = pickled({"state_dict": state, "epoch": 3})
    hub.files["someone/net/config.json"] = json.dumps(
        {"mean": [100, 110, 120], "std": [50, 51, 52], "input_range": [0, 255]}
    ).encode()
    hub.licences["someone/net"] = "mit"
    file = fetch("hf:someone/net", root)
    assert {name: value.tolist() for name, value in read_weights(file).items()} == {
        "a": [1, 1, 1],
        "b": [[0, 0], [0, 0]],
    }
    normalisation = read_normalisation(file)
    assert normalisation is not None
    assert normalisation.mean == (100 / 255, 110 / 255, 120 / 255)
    assert entry(root, "hf:someone/net")["licence"] == "mit"
    for name, content, said in (
        ("bomb", pickled({"state_dict": Bomb()}), "cannot be read as weights"),
        ("old", pickle.dumps({"a": Bomb()}), "cannot be read as weights"),
        ("text", pickled({"a": "text"}), "'a' is a str, not a tensor"),
        ("nothing", pickled({}), "it holds no weights"),
        ("page", b"<html>", "cannot be read as weights"),
    ):
        hub.files[f"someone/{name}/w.bin"] = content
        with pytest.raises(ModelError, match=said):
            fetch(f"hf:someone/{name}/w.bin", root)
    assert not (tmp_path / "exploded").exists()


def test_what_a_repository_says_of_its_images_is_found(
    hub: Hub, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = save({"a": torch.ones(2)})
    for repo, file, said in (
        ("a/timm", "config.json", {"pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}),
        ("a/transformers", "preprocessor_config.json", {"image_mean": [0.1], "image_std": [0.2]}),
    ):
        hub.files[f"{repo}/model.safetensors"] = tensors
        hub.files[f"{repo}/{file}"] = json.dumps(said).encode()
        found = read_normalisation(fetch(f"hf:{repo}", root))
        assert found is not None and (set(found.mean), set(found.std)) == ({0.1}, {0.2})
    assert capsys.readouterr().err.count("do not say") == 0
    hub.files["a/silent/model.safetensors"] = tensors
    assert read_normalisation(fetch("hf:a/silent", root)) is None
    assert "do not say how images were normalised" in capsys.readouterr().err
    hub.files["a/bgr/model.safetensors"] = tensors
    described = {"mean": [0.1] * 3, "std": [0.2] * 3, "input_space": "BGR"}
    hub.files["a/bgr/config.json"] = json.dumps(described).encode()
    with pytest.raises(ModelError, match="take colours in the order BGR"):
        fetch("hf:a/bgr", root)


def test_an_encoder_of_segmentation_models_pytorch_has_its_default(hub: Hub, root: Path) -> None:
    from segmentation_models_pytorch.encoders import encoders

    settings = encoders["resnet18"]["pretrained_settings"]["imagenet"]
    assert next(iter(encoders["resnet18"]["pretrained_settings"])) == "imagenet"
    repo = settings["repo_id"]
    hub.files[f"{repo}/model.safetensors"] = save({"conv1.weight": torch.ones(2)})
    wanted = f"/{repo}/resolve/{settings['revision']}/model.safetensors"
    with pytest.raises(ModelError, match="status 404"):  # the server has another revision
        fetch("pretrained:smp:resnet18", root)
    assert ("HEAD", wanted) in hub.asked


def of_torchvision(hub: Hub, monkeypatch: pytest.MonkeyPatch, *, told: str = "") -> bytes:
    """Serve weights of torchvision's smallest network from loopback."""
    made = torchvision.models.squeezenet1_1(weights=None)
    content = pickled(made.state_dict())
    told = told or hashlib.sha256(content).hexdigest()[:8]
    published = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.value
    monkeypatch.setattr(published, "url", f"{hub.url}/models/squeezenet1_1-{told}.pth")
    hub.files[f"models/squeezenet1_1-{told}.pth"] = content
    return content


@pytest.mark.parametrize("text", ["torchvision:squeezenet1_1.DEFAULT", "pretrained:squeezenet1_1"])
def test_weights_of_torchvision_come_with_imagenets_normalisation(
    hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    content = of_torchvision(hub, monkeypatch)
    file = fetch(text, root)
    state, theirs = read_weights(file), torch.load(io.BytesIO(content), weights_only=True)
    assert all(torch.equal(state[key], theirs[key]) for key in theirs)
    found = read_normalisation(file)
    assert found == Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    noted = entry(root, text)
    assert noted["weights"] == "torchvision:squeezenet1_1.IMAGENET1K_V1"
    assert noted["licence"] == "not stated" and "revision" not in noted


def test_a_file_of_torchvision_that_is_not_what_its_name_says_is_refused(
    hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_torchvision(hub, monkeypatch, told="0123abcd")
    with pytest.raises(ModelError, match="is incomplete or another than"):
        fetch("torchvision:squeezenet1_1.IMAGENET1K_V1", root)
    assert not list((root.parent / "cache/torch").rglob("*.pth"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:nonet.x", "timm has no network 'nonet'"),
        ("timm:test_resnet.x", "unknown tag of timm's test_resnet 'x'; use one of: r160_in1k"),
        ("torchvision:nonet.X", "torchvision has no network 'nonet'"),
        ("torchvision:resnet18.X", "unknown weights of torchvision's resnet18 'X'; use one of: IM"),
        ("pretrained:dollmaker:micranet", "dollmaker has no weights for 'micranet'"),
        ("pretrained:smp:nonet", "has no weights of its own for 'nonet'"),
        ("pretrained:smp:timm-regnetx_002", "take the encoder of timm, tu-"),
        ("pretrained:timm:vit_pe_core_tiny", "unknown architecture|has no weights"),
    ],
)
def test_weights_that_do_not_exist_are_refused_with_those_that_do(
    name: str, said: str, root: Path
) -> None:
    with pytest.raises(ModelError, match=said):
        fetch(name, root)


@pytest.mark.parametrize("text", ["[1]", "a: 1", "a: {sha256: 1}", "a: {url: x}", "a: [", "a: \0"])
def test_a_damaged_lock_is_refused(text: str, root: Path) -> None:
    (root / lock.LOCK).write_text(text)
    with pytest.raises(ModelError, match="is not a lock of weights; correct it, or delete it"):
        fetch(NAME, root)


def test_the_command_fetches_all_and_lists_all(
    hub: Hub, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = {
        "a": {"architecture": "timm:test_resnet", "weights": "pretrained"},
        "b": {"architecture": "timm:test_resnet", "weights": "own.safetensors"},
    }
    given = {"dataset": "x", "source": {"kind": "phantoms"}, "classify": {"members": members}}
    words = ["fetch", "--config", json.dumps(given), "--weights-root", str(root)]
    assert cli.main([*words, "--list"]) == 0
    said = capsys.readouterr().out
    assert f"{root}/pretrained--timm--test_resnet.safetensors is not there" in said
    assert f"get {hub.url}/{REPO}/resolve/main/model.safetensors" in said
    assert f"put it at {root}/pretrained--timm--test_resnet/model.safetensors" in said
    assert f"put your file at {root}/own.safetensors" in said and not hub.asked
    assert cli.main(words) == 0
    assert capsys.readouterr().out == f"{root}/pretrained--timm--test_resnet.safetensors\n"
    assert cli.main([*words, "--list"]) == 0
    assert "pretrained--timm--test_resnet.safetensors is there" in capsys.readouterr().out
    assert cli.main(["fetch", "--name", "own.safetensors", "--weights-root", str(root)]) == 1
    assert "is no name of published weights" in capsys.readouterr().err
