"""The models of a release, which are enough to predict with it.

The segmenter and the facts of the committee are always there; ``release.models`` asks for the
committee's weights and for fine-tunings.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dollmaker.runtime.errors import ArtifactError, ConfigError, ModelError, unknown
from dollmaker.store.files import read_json, write_json

if TYPE_CHECKING:  # who reads a release has no pydantic
    from dollmaker.config.whole import Config

SEGMENTER, COMMITTEE = "segmenter", "committee"

#: Beside the members' weights: what explaining needs besides, and the recipe's thresholds.
FACTS, THRESHOLDS = "committee.json", "thresholds.parquet"

_WEIGHTS = ("model.json", "model.safetensors")


@dataclass(frozen=True, kw_only=True)
class Models:
    """What the models of a release are made of.

    Attributes:
        segmenter: Folder of the segmenter.
        committee: Folders of the members that explained.
        tasks: Folders of the fine-tunings that it carries, ``{task}/{start}-{tuning}``.
        thresholds: Those of the released recipe, if it has any.
        channel_mean: Mean of each channel over the training images, 0..255.
    """

    segmenter: Path
    committee: Sequence[Path]
    tasks: Sequence[Path]
    thresholds: Path | None
    channel_mean: Sequence[float]


def add_models(release: Path, models: Models, wanted: Sequence[str]) -> None:
    """Write ``models/`` of the folder that becomes a release; ``wanted`` is ``release.models``."""
    folder = release / "models"
    shutil.copytree(models.segmenter, folder / SEGMENTER)
    for member in models.committee:
        write_json(folder / COMMITTEE / f"{member.name}.json", read_json(member / "model.json"))
    for task in models.tasks:
        name = f"{task.parent.name}-{task.name}"
        shutil.copytree(task / "adapter", folder / "adapters" / name)
    if COMMITTEE not in wanted:
        return
    for member in models.committee:
        (folder / COMMITTEE / member.name).mkdir()
        for name in _WEIGHTS:
            shutil.copyfile(member / name, folder / COMMITTEE / member.name / name)
    order = [member.name for member in models.committee]
    facts = {"members": order, "channel_mean": list(models.channel_mean)}
    write_json(folder / COMMITTEE / FACTS, facts)
    if models.thresholds is not None:
        shutil.copyfile(models.thresholds, folder / COMMITTEE / THRESHOLDS)


def list_models(release: Path) -> list[str]:
    """What a release can predict with, by name."""
    models = release / "models"
    found = [SEGMENTER] if (models / SEGMENTER / "segmenter.json").is_file() else []
    found += [COMMITTEE] if (models / COMMITTEE / FACTS).is_file() else []
    return found + sorted(path.parent.name for path in models.glob("adapters/*/adapter.json"))


def find_model(release: Path, name: str) -> Path:
    """Folder of a model of a release.

    Raises:
        ArtifactError: If the folder holds no release with a model.
        ModelError: If the release has no model of that name.
    """
    known = list_models(release)
    if not known:
        raise ArtifactError(f"{release} holds no models/; give the folder of a release.")
    if name not in known:
        raise ModelError(
            f"{unknown('model', name, known).removesuffix('.')}; release.models of the "
            "configuration says which of the others a release carries."
        )
    return release / "models" / (name if name in (SEGMENTER, COMMITTEE) else f"adapters/{name}")


def check(config: "Config") -> None:
    """Refuse models that no run makes.

    Raises:
        ConfigError: If ``release.models`` names one.
    """
    runs = {
        f"{task}/{run}"
        for task in config.tasks
        for run in config.adapt.runs
        # Of other starts the base is not in the release.
        if run.startswith("doll/") or run.endswith("/full")
    }
    for name in config.release.models:
        if name != COMMITTEE and name not in runs:
            raise ConfigError(
                f"release.models names {name!r}; use {COMMITTEE}, or a fine-tuning as "
                f"TASK/START/TUNING that starts from doll or trains all: {', '.join(sorted(runs))}."
            )
