"""Every hostile input has one outcome, and none has another effect."""

import re
from pathlib import Path

import pytest

from dollmaker.runtime import cli
from hostile import hostile_images, hostile_models, hostile_tables
from hostile.place import GOOD, Case, snapshot, sound

CASES: list[Case] = [*hostile_images.CASES, *hostile_tables.CASES, *hostile_models.CASES]


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile(
    case: Case,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = sound(tmp_path)
    case.make(place)
    before = snapshot(place)
    monkeypatch.chdir(place.results)
    codes = []
    for words in case.commands(place):
        codes.append(cli.main(words))  # an exception that gets here would be a traceback
        if codes[-1]:
            break
    error = capfd.readouterr().err
    assert "Traceback" not in error
    if case.refused:
        assert codes[-1] == 1, error
        sentence = [line for line in error.splitlines() if line.startswith("dollmaker: error: ")]
        assert len(sentence) == 1 and sentence[0] == error.splitlines()[-1], error
        assert len(sentence[0]) < 900 and re.search(r"[.?]$", sentence[0]), error
        for word in case.refused:
            assert word in sentence[0]
    else:
        assert not any(codes), error
    if case.quarantined:
        path, reason = case.quarantined
        found = place.quarantine()
        assert list(found) == [path]
        assert reason in found[path]
        assert len(place.index()) >= GOOD
        assert not re.search("0x[0-9a-f]{6}", found[path]), "an address: not reproducible"
    if case.check:
        assert case.check(place) is not False
    assert not list(tmp_path.rglob("canary")), "code of the input was run"
    assert snapshot(place) == before, "something outside of the results was touched"
