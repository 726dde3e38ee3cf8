"""The fake results tree, built once."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

import fake_results


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
