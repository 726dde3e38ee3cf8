"""The stage: build the release folder from what all others made."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.release import croissant
from dollmaker.release.bounds import BOUNDS, add_bounds, calibrate_release, write_tables
from dollmaker.release.card import write_card
from dollmaker.release.facts import Facts, summary
from dollmaker.release.formats import pieces, source_masks, write_formats
from dollmaker.release.gallery import add_gallery
from dollmaker.release.labels import labels_header
from dollmaker.release.licence import write_changes, write_licence
from dollmaker.release.models import add_models
from dollmaker.release.parts import SPLITS, read_rows
from dollmaker.release.pictures import contact_sheet
from dollmaker.store import provenance, tables
from dollmaker.store.files import atomic_path, read_json, sha256_file, write_json, write_text
from dollmaker.store.index import read_index
from dollmaker.store.shards import ImageShards
from dollmaker.store.sums import CHECKSUMS, checksums


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a release is made of.

    Attributes:
        index: The index.
        images: Folder of the image shards, for the pictures.
        labels: Folder of the labels.
        segmenter: Folder of the segmenter.
        committee: Folders of the members that explained.
        sanity: What the stage sanity says about the recipe.
        scores: masks.parquet of the evaluation; empty without truth.
        pairs: pairs.parquet of the evaluation, which the bounds of the masks' IoU come from.
        others: Mask shards of other recipes, ``{recipe}/{shard}.h5``, for the gallery.
        tasks: Folders of the fine-tunings that ``release.models`` names.
        thresholds: Those of the released recipe, if it has any.
    """

    index: Path
    images: Path
    labels: Path
    segmenter: Path
    committee: Sequence[Path]
    sanity: Path
    scores: Path
    pairs: Path
    others: Sequence[Path] = ()
    tasks: Sequence[Path] = ()
    thresholds: Path | None = None

    def other_recipes(self) -> dict[str, list[Path]]:
        """Other recipe -> its mask shards."""
        found: dict[str, list[Path]] = {}
        for path in self.others:
            found.setdefault(path.parent.name, []).append(path)
        return found


def build_release(config: dict[str, Any], inputs: Inputs, output: Path) -> None:
    """Put labels, models, scores, checksums and a card into a release, whole or not at all.

    Args:
        config: The resolved configuration.
        inputs: What earlier stages made.
        output: Folder to make.

    Raises:
        ArtifactError: If a file of an earlier stage is missing or damaged.
    """
    members = {folder.name: read_json(folder / "model.json") for folder in inputs.committee}
    checks = {k: v for k, v in read_json(inputs.sanity).items() if k != "header"}
    findings = read_json(inputs.labels / "provenance.json")["findings"]
    table = pl.concat([read_rows(inputs.labels, split) for split in SPLITS])
    target = next(iter(tables.read_header(inputs.pairs).get("targets", [])), None)
    bounds = calibrate_release(config, table, tables.read(inputs.pairs), target)
    if bounds is not None:
        table = add_bounds(table, bounds)
    facts = Facts(
        config=config,
        findings=findings,
        table=table,
        images=tables.read(inputs.labels / "images.parquet"),
        members=members,
        segmenter=read_json(inputs.segmenter / "segmenter.json"),
        sanity=checks,
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
                masks = source_masks(folder, split, rows, config["prepare"]["fit"])
                write_formats(folder, split, pieces(images, rows, masks, findings))
        mean = tables.read_header(inputs.index).get("channel_mean", ())
        wanted = config["release"]["models"]
        add_models(
            folder,
            inputs.segmenter,
            inputs.committee,
            wanted,
            inputs.tasks,
            inputs.thresholds,
            mean,
        )
        write_json(folder / "sanity.json", checks)
        if bounds is not None:
            write_json(folder / BOUNDS, bounds)
        index, _ = read_index(inputs.index)
        sheet = _contact_sheet(config, table, index, inputs.images)
        (folder / "contact-sheet.png").write_bytes(sheet)
        add_gallery(
            config, table, index, inputs.images, inputs.labels, inputs.other_recipes(), bounds,
            folder / "gallery",
        )  # fmt: skip
        write_json(
            folder / "provenance.json",
            _provenance(config, inputs.committee, facts, commit, inputs.labels),
        )
        write_text(folder / "README.md", write_card(facts))
        date = commit.date if commit else None
        write_json(
            folder / "croissant.json",
            croissant.describe(folder, config, findings, summary(facts), date),
        )
        write_text(folder / "LICENSE", write_licence(config["release"]))
        write_text(folder / "CHANGELOG.md", write_changes(config["release"]))
        write_text(folder / CHECKSUMS, checksums(folder))


def _contact_sheet(
    config: dict[str, Any], table: pl.DataFrame, index: pl.DataFrame, images_folder: Path
) -> bytes:
    if not config["release"]["pictures"]:
        return contact_sheet(table, None)
    places = {row[0]: row[1:] for row in index.select("image_id", "shard", "row").iter_rows()}
    images = ImageShards(images_folder)
    return contact_sheet(table, lambda image_id: images.read(*places[image_id]))


def _provenance(
    config: dict[str, Any],
    committee: Sequence[Path],
    facts: Facts,
    commit: provenance.Commit | None,
    labels: Path,
) -> dict[str, Any]:
    """The labels' header with all of the section release, and the commit of the code."""
    of_labels = labels_header(config, committee)
    made_of = {"labels": sha256_file(labels / CHECKSUMS), "segmenter": facts.segmenter["sha256"]}
    header = provenance.header(
        "release",
        {**of_labels["config"], "release": config["release"]},
        seed=config["seed"],
        inputs={**of_labels["inputs"], **made_of},
    )
    return header | {"findings": facts.findings, "commit": commit.name if commit else None}
