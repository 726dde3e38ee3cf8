"""YAML, of which nothing is taken that means something else than what is written."""

import json
import re
from typing import Any

import yaml

#: Numbers that YAML 1.1 reads to the base 8 or 60.
_OTHER_BASE = re.compile(r"[-+]?0[0-7_]+|[-+]?[0-9_]+(:[0-9_]+)+(\.[0-9_]*)?")


def parse(text: str) -> Any:
    """What a YAML text says.

    Raises:
        ValueError: With what is wrong, its line first.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(_detail(error)) from None


class _Loader(yaml.SafeLoader):
    """Refuses a key that occurs twice, of which YAML would silently take the last.

    A key that YAML takes for something else than its text, as ``on`` for true and ``010`` for 8, is
    refused too: a member would get another name than was written. So are numbers that YAML reads to
    another base than ten or sixteen: 010 is 8 to it, and 1:30 is 90.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                _check_key(key, self.construct_object(key), lines)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        meant: int = super().construct_yaml_int(node)
        _check_base(node, meant)
        return meant

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        meant: float = super().construct_yaml_float(node)
        _check_base(node, meant)
        return meant


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _check_base(node: yaml.ScalarNode, meant: float) -> None:
    """Refuse a number with a leading zero or with colons, which is not what it looks like."""
    if _OTHER_BASE.fullmatch(node.value):
        raise yaml.YAMLError(
            f"line {node.start_mark.line + 1}: YAML takes {node.value} for {meant}; put it in "
            "quotes if it is text, or write the number without leading zeros and colons"
        )


def _check_key(node: yaml.ScalarNode, meant: Any, lines: dict[str, int]) -> None:
    """Refuse a key that is in ``lines`` already, or not what is written there; note its line."""
    key, line = node.value, node.start_mark.line + 1
    if key in lines:
        raise yaml.YAMLError(f"{key!r} is in lines {lines[key]} and {line}; keep one")
    lines[key] = line
    if key != (meant if isinstance(meant, str) else json.dumps(meant, default=repr)):
        raise yaml.YAMLError(f"line {line}: YAML takes the key {key} for {meant}; put it in quotes")


def _detail(error: Exception) -> str:
    detail = str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        detail = f"line {error.problem_mark.line + 1}: {error.problem} {error.context or ''}"
        if "'\\t'" in detail:
            detail = f"{detail}; indent with blanks, not with tabs"
    return " ".join(detail.split())[:300]
