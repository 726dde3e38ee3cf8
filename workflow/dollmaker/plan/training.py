"""Seconds of a training step and of scoring an image, for classifiers, segmenter and tasks."""

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import nn

from dollmaker.adapt.stage import make_tuned
from dollmaker.adapt.starts import find_beginning
from dollmaker.adapt.tasks import Task
from dollmaker.adapt.train import on_sources, train_run
from dollmaker.adapt.truth import pack
from dollmaker.adapt.tuning import Tuning
from dollmaker.classify.data import LabelledImages, label_matrix, targets
from dollmaker.classify.stage import member_options, predict
from dollmaker.classify.train import ClassifierTraining, positive_weights
from dollmaker.networks.classifiers import head_name
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import create
from dollmaker.networks.training import fit, train_loader
from dollmaker.pixels.geometry import box, unfit_mask
from dollmaker.plan.clock import measure_each, seconds_of
from dollmaker.plan.committee import untrained_member
from dollmaker.plan.material import Material, smooth_noise
from dollmaker.runtime.errors import DataError
from dollmaker.segment.data import (
    PseudoLabelled,
    ReleasedMasks,
    Targets,
    list_targets,
)
from dollmaker.segment.train import SegmenterTraining, pseudo_miou
from dollmaker.store.work import Work

#: Steps of a measured training at most.
_STEPS = 32
#: A training step costs about as much as so many forward passes of its images.
_FORWARDS = 4


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training takes.

    Attributes:
        step: Seconds of an optimiser step of the configured batch.
        image: Seconds to score an image.
        bytes: Bytes of the network's weights.
        steps: Steps behind the median.
        how: With what it was measured.
    """

    step: float
    image: float
    bytes: int
    steps: int
    how: str


class _Watch(lightning.LightningModule):
    """Notes when each step ends, and ends the epoch when the time is up."""

    deadline: float
    marks: list[float]

    def start(self, seconds: float) -> None:
        """Begin now."""
        self.marks, self.deadline = [], time.perf_counter() + seconds

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Two steps at least: a warm-up and one that counts."""
        late = len(self.marks) >= 2 and time.perf_counter() > self.deadline
        return -1 if late else None

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """The optimiser has stepped."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.marks.append(time.perf_counter())

    def on_train_epoch_end(self) -> None:
        """No validation: it is measured by itself."""

    def seconds(self) -> tuple[float, int]:
        """Median seconds of a step, over the later half: loaders begin with a store of batches."""
        steps = np.diff(self.marks)
        steps = steps[len(steps) // 2 :]
        return statistics.median(steps.tolist()), len(steps)


class _Classifier(_Watch, ClassifierTraining):
    pass


class _Segmenter(_Watch, SegmenterTraining):
    pass


def classifier(
    config: dict[str, Any],
    options: dict[str, Any],
    material: Material,
    device: torch.device,
    budget: float,
) -> Training:
    """Train a few steps of a member as the stage classify does.

    Args:
        config: The resolved configuration.
        options: Options of the member.
        material: Images.
        device: Where to train.
        budget: Seconds to spend.

    Raises:
        ModelError: If there is no such network.
    """
    section = {**config["classify"], **member_options(options)}
    findings = material.findings
    member, _ = untrained_member(config, "plan", options, findings, device)
    network = member.network
    image, _, _ = measure_each(
        lambda number: predict(member, material.tiled(number), material.images, device), budget / 4
    )
    if not section["epochs"]:
        return replace(_training(network, 0.0, 0, image, 1, 1), how="not trained")
    batch = _batch(section["batch_size"], image, budget, device)
    rows = material.tiled(batch * _STEPS)
    values, weights = targets(
        label_matrix(rows, findings), findings, section["uncertain"], section["blank"], 0
    )
    data = LabelledImages(
        rows, material.unopened(), values, weights, kind=section["augment"], seed=0
    )
    head = head_name(network, len(findings)) if options["linear_probe"] else ""
    module = _Classifier(
        network.train(),
        member.prepare,
        positive_weights(values, weights) if section["balance"] else None,
        lambda _: float("nan"),
        section,
        head,
        _STEPS,
    )
    step, steps = _fit(module, data, batch, section, device, budget / 2, material.folder / "work")
    return _training(network, step, steps, image, batch, section["batch_size"])


def segmenter(
    config: dict[str, Any],
    material: Material,
    masks: Path,
    device: torch.device,
    budget: float,
) -> Training:
    """Train a few steps of the segmenter as the stage segment does.

    Args:
        config: The resolved configuration.
        material: Images.
        masks: A release's shard with masks of them.
        device: Where to train.
        budget: Seconds to spend.

    Raises:
        ModelError: If network, arguments and size do not fit.
        DataError: If there is no mask to learn from.
    """
    options, prepare = config["segment"], config["prepare"]
    spec = Input(channels=prepare["channels"], size=prepare["size"])
    model = create(
        options,
        channels=spec.channels,
        classes=len(material.localized),
        size=spec.size,
        seed=config["seed"],
    ).to(device)
    known = list_targets(
        material.index,
        material.localized,
        ReleasedMasks([masks]).table(),
        blank=config["classify"]["blank"],
        source=str(masks),
    )
    if not (known.row >= 0).any():
        raise DataError("no positive finding keeps a mask to learn from; loosen the gates.")

    def data(number: int) -> PseudoLabelled:
        return PseudoLabelled(
            _tiled(known, number),
            material.unopened(),
            ReleasedMasks([masks]),
            fit=prepare["fit"],
            kind=options["augment"],
            quality_weight=options["quality_weight"],
            seed=0,
        )

    image, _, _ = measure_each(
        lambda number: pseudo_miou(model, data(number), spec, device), budget / 4
    )
    batch = _batch(options["batch_size"], image, budget, device)
    module = _Segmenter(model, spec, lambda _: float("nan"), options, _STEPS)
    work = material.folder / "work"
    step, steps = _fit(module, data(batch * _STEPS), batch, options, device, budget / 2, work)
    return _training(model, step, steps, image, batch, options["batch_size"])


def tuning(
    config: dict[str, Any],
    how: Tuning,
    classes: int,
    material: Material,
    device: torch.device,
    budget: float,
) -> Training:
    """Fine-tune a few steps as the stage adapt does, from random weights.

    Args:
        config: The resolved configuration.
        how: What is trained.
        classes: Classes of the task.
        material: Images.
        device: Where to train.
        budget: Seconds to spend.
    """
    task = _task(config, material, classes)
    beginning = find_beginning(
        "random", config, committee=None, segmenter=None, weights_root=material.folder
    )
    spec, options = beginning.input, config["adapt"]
    network = {key: config["segment"][key] for key in ("architecture", "encoder", "arguments")}
    tuned = make_tuned(beginning, network, task, "random", how, options, 0).to(device)
    train = task.rows("train")
    image, _, _ = measure_each(
        lambda number: on_sources(tuned, spec, task, np.resize(train, number), device),
        budget / 4,
        most=32,
    )
    batch = _batch(options["batch_size"], image, budget, device)

    def run(steps: int) -> float:
        few = {**options, "steps": steps, "evaluations": 1, "batch_size": batch}
        return seconds_of(lambda: train_run(tuned, spec, task, train, few, seed=0, device=device))

    scored = 2 * image  # one validation image, one test image
    first = max(run(1) - scored, image)
    steps = int(np.clip(budget / 4 / first, 1, _STEPS))
    step = statistics.median(max((run(steps) - scored) / steps, image) for _ in range(2))
    return _training(tuned.model, step, 2 * steps, image, batch, options["batch_size"])


def _batch(full: int, image: float, budget: float, device: torch.device) -> int:
    """The configured batch, or on a slow CPU one that fits the budget three times."""
    if device.type == "cuda":
        return full
    fitting = int(budget / 2 / 3 / (_FORWARDS * max(image, 1e-9)))
    return min(full, max(2, fitting))


def _fit(
    module: _Watch,
    data: Any,
    batch: int,
    options: dict[str, Any],
    device: torch.device,
    budget: float,
    work: Path,
) -> tuple[float, int]:
    loader = train_loader(data, batch_size=batch, seed=0, devices=[device])
    state = Work(work, "trial")
    module.start(budget)
    fit(
        module,
        loader,
        epochs=1,
        seed=0,
        devices=[device],
        precision=options["precision"],
        work=state,
        label="plan: trial",
    )
    state.finish()
    return module.seconds()


def _training(
    network: nn.Module, step: float, steps: int, image: float, batch: int, full: int
) -> Training:
    state = network.state_dict().values()
    return Training(
        step=step * full / batch,
        image=image,
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in state),
        steps=steps,
        how=f"batch {full}" if batch == full else f"batch {batch}, scaled to {full}",
    )


def _tiled(known: Targets, number: int) -> Targets:
    rows = np.resize(np.arange(len(known)), number)
    return Targets(
        index=known.index[rows.tolist()],
        findings=known.findings,
        state=known.state[rows],
        row=known.row[rows],
        quality=known.quality[rows],
        labels=known.labels[rows],
    )


def _task(config: dict[str, Any], material: Material, classes: int) -> Task:
    """A task of the calibration's images with smooth blobs as truth."""
    rows = material.tiled(max(3, len(material.index)))
    rng, size = np.random.default_rng(0), config["prepare"]["size"]
    blobs = [smooth_noise(rng, (size, size), size / 10) > 0.6 for _ in range(classes)]
    masks = np.stack(blobs).astype(np.uint8)
    shapes = [(int(w), int(h)) for w, h in rows.select("width", "height").iter_rows()]
    fit = config["prepare"]["fit"]
    return Task(
        name="plan",
        classes=[str(number) for number in range(classes)],
        image_ids=rows["image_id"].to_list(),
        patients=rows["image_id"].to_list(),
        splits=["valid", "test", *["train"] * (len(rows) - 2)],
        images=material.pixels(rows).numpy(),
        masks=np.repeat(masks[None], len(rows), axis=0),
        fit=fit,
        truth=[pack(np.stack([unfit_mask(m, *shape, fit) for m in masks])) for shape in shapes],
        boxes=[box(*shape, size, fit) for shape in shapes],
    )
