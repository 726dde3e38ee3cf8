"""The pre-trained segmenter as it is: what a network made of the pseudo-masks, no true one seen."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dollmaker.measures.baselines import Guess
from dollmaker.pixels.geometry import Fit, source_map, source_mask
from dollmaker.store.depth import to_levels
from dollmaker.store.files import read_json


class Segmenter:
    """What a segmenter draws in an image, for each finding."""

    def __init__(self, folder: Path, fit: Fit) -> None:
        """Read a segmenter.

        Args:
            folder: The folder that the stage segment made.
            fit: How images were brought into the square.

        Raises:
            ModelError: If there is none.
        """
        from dollmaker.networks.inputs import Input
        from dollmaker.networks.segmenters import read_segmenter

        self._network = read_segmenter(folder).eval()
        facts = read_json(folder / "segmenter.json")
        self._input, self._findings = Input(**facts["input"]), facts["findings"]
        self._fit: Fit = fit

    def draw(
        self, image: npt.NDArray[Any], findings: Iterable[str], width: int, height: int
    ) -> dict[str, Guess]:
        """Masks (probability over 0.5) and probabilities of an image at the size of its source.

        Args:
            image: Stored pixels (C, S, S).
            findings: Those that are asked for.
            width: Of the source image.
            height: Of the source image.

        Returns:
            Finding -> mask and map.
        """
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(to_levels(image)))[None]
        with torch.no_grad():  # one image a pass: what is drawn does not depend on its neighbours
            logits = self._network(self._input.prepare(pixels))[0].float()
        size = width, height, self._fit
        drawn = {}
        for finding in findings:
            levels = logits[self._findings.index(finding)]
            chances = source_map(levels.sigmoid().numpy(), *size)
            drawn[finding] = Guess(source_mask(levels.numpy(), *size), chances)
        return drawn
