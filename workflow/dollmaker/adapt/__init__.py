"""Adapt: segmenters are fine-tuned on small sets of true masks, from several starts."""

#: Starts that are no pre-trained segmenter; every other name is one.
PLAIN = ("random", "imagenet", "classifier")

#: What can be trained of a network.
TUNINGS = ("full", "head", "decoder", "adapter", "lora", "bias")


def learning_rates(given: float | list[float]) -> list[float]:
    """The rates of ``adapt.learning_rate``, which names one or several."""
    return given if isinstance(given, list) else [given]
