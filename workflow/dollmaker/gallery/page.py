"""Write the gallery of a release: the page, its data and sheets of pictures."""

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from markupsafe import Markup

from dollmaker.gallery import data
from dollmaker.gallery.sprites import Picture, as_heat, as_image, write_sheets
from dollmaker.runtime.templates import open_templates
from dollmaker.store.files import atomic_path, write_text

_TEMPLATES = Path(__file__).resolve().parent / "templates"

#: In the order they are joined in; the last one starts the page.
SCRIPTS = ("core", "masks", "state", "filters", "grid", "large", "keys")

#: A page with more pairs than this would be larger than the tables that it shows.
LIMIT = 20_000


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a gallery says and shows beside the masks."""

    title: str  #: Name of the release.
    version: str  #: Its version.
    source: str  #: Name and licence of the source images, shown as it is.
    #: image_id -> source image, uint8 (S, S) or (C, S, S), or ``None`` for one that is not there;
    #: ``None`` where images may not be shown.
    picture: Callable[[str], Picture | None] | None = None
    #: image_id, finding -> relevance map, uint8 (S, S), or ``None`` as above. With neither, tiles
    #: are plain fields with the mask.
    relevance: Callable[[str, str], Picture | None] | None = None
    #: Other recipe -> its rows of the same pairs, to be seen side by side.
    others: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    #: That of the column ``iou_bound``, null where a pair has no bound; ``None`` where the quality
    #: only ranks.
    confidence: float | None = None
    #: What the sanity checks say of the recipe; empty where there is nothing to say.
    sanity: str = ""
    failed: bool = False  #: Whether a sanity check failed.


def write_gallery(rows: pl.DataFrame, folder: Path, content: Content, limit: int = LIMIT) -> None:
    """Write ``index.html`` with its data and sheets of pictures, whole or not at all.

    The page opens from a file, without server and network. The same input gives the same bytes.
    ``rows`` have the columns of ``data/{split}.parquet`` of a release. Of more than ``limit``, so
    many are drawn by hash; the page says so. A ``folder`` that exists is replaced.

    Raises:
        DataError: If a picture is not uint8 of a square.
    """
    picture, relevance, others = content.picture, content.relevance, content.others
    shown = data.arrange(rows, limit)
    facts = data.pairs(shown, total=len(rows), recipes=list(others), confidence=content.confidence)
    keys = shown.select("image_id", "finding").iter_rows()
    with atomic_path(folder) as part:
        sheets = part / "sheets"
        facts["pictures"] = {
            "image": picture and write_sheets(sheets, "image", facts["images"], picture, as_image),
            "relevance": relevance
            and write_sheets(sheets, "relevance", keys, lambda key: relevance(*key), as_heat),
        }
        write_text(part / "data" / "pairs.js", data.script("pairs", 0, facts))
        for number, block in data.details(shown, others):
            text = data.script("masks", number, block)
            write_text(part / "data" / f"masks-{number:04d}.js", text)
        write_text(part / "index.html", render(content))


def render(content: Content) -> str:
    """The page as one HTML text: markup, style and scripts, nothing from elsewhere.

    Its policy lets it load what lies beside it and nothing else, and run and use its own script
    and style only, which it knows by their hashes.
    """
    parts = [(_TEMPLATES / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    code = '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"
    style = (_TEMPLATES / "gallery.css").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src 'self' file: '{_hash(code)}'; style-src '{_hash(style)}'; "
        "img-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    template = open_templates(_TEMPLATES).get_template("gallery.html.j2")
    words = vars(content) | {"policy": policy}
    return template.render(words, code=Markup(code), style=Markup(style))


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")
