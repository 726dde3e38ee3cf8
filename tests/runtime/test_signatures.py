"""Commands from signatures: a toy package, and Python's own reading of ours."""

import argparse
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dollmaker.runtime import cli, signatures

TOY = '''
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toy.kinds import Colour, Files


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is asked of it.

    Attributes:
        many: Several
            colours, 100 % of them.
        place: One :class:`pixel` of ``it``.
    """

    many: Sequence[Colour] | None = None
    place: tuple[int, int] | None = None


def work(
    release_folder: Path,
    image_id: str = "i0",
    /,
    *,
    config: dict[str, Any],
    files: Files,
    ask: Ask,
    member_name: str,
    number: int = 0,
    share: float = 0.5,
    rows: Sequence[Path] = (),
    list_: bool = False,
) -> list[Any]:
    """Do the ``work``.

    At length.

    Args:
        release_folder: The release.
        number: So many.
        share: A share; default: half.
    """
    return [release_folder, image_id, config, files, ask, member_name, number, share, rows, list_]


def odd(what: set[int]) -> None:
    """No option can be a set."""
'''

KINDS = '''
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Colour = Literal["red", "blue"]


@dataclass(frozen=True)
class Files:
    """Files."""

    index: Path
    colour: Colour = "red"
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package = tmp_path / "toy"
    (package / "config").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "work.py").write_text(textwrap.dedent(TOY))
    (package / "kinds.py").write_text(textwrap.dedent(KINDS))
    read = "def loaded(source):\n    return {'from': source}\n"
    (package / "config/settings.py").write_text(read)
    monkeypatch.setattr(signatures, "_PACKAGE", "toy")
    monkeypatch.setattr(signatures, "_ROOT", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    signatures._definitions.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "toy"]:
        del sys.modules[name]


def call(words: str) -> list[Any]:
    source = signatures.find("work:work")
    parser = argparse.ArgumentParser(exit_on_error=False)
    signatures.add_arguments(parser, source)
    found: list[Any] = signatures.bind(source, vars(parser.parse_args(words.split())))()
    return found


@pytest.mark.usefixtures("toy")
def test_what_is_given_arrives_in_its_type() -> None:
    words = "r --config c --index i --member m"
    release, image, config, files, ask, *rest = call(words)
    assert (release, image, config) == (Path("r"), "i0", {"from": "c"})
    assert vars(files) == {"index": Path("i"), "colour": "red"}
    assert vars(ask) == {"many": None, "place": None}
    assert rest == ["m", 0, 0.5, (), False]
    words = "r j --config c --index i --member m --colour blue --many red blue --place 3,4"
    _, image, _, files, ask, *rest = call(f"{words} --number 7 --share 1e-3 --rows a b --list")
    assert (image, files.colour) == ("j", "blue")
    assert vars(ask) == {"many": ["red", "blue"], "place": (3, 4)}
    assert rest == ["m", 7, 0.001, [Path("a"), Path("b")], True]
    assert call("r --config c --index i --member m --rows")[8] == []


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    "more", ["--colour green", "--many", "--many green", "--place 3", "--place 3,x", "--number 1.5"]
)
def test_what_does_not_fit_is_refused(more: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        call(f"r --config c --index i --member m {more}")


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("left", ["--config", "--index", "--member", "r"])
def test_what_has_no_default_is_asked_for(left: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = {"r": "r", "--config": "--config c", "--index": "--index i", "--member": "--member m"}
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        call(" ".join(word for name, word in words.items() if name != left))
    assert left.strip("r") in capsys.readouterr().err


@pytest.mark.usefixtures("toy")
def test_help_is_the_docstring_and_nothing_is_imported() -> None:
    source = signatures.find("work:work")
    assert source.text == "Do the work.\n\nAt length."
    parser = argparse.ArgumentParser()
    signatures.add_arguments(parser, source)
    told = " ".join(parser.format_help().split())
    for text in (
        "What is asked of it: --many {red,blue} [{red,blue} ...] Several colours, 100 % of them",
        "--place X,Y One pixel of it",
        "release The release",
        "--number N So many (default 0)",
        "--share N A share; default: half --rows",
        "--colour {red,blue} (default red)",
    ):
        assert text in told, text
    assert "toy.work" not in sys.modules
    with pytest.raises(TypeError, match=r"toy\.work: no option can be set\[int\]"):
        signatures.add_arguments(parser, signatures.find("work:odd"))


TARGETS = [target for targets in cli.COMMANDS.values() for target in targets.split()]


@pytest.mark.parametrize("target", TARGETS)
def test_python_reads_the_same_signature(target: str) -> None:
    """And each option says what it is for."""
    source = signatures.find(target)
    assert signatures.summary(target) == source.text.split("\n")[0] != ""
    waiting = [(source, signatures._imported(source.module, target.split(":")[1]))]
    for read, live in waiting:
        known = inspect.signature(live).parameters.values()
        assert [one.name for one in read.parameters] == [one.name for one in known]
        for one, true in zip(read.parameters, known, strict=True):
            placed = [k.kind is inspect.Parameter.POSITIONAL_ONLY for k in (one, true)]
            assert one.default == true.default and placed[0] == placed[1]
            if inner := read.group(one):
                waiting.append((inner, signatures._imported(inner.module, inner.node.name)))
            else:
                assert read.help.get(one.name), f"{target} does not say what {one.name} is"


def test_rules_give_options_that_their_commands_have() -> None:
    rules = Path(__file__).parents[2] / "workflow" / "rules"
    text = "\n".join(file.read_text() for file in sorted(rules.glob("*.smk")))
    calls = re.findall(r"python -m dollmaker ([\w-]+)((?:.*\\\n)*.*)", text)
    assert len(calls) > 20
    for command, words in calls:
        target = cli.COMMANDS[command].split()[-1 if "--config" in words else 0]
        parser = argparse.ArgumentParser()
        signatures.add_arguments(parser, signatures.find(target))
        given = set(re.findall(r"--[\w-]+", words))
        assert given <= set(parser._option_string_actions), command
        needed = {a.option_strings[0] for a in parser._actions if a.required and a.option_strings}
        assert needed <= given, command
