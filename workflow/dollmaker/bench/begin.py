"""``python -m dollmaker.bench.begin MODULE:NAME COMMAND ...``: a command until its work begins.

The process ends where the command first calls the function (or method) ``NAME`` of ``MODULE``, and
says so. What it took until then is what starting the command costs.
"""

import importlib
import os
import sys
from typing import Any, NoReturn

#: What the process prints when the work begins.
BEGUN = "the work begins"


def main(words: list[str]) -> None:
    """Run the command ``words[1:]`` until it calls ``words[0]``."""
    from dollmaker.runtime import cli

    module, _, path = words[0].partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    assert callable(getattr(owner, name))
    setattr(owner, name, _leave)
    sys.exit(cli.main(words[1:]))


def _leave(*_: Any, **__: Any) -> NoReturn:
    """At once: nothing is closed or written any more."""
    print(BEGUN, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
