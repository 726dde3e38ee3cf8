"""The commit that a release names."""

import subprocess
from pathlib import Path

import pytest

from dollmaker.store import provenance


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    command = ["git", *who, "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def checkout(root: Path, package: str) -> Path:
    """A repository with a file of a package."""
    file = root / package / "store/provenance.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "x", "--date", "2020-02-03T04:05:06")
    return file


def test_a_checkout_has_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2021-02-03T04:05:06")
    file = checkout(tmp_path, "workflow/dollmaker")
    monkeypatch.setattr(provenance, "__file__", str(file))
    name = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.find_commit() == provenance.Commit(name, "2021-02-03")
    (tmp_path / "mine.yaml").touch()  # not the package's
    assert provenance.find_commit() == provenance.Commit(name, "2021-02-03")
    file.write_text("changed")
    assert provenance.find_commit() == provenance.Commit(f"{name}-dirty", "2021-02-03")


def test_elsewhere_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "b/store/provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert provenance.find_commit() is None
    file = checkout(tmp_path / "theirs", "lib/site-packages/dollmaker")
    monkeypatch.setattr(provenance, "__file__", str(file))
    assert provenance.find_commit() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.find_commit() is None
