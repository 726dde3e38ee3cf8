"""The fake results tree and a small release, built once."""

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import fake_results
from micro_run import finish_once

# Threads that wait leave the core to the other worker; by default they turn in circles.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

#: These first, or a worker has nothing to do while the other is at the last of them.
LONG = (
    *("test_workflow.py", "test_workflow_killed.py", "test_workflow_compare.py"),
    *("test_reruns.py", "adapt/", "attribute/"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files; pytest itself takes them by folder, whatever their order in the command."""

    def place(item: pytest.Item) -> int:
        name = item.nodeid.removeprefix("tests/")
        return [name.startswith(long) for long in (*LONG, "")].index(True)

    items.sort(key=place)


class Tree(NamedTuple):
    """Where the tree is."""

    config: dict[str, Any]
    results: Path
    data: Path


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A results folder with everything but scores."""
    config = fake_results.make_config()
    return Tree(config, *fake_results.build(tmp_path_factory.mktemp("fake"), config))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small release beside the results that it was made of, for those who change nothing."""
    from release.small_release import build

    return build(tmp_path_factory.mktemp("made") / "x")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the whole workflow, one for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    return finish_once((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "whole")


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    """A copy of them, to be changed."""
    shutil.copytree(made.parent, tmp_path / "x")
    return tmp_path / "x/release"
