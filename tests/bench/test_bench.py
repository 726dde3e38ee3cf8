"""The benchmark itself: what it computes, on a network that takes no time."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.bench.fidelity import fidelity, tune
from dollmaker.bench.subject import clouds
from dollmaker.runtime.cli import main


def test_fidelity_is_the_overlap_of_the_top_fifth() -> None:
    a = torch.zeros(1, 10, 10)
    a[0, :2] = 1
    b = torch.zeros(1, 10, 10)
    b[0, 1:3] = 1
    assert fidelity(a, a) == 1
    assert fidelity(a, b) == pytest.approx(10 / 30)


def test_tuning_takes_the_fewest_nodes_that_suffice() -> None:
    x = clouds(2, 3, 24)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 2)).requires_grad_(False)
    easy = tune(FrozenNetwork(linear, x[:1]), x, -torch.ones_like(x[:1]), 2, reference=64, chunk=16)
    assert easy.first == 2  # every rule is exact

    class Waves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sin(40 * x).flatten(1).sum(1, keepdim=True)

    hard = tune(
        FrozenNetwork(Waves(), x[:1]), x, -torch.ones_like(x[:1]), 1, reference=64, chunk=16
    )
    assert (hard.first, hard.target) > (easy.first, easy.target)


def test_clouds_are_seeded_and_in_range() -> None:
    x = clouds(3, 1, 20)
    assert torch.equal(x, clouds(3, 1, 20))
    assert float(x.abs().max()) == pytest.approx(1)
    assert float(x.std()) > 0.05


def test_the_command_prints_a_table_and_writes_the_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "bench attribute --architecture timm:test_resnet --size 32 --findings 2 --images 2"
    words += " --nodes 4 --reference 16 --rounds 1 --device cpu --json"
    assert main([*words.split(), str(tmp_path / "b.json")]) == 0
    found = json.loads((tmp_path / "b.json").read_text())
    seconds = found["seconds_per_image"]
    assert all(value > 0 for value in seconds.values())
    ratio = seconds["captum_per_finding"] / seconds["ours_same_nodes"]
    assert found["speedup_same_nodes"] == pytest.approx(ratio)
    assert found["relative_difference"] < 1e-5
    assert 0 < found["fidelity_captum"] <= 1
    assert 0 < found["fidelity_adaptive"] <= 1
    assert found["peak_rss_mb"] > 10
    printed = capsys.readouterr().out
    assert "(c) dollmaker, same nodes" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--architecture resnet81", "did you mean one of: resnet"),
        ("--images 1", "give at least 2"),
        ("--nodes 0", "--nodes is 0; give a positive number"),
        ("--member nowhere", "does not exist"),
    ],
)
def test_wrong_input_is_one_sentence(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "attribute", *words.split()]) == 1
    assert message in capsys.readouterr().err
