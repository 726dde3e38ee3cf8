"""Every tuning: what moves, what comes back, and the file that a task costs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dollmaker import load_adapter
from dollmaker.adapt import stage
from dollmaker.adapt.adapters import find_layers
from dollmaker.adapt.saved import pack, save_adapter
from dollmaker.adapt.tasks import read_task
from dollmaker.adapt.tuning import FROZEN, Small, Tuned, Tuning, biases
from dollmaker.config.networks import SegmentConfig
from dollmaker.config.settings import resolved
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import create
from dollmaker.runtime.cli import main
from dollmaker.runtime.errors import ArtifactError, ConfigError, ModelError
from dollmaker.segment.stage import save
from dollmaker.store.files import read_json, write_json

MODES = list(get_args(Tuning))
SPEC = Input(channels=1, size=32)
CLASSES = ["bright", "dark", "grey"]


def network(encoder: str = "tu-test_resnet", classes: int = 3, seed: int = 0) -> nn.Module:
    arguments: dict[str, Any] = {"decoder_channels": [16, 16, 8, 8, 8]}
    options = {"architecture": "Unet", "encoder": encoder, "arguments": arguments}
    model = create(SegmentConfig(**options), channels=1, classes=classes, size=32, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():  # as if trained: fresh weights of some are zero
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(layer.running_mean, 0, 0.1, generator=generator)
    return model


def images(seed: int) -> torch.Tensor:
    return torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


def small(**more: Any) -> Small:
    return Small(x=images(9)[:1], **more)


def tune(
    model: nn.Module, mode: Any, steps: int = 3, what: Small | None = None, **more: Any
) -> Tuned:
    """Train a few large steps, switching between training and evaluation as a run does."""
    tuned = Tuned(model, mode, what or small(adapter_width=0.25), freeze_norm=False, **more)
    optimizer = torch.optim.AdamW(tuned.trained(), lr=0.01, weight_decay=0.01)
    for step in range(steps):
        tuned.eval()
        tuned.train()
        optimizer.zero_grad()
        tuned(images(step)).square().mean().backward()
        optimizer.step()
    return tuned.eval()


def output(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.eval()(images(7))
    return out


def clone(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("encoder", ["tu-test_resnet", "mobilenet_v2", "tu-test_convnext"])
@pytest.mark.parametrize("mode", MODES)
def test_frozen_means_frozen(mode: Tuning, encoder: str) -> None:
    model = network(encoder)
    before = clone(model)
    owners = {id(p): name for name, p in model.named_parameters()}
    small = {owners[id(p)] for part in ("encoder", "decoder") for p in biases(getattr(model, part))}
    tuned = tune(model, mode)
    after = {
        name.removeprefix("model.").replace(".base_layer.", "."): tensor
        for name, tensor in tuned.state_dict().items()
    }
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    for part in ("encoder", "decoder", "segmentation_head"):
        mine = {name for name in before if name.startswith(f"{part}.")}
        moved = changed & mine
        if part not in FROZEN[mode]:
            assert moved, part
        elif mode == "bias":
            assert moved and moved <= small
            assert any("weight" in name for name in moved)  # of normalisation
        else:
            assert not moved, part
        buffers = {name for name in mine if ".running_" in name}
        if part in FROZEN[mode]:
            assert not changed & buffers
        elif buffers:
            assert buffers <= changed
    added = {name for name in after if name not in before}
    assert bool(added) == (mode in ("adapter", "lora"))
    for name in added:
        if name.endswith("lora_B.default.weight"):
            assert after[name].abs().max() > 0


@pytest.mark.parametrize("mode", ["adapter", "lora"])
def test_nothing_changes_at_first_and_all_comes_back(mode: Tuning) -> None:
    model = network()
    before, out = clone(model), output(model)
    torch.testing.assert_close(
        output(Tuned(model, mode, small(), freeze_norm=False)), out, rtol=0, atol=0
    )
    tuned = tune(network(), mode)
    assert not torch.equal(output(tuned), out)
    plain = tuned.unload()
    after = plain.state_dict()
    assert list(after) == list(before)
    encoder = [name for name in before if name.startswith("encoder.")]
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    fresh = network()
    fresh.get_submodule("encoder").load_state_dict(plain.get_submodule("encoder").state_dict())
    assert torch.equal(output(fresh), out)
    features = [m.get_submodule("encoder").eval()(images(1)) for m in (plain, fresh)]
    assert all(torch.equal(a, b) for a, b in zip(*features, strict=True))


@pytest.mark.parametrize("encoder", ["tu-test_resnet", "mobilenet_v2", "mit_b0", "tu-regnetx_002"])
def test_merged_lora_gives_the_same(encoder: str) -> None:
    model = network(encoder)
    names = list(model.state_dict())
    layers = find_layers(model.get_submodule("encoder"), images(0)[:1])
    for name in layers:
        assert getattr(model.get_submodule(f"encoder.{name}"), "groups", 1) == 1
    tuned = tune(model, "lora", what=small(lora_rank=3))
    wrapped = {n.partition(".lora_A.")[0] for n in tuned.state_dict() if ".lora_A." in n}
    assert wrapped == {f"model.encoder.{name}" for name in layers}
    expected = output(tuned)
    merged = tuned.merge()
    assert list(merged.state_dict()) == names
    torch.testing.assert_close(output(merged), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("leave", ["unload", "merge"])
def test_leaving_a_shared_base_does_not_touch_it(
    leave: str, segmenter: Path, tmp_path: Path
) -> None:
    tuned = tune(started(segmenter), "lora")
    save_adapter(tuned, tmp_path / "adapter", classes=CLASSES, spec=SPEC)
    base = started(segmenter)
    before = clone(base)
    loaded = load_adapter(base, tmp_path / "adapter")
    expected = output(loaded)
    plain = getattr(loaded, leave)()
    if leave == "merge":
        torch.testing.assert_close(output(plain), expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in base.state_dict().items())


def test_adapters_have_no_merge() -> None:
    with pytest.raises(ModelError, match="adapters cannot be merged"):
        tune(network(), "adapter", 1).merge()


@pytest.mark.parametrize(("mode", "trains"), [("full", False), ("decoder", False), ("head", True)])
def test_one_image_is_too_few_for_some_networks(mode: Tuning, trains: bool) -> None:
    options = {"architecture": "UPerNet", "encoder": "tu-test_resnet", "arguments": {}}
    model = create(SegmentConfig(**options), channels=1, classes=2, size=32, seed=0)
    tuned = Tuned(model, mode, Small(), freeze_norm=True)
    assert tuned(images(0)).shape == (3, 2, 32, 32)
    if trains:
        assert tuned(images(0)[:1]).shape == (1, 2, 32, 32)
    else:
        with pytest.raises(ModelError, match=r"UPerNet cannot .* set adapt\.batch_size to 2"):
            tuned(images(0)[:1])
    assert tuned.eval()(images(0)[:1]).shape == (1, 2, 32, 32)


def test_rank_seed_and_size() -> None:
    def lora(**more: Any) -> Tuned:
        return Tuned(network(), "lora", small(**more), freeze_norm=False)

    sizes = [lora(lora_rank=rank) for rank in (1, 2)]
    added = [sum(p.numel() for n, p in t.named_parameters() if ".lora_" in n) for t in sizes]
    assert added[1] == 2 * added[0] > 0
    assert pack(lora(seed=1)) == pack(lora(seed=1)) != pack(lora(seed=2))


@pytest.fixture
def segmenter(tmp_path: Path) -> Path:
    """A segmenter of two findings; tasks on it have three classes."""
    model = network(classes=2, seed=5)
    (tmp_path / "segmenter").mkdir()
    options = SegmentConfig(encoder="tu-test_resnet")
    save(tmp_path / "segmenter", model, options, ["A", "B"], SPEC)
    return tmp_path / "segmenter"


def started(segmenter: Path, classes: int = 3) -> nn.Module:
    """A network of a task that starts from the segmenter, with a head of its own."""
    model = network(classes=classes, seed=6)
    state = load_file(segmenter / "model.safetensors")
    model.load_state_dict(
        {k: v for k, v in state.items() if not k.startswith("segmentation_head")}, strict=False
    )
    return model


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("parts", [("encoder", "decoder"), ("encoder",), ()])
def test_saved_and_put_on_the_base(
    mode: Tuning, parts: tuple[str, ...], segmenter: Path, tmp_path: Path
) -> None:
    tuned = tune(started(segmenter), mode, base=parts)
    folder = tmp_path / "adapter"
    save_adapter(tuned, folder, classes=CLASSES, spec=SPEC)
    file, description = folder / "adapter.safetensors", read_json(folder / "adapter.json")
    assert description["mode"] == mode and description["classes"] == CLASSES
    assert file.stat().st_size == len(pack(tuned))
    assert sorted(path.name for path in folder.iterdir()) == ["adapter.json", file.name]
    for base in (segmenter, str(segmenter), started(segmenter, classes=2)):
        kept = clone(base) if isinstance(base, nn.Module) else {}
        loaded = load_adapter(base, folder)
        torch.testing.assert_close(output(loaded), output(tuned), rtol=1e-6, atol=1e-6)
        assert pack(loaded) == pack(tuned)
        if isinstance(base, nn.Module):
            assert all(torch.equal(kept[name], tensor) for name, tensor in clone(base).items())
            pointers = {p.data_ptr() for p in base.parameters()}
            shared = sum(p.numel() for p in loaded.parameters() if p.data_ptr() in pointers)
            assert bool(shared) == bool(set(FROZEN[mode]) & set(parts))
            assert all(p.requires_grad for p in base.parameters())
    names = set(load_file(file))
    if parts and mode in ("adapter", "lora", "decoder"):
        own = {name for name in names if name.startswith("encoder.")}
        assert all(".lora_" in name for name in own)
        assert any(name.startswith("decoder.") for name in names)
    if len(parts) == 2 and mode == "head":
        assert names == {"segmentation_head.0.weight", "segmentation_head.0.bias"}


def test_sizes_are_in_order(segmenter: Path) -> None:
    size = {mode: len(pack(tune(started(segmenter), mode, 1))) for mode in MODES}
    assert size["head"] < size["bias"] < size["decoder"] < size["lora"] < size["full"]
    assert size["decoder"] < size["adapter"] < size["full"]


@pytest.mark.parametrize("mode", ["head", "decoder", "adapter", "lora", "bias"])
def test_another_base_is_refused(mode: Tuning, segmenter: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    save_adapter(tune(started(segmenter), mode, 1), folder, classes=CLASSES, spec=SPEC)
    other = started(segmenter)
    with torch.no_grad():
        next(p for p in other.get_submodule("encoder").parameters() if p.ndim == 4).add_(1e-3)
    with pytest.raises(ModelError, match=r"not the base .*\(sha256\); give the network whose"):
        load_adapter(other, folder)
    with pytest.raises(ModelError, match="not the base"):
        load_adapter(network("mobilenet_v2"), folder)
    with pytest.raises(ModelError, match="is no segmenter"):
        load_adapter(tmp_path, folder)


@pytest.mark.parametrize("mode", ["adapter", "lora", "head"])
def test_a_network_with_a_module_called_as_peft_calls_its_own(mode: Tuning, tmp_path: Path) -> None:
    base, name = network("tu-dla46_c"), "encoder.model.base_layer.0.weight"
    names = list(base.state_dict())
    tuned = tune(network("tu-dla46_c"), mode, 1)
    assert name in tuned.base_state()
    save_adapter(tuned, tmp_path / "adapter", classes=CLASSES, spec=SPEC)
    loaded, again = (load_adapter(base, tmp_path / "adapter") for _ in range(2))
    torch.testing.assert_close(output(loaded), output(tuned))
    assert list(loaded.unload().state_dict()) == names
    if mode == "lora":
        torch.testing.assert_close(output(again.merge()), output(tuned), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["adapter", "lora", "head"])
def test_a_base_that_is_adapted_already_is_refused(
    mode: Tuning, segmenter: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    save_adapter(tune(started(segmenter), mode, 1), folder, classes=CLASSES, spec=SPEC)
    loaded = load_adapter(started(segmenter), folder)
    expected = output(loaded)
    for base in (loaded, loaded.model) if mode != "head" else (loaded,):
        with pytest.raises(ModelError, match=r"plain base, or call unload\(\)"):
            load_adapter(base, folder)
    torch.testing.assert_close(output(load_adapter(loaded.unload(), folder)), expected)


def test_full_does_not_fit_another_architecture(segmenter: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    save_adapter(tune(started(segmenter), "full", 1), folder, classes=CLASSES, spec=SPEC)
    with pytest.raises(ModelError, match="adapter"):
        load_adapter(network("mobilenet_v2"), folder)


def test_damage_is_seen(segmenter: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    save_adapter(tune(started(segmenter), "head", 1), folder, classes=CLASSES, spec=SPEC)
    file = folder / "adapter.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match="not what was written"):
        load_adapter(segmenter, folder)
    description = read_json(folder / "adapter.json")
    write_json(folder / "adapter.json", {k: v for k, v in description.items() if k != "mode"})
    with pytest.raises(ArtifactError, match="lacks 'mode'"):
        load_adapter(segmenter, folder)


@pytest.fixture
def run(config: dict[str, Any], root: Path, segmenter: Path) -> Callable[..., Path]:
    """Runs the stage from the segmenter."""
    config["segment"].update(
        encoder="tu-test_resnet", arguments={"decoder_channels": [16, 16, 8, 8, 8]}
    )
    config["adapt"].update(n=[3, 5], seeds=1, steps=2, evaluations=1)

    def once(tuning: Any, name: str, init: Any = "doll") -> Path:
        stage.adapt(
            resolved(config),
            "squares",
            init,
            tuning,
            stage.Inputs(data_root=root, weights_root=root, segmenter=segmenter),
            root / name,
        )
        return root / name

    return once


@pytest.mark.parametrize("tuning", MODES)
def test_the_stage_writes_the_adapter_of_the_last_run(
    tuning: Tuning, run: Callable[..., Path], config: dict[str, Any], root: Path, segmenter: Path
) -> None:
    folder = run(tuning, "out")
    described = read_json(folder / "runs.json")["runs"]
    size = (folder / "adapter" / "adapter.safetensors").stat().st_size
    assert [entry["adapter_mb"] for entry in described] == [size / 1e6] * 2
    assert all(0 < entry["step_seconds"] < entry["seconds"] for entry in described)
    description = read_json(folder / "adapter" / "adapter.json")
    assert (description["n"], description["seed"]) == ("5", 0)
    task = read_task("squares", resolved(config), root)
    loaded = load_adapter(segmenter, folder / "adapter")
    with np.load(folder / "examples.npz", allow_pickle=False) as examples:
        image, predicted = torch.from_numpy(examples["image"]), examples["prediction_5"]
    assert len(image) == min(6, len(task.rows("test")))
    with torch.no_grad():
        logits = loaded(Input(**description["input"]).prepare(image))
    picture = (slice(None), slice(None), slice(2, 29))  # 48 x 40 in 32 x 32: nothing around it
    logits, predicted = logits[picture], predicted[picture]
    clear = (logits.abs() > 1e-4).numpy()
    assert clear.mean() > 0.9
    assert np.array_equal((logits > 0).numpy()[clear], predicted[clear] == 1)


def test_the_adapter_is_the_same_again(run: Callable[..., Path]) -> None:
    first, second = run("lora", "one") / "adapter", run("lora", "two") / "adapter"
    for name in ("adapter.json", "adapter.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_random_start_has_no_base(run: Callable[..., Path], segmenter: Path) -> None:
    folder = run("bias", "out", "random") / "adapter"
    assert read_json(folder / "adapter.json")["base"] == {"parts": [], "sha256": None}
    assert "encoder.model.conv1.0.weight" in load_file(folder / "adapter.safetensors")
    load_adapter(segmenter, folder)


def test_configuration_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    plain = {"dataset": "fake", "source": {"kind": "phantoms"}}
    adapt = {"runs": [f"doll/{mode}" for mode in MODES]}
    assert resolved({**plain, "adapt": adapt}).dump()["adapt"]["lora_rank"] == 4
    with pytest.raises(ConfigError):
        resolved({**plain, "adapt": {"runs": ["doll/prompt"]}})
    with pytest.raises(ConfigError):
        resolved({**plain, "adapt": {"lora_rank": 0}})
    with pytest.raises(SystemExit):
        main(["adapt", "--help"])
    told = capsys.readouterr().out
    assert all(mode in told for mode in MODES)
    snakefile = (Path(__file__).parents[2] / "Snakefile").read_text()
    constraint = next(line for line in snakefile.splitlines() if "tuning=r" in line)
    assert set(constraint.split('"')[1].split("|")) == set(MODES)
