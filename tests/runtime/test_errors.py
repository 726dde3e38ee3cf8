"""Sentences of errors."""

import pytest

from dollmaker.runtime.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("one.\ntwo"), "one"), (AssertionError(), "AssertionError"), (KeyError(3), "3")],
)
def test_the_first_line_of_an_error(error: Exception, line: str) -> None:
    assert first_line(error) == line
