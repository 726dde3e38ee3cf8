"""The benchmark of binarize: every step is there. No time is judged."""

import json
from pathlib import Path

import numpy as np
import pytest

from dollmaker.attribute.graphs import normalised_cut
from dollmaker.bench import cuts
from dollmaker.bench.binarize import blobs
from dollmaker.binarize.steps import STEPS
from dollmaker.runtime.cli import main


def test_every_step_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuts, "GRIDS", (6, 18))
    words = "bench binarize --size 32 --images 1 --rounds 1 --json"
    assert main([*words.split(), str(tmp_path / "b.json")]) == 0
    found = json.loads((tmp_path / "b.json").read_text())
    assert set(found["masks_per_second"]) == set(STEPS)
    assert all(speed > 0 for speed in found["masks_per_second"].values())
    printed = capsys.readouterr().out
    assert "32 px" in printed
    assert all(f"\n{name} " in printed for name in STEPS)
    assert set(found["cuts_per_second"]) == {"6x6", "18x18"}
    assert "\n18x18 " in printed


@pytest.mark.parametrize("side", [4, 9, 18])  # LAPACK's and, from 300 nodes on, Lanczos' way
def test_cuts_are_those_of_the_reference(side: int) -> None:
    for weights in cuts.graphs(2, side):
        vector, value = normalised_cut(weights)
        their_value, theirs = cuts.reference(weights.numpy())
        cuts.require_same(vector.numpy(), float(value), theirs, their_value)
        other = theirs.copy()
        other[0] += 0.01
        with pytest.raises(AssertionError, match="to LAPACK"):
            cuts.require_same(vector.numpy(), float(value), other, their_value)


def test_pairs_are_seeded_and_have_something_to_find() -> None:
    one, other = blobs(2, 40), blobs(2, 40)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.map, b.map)
        np.testing.assert_array_equal(a.image, b.image)
        assert a.map.dtype == np.float32 and a.image.dtype == np.uint8
        assert a.map.max() == 1 and 0 < (a.map > 0.5).mean() < 0.6
        assert a.image.shape == (3, 40, 40) and a.image.std() > 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--nodes 3", "has no use for --nodes"),
        ("--compile", "has no use for --compile"),
        ("--rounds 0", "--rounds is 0; give a positive number"),
        ("--images 0", "--images is 0; give a positive number"),
    ],
)
def test_wrong_options_are_one_sentence(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "binarize", *words.split()]) == 1
    assert message in capsys.readouterr().err
