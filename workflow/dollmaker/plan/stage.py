"""The stage: count, calibrate, and put together what the full run costs."""

import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dollmaker.adapt import learning_rates
from dollmaker.classify.stage import member_options
from dollmaker.launch import pipeline
from dollmaker.plan import cost, disk
from dollmaker.plan.calibrate import Rates, calibrate
from dollmaker.plan.clock import say
from dollmaker.plan.cost import Stage
from dollmaker.plan.count import Counts, Source, count, read_source
from dollmaker.plan.phantoms import generate_source
from dollmaker.runtime import devices


def make_plan(
    config: dict[str, Any],
    numbers: Sequence[int],
    seconds: float,
    light: float,
    heavy: float,
) -> dict[str, Any]:
    """What the full run of a configuration costs on this device and on several like it.

    Args:
        config: The resolved configuration.
        numbers: Numbers of devices.
        seconds: About how long the calibration may take.
        light: Seconds until a job without networks starts its work.
        heavy: Seconds until a job with networks does.

    Returns:
        Everything that the table shows and more, as JSON values.

    Raises:
        DataError: If the source is not as described.
        ConfigError: If a configured finding does not exist.
        ModelError: If the device or a network is not to be had.
    """
    device = devices.choose(config["device"])
    devices.set_precision(config["attribute"]["precision"])
    with tempfile.TemporaryDirectory(prefix="dollmaker-plan-") as name:
        folder = Path(name)
        source = _find_source(config, folder / "phantoms")
        counts = count(source, config)
        images = sum(counts.images.values())
        say(f"{images} images, {counts.pairs} maps, {len(counts.tasks)} tasks")
        rates = calibrate(config, source, device, seconds, folder)
    stages = list_stages(config, source, counts, rates, light, heavy)
    numbers = sorted({1, *numbers})
    shards = _shards(config, counts, rates, numbers[-1])
    return {
        "dataset": config["dataset"],
        "device": _device(device),
        "calibration": {
            "seconds": seconds,
            "start": {"light": light, "heavy": heavy},
            "rates": [asdict(rate) for rate in rates.listed()],
            "real_images": rates.real_images,
            "trained_committee": rates.trained,
        },
        "counted_from": source.counted_from,
        "counts": asdict(counts) | {"pairs": counts.pairs},
        "stages": [
            {
                "stage": stage.name,
                "units": stage.units,
                "unit": stage.unit,
                "jobs": len(stage.jobs),
                "seconds": {str(n): stage.seconds(n) for n in numbers},
            }
            for stage in stages
        ],
        "seconds": {str(n): sum(stage.seconds(n) for stage in stages) for n in numbers},
        "disk": _disk(config, counts, rates, numbers[-1]),
        "shards": shards,
        "notes": _notes(config, source, counts, rates, shards),
    }


def _find_source(config: dict[str, Any], folder: Path) -> Source:
    root = Path(pipeline.data_root(config))
    if config["source"]["kind"] == "phantoms" and not root.is_dir():
        say("there are no phantoms yet: generating a few")
        return generate_source(config, folder)
    say("counting")
    return read_source(config, root)


def list_stages(
    config: dict[str, Any], source: Source, counts: Counts, rates: Rates, light: float, heavy: float
) -> list[Stage]:
    """The jobs of every stage with their seconds, in the order they run."""
    shards, images = config["prepare"]["shards"], sum(counts.images.values())
    generate = [Stage(name="generate", units=images, unit="images", jobs=[source.seconds])]
    members = _member_jobs(config, counts, rates, heavy)
    options = config["segment"]
    pretraining = cost.training_seconds(
        images=counts.segment["train"],
        valid=counts.segment["valid"],
        batch=options["batch_size"],
        epochs=options["epochs"],
        step=rates.segment.step,
        image=rates.segment.image,
    )
    tuned = _tuning_jobs(config, counts, rates, heavy)
    return [
        *(generate if source.seconds else []),
        Stage(
            name="decode",
            units=images,
            unit="images",
            jobs=cost.shared_out(images * rates.decode.seconds, shards, light),
        ),
        Stage(
            name="audit",
            units=images,
            unit="images",
            jobs=[light + images * rates.audit.seconds],
        ),
        Stage(
            name="classify",
            units=sum(
                _steps(counts.images["train"], _trained(config["classify"], name))
                for name in config["classify"]["members"]
            ),
            unit="steps",
            jobs=members,
        ),
        Stage(
            name="attribute",
            units=counts.pairs * len(rates.attribute),
            unit="maps",
            jobs=[
                job
                for found in rates.attribute.values()
                for job in cost.shared_out(counts.pairs * found.map, shards, heavy + found.build)
            ],
        ),
        Stage(
            name="binarize",
            units=counts.pairs * len(rates.binarize),
            unit="masks",
            jobs=[
                job
                for made in rates.binarize.values()
                for job in cost.shared_out(counts.pairs * made.mask, shards, light)
            ],
        ),
        Stage(
            name="release",
            units=counts.pairs,
            unit="masks",
            jobs=[light + counts.pairs * rates.release.mask],
        ),
        Stage(
            name="segment",
            units=_steps(counts.segment["train"], options),
            unit="steps",
            jobs=[heavy + pretraining],
        ),
        *(
            [
                Stage(
                    name="adapt",
                    units=len(tuned) * _runs(config) * config["adapt"]["steps"],
                    unit="steps",
                    jobs=tuned,
                )
            ]
            if tuned
            else []
        ),
    ]


def _member_jobs(config: dict[str, Any], counts: Counts, rates: Rates, start: float) -> list[float]:
    """One job a member: training, validation after every epoch, predictions at the end."""
    options, images = config["classify"], counts.images
    return [
        start
        + cost.training_seconds(
            images=images["train"],
            valid=images["valid"],
            batch=options["batch_size"],
            epochs=_trained(options, name)["epochs"],
            step=one.step,
            image=one.image,
        )
        + (images["valid"] + images["test"]) * one.image
        for name, one in rates.classify.items()
    ]


def _trained(options: dict[str, Any], name: str) -> dict[str, Any]:
    """Section classify with the epochs of a member: a ready classifier has none."""
    return {**options, **member_options(options["members"][name])}


def _tuning_jobs(config: dict[str, Any], counts: Counts, rates: Rates, start: float) -> list[float]:
    """One job a task, start and tuning; each reads the task's images and masks."""
    options = config["adapt"]
    return [
        start
        + 2 * sum(task.values()) * rates.decode.seconds
        + cost.tuning_seconds(
            runs=_runs(config),
            steps=options["steps"],
            evaluations=options["evaluations"],
            step=one.step,
            image=one.image,
            counts=task,
        )
        for task in counts.tasks.values()
        for one in (
            rates.adapt[tuning] for tuning in (run.partition("/")[2] for run in options["runs"])
        )
    ]


def _runs(config: dict[str, Any]) -> int:
    """Runs of a task, start and tuning: sizes times seeds times learning rates."""
    options = config["adapt"]
    return len(options["n"]) * int(options["seeds"]) * len(learning_rates(options))


def _steps(images: int, options: dict[str, Any]) -> int:
    return int(options["epochs"]) * cost.steps_per_epoch(images, options["batch_size"])


def _shards(config: dict[str, Any], counts: Counts, rates: Rates, most: int) -> dict[str, Any]:
    """The configured and the suggested number of shards, and minutes of a job with each."""
    seconds = counts.pairs * max(found.map for found in rates.attribute.values())
    configured = config["prepare"]["shards"]
    suggested = cost.suggest_shards(seconds, most, sum(counts.images.values()))
    return {
        "configured": configured,
        "suggested": suggested,
        "devices": most,
        "minutes_configured": seconds / configured / 60,
        "minutes_suggested": seconds / suggested / 60,
        "warning": cost.judge_shards(configured, suggested, seconds, most),
    }


def _disk(config: dict[str, Any], counts: Counts, rates: Rates, most: int) -> dict[str, Any]:
    members = sum(one.bytes for one in rates.classify.values())
    listed = disk.artifacts(
        config,
        counts,
        explained=len(rates.attribute),
        image_bytes=rates.image_bytes if rates.real_images else None,
        members=members,
        segmenter=rates.segment.bytes,
    )
    relevance = next(one.bytes for one in listed if one.name == "relevance/")
    working = disk.working_bytes(
        relevance=relevance,
        jobs=config["prepare"]["shards"] * len(rates.attribute),
        members=members,
        segmenter=rates.segment.bytes,
        devices=most,
    )
    return {
        "artifacts": [asdict(one) for one in listed],
        "bytes": sum(one.bytes for one in listed),
        "working_bytes": working,
    }


def _device(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device), "threads": None}
    name = platform.processor() or platform.machine()
    return {"type": "cpu", "name": name, "threads": torch.get_num_threads()}


def _notes(
    config: dict[str, Any], source: Source, counts: Counts, rates: Rates, shards: dict[str, Any]
) -> list[str]:
    """What a reader has to know to judge the numbers."""
    notes = [
        "All numbers are estimates from seconds of measurement; trainings are counted with all "
        "their epochs. The sample for thresholds and sanity checks, evaluate, report and the "
        "queue of a cluster are not counted.",
    ]
    if source.seconds:
        notes.append(f"Counted from {source.counted_from}.")
    if not rates.real_images:
        notes.append(
            "No image of the source could be read: made-up ones were used, so decoding is a guess "
            "and images/ is given uncompressed."
        )
    if counts.most > counts.pairs:
        notes.append(
            f"attribute.min_probability also selects pairs that only the trained committee knows: "
            f"{counts.pairs:,} positive labels are the lower bound, {counts.most:,} pairs the "
            "upper one; attribute, binarize, release and their disk grow with them."
        )
    if any(found.assumed for found in rates.attribute.values()):
        notes.append("Adaptive nodes were not measured but taken as max_nodes, an upper bound.")
    elif any(options["adaptive"] for options in _own(config)) and not rates.trained:
        notes.append(
            "Adaptive nodes were measured with untrained networks; trained ones may need others."
        )
    if any("scaled" in rate.how for rate in rates.listed()):
        notes.append(
            "Some trials were cut to the time there was and scaled up: more --seconds or a faster "
            "device make them better."
        )
    if shards["warning"]:
        notes.append(f"Warning: {shards['warning']}")
    return notes


def _own(config: dict[str, Any]) -> list[dict[str, Any]]:
    recipes = [recipe["attribute"] for recipe in config["recipes"].values()]
    return [options for options in recipes if isinstance(options, dict)]
