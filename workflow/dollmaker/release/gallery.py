"""The gallery of a release: what it shows comes from the labels and, if allowed, the images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.gallery.data import arrange
from dollmaker.gallery.sprites import Picture
from dollmaker.gallery.stage import LIMIT, write_gallery
from dollmaker.release.collect import read_pairs
from dollmaker.release.parts import BOUND, SPLITS, find_parts
from dollmaker.store.depth import to_show
from dollmaker.store.shards import ImageShards, ShardSeries


def add_gallery(
    config: Mapping[str, Any],
    table: pl.DataFrame,
    index: pl.DataFrame,
    images_folder: Path,
    labels: Path,
    others: Mapping[str, Sequence[Path]],
    bounds: Mapping[str, Any] | None,
    folder: Path,
) -> None:
    """Write ``gallery/`` of a release.

    Source images are shown with ``release.pictures``, relevance maps with ``release.relevance``.

    Args:
        config: The resolved configuration.
        table: All rows of the release.
        index: The index.
        images_folder: Folder of the image shards.
        labels: Folder of the labels.
        others: Other recipe -> its mask shards, to be seen side by side.
        bounds: What bounds.json says; ``None`` where quality only ranks.
        folder: The folder to make.
    """
    options = config["release"]
    shown = arrange(table, LIMIT)
    seen = index.filter(pl.col("image_id").is_in(shown["image_id"].unique().implode()))
    places = {row[0]: row[1:] for row in seen.select("image_id", "shard", "row").iter_rows()}
    images = ImageShards(images_folder)

    def picture(image_id: str) -> Picture:
        return to_show(images.read(*places[image_id]))

    write_gallery(
        table,
        folder,
        title=options["name"],
        version=options["version"],
        picture=picture if options["pictures"] else None,
        relevance=_Maps(labels, table) if options["relevance"] else None,
        others={name: read_pairs(seen, shards) for name, shards in others.items()},
        confidence=bounds["confidence"] if bounds and table[BOUND].count() else None,
        source=f"{config['dataset']}: {options['source_license']}",
    )


class _Maps:
    """The relevance map of a pair, uint8 (S, S)."""

    def __init__(self, labels: Path, table: pl.DataFrame) -> None:
        self._series = {split: ShardSeries(find_parts(labels, "masks", split)) for split in SPLITS}
        self._rows: dict[tuple[str, str], tuple[str, int]] = {}
        for split in SPLITS:
            pairs = table.filter(split=split).select("image_id", "finding").iter_rows()
            self._rows |= {(pair[0], pair[1]): (split, row) for row, pair in enumerate(pairs)}

    def __call__(self, image_id: str, finding: str) -> Picture:
        split, row = self._rows[image_id, finding]
        return self._series[split].read("relevance", row)
