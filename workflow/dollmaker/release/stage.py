"""The stage: build the release folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker import findings, provenance
from dollmaker.errors import DataError
from dollmaker.files import atomic_path, read_json, sha256_file, write_json, write_text
from dollmaker.prepare.stage import read_index
from dollmaker.release.card import write_card
from dollmaker.release.collect import SPLITS, collect_split
from dollmaker.release.pictures import contact_sheet
from dollmaker.shards import ImageShards

CHECKSUMS = "SHA256SUMS"

#: Sections that determine a release; the number of shards or the device do not belong to it.
_SECTIONS = ("dataset", "seed", "source", "prepare", "classify", "attribute", "recipes", "release")


def build_release(
    config: dict[str, Any],
    index_file: Path,
    images_folder: Path,
    mask_shards: Sequence[Path],
    committee: Sequence[Path],
    sanity: Path,
    output: Path,
) -> None:
    """Write the release folder, whole or not at all.

    Raises:
        DataError: If there is not a single mask to release, or the recipe failed its sanity checks
            and ``release.allow_failed_sanity`` is off.
    """
    checks = read_json(sanity)
    _require_sanity(checks, config)
    index, names = read_index(index_file)
    members = [read_json(folder / "model.json") for folder in committee]
    settings = {key: config[key] for key in _SECTIONS}
    settings["prepare"] = {k: v for k, v in config["prepare"].items() if k != "shards"}
    header = provenance.header(
        "release",
        settings,
        seed=config["seed"],
        inputs={folder.name: m["sha256"] for folder, m in zip(committee, members, strict=True)},
    )
    header["findings"] = findings.localized(names, config["attribute"]["findings"])
    with atomic_path(output) as folder:
        (folder / "data").mkdir(parents=True)
        table = pl.concat(
            collect_split(index, mask_shards, split, folder, header) for split in SPLITS
        )
        if table.is_empty():
            raise DataError("no mask is left to release; loosen the gates of the released recipe.")
        places = {row[0]: row[1:] for row in index.select("image_id", "shard", "row").iter_rows()}
        images = ImageShards(images_folder)
        show = config["release"]["pictures"]
        sheet = contact_sheet(table, (lambda i: images.read(*places[i])) if show else None)
        sheet.save(folder / "contact-sheet.png")
        write_json(folder / "provenance.json", header)
        write_json(folder / "sanity.json", {k: v for k, v in checks.items() if k != "header"})
        write_text(folder / "README.md", write_card(table, config, members, checks))
        write_text(folder / CHECKSUMS, checksums(folder))


def _require_sanity(checks: dict[str, Any], config: dict[str, Any]) -> None:
    reasons = {
        "ignores_model": "hardly change when the network's weights are random",
        "ignores_finding": "are the same for every finding of an image",
    }
    failed = [reason for check, reason in reasons.items() if checks[check]]
    if failed and not config["release"]["allow_failed_sanity"]:
        raise DataError(
            f"the maps of recipe {checks['recipe']!r} {' and '.join(failed)}: they are no evidence "
            "for a finding; release another recipe, or set release.allow_failed_sanity."
        )


def checksums(folder: Path) -> str:
    """Lines of SHA256SUMS for every file of a folder but itself, sorted by name."""
    files = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != CHECKSUMS
    )
    return "".join(f"{sha256_file(folder / name)}  {name}\n" for name in files)
