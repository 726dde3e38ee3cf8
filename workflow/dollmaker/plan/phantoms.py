"""Phantoms that do not exist yet: counted on a few that are generated for the plan."""

import time
from pathlib import Path
from typing import Any

import polars as pl

from dollmaker.phantoms import write_dataset
from dollmaker.plan.count import Source, read_source, with_places

#: Pixels that are generated at most, in images of 256 x 256.
_IMAGES = 64


def generate_source(config: dict[str, Any], folder: Path) -> Source:
    """Generate the first phantoms of the data set and repeat them to its full length.

    Args:
        config: The resolved configuration.
        folder: Where to write them.
    """
    options = config["source"]["phantoms"]
    fit = max(20, int(_IMAGES * min(1.0, (256 / options["size"]) ** 2)))
    images, task_images = min(options["images"], fit), min(options["task_images"], 24)
    began = time.perf_counter()
    write_dataset(
        folder,
        images=images,
        size=options["size"],
        seed=config["seed"],
        task_images=task_images,
    )
    tasks = 2  # organs and infection
    each = (time.perf_counter() - began) / (images + tasks * task_images)
    source = read_source(config, folder)
    index = _repeat(source.index, options["images"] / images)
    whole = images == options["images"] and task_images == options["task_images"]
    first = f"the first {images} of {options['images']} phantoms, and extrapolated"
    return Source(
        index=with_places(index.drop("shard", "row"), config["prepare"]["shards"]),
        findings=source.findings,
        localized=source.localized,
        tasks={
            name: {
                split: round(number * options["task_images"] / task_images)
                for split, number in counts.items()
            }
            for name, counts in source.tasks.items()
        },
        root=folder,
        seconds=each * (options["images"] + tasks * options["task_images"]),
        counted_from="phantoms that were generated for this" if whole else first,
    )


def _repeat(index: pl.DataFrame, factor: float) -> pl.DataFrame:
    """The rows again and again, as other images of other patients, split by split."""
    parts = []
    for rows in index.partition_by("split", maintain_order=True):
        wanted = round(len(rows) * factor)
        copies = [
            rows.with_columns(pl.col("image_id", "patient_id") + (f"#{k}" if k else ""))
            for k in range(-(-wanted // len(rows)))
        ]
        parts.append(pl.concat(copies)[:wanted])
    return pl.concat(parts)
