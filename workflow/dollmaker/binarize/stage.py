"""The stage: one relevance shard in, one mask shard out, same pairs, same order."""

from pathlib import Path
from typing import Any

import numpy as np

from dollmaker.binarize.choice import cuts_of, read_thresholds
from dollmaker.binarize.pair import FOREGROUND, Pair
from dollmaker.binarize.quality import quality, stability
from dollmaker.binarize.steps import make_chain
from dollmaker.pixels import geometry
from dollmaker.runtime.errors import ArtifactError, ConfigError, unknown
from dollmaker.store import provenance
from dollmaker.store.depth import to_eight_bits
from dollmaker.store.files import sha256_file
from dollmaker.store.shards import Shard, create_shard

_BLOCK = 64


def binarize_shard(
    config: dict[str, Any],
    images_file: Path,
    relevance_file: Path,
    recipe: str,
    output: Path,
    thresholds: Path | None = None,
) -> None:
    """Turn the relevance maps of one shard into masks.

    Steps see the picture alone: nothing is foreground around it, and areas are shares of it.

    Args:
        config: The resolved configuration.
        images_file: The image shard that the pairs belong to.
        relevance_file: The relevance shard.
        recipe: Name of the recipe.
        output: The mask shard to write.
        thresholds: Table of thresholds chosen without truth, for the step label_free.
    """
    if recipe not in config["recipes"]:
        raise ConfigError(unknown("recipe", recipe, config["recipes"]))
    steps = config["recipes"][recipe]["binarize"]
    chain = make_chain(steps)
    cuts = read_thresholds(thresholds) if thresholds else {}
    fit = config["prepare"]["fit"]
    with Shard(relevance_file, "relevance") as source, Shard(images_file, "images") as images:
        stored = images.table()
        rows = {image_id: row for row, image_id in enumerate(stored["image_id"])}
        table = source.table()
        header = provenance.header(
            "binarize",
            {"recipe": recipe, "steps": steps, "fit": fit},
            inputs={
                "relevance": sha256_file(relevance_file),
                **({"thresholds": sha256_file(thresholds)} if thresholds else {}),
            },
        )
        with create_shard(output, "masks", header) as writer:
            for start in range(0, max(len(source), 1), _BLOCK):
                stop = min(start + _BLOCK, len(source))
                maps = source.read("map", slice(start, stop)).astype(np.float32)
                pairs, masks = [], np.zeros(maps.shape, np.uint8)
                for i in range(start, stop):
                    if table["image_id"][i] not in rows:
                        raise ArtifactError(
                            f"{relevance_file} explains images that {images_file} does not hold; "
                            "delete it and run the workflow again."
                        )
                    row = rows[table["image_id"][i]]
                    where = geometry.box(
                        int(stored["width"][row]), int(stored["height"][row]), maps.shape[-1], fit
                    )
                    done = chain(
                        Pair(
                            map=geometry.inside(maps[i - start], where),
                            image=geometry.inside(to_eight_bits(images.read("image", row)), where),
                            label=int(table["label"][i]),
                            probability=float(table["probability"][i]),
                            scale=float(table["scale"][i]),
                            cuts=cuts_of(cuts, table["finding"][i]),
                        )
                    )
                    geometry.inside(masks[i - start], where)[...] = np.asarray(done.mask)
                    pairs.append(done)
                part = {name: column[start:stop] for name, column in table.items()}
                writer.append(_rows(part, pairs), mask=masks)


def _rows(table: dict[str, Any], pairs: list[Pair]) -> dict[str, Any]:
    stabilities = [stability(pair.map, pair.threshold) for pair in pairs]
    areas = [float(np.mean(np.asarray(pair.mask) == FOREGROUND)) for pair in pairs]
    qualities = [
        quality(
            agreement=float(table["agreement"][i]),
            completeness=float(table["completeness"][i]),
            probability=pair.probability,
            stability=stabilities[i],
            area=areas[i],
        )
        for i, pair in enumerate(pairs)
    ]
    return {
        **{name: table[name] for name in ("image_id", "finding", "label", "probability")},
        "threshold": np.array([pair.threshold for pair in pairs], np.float32),
        "area": np.array(areas, np.float32),
        "quality": np.array(qualities, np.float32),
        "agreement": table["agreement"],
        "completeness": table["completeness"],
        "stability": np.array(stabilities, np.float32),
        "kept": np.array([pair.kept for pair in pairs], np.bool_),
    }
