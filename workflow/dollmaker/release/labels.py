"""The stage: the masks of the released recipe as a folder that networks learn from.

``labels/`` is the part of a release that does not need the segmenter, which learns from it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.config import reads
from dollmaker.release.collect import collect_split, list_images
from dollmaker.release.parts import SPLITS
from dollmaker.release.verify import compare_masks
from dollmaker.runtime.errors import ArtifactError, DataError
from dollmaker.store import findings, provenance, tables
from dollmaker.store.files import atomic_path, read_json, write_json, write_text
from dollmaker.store.index import read_index
from dollmaker.store.sums import CHECKSUMS, checksums

#: Sections that determine the masks; the number of shards or the device do not belong to them.
SECTIONS = ("dataset", "seed", "source", "prepare", "classify", "attribute", "sample", "recipes")

_TURNED = pl.col("orientation") != 1


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What labels are made of.

    Attributes:
        index: The index.
        masks: Shards of masks, in the order of the index.
        relevance: Shards of the maps they were cut from, in the same order.
        committee: Folders of the members that explained.
        sanity: What the stage sanity says about the recipe.
    """

    index: Path
    masks: Sequence[Path]
    relevance: Sequence[Path]
    committee: Sequence[Path]
    sanity: Path


def collect_labels(config: dict[str, Any], inputs: Inputs, output: Path) -> None:
    """Gather the masks of the released recipe, which segmenters learn from.

    The folder is written whole or not at all, and read again before it gets its name.

    Args:
        config: The resolved configuration.
        inputs: What earlier stages made.
        output: Folder to make.

    Raises:
        DataError: If there is not a single mask to release, or the recipe failed its sanity checks
            and ``release.allow_failed_sanity`` is off.
        ArtifactError: If shards do not fit each other.
    """
    _require_sanity(read_json(inputs.sanity), config)
    index, names = read_index(inputs.index)
    header = labels_header(config, inputs.committee)
    header["findings"] = findings.localized(names, config["attribute"]["findings"])
    if turned := dict(index.select("image_id", "orientation").filter(_TURNED).iter_rows()):
        header["orientation"] = turned  # images' EXIF tags: true masks must be turned, too
    if len(inputs.relevance) != len(inputs.masks):
        raise ArtifactError(
            f"{len(inputs.masks)} shards of masks but {len(inputs.relevance)} of maps; give those "
            "of one recipe."
        )
    shards = list(zip(inputs.masks, inputs.relevance, strict=True))
    released = config["release"]["relevance"]
    with atomic_path(output) as folder:
        folder.mkdir()
        counts = [
            collect_split(index, shards, split, folder, header, relevance=released)
            for split in SPLITS
        ]
        if not any(counts):
            raise DataError("no mask is left to release; loosen the gates of the released recipe.")
        tables.write(list_images(index, shards), folder / "images.parquet", header)
        write_json(folder / "provenance.json", header)
        faults = compare_masks(folder)
        if faults:
            raise ArtifactError(f"{faults[0]}; the disk is not to be trusted, try another one.")
        write_text(folder / CHECKSUMS, checksums(folder))


def labels_header(config: dict[str, Any], committee: Sequence[Path]) -> dict[str, Any]:
    """Provenance of the masks; recipes and members that have no part in them are left out."""
    made_by = reads.of_labels(config)
    settings = {key: made_by[key] for key in SECTIONS}
    settings["prepare"] = {k: v for k, v in config["prepare"].items() if k != "shards"}
    settings["release"] = {key: config["release"][key] for key in ("recipe", "relevance")}
    members = {folder.name: read_json(folder / "model.json") for folder in committee}
    inputs = {name: member["sha256"] for name, member in members.items()}
    return provenance.header("labels", settings, seed=config["seed"], inputs=inputs)


def _require_sanity(checks: dict[str, Any], config: dict[str, Any]) -> None:
    """Refuse maps that fail a check or that could not be checked; warn of those in doubt."""
    reasons = {
        "ignores_model": "lead to the same masks when the networks' weights are random",
        "ignores_finding": "are the same for every finding of an image",
    }
    unknown = {
        "ignores_model": "could not be compared with those of random weights (see section sample)",
        "ignores_finding": "could not be compared with those of another finding (see sample)",
    }
    failed = [reason for check, reason in reasons.items() if checks[check]]
    failed += [reason for check, reason in unknown.items() if checks[check] is None]
    recipe = checks["recipe"]
    if failed and not config["release"]["allow_failed_sanity"]:
        raise DataError(
            f"the maps of recipe {recipe!r} {' and '.join(failed)}: they are no evidence for a "
            "finding; release another recipe, or set release.allow_failed_sanity."
        )
    if checks["doubts"] or checks["uninformative"]:
        print(f"sanity of recipe {recipe}: {checks['verdict']}", file=sys.stderr)
