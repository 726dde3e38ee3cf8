"""What a command takes: the signature and the docstring of its function, read as text.

Nothing is imported for it: a stage loads torch, which takes seconds, and help and a mistyped
option must not wait for that. cyclopts, typer and jsonargparse build a command line of signatures,
too, but of functions that were imported, and each is one more thing to install for whoever only
reads a release. So this is a small reader of our own.

A parameter before ``/`` is a positional argument. Any other is an option, called as the parameter
is without ``_file``, ``_folder`` or ``_name``: ``index_file`` is ``--index``. One whose type is a
dataclass stands for the fields of that class. The one called ``config`` is loaded first. Help is
what ``Args:`` and ``Attributes:`` say, and what stands at the fields of a class after ``#:``.
"""

import argparse
import ast
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from inspect import Parameter
from pathlib import Path
from typing import Any

#: The package, and the folder that it lies in.
_PACKAGE, _ROOT = "dollmaker", Path(__file__).parents[2]

#: Types of one value, by the names that annotations give them, and how help calls a value.
_PLAIN: dict[str, dict[str, Any]] = {
    "Path": {"type": Path, "metavar": "PATH"},
    "str": {"metavar": "NAME"},
    "int": {"type": int, "metavar": "N"},
    "float": {"type": float, "metavar": "N"},
}

_LONG = re.MULTILINE | re.DOTALL

#: A field of a dataclass, with what is said above or beside it.
_FIELD = r"((?:^ {4}#: .*\n)*)^ {4}(\w+): .*?(?:  #: (.*))?$"

#: What has no default.
_REQUIRED = Parameter.empty


@dataclass(frozen=True)
class Source:
    """A function of the package, or a dataclass: its module and its definition."""

    module: str
    node: ast.FunctionDef | ast.ClassDef

    @property
    def text(self) -> str:
        """The docstring, without the parts that tell of parameters and results."""
        text = ast.get_docstring(self.node) or ""
        return _unmarked(re.split(r"\n\n(?:Args|Attributes|Returns|Raises):\n", text)[0])

    @property
    def help(self) -> dict[str, str]:
        """Parameter -> what the docstring says of it, or what stands at a field, in one line."""
        text = ast.get_docstring(self.node) or ""
        found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", text, re.MULTILINE)
        if isinstance(self.node, ast.ClassDef):
            lines = _text(self.module).splitlines()[self.node.lineno : self.node.end_lineno]
            fields = re.findall(_FIELD, "\n".join(lines), re.MULTILINE)
            found += [
                (name, f"{above}{beside}".replace("#: ", "")) for above, name, beside in fields
            ]
        helps = {name: re.sub(r"\s+", " ", _unmarked(told)).strip() for name, told in found if told}
        return {name: told.rstrip(".") for name, told in helps.items()}

    @property
    def parameters(self) -> list[Parameter]:
        """What it takes, in its order; annotations are statements, not yet types."""
        if isinstance(self.node, ast.ClassDef):
            return [
                _parameter(ast.unparse(field.target), field.annotation, field.value)
                for field in self.node.body
                if isinstance(field, ast.AnnAssign)
            ]
        takes = self.node.args
        plain = [*takes.posonlyargs, *takes.args]
        defaults = [None] * (len(plain) - len(takes.defaults)) + takes.defaults
        pairs = zip(plain + takes.kwonlyargs, defaults + takes.kw_defaults, strict=True)
        return [
            _parameter(one.arg, one.annotation, default, one in takes.posonlyargs)
            for one, default in pairs
        ]

    def group(self, one: Parameter) -> "Source | None":
        """The dataclass that a parameter stands for."""
        if one.name == "config" or not isinstance(one.annotation, ast.Name):
            return None
        if one.annotation.id in ("bool", *_PLAIN):
            return None
        where, node = _definition(self.module, one.annotation.id)
        return Source(where, node) if isinstance(node, ast.ClassDef) else None


def find(target: str) -> Source:
    """The function of a target ``module:function``, the module without the package."""
    module, _, name = target.partition(":")
    where, node = _definition(f"{_PACKAGE}.{module}", name)
    if not isinstance(node, ast.FunctionDef):
        raise TypeError(f"{target} is no function")
    return Source(where, node)


def summary(target: str) -> str:
    """The first line of a function's docstring, found without parsing: there are many to list."""
    module, _, name = target.partition(":")
    found = re.search(rf'^def {name}\(.*?"""(.+?)(?:"""|\n)', _text(f"{_PACKAGE}.{module}"), _LONG)
    return _unmarked(found[1]) if found else ""


def add_arguments(parser: Any, source: Source, prefix: str = "") -> None:
    """Declare the parameters of a function as arguments of a parser, or of a group of one."""
    helps = source.help | {"config": "Configuration file or inline JSON"}
    for one in source.parameters:
        if inner := source.group(one):
            group = parser.add_argument_group(inner.text.split("\n")[0].rstrip("."))
            add_arguments(group, inner, f"{one.name}.")
            continue
        told = helps.get(one.name, "").replace("%", "%%")
        options = {} if one.name == "config" else _options(source.module, one.annotation)
        required = one.default is _REQUIRED
        if not required:
            options["default"] = one.default
            silent = "action" in options or "default" in told
            if one.default not in (None, "", ()) and not silent:
                told += f" (default {one.default})"
            if options.get("nargs") and one.default == ():
                options["nargs"] = "*"
        name = re.sub("_(file|folder|name)?$", "", one.name)
        if one.kind is Parameter.POSITIONAL_ONLY:
            options |= {"metavar": name} | ({} if required else {"nargs": "?"})
            parser.add_argument(one.name, help=told, **options)
        else:
            options |= {"dest": prefix + one.name, "required": required}
            parser.add_argument(f"--{name.replace('_', '-')}", help=told, **options)


def bind(source: Source, values: Mapping[str, Any]) -> Callable[[], Any]:
    """The function, imported and ready to be called with what was parsed."""
    function, places, names = _imported(source.module, source.node.name), [], {}
    for one in source.parameters:
        value = values.get(one.name)
        if one.name == "config":
            value = value and _imported(f"{_PACKAGE}.config.settings", "loaded")(value)
        elif inner := source.group(one):
            fields = {field.name: values[f"{one.name}.{field.name}"] for field in inner.parameters}
            value = _imported(inner.module, inner.node.name)(**fields)
        if one.kind is Parameter.POSITIONAL_ONLY:
            places.append(value)
        else:
            names[one.name] = value
    return partial(function, *places, **names)


def _imported(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def _text(module: str) -> str:
    path = _ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path.read_text(encoding="utf-8")


@cache
def _definitions(module: str) -> dict[str, tuple[str, ast.stmt]]:
    """Name -> (module, statement) of what a module defines; imports have those they come from."""
    found: dict[str, tuple[str, ast.stmt]] = {}
    for node in ast.parse(_text(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = module, node
        elif isinstance(node, ast.Assign):
            found[ast.unparse(node.targets[0])] = module, node
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: (alias.name, node) for alias in node.names}
    return found


def _definition(module: str, name: str) -> tuple[str, ast.stmt]:
    where, node = _definitions(module)[name]
    if isinstance(node, ast.ImportFrom):
        return _definition(node.module or "", where)
    return where, node


def _parameter(
    name: str, note: ast.expr | None, value: ast.expr | None, placed: bool = False
) -> Parameter:
    default = _REQUIRED if value is None else ast.literal_eval(value)
    kind = Parameter.POSITIONAL_ONLY if placed else Parameter.KEYWORD_ONLY
    return Parameter(name, kind, default=default, annotation=note)


def _options(module: str, note: ast.expr | None) -> dict[str, Any]:
    """How argparse reads a value of this type; it must know it (``TypeError``)."""
    match note:
        case ast.BinOp(left=kind, right=ast.Constant(None)):
            return _options(module, kind)
        case ast.Name("bool"):
            return {"action": "store_true"}
        case ast.Name(name) if name in _PLAIN:
            return dict(_PLAIN[name])
        case ast.Name(name):
            where, node = _definition(module, name)
            return _options(where, getattr(node, "value", None))
        case ast.Subscript(ast.Name("Sequence" | "list"), kind):
            return {**_options(module, kind), "nargs": "+"}
        case ast.Subscript(ast.Name("Literal"), ast.Tuple() as kind):
            return {"choices": ast.literal_eval(kind)}
        case ast.Subscript(ast.Name("tuple"), _) if ast.unparse(note) == "tuple[int, int]":
            return {"type": _pair, "metavar": "X,Y"}
    raise TypeError(f"{module}: no option can be {note and ast.unparse(note)}")


def _pair(text: str) -> tuple[int, int]:
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y; give two whole numbers") from None
    return x, y


def _unmarked(text: str) -> str:
    """Text without the marks of docstrings."""
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", text).replace("`", "")
