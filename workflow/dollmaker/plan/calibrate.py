"""The calibration: every stage's own code on a few images, within the seconds there are."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from dollmaker.adapt.tuning import Tuning
from dollmaker.config.catalogue import committee
from dollmaker.launch import pipeline
from dollmaker.plan import maps, training
from dollmaker.plan.audit import audit
from dollmaker.plan.clock import Budget, Rate, say
from dollmaker.plan.committee import find_committee
from dollmaker.plan.count import Source, spread_by_pairs
from dollmaker.plan.maps import Attribution, Masks
from dollmaker.plan.material import SAMPLE, Material, gather
from dollmaker.plan.training import Training
from dollmaker.runtime.errors import ModelError

Result = TypeVar("Result")

#: How the seconds are shared out.
_WEIGHTS = {
    "prepare": 1.0,
    "audit": 0.5,
    "attribute": 5.0,
    "binarize": 1.0,
    "release": 0.5,
    "classify": 4.0,
    "segment": 3.0,
    "adapt": 3.0,
}


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What the units of every stage take on this device.

    Attributes:
        decode: An image.
        audit: An image, for all findings.
        image_bytes: Its compressed bytes in a shard.
        real_images: Whether images of the source were used.
        trained: Whether the committee was the trained one.
        attribute: Recipe with maps of its own -> maps.
        binarize: Recipe -> masks.
        release: Masks.
        classify: Member -> training.
        segment: Training of the segmenter.
        adapt: Tuning -> training; empty without tasks.
    """

    decode: Rate
    audit: Rate
    image_bytes: float
    real_images: bool
    trained: bool
    attribute: dict[str, Attribution]
    binarize: dict[str, Masks]
    release: Masks
    classify: dict[str, Training]
    segment: Training
    adapt: dict[Tuning, Training]

    def listed(self) -> list[Rate]:
        """All of them, for the reader."""
        state, number = "trained" if self.trained else "untrained", len(self.classify)
        members = f"{number} {state} member{'' if number == 1 else 's'}"
        rates = [self.decode, self.audit]
        for name, one in self.classify.items():
            rates.append(_step(f"classify {name}", one))
        for name, found in self.attribute.items():
            nodes = f", {found.nodes:.3g} nodes" if found.nodes > 1 else ""
            how = f"{found.how}{nodes}, {members}"
            rates.append(_rate(f"attribute {name}", "map", found.map, found.repetitions, how))
        for name, made in self.binarize.items():
            how = f"{made.number} smooth random maps, one core"
            rates.append(_rate(f"binarize {name}", "mask", made.mask, made.repetitions, how))
        how = f"{self.release.number} of these masks, one core"
        last = self.release
        rates.append(_rate("release", "mask", last.mask, last.repetitions, how))
        rates.append(_step("segment", self.segment))
        for name, one in self.adapt.items():
            rates.append(_step(f"adapt {name}", one))
        return rates


def calibrate(
    config: dict[str, Any], source: Source, device: torch.device, seconds: float, folder: Path
) -> Rates:
    """Measure every stage.

    Args:
        config: The resolved configuration.
        source: The source.
        device: Where networks run.
        seconds: About how long it may take in all.
        folder: Folder for temporary files.

    Raises:
        ModelError: If a network cannot be made or its batch does not fit the GPU's memory.
        DataError: If the released recipe keeps no mask.
    """
    say(f"calibrating for about {seconds:.0f} s on {device.type}")
    budget = Budget(seconds, _WEIGHTS)
    material = gather(config, source, spread_by_pairs(source, config, SAMPLE), folder)
    budget.take("prepare")
    say("audit")
    fit, images = config["prepare"]["fit"], len(source.index)
    audited = audit(material, fit, images, budget.take("audit"))
    trained, attribute = _attribute(config, material, device, budget.take("attribute"))
    share = budget.take("binarize") / len(config["recipes"])
    binarize = {}
    for name in config["recipes"]:
        say(f"binarize {name}")
        binarize[name] = maps.binarization(config, name, material, share)
    released = binarize[config["release"]["recipe"]].file
    release = maps.release(material, released, budget.take("release"))
    classify = _classify(config, material, device, budget.take("classify"))
    say("segment")
    share = budget.take("segment")
    segment = _in_memory(
        "segment.batch_size",
        lambda: training.segmenter(config, material, release.file, device, share),
    )
    return Rates(
        decode=material.decode,
        audit=audited,
        image_bytes=material.image_bytes,
        real_images=material.real,
        trained=trained,
        attribute=attribute,
        binarize=binarize,
        release=release,
        classify=classify,
        segment=segment,
        adapt=_adapt(config, material, device, budget.take("adapt")),
    )


def _attribute(
    config: dict[str, Any], material: Material, device: torch.device, seconds: float
) -> tuple[bool, dict[str, Attribution]]:
    """Whether the committee is trained, and what its maps take."""
    results = Path("results") / config["dataset"]
    images = material.pixels(material.tiled(4))
    members, trained = find_committee(config, material.findings, results, images, device)
    recipes = pipeline.explained_recipes(config)
    found = {}
    for name in recipes:
        say(f"attribute {name}")
        experts = [member for member in members if member.name in committee(config, name)]
        found[name] = maps.attribution(
            config, name, experts, material, device, seconds / len(recipes)
        )
    return trained, found


def _classify(
    config: dict[str, Any], material: Material, device: torch.device, seconds: float
) -> dict[str, Training]:
    """Every member; those that differ in nothing that takes time are measured once."""
    members = config["classify"]["members"]
    kinds = {
        name: (m["architecture"], m["linear_probe"], m["epochs"] == 0, str(m["input"]))
        for name, m in members.items()
    }
    share = seconds / len(set(kinds.values()))
    known: dict[tuple[Any, ...], Training] = {}
    for name, kind in kinds.items():
        if kind not in known:
            say(f"classify {kind[0]}")
            known[kind] = _in_memory(
                "classify.batch_size",
                lambda name=name: training.classifier(  # type: ignore[misc]
                    config, members[name], material, device, share
                ),
            )
    return {name: known[kind] for name, kind in kinds.items()}


def _adapt(
    config: dict[str, Any], material: Material, device: torch.device, seconds: float
) -> dict[Tuning, Training]:
    """Every tuning, for the task with the most classes."""
    if not config["tasks"]:
        return {}
    classes = max(len(task["classes"]) for task in config["tasks"].values())
    tunings = sorted({run.partition("/")[2] for run in config["adapt"]["runs"]})
    found = {}
    for tuning in cast(list[Tuning], tunings):
        say(f"adapt {tuning}")
        found[tuning] = _in_memory(
            "adapt.batch_size",
            lambda tuning=tuning: training.tuning(  # type: ignore[misc]
                config, tuning, classes, material, device, seconds / len(tunings)
            ),
        )
    return found


def _in_memory(key: str, work: Callable[[], Result]) -> Result:
    """A batch that does not fit the GPU is the configuration's mistake."""
    try:
        return work()
    except torch.OutOfMemoryError:
        raise ModelError(f"a batch of {key} does not fit this GPU's memory; lower it.") from None


def _step(what: str, one: Training) -> Rate:
    return _rate(what, "step", one.step, one.steps, one.how)


def _rate(what: str, unit: str, seconds: float, repetitions: int, how: str) -> Rate:
    return Rate(what=what, unit=unit, seconds=seconds, repetitions=repetitions, how=how)
