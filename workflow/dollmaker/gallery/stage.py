"""Write the gallery of a release."""

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from dollmaker.gallery import data, page
from dollmaker.gallery.sprites import Picture, as_heat, as_image, write_sheets
from dollmaker.store.files import atomic_path, write_text

#: A page with more pairs than this would be larger than the tables that it shows.
LIMIT = 20_000


def write_gallery(
    rows: pl.DataFrame,
    folder: Path,
    *,
    title: str,
    version: str,
    picture: Callable[[str], Picture | None] | None,
    relevance: Callable[[str, str], Picture | None] | None,
    others: Mapping[str, pl.DataFrame] | None = None,
    confidence: float | None = None,
    source: str,
    limit: int = LIMIT,
) -> None:
    """Write ``index.html`` with its data and sheets of pictures, whole or not at all.

    The page opens from a file, without server and network. The same input gives the same bytes.

    Args:
        rows: All pairs, columns as in ``data/{split}.parquet`` of a release.
        folder: The gallery; replaced if it exists.
        title: Name of the release.
        version: Its version.
        picture: image_id -> source image, uint8 (S, S) or (C, S, S), or ``None`` for one that is
            not there; ``None`` where images may not be shown.
        relevance: image_id, finding -> relevance map, uint8 (S, S), or ``None`` as above. With
            neither, tiles are plain fields with the mask.
        others: Other recipe -> its rows of the same pairs, to be seen side by side.
        confidence: That of the column ``iou_bound``, null where a pair has no bound; ``None``
            where the quality only ranks.
        source: Name and licence of the source images, shown as it is.
        limit: Of more pairs than this, as many are drawn by hash; the page says so.

    Raises:
        DataError: If a picture is not uint8 of a square.
    """
    others = others or {}
    shown = data.arrange(rows, limit)
    with atomic_path(folder) as part:
        facts = data.pairs(shown, total=len(rows), recipes=list(others), confidence=confidence)
        facts["pictures"] = {
            "image": picture
            and write_sheets(part / "sheets", "image", facts["images"], picture, as_image),
            "relevance": relevance
            and write_sheets(
                part / "sheets",
                "relevance",
                shown.select("image_id", "finding").iter_rows(),
                lambda key: relevance(*key),
                as_heat,
            ),
        }
        write_text(part / "data" / "pairs.js", data.script("pairs", 0, facts))
        for number, block in data.details(shown, others):
            text = data.script("masks", number, block)
            write_text(part / "data" / f"masks-{number:04d}.js", text)
        write_text(part / "index.html", page.render(title=title, version=version, source=source))
