"""A release against the truth of its user."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dollmaker.evaluate.means import MEAN, PAIRS, POOLED, compare_mask, gated_by_steps, summarize
from dollmaker.measures.words import interval, number
from dollmaker.pixels.geometry import unfit_map
from dollmaker.pixels.truth import Missing, Truth, open_truth, require_sound
from dollmaker.release.read import Release, read_release, source_mask
from dollmaker.runtime.errors import ConfigError, DataError, UsageError, unknown
from dollmaker.store import tables
from dollmaker.store.files import read_json, write_json

_METRICS = {"miou": "mean IoU", "dice": "Dice", "hit_rate": "hit rate"}


@dataclass(frozen=True, kw_only=True)
class TruthFile:
    """Your truth, and how it is to be read."""

    #: CheXlocalize's JSON, NIH's CSV of boxes, or a folder of pictures: ``{finding}/{image}.png``,
    #: or ``{image}.png`` with ``--classes``.
    truth: Path
    #: Pixel values of a finding, FINDING=VALUES, in files with classes, e.g. Edema=1 'Lung
    #: Lesion=2,3'.
    classes: Sequence[str] = ()
    space: int = 1024  #: Side of the pictures that boxes were drawn on; 0: the images themselves.
    #: What an image is that the truth has no entry of: left out (unknown), or without the finding
    #: (empty), so that a mask there is a false alarm.
    missing: Missing = "unknown"


def evaluate_release(
    release_folder: Path,
    /,
    truth: TruthFile,
    bootstrap: int = 1000,
    min_pairs: int = 10,
    json: Path | None = None,
) -> str:
    """Score a release against your truth.

    Args:
        release_folder: Folder of the release.
        truth: The truth.
        bootstrap: Replicates over patients.
        min_pairs: Pairs with truth that each finding needs for a mean over findings; else the mean
            is over all pairs.
        json: Write the numbers to this file.
    """
    if truth.space < 0:
        raise UsageError("--space is a side in pixels; give 1 or more, or 0 for the images' own")
    if bootstrap < 10:
        raise UsageError("--bootstrap counts replicates; give 10 or more")
    findings = read_release(release_folder).findings
    classes = _classes(truth.classes, findings)
    opened = open_truth(truth.truth, findings, classes, truth.space or None, truth.missing)
    result = score_release(
        release_folder,
        opened,
        replicates=bootstrap,
        min_pairs=min_pairs,
        seed=0,
        shared=_shared(classes),
    )
    if json:
        write_json(json, result)
    return describe(result)


def _classes(words: Sequence[str], findings: list[str]) -> dict[str, list[int]]:
    """``Edema=1`` and the like."""
    classes = {}
    for word in words:
        finding, _, values = word.rpartition("=")
        if not finding:
            raise ConfigError(
                f"--classes {word!r} is not FINDING=VALUES; give e.g. {word.strip('=')}=1."
            )
        if finding not in findings:
            raise ConfigError(unknown("finding", finding, findings))
        if finding in classes:
            raise ConfigError(
                f"--classes names {finding!r} twice; give its values at once, e.g. {finding}=1,2."
            )
        try:
            classes[finding] = [int(value) for value in values.split(",")]
        except ValueError:
            raise ConfigError(
                f"--classes {word!r} is not FINDING=VALUES; give whole numbers, e.g. {finding}=1,2."
            ) from None
    return classes


def _shared(classes: Mapping[str, list[int]]) -> list[str]:
    """Findings that have a pixel value in common with another one."""
    count = Counter(value for values in classes.values() for value in set(values))
    return [name for name, values in classes.items() if any(count[value] > 1 for value in values)]


def score_release(
    folder: Path,
    truth: Truth,
    *,
    replicates: int,
    min_pairs: int,
    seed: int,
    shared: Sequence[str] = (),
) -> dict[str, Any]:
    """Score every pair with truth; a pair without a mask counts as an empty one.

    Findings that are ``shared`` have values in common, so that the truth does not tell which of
    them an image has: of these only pairs with a mask are scored.

    Where not all images were looked at, the others are left out. The hit rate asks whether the
    highest pixel of the relevance map is inside the truth; of a release without maps, which share
    of the mask is. A pair without both has hit nothing.

    Returns:
        ``name``, ``version``, ``maps`` (whether the release has them), ``min_pairs``, ``images``
        (with truth), ``left_out`` (images with truth that were not looked at), ``shared``,
        ``scores``: rows as in scores/masks.parquet.

    Raises:
        ArtifactError: If the folder is no release.
        DataError: If the truth is damaged, or is of no image of the release.
    """
    release = read_release(folder)
    provenance = read_json(folder / "provenance.json")
    turned = provenance.get("orientation", {})
    images = tables.read(folder / "images.parquet").with_columns(
        orientation=pl.col("image_id").replace_strict(turned, default=1, return_dtype=pl.Int8)
    )
    config = provenance["config"]
    looked = pl.col("split").is_in(config["attribute"]["splits"])
    if config["attribute"]["max_images"] is not None:
        looked &= pl.col("explained")
    asked, others = images.filter(looked), images.filter(~looked)
    rows = {(row["image_id"], row["finding"]): row for row in release.table.iter_rows(named=True)}
    pairs = [
        pair
        for image in asked.iter_rows(named=True)
        for pair in _score_image(image, release, rows, truth)
        if pair["finding"] not in shared or (image["image_id"], pair["finding"]) in rows
    ]
    stranger = f"the truth is empty, or of no image {folder} looked at; compare names and splits."
    if not pairs:
        raise DataError(stranger)
    require_sound(truth, "--classes")
    if not any(pair["truth_area"] for pair in pairs):
        raise DataError(stranger)
    table = pl.DataFrame(pairs, schema=PAIRS, orient="row")
    steps = config["recipes"][config["release"]["recipe"]]["binarize"]
    gates = {"release": gated_by_steps(steps, config["attribute"]["min_probability"])}
    summary = summarize(
        table, release.findings, replicates, seed, min_pairs=min_pairs, gated_by=gates
    )
    return {
        "name": release.name,
        "version": release.version,
        "maps": _has_maps(release),
        "min_pairs": min_pairs,
        "images": table["image_id"].n_unique(),
        "shared": list(shared),
        "left_out": sum(_known(image, release, truth) for image in others.iter_rows(named=True)),
        "scores": [_finite(row) for row in summary.drop("^auprc.*$").to_dicts()],
    }


def _has_maps(release: Release) -> bool:
    return any(len(s.read("relevance", 0)) for s in release.masks.values() if s.paths)


def _known(image: dict[str, Any], release: Release, truth: Truth) -> bool:
    return any(truth.mask(image, f, truth.targets[0]) is not None for f in release.findings)


def _score_image(
    image: dict[str, Any],
    release: Release,
    rows: dict[tuple[str, str], dict[str, Any]],
    truth: Truth,
) -> Iterator[dict[str, Any]]:
    for finding in release.findings:
        area = truth.mask(image, finding, truth.targets[0])
        if area is None:
            continue
        row = rows.get((image["image_id"], finding))
        mask = np.zeros_like(area) if row is None else source_mask(release, row)
        if not mask.any() and not area.any():
            continue
        values = mask if row is None else _map(release, row, mask)
        yield {
            "recipe": "release",
            "target": truth.targets[0],
            **{key: image[key] for key in ("split", "image_id", "patient_id")},
            "finding": finding,
            "label": None if row is None else row["label"],
            "probability": None if row is None else row["probability"],
            "explained": image["explained"],
            "quality": None if row is None else row["quality"],
            **compare_mask(mask, values, area, curve=False),
            **({"hit": 0.0} if values is mask and not mask.any() else {}),
        }


def _map(release: Release, row: dict[str, Any], mask: Any) -> Any:
    stored = release.masks[row["split"]].read("relevance", row["place"])
    return unfit_map(stored, row["width"], row["height"], release.fit) if len(stored) else mask


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()}


def describe(result: dict[str, Any]) -> str:
    """The scores as text: pairs where mask or truth has pixels, by split and finding."""
    lines = [f"{result['name']} {result['version']}, {result['images']} images with truth"]
    if result["left_out"]:
        lines.append(f"{result['left_out']} more with truth were not looked at and are left out")
    rows = [row for row in result["scores"] if row["slice"] == "full"]
    width = max(len(row["finding"]) for row in rows)
    for row in rows:
        if row["finding"] == MEAN:
            title = "".join(f"  {text:<19}" for text in _METRICS.values())
            lines += ["", f"{row['split']:<{width}}  pairs{title}  area correlation"]
        cells = "".join(f"  {interval(row, name, 3):<19}" for name in _METRICS)
        cells += f"  {number(row['area_correlation'], 3)}"
        lines.append(f"{row['finding']:<{width}}  {row['n']:>5}{cells}".rstrip())
    lines += ["", "Means over pairs where mask or truth has pixels; 95 % intervals over patients."]
    pooled = [row["split"] for row in rows if row["mean_over"] == POOLED]
    if pooled:
        lines.append(
            f"Row mean of {', '.join(pooled)}: over all pairs, as a finding has fewer than "
            f"{result['min_pairs']} with truth; else over findings."
        )
    lines.append(f"Which pairs have a mask goes by: {rows[0]['gated_by']}.")
    if result["shared"]:
        listed = ", ".join(result["shared"])
        lines.append(f"{listed}: of the same values, so scored only where the release has a mask.")
    if not result["maps"]:
        lines.append("The release has no maps: the hit rate is the share of a mask in the truth.")
    return "\n".join(lines)
