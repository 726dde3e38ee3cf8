"""What a release is made of, and its models, which are enough to predict with it.

The segmenter and the facts of the committee are always there; ``release.models`` asks for the
committee's weights and for fine-tunings.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dollmaker.runtime.errors import ArtifactError, ConfigError, ModelError, unknown
from dollmaker.store import tables
from dollmaker.store.files import read_json, write_json

if TYPE_CHECKING:  # who reads a release has no pydantic
    from dollmaker.config.whole import Config

SEGMENTER, COMMITTEE = "segmenter", "committee"

#: Beside the members' weights: what explaining needs besides, and the recipe's thresholds.
FACTS, THRESHOLDS = "committee.json", "thresholds.parquet"

_WEIGHTS = ("model.json", "model.safetensors")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a release is made of."""

    index: Path  #: The index.
    images: Path  #: Folder of the image shards, for the pictures.
    labels: Path  #: Folder of the labels.
    segmenter: Path  #: Folder of the segmenter.
    committee: Sequence[Path]  #: Folders of the members that explained.
    sanity: Path  #: What the stage sanity says about the recipe.
    scores: Path  #: masks.parquet of the evaluation; empty without truth.
    pairs: Path  #: pairs.parquet of the evaluation, which the bounds of the masks' IoU come from.
    #: Mask shards of other recipes, ``{recipe}/{shard}.h5``, for the gallery.
    others: Sequence[Path] = ()
    tasks: Sequence[Path] = ()  #: Folders of the fine-tunings that ``release.models`` names.
    thresholds: Path | None = None  #: Those of the released recipe, if it has any.


def add_models(release: Path, inputs: Inputs, wanted: Sequence[str]) -> None:
    """Write ``models/`` of the folder that becomes a release; ``wanted`` is ``release.models``."""
    folder = release / "models"
    shutil.copytree(inputs.segmenter, folder / SEGMENTER)
    for member in inputs.committee:
        write_json(folder / COMMITTEE / f"{member.name}.json", read_json(member / "model.json"))
    for task in inputs.tasks:
        name = f"{task.parent.name}-{task.name}"
        shutil.copytree(task / "adapter", folder / "adapters" / name)
    if COMMITTEE not in wanted:
        return
    for member in inputs.committee:
        (folder / COMMITTEE / member.name).mkdir()
        for name in _WEIGHTS:
            shutil.copyfile(member / name, folder / COMMITTEE / member.name / name)
    order = [member.name for member in inputs.committee]
    mean = tables.read_header(inputs.index).get("channel_mean", ())
    facts = {"members": order, "channel_mean": list(mean)}
    write_json(folder / COMMITTEE / FACTS, facts)
    if inputs.thresholds is not None:
        shutil.copyfile(inputs.thresholds, folder / COMMITTEE / THRESHOLDS)


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
    """Refuse models in ``release.models`` that no run makes, by a ``ConfigError``."""
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
