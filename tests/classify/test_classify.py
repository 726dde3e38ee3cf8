"""Networks by name, targets, loss, a member from training to disk and back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dollmaker.classify import stage
from dollmaker.classify.labels import label_matrix, lessons, targets
from dollmaker.classify.train import masked_bce, positive_weights
from dollmaker.config import settings as configuration
from dollmaker.config.networks import ClassifyConfig
from dollmaker.networks.classifiers import create_network, head_name
from dollmaker.networks.member import load_member
from dollmaker.runtime.errors import ArtifactError, ConfigError, ModelError
from dollmaker.store import provenance, tables
from dollmaker.store.findings import BLANK
from dollmaker.store.shards import ImageShards, create_shard

FINDINGS = ["bright", "dark"]


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("resnet18", "torchvision:resnet18"),
        ("timm:test_resnet", "timm:test_resnet"),
        ("timm:test_vit", "timm:test_vit"),
        ("torchvision:mobilenet_v2", "torchvision:mobilenet_v2"),
        ("densenet121", "torchvision:densenet121"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_take_any_size_and_channels(name: str, full: str, channels: int) -> None:
    network, found = create_network(name, outputs=5, channels=channels, size=64)
    assert found == full
    assert network.eval()(torch.zeros(1, channels, 64, 64)).shape == (1, 5)
    head = network.get_submodule(head_name(network, 5))
    assert isinstance(head, nn.Linear)


def test_unknown_networks_are_refused_with_near_names() -> None:
    with pytest.raises(ModelError, match="resnet18"):
        create_network("resnet81", outputs=2, channels=1, size=32)
    with pytest.raises(ModelError, match="unknown library 'keras'"):
        create_network("keras:resnet", outputs=2, channels=1, size=32)


def test_uncertainty_policies() -> None:
    labels = np.array([[1, -1, -1, -1, BLANK], [0, 0, 1, -1, -1]], np.int8)
    names = list("abcde")
    policies = {"default": "ignore", "b": "ones", "c": "zeros", "d": "smooth-ones"}
    options = ClassifyConfig(uncertain=policies)
    values, weights = targets(labels, names, options, seed=0)
    assert values[0, :3].tolist() == [1, 1, 0]
    assert 0.55 <= values[0, 3] <= 0.85
    assert weights.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    _, ignoring = targets(labels, names, ClassifyConfig(blank="ignore"), seed=0)
    assert ignoring[0, 4] == 0


def test_lessons_are_counted_by_the_policies() -> None:
    table = pl.DataFrame({"a": [1, -1, -1, None, 0], "b": [1, 1, -1, None, None]})
    policies = {"default": "ignore", "a": "smooth-ones", "b": "zeros"}
    for blank, counts in (
        ("zeros", {"a": (3, 2), "b": (2, 3)}),
        ("ignore", {"a": (3, 1), "b": (2, 1)}),
    ):
        options = ClassifyConfig.model_validate({"blank": blank, "uncertain": policies})
        assert lessons(table, ["a", "b"], options) == counts


def test_a_training_tells_findings_that_it_cannot_learn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_dataset(tmp_path)
    index = tables.read(tmp_path / "index.parquet")
    header = tables.read_header(tmp_path / "index.parquet")
    index = index.with_columns(dark=pl.lit(1, pl.Int8))
    tables.write(index, tmp_path / "index.parquet", header)
    train(make_config(epochs=1), tmp_path, "a")
    assert "classify a: few labels: 'dark' has no negative training" in capsys.readouterr().err


def test_loss_counts_only_what_has_weight() -> None:
    logits = torch.tensor([[0.0, 9.0], [2.0, -9.0]], requires_grad=True)
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    weights = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = masked_bce(logits, values, weights, torch.tensor([3.0, 1.0]))
    expected = (3 * np.log(2) + np.log1p(np.exp(2.0))) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert logits.grad is not None and (logits.grad[:, 1] == 0).all()


def test_rare_positives_weigh_more_up_to_a_cap() -> None:
    values = np.zeros((100, 3), np.float32)
    values[:50, 0], values[:20, 1], values[:1, 2] = 1, 1, 1
    assert positive_weights(values, np.ones_like(values)).tolist() == [1, 4, 10]


def make_dataset(folder: Path) -> None:
    """48 images: a bright or a dark square says which finding is there."""
    rng = np.random.default_rng(0)
    images = rng.integers(100, 150, (48, 1, 32, 32), dtype=np.uint8)
    labels = np.zeros((48, 2), np.int8)
    for i in range(48):
        kind, y, x = i % 2, *rng.integers(4, 16, 2)
        images[i, 0, y : y + 12, x : x + 12] = (250, 5)[kind]
        labels[i, kind] = 1
    header = provenance.header("prepare", {})
    with create_shard(folder / "images/0000.h5", "images", header) as writer:
        sides = {side: np.full(48, 32, np.int32) for side in ("width", "height")}
        writer.append({"image_id": [f"i{i}" for i in range(48)], **sides}, image=images)
    index = pl.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(48)],
            "patient_id": [f"p{i // 2}" for i in range(48)],
            "split": (["train"] * 24 + ["valid"] * 12 + ["test"] * 12),
            "shard": ["0000"] * 48,
            "row": range(48),
            **{side: [32] * 48 for side in ("width", "height")},
            **{f: pl.Series(labels[:, k], dtype=pl.Int8) for k, f in enumerate(FINDINGS)},
        }
    )
    facts = {"findings": FINDINGS, "channel_mean": [125.0], "quarantine": []}
    tables.write(index, folder / "index.parquet", {**header, **facts})


def make_config(**classify: Any) -> dict[str, Any]:
    members = {"a": {"architecture": "timm:test_resnet"}}
    options = {"members": members, "epochs": 4, "batch_size": 8, "bootstrap": 20, **classify}
    return configuration.resolved(
        {
            "dataset": "x",
            "source": {"kind": "phantoms"},
            "prepare": {"size": 32},
            "classify": options,
        }
    ).dump()


def inputs(folder: Path) -> stage.Inputs:
    return stage.Inputs(
        index=folder / "index.parquet", images=folder / "images", weights_root=folder
    )


def train(config: dict[str, Any], folder: Path, output: str) -> Path:
    stage.train_member(configuration.resolved(config), "a", inputs(folder), folder / output)
    return folder / output


def test_a_member_learns_and_comes_back_from_disk(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    out = train(make_config(epochs=8), tmp_path, "a")
    member = load_member(out, torch.device("cpu"))
    assert member.findings == FINDINGS
    assert not any(p.requires_grad for p in member.network.parameters())
    predictions = tables.read(out / "predictions.parquet")
    index = tables.read(tmp_path / "index.parquet").filter(pl.col("split") != "train")
    assert predictions["image_id"].to_list() == index["image_id"].to_list()
    labels = label_matrix(index, FINDINGS)
    probabilities = predictions.select(FINDINGS).to_numpy()
    right = (probabilities.argmax(1) == labels.argmax(1)).mean()
    assert right >= 0.9
    assert [path.name for path in tmp_path.glob(".*")] == []  # no state is left behind


def test_an_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path)
    whole = train(make_config(), tmp_path, "whole")
    original = stage.macro_auroc
    calls = []

    def dies(*arguments: Any) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(stage, "macro_auroc", dies)
    with pytest.raises((KeyboardInterrupt, SystemExit, AttributeError, KeyError)):
        train(make_config(), tmp_path, "again")
    assert not (tmp_path / "again").exists()
    monkeypatch.setattr(stage, "macro_auroc", original)
    again = train(make_config(), tmp_path, "again")
    for name in ("model.safetensors", "predictions.parquet", "model.json"):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_training_that_had_stopped_early_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path)
    scores = [0.9, 0.8, 1.0]  # a third epoch would be the best
    monkeypatch.setattr(stage, "macro_auroc", lambda *_: scores.pop(0))

    def dies(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "measure", dies)
    with pytest.raises(KeyboardInterrupt):  # after the training, before the output
        train(make_config(patience=1), tmp_path, "a")
    assert scores == [1.0]
    monkeypatch.setattr(stage, "measure", lambda *_: {})
    description = json.loads(
        (train(make_config(patience=1), tmp_path, "a") / "model.json").read_text()
    )
    assert (description["best_epoch"], len(description["curve"])) == (1, 2)


def test_a_linear_probe_moves_the_head_only(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    probe = {"a": {"architecture": "timm:test_resnet", "linear_probe": True}}
    config = make_config(epochs=1, members=probe)
    torch.manual_seed(config["seed"] * 1000)
    start, _ = create_network("timm:test_resnet", outputs=2, channels=1, size=32)
    trained = load_member(train(config, tmp_path, "a"), torch.device("cpu")).network.state_dict()
    moved = [k for k, v in start.state_dict().items() if not torch.equal(v, trained[k])]
    assert moved == ["fc.weight", "fc.bias"]


def test_probabilities_take_the_weights_of_positives_back(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    path = tmp_path / "index.parquet"
    index = tables.read(path).with_columns(bright=pl.lit(0, pl.Int8))
    rare = pl.when(pl.col("row") < 6).then(1).otherwise(0).cast(pl.Int8)
    tables.write(index.with_columns(dark=rare), path, tables.read_header(path))
    config = make_config(epochs=1, calibrate="temperature")
    folder = train(config, tmp_path, "a")
    member = load_member(folder, torch.device("cpu"))
    shift = [np.log(10.0 if name == "bright" else 3.0) for name in FINDINGS]  # 18 to 6 in train
    assert np.allclose(member.calibration.shift, shift)
    image = ImageShards(tmp_path / "images").read("0000", 24)
    x = member.prepare(torch.from_numpy(image[None]))
    logits = member.network(x).double().numpy()[0]
    expected = 1 / (1 + np.exp(-(logits - shift) / member.calibration.temperature))
    told = tables.read(folder / "predictions.parquet").select(FINDINGS).row(0)
    assert np.allclose(told, expected, atol=1e-6)
    plain = train(make_config(epochs=1, balance=False), tmp_path, "b")
    assert json.loads((plain / "model.json").read_text())["calibration"] == {
        "shift": [],
        "temperature": 1.0,
    }


def test_an_untrained_member_keeps_its_weights(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    config = make_config(members={"a": {"architecture": "timm:test_resnet", "epochs": 0}})
    torch.manual_seed(config["seed"] * 1000)
    start, _ = create_network("timm:test_resnet", outputs=2, channels=1, size=32)
    kept = load_member(train(config, tmp_path, "a"), torch.device("cpu")).network.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in start.state_dict().items())


def test_mean_and_deviation_come_with_the_weights(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    torch.manual_seed(7)
    start, _ = create_network("timm:test_resnet", outputs=9, channels=3, size=32)
    said = {"mean": "[0.3, 0.4, 0.8]", "std": "[0.1, 0.2, 0.3]"}
    name = "timm--test_resnet.r160_in1k.safetensors"
    save_file(dict(start.state_dict()), tmp_path / name, metadata=said)
    own = {
        "architecture": "timm:test_resnet", "weights": "timm:test_resnet.r160_in1k", "epochs": 0,
    }  # fmt: skip

    def input_of(member: dict[str, Any], **classify: Any) -> dict[str, Any]:
        folder = train(make_config(members={"a": {**own, **member}}, **classify), tmp_path, "a")
        member = load_member(folder, torch.device("cpu"))  # type: ignore[assignment]
        found: dict[str, Any] = json.loads((folder / "model.json").read_text())["input"]
        assert list(member.input.mean) == found["mean"]  # type: ignore[attr-defined]
        return found

    three = {"channels": 3, "size": 32, "mean": [0.3, 0.4, 0.8], "std": [0.1, 0.2, 0.3]}
    assert input_of({}, input_channels=3) == three
    one = input_of({})
    assert (one["channels"], one["mean"], one["std"]) == (1, [0.5], [pytest.approx(0.2)])
    assert input_of({}, mean=0.7)["mean"] == [0.7]
    assert input_of({"mean": 0.6}, mean=0.7)["mean"] == [0.6]
    assert input_of({"weights": None})["std"] == [0.5]


def test_a_description_with_one_number_is_still_read(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    config = make_config(members={"a": {"architecture": "timm:test_resnet", "epochs": 0}})
    folder = train(config, tmp_path, "a")
    description = json.loads((folder / "model.json").read_text())
    description["input"] |= {"mean": 0.4, "std": 0.25}
    (folder / "model.json").write_text(json.dumps(description))
    member = load_member(folder, torch.device("cpu"))
    assert (member.input.mean, member.input.std) == ((0.4,), (0.25,))


def test_statistics_without_weights_are_never_frozen(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    config = make_config(freeze_batch_norm=True, epochs=1)
    folder = train(config, tmp_path, "a")
    state = load_member(folder, torch.device("cpu")).network.state_dict()
    means = [value for name, value in state.items() if name.endswith("running_mean")]
    assert means and all(mean.abs().max() > 0 for mean in means)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "w.safetensors")
    config["classify"]["members"]["a"]["weights"] = "w.safetensors"
    again = load_member(train(config, tmp_path, "b"), torch.device("cpu")).network.state_dict()
    assert all(torch.equal(again[k], v) for k, v in state.items() if k.endswith("running_mean"))


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.05), ("adam", 0.003)])
def test_micranet_learns_with_a_members_own_optimiser(
    tmp_path: Path, optimizer: str, rate: float
) -> None:
    make_dataset(tmp_path)
    own = {"architecture": "micranet", "optimizer": optimizer, "learning_rate": rate, "epochs": 4}
    folder = train(make_config(members={"a": own}), tmp_path, "a")
    member = load_member(folder, torch.device("cpu"))
    assert member.architecture == "dollmaker:micranet"
    convolutions = [m for m in member.network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [32, 32, 64, 64, 128, 128, 256, 256]
    curve = json.loads((folder / "model.json").read_text())["curve"]
    assert len(curve) >= 2 and curve[-1]["loss"] < curve[0]["loss"]


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    config = make_config()
    with pytest.raises(ConfigError, match="unknown member 'b'; use one of: a"):
        stage.train_member(configuration.resolved(config), "b", inputs(tmp_path), tmp_path / "b")
    config["classify"]["members"]["a"]["weights"] = "absent.safetensors"
    with pytest.raises(ModelError, match=r"absent\.safetensors does not exist"):
        train(config, tmp_path, "a")


def test_weights_that_were_changed_are_detected(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    out = train(make_config(epochs=1), tmp_path, "a")
    weights = out / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="not the file that"):
        load_member(out, torch.device("cpu"))
