"""The page itself: markup, style and scripts in one file, nothing from elsewhere."""

import base64
import hashlib
from pathlib import Path

from markupsafe import Markup

from dollmaker.runtime.templates import open_templates

_TEMPLATES = Path(__file__).resolve().parent / "templates"

#: In the order they are joined in; the last one starts the page.
SCRIPTS = ("core", "masks", "state", "filters", "grid", "large", "keys")


def render(*, title: str, version: str, source: str) -> str:
    """The page as one HTML text.

    Its policy lets it load what lies beside it and nothing else, and run and use its own script
    and style only, which it knows by their hashes.

    Args:
        title: Name of the release.
        version: Its version.
        source: Name and licence of the source images.
    """
    parts = [(_TEMPLATES / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    code = '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"
    style = (_TEMPLATES / "gallery.css").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src 'self' file: '{_hash(code)}'; style-src '{_hash(style)}'; "
        "img-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    return (
        open_templates(_TEMPLATES)
        .get_template("gallery.html.j2")
        .render(
            title=title,
            version=version,
            source=source,
            policy=policy,
            code=Markup(code),
            style=Markup(style),
        )
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")
