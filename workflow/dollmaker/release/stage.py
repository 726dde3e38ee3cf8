"""The stage: build the release folder from what all others made."""

import shutil
from pathlib import Path

import polars as pl

from dollmaker.config.whole import Config
from dollmaker.gallery.data import arrange
from dollmaker.gallery.page import LIMIT, Content, write_gallery
from dollmaker.gallery.sprites import Picture
from dollmaker.release import croissant
from dollmaker.release.bounds import BOUNDS, add_bounds, calibrate_release, write_tables
from dollmaker.release.browse import contact_sheet
from dollmaker.release.card import Facts, write_card, write_changes, write_licence
from dollmaker.release.formats import pieces, source_masks, write_formats
from dollmaker.release.labels import labels_header, read_pairs, recorded
from dollmaker.release.models import Inputs, add_models
from dollmaker.release.parts import BOUND, SPLITS, Tree, find_parts, read_rows
from dollmaker.release.replaced import tell_other_bytes
from dollmaker.release.sanity import judged
from dollmaker.store import provenance, tables
from dollmaker.store.depth import to_show
from dollmaker.store.files import atomic_path, read_json, sha256_file, write_json, write_text
from dollmaker.store.shards import ImageShards, ShardSeries
from dollmaker.store.sums import CHECKSUMS, checksums
from dollmaker.store.tables import read_index


def build_release(config: Config, inputs: Inputs, output: Path) -> None:
    """Put labels, models, scores, checksums and a card into a release, whole or not at all.

    Args:
        config: The resolved configuration.
        inputs: What earlier stages made.
        output: Folder to make.

    Raises:
        ArtifactError: If a file of an earlier stage is missing or damaged.
    """
    table = pl.concat([read_rows(inputs.labels, split) for split in SPLITS])
    target = next(iter(tables.read_header(inputs.pairs).get("targets", [])), None)
    bounds = calibrate_release(config, table, tables.read(inputs.pairs), target)
    if bounds is not None:
        table = add_bounds(table, bounds)
    facts = Facts(
        config=config,
        findings=read_json(inputs.labels / "provenance.json")["findings"],
        table=table,
        images=tables.read(inputs.labels / "images.parquet"),
        members={folder.name: read_json(folder / "model.json") for folder in inputs.committee},
        segmenter=read_json(inputs.segmenter / "segmenter.json"),
        sanity={k: v for k, v in read_json(inputs.sanity).items() if k != "header"},
        scores=tables.read(inputs.scores),
        bounds=bounds,
    )
    commit = provenance.find_commit()
    with atomic_path(output) as folder:
        folder.mkdir()
        write_tables(inputs.labels, folder, bounds)
        shutil.copytree(inputs.labels / "masks", folder / "masks")
        shutil.copyfile(inputs.labels / "images.parquet", folder / "images.parquet")
        for split in SPLITS:
            images, rows = (part.filter(split=split) for part in (facts.images, table))
            if len(images):
                masks = source_masks(folder, split, rows, config.prepare.fit)
                write_formats(folder, split, pieces(images, rows, masks, facts.findings))
        add_models(folder, inputs, config.release.models)
        write_json(folder / "sanity.json", facts.sanity)
        if bounds is not None:
            write_json(folder / BOUNDS, bounds)
        _add_pictures(folder, facts, inputs)
        write_json(folder / "provenance.json", _provenance(facts, inputs, commit))
        write_text(folder / "README.md", write_card(facts))
        date = commit.date if commit else None
        write_json(folder / "croissant.json", croissant.describe(folder, facts, date))
        write_text(folder / "LICENSE", write_licence(config.release))
        write_text(folder / "CHANGELOG.md", write_changes(config.release))
        write_text(folder / CHECKSUMS, checksums(folder))
        tell_other_bytes(output, folder)


def _provenance(facts: Facts, inputs: Inputs, commit: provenance.Commit | None) -> Tree:
    """The labels' header with all of the section release, and the commit of the code."""
    of_labels = labels_header(facts.config, inputs.committee)
    sums = sha256_file(inputs.labels / CHECKSUMS)
    header = provenance.header(
        "release",
        recorded(facts.config),
        seed=facts.config.seed,
        inputs={**of_labels["inputs"], "labels": sums, "segmenter": facts.segmenter["sha256"]},
    )
    return header | {"findings": facts.findings, "commit": commit.name if commit else None}


def _add_pictures(folder: Path, facts: Facts, inputs: Inputs) -> None:
    """Write contact-sheet.png and ``gallery/``.

    Source images are shown with ``release.pictures``, relevance maps with ``release.relevance``.
    """
    options, table = facts.config.release, facts.table
    index, _ = read_index(inputs.index)
    places = {row[0]: row[1:] for row in index.select("image_id", "shard", "row").iter_rows()}
    images = ImageShards(inputs.images)

    def read(image_id: str) -> Picture:
        return images.read(*places[image_id])

    sheet = contact_sheet(table, read if options.pictures else None)
    (folder / "contact-sheet.png").write_bytes(sheet)
    shown = arrange(table, LIMIT)["image_id"].unique()
    seen = index.filter(pl.col("image_id").is_in(shown.implode()))
    others: dict[str, list[Path]] = {}
    for path in inputs.others:
        others.setdefault(path.parent.name, []).append(path)
    sanity = judged(facts.sanity)
    content = Content(
        title=options.name,
        version=options.version,
        source=f"{facts.config.dataset}: {options.source_license}",
        picture=(lambda image_id: to_show(read(image_id))) if options.pictures else None,
        relevance=_Maps(inputs.labels, table) if options.relevance else None,
        others={name: read_pairs(seen, shards) for name, shards in others.items()},
        confidence=facts.bounds["confidence"] if facts.bounds and table[BOUND].count() else None,
        sanity=sanity.verdict if sanity and not sanity.passed else "",
        failed=sanity is not None and sanity.failed,
    )
    write_gallery(table, folder / "gallery", content)


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
