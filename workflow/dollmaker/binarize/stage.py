"""The stage: one relevance shard in, one mask shard out, same pairs, same order."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.binarize.label_free import Cuts, cuts_of, read_thresholds
from dollmaker.binarize.pair import Pair, quality, stability
from dollmaker.binarize.steps import make_chain
from dollmaker.config.masks import Steps
from dollmaker.config.whole import Config
from dollmaker.pixels.geometry import Box, box, inside
from dollmaker.runtime.errors import ArtifactError, ConfigError, unknown
from dollmaker.store import provenance
from dollmaker.store.depth import Stored, to_eight_bits
from dollmaker.store.files import sha256_file
from dollmaker.store.shards import Shard, create_shard

_BLOCK = 64


@dataclass(frozen=True, kw_only=True)
class Cutter:
    """A recipe, ready to cut maps: its steps, the chain of them, thresholds without truth."""

    steps: Steps
    chain: Callable[[Pair], Pair]
    cuts: Cuts

    def pair(
        self, finding: str, values: npt.NDArray[Any], pixels: Stored, where: Box, **facts: Any
    ) -> Pair:
        """A pair as the chain takes it, of a map (S, S) and an image (C, S, S): the picture alone.

        Steps see nothing around it. ``facts`` are label, probability and scale of :class:`Pair`.
        """
        image = inside(to_eight_bits(pixels), where)
        cuts = cuts_of(self.cuts, finding)
        return Pair(map=inside(values, where), image=image, cuts=cuts, **facts)


def open_recipe(config: Config, recipe: str, thresholds: Path | None) -> Cutter:
    """Make the chain of a recipe and read its thresholds.

    Raises:
        ConfigError: If there is no such recipe, or a step is wrong.
    """
    if recipe not in config.recipes:
        raise ConfigError(unknown("recipe", recipe, config.recipes))
    steps = config.recipes[recipe].binarize
    cuts = read_thresholds(thresholds) if thresholds else {}
    return Cutter(steps=steps, chain=make_chain(steps), cuts=cuts)


def binarize_shard(
    config: Config,
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
        thresholds: Table made by ``dollmaker thresholds``; the step label_free, which the default
            recipe has, needs it.
    """
    cutter, fit = open_recipe(config, recipe, thresholds), config.prepare.fit
    with Shard(relevance_file, "relevance") as source, Shard(images_file, "images") as images:
        stored = images.table()
        rows = {image_id: row for row, image_id in enumerate(stored["image_id"])}
        table = source.table()
        header = provenance.header(
            "binarize",
            {"recipe": recipe, "steps": list(cutter.steps), "fit": fit},
            inputs={
                "relevance": sha256_file(relevance_file),
                **({"thresholds": sha256_file(thresholds)} if thresholds else {}),
            },
        )
        with create_shard(output, "masks", header) as writer:
            for start in range(0, max(len(source), 1), _BLOCK):
                stop = min(start + _BLOCK, len(source))
                part = {name: column[start:stop] for name, column in table.items()}
                maps = source.read("map", slice(start, stop)).astype(np.float32)
                pairs, masks = [], np.zeros(maps.shape, np.uint8)
                for i, image_id in enumerate(part["image_id"]):
                    if image_id not in rows:
                        raise ArtifactError(
                            f"{relevance_file} explains images that {images_file} does not hold; "
                            "delete it and run the workflow again."
                        )
                    row = rows[image_id]
                    sides = int(stored["width"][row]), int(stored["height"][row])
                    where = box(*sides, maps.shape[-1], fit)
                    pair = cutter.pair(
                        part["finding"][i],
                        maps[i],
                        images.read("image", row),
                        where,
                        label=int(part["label"][i]),
                        probability=float(part["probability"][i]),
                        scale=float(part["scale"][i]),
                    )
                    done = cutter.chain(pair)
                    inside(masks[i], where)[...] = np.asarray(done.mask)
                    pairs.append(done)
                writer.append(_rows(part, pairs), mask=masks)


def _rows(table: dict[str, Any], pairs: list[Pair]) -> dict[str, Any]:
    stabilities = [stability(pair) for pair in pairs]
    areas = [float(np.mean(pair.foreground)) for pair in pairs]
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
