"""The house: files and functions that a reader can hold in mind, and a configuration with types."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import dollmaker

PACKAGE = Path(dollmaker.__file__).parent
MOST_LINES, MOST_PARAMETERS = 400, 6

#: Above a function of more parameters stands why: `# seven: ...`, `# eight: ...` and so on.
_REASON = re.compile(r"\s*# (seven|eight|nine|ten|eleven|twelve): \w")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def files() -> Iterator[tuple[str, str]]:
    """Files of the package by their places in it, with their texts."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")


def functions() -> Iterator[tuple[str, Function, list[str]]]:
    """Functions of the package as ``file:name``, with the lines of their files."""
    for place, text in files():
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, Function):
                yield f"{place}:{node.name}", node, lines


def parameters(node: Function) -> list[ast.arg]:
    """What a caller gives; of a method without what it is called on."""
    takes = node.args
    named = [*takes.posonlyargs, *takes.args, *takes.kwonlyargs]
    return [one for one in named if one.arg not in ("self", "cls")]


def test_no_file_is_longer_than_a_reader_holds_in_mind() -> None:
    long = {place for place, text in files() if text.count("\n") > MOST_LINES}
    assert not long, long


def test_a_function_of_more_than_six_parameters_says_why() -> None:
    long = set()
    for name, node, lines in functions():
        first = min([node, *node.decorator_list], key=lambda one: one.lineno).lineno
        if len(parameters(node)) > MOST_PARAMETERS and not _REASON.match(lines[first - 2]):
            long.add(name)
    assert not long, long


def test_the_configuration_has_types() -> None:
    """No function but its readers takes a configuration as a dictionary."""
    untyped = set()
    for name, node, _ in functions():
        if name.partition("/")[0] in ("config", "runtime"):
            continue
        for one in parameters(node):
            note = ast.unparse(one.annotation) if one.annotation else ""
            named = one.arg == "config" or one.arg.endswith("_config")
            if named and re.search(r"(dict|Mapping)\[str, (Any|object)\]", note):
                untyped.add(name)
    assert not untyped, untyped
