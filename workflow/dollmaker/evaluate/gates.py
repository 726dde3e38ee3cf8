"""Who says that a finding is there: what a mask was drawn for, its label or the model's word."""

from collections.abc import Mapping
from typing import Any

from dollmaker.store.findings import PRESENT

#: What the step ``gate`` keeps unless it is told otherwise.
LABELS = (PRESENT,)


def gated_by(config: Mapping[str, Any], recipe: str, min_probability: float = 0.0) -> str:
    """Which pairs of image and finding can have a mask, as far as a recipe decides it.

    Masks that go by the label know that the finding is there; a score over them says where, not
    whether. Masks that go by the model miss findings and raise false alarms: CheXlocalize's
    own set.

    Args:
        config: Configuration with the sections ``attribute`` and ``recipes``.
        recipe: A recipe.
        min_probability: Masks of less are emptied after the recipe (``evaluate.min_probability``).

    Returns:
        ``label``; ``model`` (every pair over a probability, whatever its label); ``label and
        model``; ``label or model``; or ``nothing``, where every pair has a mask.
    """
    steps = config["recipes"][recipe]["binarize"]
    gates = [step["gate"] or {} for step in steps if "gate" in step]
    least = max([min_probability, *(gate.get("min_probability", 0.0) for gate in gates)])
    asked = config["attribute"]["min_probability"]  # of pairs without a positive label
    if asked is None or any(gate.get("labels", LABELS) is not None for gate in gates):
        return "label and model" if least > 0 else "label"
    if least >= asked:
        return "model" if least > 0 else "nothing"
    return "label or model"
