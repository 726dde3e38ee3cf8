"""Where a release tells what the sanity checks say of its recipe."""

import json
from pathlib import Path
from typing import Any

import pytest

from dollmaker.release.browse import stats
from dollmaker.release.sanity import judged
from dollmaker.release.verify import require_whole
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store.sums import checksums
from release.small_release import SANITY, build

FAILED = {"ignores_model": True, "uninformative": True, "verdict": "ignores the model; & more"}


@pytest.mark.parametrize(
    ("changes", "failed", "passed"),
    [
        ({}, False, True),
        ({"uninformative": None}, False, True),
        ({"ignores_model": True}, True, False),
        ({"ignores_finding": True}, True, False),
        ({"ignores_model": None}, False, False),
        ({"uninformative": True}, False, False),
        ({"doubts": ["ignores_model"]}, False, False),
    ],
)
def test_a_recipe_fails_passes_or_is_in_doubt(
    changes: dict[str, Any], failed: bool, passed: bool
) -> None:
    found = judged(SANITY | changes)
    assert found is not None and (found.failed, found.passed) == (failed, passed)


def test_a_verdict_is_one_line_or_none() -> None:
    found = judged({"verdict": "ignores\nthe model"})
    assert found is not None and found.tell() == "sanity: ignores the model"
    assert judged({}) is None and judged({"verdict": 3}) is None


def test_a_failed_check_is_told_wherever_a_release_is_looked_at(tmp_path: Path) -> None:
    release = build(tmp_path / "x", checks=FAILED, allow_failed_sanity=True)
    line = "sanity: ignores the model; & more"
    assert require_whole(release) == f"{release} is whole.\n{line}"
    assert line in stats(release, tmp_path / "s.json").splitlines()
    told = {"verdict": FAILED["verdict"], "failed": True, "passed": False}
    assert json.loads((tmp_path / "s.json").read_text())["sanity"] == told
    page = (release / "gallery/index.html").read_text()
    assert "<strong>Sanity check failed:</strong> ignores the model; &amp; more</p>" in page


def test_doubts_are_in_the_gallery_and_not_red(tmp_path: Path) -> None:
    doubts = {"doubts": ["ignores_model"], "verdict": "may ignore the model"}
    page = (build(tmp_path / "x", checks=doubts) / "gallery/index.html").read_text()
    assert "Sanity: may ignore the model</p>" in page and "sanity failed" not in page


def test_a_recipe_that_passes_is_told_of_in_words_alone(release: Path) -> None:
    assert require_whole(release).endswith("\nsanity: depends on model and finding")
    assert 'class="sanity' not in (release / "gallery/index.html").read_text()


def test_a_release_without_checks_says_nothing_of_them(release: Path, tmp_path: Path) -> None:
    (release / "sanity.json").unlink()
    (release / "SHA256SUMS").write_text(checksums(release))
    assert require_whole(release) == f"{release} is whole."
    assert "sanity" not in stats(release, tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text())["sanity"] is None


@pytest.mark.parametrize("text", ["[]", "{", None])
def test_checks_that_cannot_be_read_are_named(release: Path, text: str | None) -> None:
    file = release / "sanity.json"
    file.write_text(text) if text else file.unlink()
    with pytest.raises(ArtifactError, match=r"sanity\.json"):
        stats(release)
