"""Findings: their names, order and label values.

A label is 1 (present), 0 (absent), -1 (uncertain) or missing (not mentioned). In arrays the
missing label is ``BLANK``; in tables it is null.
"""

from collections.abc import Sequence

from dollmaker.runtime.errors import ConfigError, unknown

#: The 14 observations of CheXpert, in the order of its columns (Irvin et al. 2019).
CHEXPERT = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion"),
    *("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion"),
    *("Pleural Other", "Fracture", "Support Devices"),
)

#: The one observation without a place in the image: classified, never localized.
NO_FINDING = "No Finding"

PRESENT, ABSENT, UNCERTAIN, BLANK = 1, 0, -1, -2


def localized(findings: Sequence[str], chosen: Sequence[str] | None = None) -> list[str]:
    """The chosen findings, or all but ``No Finding``, in the data set's order: they get masks.

    Raises:
        ConfigError: If a chosen finding is not one of the data set's.
    """
    if chosen is None:
        return [finding for finding in findings if finding != NO_FINDING]
    if missing := [name for name in chosen if name not in findings]:
        raise ConfigError(unknown("finding", missing[0], findings))
    return [finding for finding in findings if finding in chosen]
