"""Adapt: segmenters are fine-tuned on small sets of true masks, from several starts."""

from collections.abc import Mapping
from typing import Any

#: Starts that are no pre-trained segmenter; every other name is one.
PLAIN = ("random", "imagenet", "classifier")

#: What can be trained of a network.
TUNINGS = ("full", "head", "decoder", "adapter", "lora", "bias")


def learning_rates(options: Mapping[str, Any]) -> list[float]:
    """The rates of section ``adapt``, which names one or several."""
    given = options["learning_rate"]
    return given if isinstance(given, list) else [given]
