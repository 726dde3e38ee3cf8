"""Templates of pages, of Jinja."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2


def open_templates(
    folder: Path, *, html: bool = True, filters: Mapping[str, Callable[..., Any]] | None = None
) -> jinja2.Environment:
    """The templates of a folder, in which a name that is not known is an error.

    With ``html`` all values are escaped; else the template must do it, and ends with a line as it
    is.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not html,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= dict(filters or {})
    return environment
