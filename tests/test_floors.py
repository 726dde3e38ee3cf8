"""The floors of the package: a module imports from its own room and from rooms below.

The list below is the one order. Imports inside functions count, too.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import dollmaker

PACKAGE = Path(dollmaker.__file__).parent

#: Rooms from the ground up: what everything stands on, stages as the data flow, what looks at their
#: results, and what runs before the first job or beside the run.
FLOORS = (
    *("runtime", "store", "pixels", "pictures", "measures", "config", "networks"),
    *("phantoms", "prepare", "classify", "attribute", "binarize", "sanity"),
    *("gallery", "release", "segment", "adapt", "explain", "evaluate"),
    "predict",
    *("report", "study", "compare"),
    *("fetch", "launch", "status", "estimate"),
)


def modules() -> dict[str, Path]:
    """Modules of the package by their dotted names; a package is the name of its folder."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports."""
    known = modules()
    edges: dict[str, set[str]] = {}
    for name, path in known.items():
        found = set(imports(path))
        found |= {one.rpartition(".")[0] for one in found if one not in known}
        edges[name] = {one for one in found if one in known and one.startswith("dollmaker.")}
    return edges


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_a_floor() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert rooms == set(FLOORS)
    loose = {path.name for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__.py", "__main__.py"}


def test_no_module_imports_from_a_higher_floor() -> None:
    up = [
        f"{module} imports {other}"
        for module, others in graph().items()
        if module not in ("dollmaker", "dollmaker.__main__")  # the doors, above all floors
        for other in others
        if FLOORS.index(room(other)) > FLOORS.index(room(module))
    ]
    assert not up, up


def test_no_modules_import_each_other() -> None:
    """Nor in a longer circle: modules whose imports are all taken away fall away in turn."""
    left = graph()
    left.pop("dollmaker")
    while free := {name for name, others in left.items() if not others & left.keys() - {name}}:
        left = {name: others for name, others in left.items() if name not in free}
    assert not left, sorted(left)


def test_the_graph_sees_imports() -> None:
    edges = graph()
    assert "dollmaker.fetch.libraries" in edges["dollmaker.fetch.needed"]  # in a function
    assert "dollmaker.runtime.errors" in edges["dollmaker.store.files"]
