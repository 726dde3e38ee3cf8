"""The models of a release, which are enough to predict with it.

The segmenter and the facts of the committee are always there; ``release.models`` asks for the
committee's weights and for fine-tunings.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dollmaker.runtime.errors import ArtifactError, ConfigError, ModelError, unknown
from dollmaker.store.files import read_json, write_json

SEGMENTER, COMMITTEE = "segmenter", "committee"

#: Beside the members' weights: what explaining needs besides, and the recipe's thresholds.
FACTS, THRESHOLDS = "committee.json", "thresholds.parquet"

_WEIGHTS = ("model.json", "model.safetensors")


def add_models(
    release: Path,
    segmenter: Path,
    committee: Sequence[Path],
    wanted: Sequence[str],
    tasks: Sequence[Path],
    thresholds: Path | None,
    channel_mean: Sequence[float],
) -> None:
    """Write ``models/`` of a release.

    Args:
        release: The folder that becomes it.
        segmenter: Folder of the segmenter.
        committee: Folders of the members that explained.
        wanted: ``release.models``.
        tasks: Folders of the fine-tunings that it names, ``{task}/{start}-{tuning}``.
        thresholds: Those of the released recipe, if it has any.
        channel_mean: Mean of each channel over the training images, 0..255.
    """
    models = release / "models"
    shutil.copytree(segmenter, models / SEGMENTER)
    for member in committee:
        write_json(models / COMMITTEE / f"{member.name}.json", read_json(member / "model.json"))
    for task in tasks:
        name = f"{task.parent.name}-{task.name}"
        shutil.copytree(task / "adapter", models / "adapters" / name)
    if COMMITTEE not in wanted:
        return
    for member in committee:
        (models / COMMITTEE / member.name).mkdir()
        for name in _WEIGHTS:
            shutil.copyfile(member / name, models / COMMITTEE / member.name / name)
    order = [member.name for member in committee]
    facts = {"members": order, "channel_mean": list(channel_mean)}
    write_json(models / COMMITTEE / FACTS, facts)
    if thresholds is not None:
        shutil.copyfile(thresholds, models / COMMITTEE / THRESHOLDS)


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


def check(config: dict[str, Any]) -> None:
    """Refuse models that no run makes.

    Raises:
        ConfigError: If ``release.models`` names one.
    """
    runs = {
        f"{task}/{run}"
        for task in config["tasks"]
        for run in config["adapt"]["runs"]
        # Of other starts the base is not in the release.
        if run.startswith("doll/") or run.endswith("/full")
    }
    for name in config["release"]["models"]:
        if name != COMMITTEE and name not in runs:
            raise ConfigError(
                f"release.models names {name!r}; use {COMMITTEE}, or a fine-tuning as "
                f"TASK/START/TUNING that starts from doll or trains all: {', '.join(sorted(runs))}."
            )
