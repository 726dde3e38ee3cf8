"""What is scored beside the recipes, on the same pairs: the mean of their maps, and a segmenter.

The mean of a recipe's own maps of other images is one place for all images: a recipe that scores no
more than it has learned where a finding usually lies, and nothing of the image at hand. No truth is
needed to make it. The pre-trained segmenter is taken as it is: what a network made of the
pseudo-masks, no true one seen.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.measures.baselines import Guess
from dollmaker.pixels.geometry import Fit, source_map, source_mask
from dollmaker.runtime.picks import evenly
from dollmaker.store.depth import to_levels
from dollmaker.store.files import read_json
from dollmaker.store.shards import Shard, tables_of_pairs

#: Maps of a finding that the mean is over, evenly spread over all shards (our choice).
MOST = 200


@dataclass
class _Sums:
    """Of the maps of one finding."""

    map: Any = 0.0
    area: float = 0.0
    images: set[str] = field(default_factory=set)


class MeanMap:
    """Means of maps, and of the areas of their masks, by finding."""

    def __init__(self, files: Iterable[tuple[Path, Path]], fit: Fit) -> None:
        """Add up the maps of pairs that have a mask, of all mask and relevance shards."""
        self._fit: Fit = fit
        self._sums: dict[str, _Sums] = defaultdict(_Sums)
        places: dict[str, list[tuple[Path, int, str, float]]] = defaultdict(list)
        for masks_file, maps_file in files:
            with Shard(masks_file, "masks") as masks, Shard(maps_file, "relevance") as maps:
                table, _ = tables_of_pairs(masks, maps)
            for row in np.flatnonzero(table.get("kept", np.zeros(0, bool))).tolist():
                place = maps_file, row, str(table["image_id"][row]), float(table["area"][row])
                places[str(table["finding"][row])].append(place)
        chosen: dict[Path, list[tuple[str, int, str, float]]] = defaultdict(list)
        for finding, every in places.items():
            for file, row, image, area in (every[i] for i in evenly(len(every), MOST)):
                chosen[file].append((finding, row, image, area))
        for file, those in chosen.items():
            with Shard(file, "relevance") as maps:
                for finding, row, image, area in those:
                    sums = self._sums[finding]
                    sums.map = sums.map + maps.read("map", row).astype(np.float64)
                    sums.area += area
                    sums.images.add(image)

    def guess(
        self,
        image: str,
        finding: str,
        values: npt.NDArray[Any],
        area: float,
        width: int,
        height: int,
    ) -> Guess:
        """The mean map of the other images, cut to the mean area of their masks.

        The image's own map ``values`` (S, S), and its mask's share ``area`` of the picture, are
        left out. ``width`` and ``height`` are those of the source.
        """
        sums = self._sums[finding]
        own = image in sums.images
        count = len(sums.images) - own
        if not count:
            nothing = np.zeros((height, width))
            return Guess(nothing > 0, nothing.astype(np.float32))
        mean = (sums.map - values * own) / count
        large = source_map(mean, width, height, self._fit)
        pixels = round((sums.area - area * own) / count * large.size)
        mask = np.zeros(large.size, bool)
        mask[np.argsort(-large, axis=None, kind="stable")[:pixels]] = True  # of equals the first
        return Guess(mask.reshape(large.shape), large)


class Segmenter:
    """What the segmenter of a folder draws in an image, for each finding."""

    def __init__(self, folder: Path, fit: Fit) -> None:
        from dollmaker.networks.inputs import Input
        from dollmaker.networks.segmenters import read_segmenter

        self._network = read_segmenter(folder).eval()
        facts = read_json(folder / "segmenter.json")
        self._input, self._findings = Input(**facts["input"]), facts["findings"]
        self._fit: Fit = fit

    def draw(
        self, image: npt.NDArray[Any], findings: Iterable[str], width: int, height: int
    ) -> dict[str, Guess]:
        """Masks (probability over 0.5) and probabilities of stored pixels (C, S, S), by finding.

        They have the size of the source, ``width`` and ``height``.
        """
        import torch

        from dollmaker.networks.segmenters import predict_logits

        pixels = torch.from_numpy(np.ascontiguousarray(to_levels(image)))[None]
        # One image a pass: what is drawn does not depend on its neighbours.
        logits = next(predict_logits(self._network, pixels, self._input))[0]
        size = width, height, self._fit
        drawn = {}
        for finding in findings:
            levels = logits[self._findings.index(finding)]
            chances = source_map(levels.sigmoid().numpy(), *size)
            drawn[finding] = Guess(source_mask(levels.numpy(), *size), chances)
        return drawn
