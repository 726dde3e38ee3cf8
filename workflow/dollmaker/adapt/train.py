"""One run: a few hundred optimiser steps on a few images, then the scores."""

import sys
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dollmaker.adapt import learning_rates
from dollmaker.adapt.saved import pack
from dollmaker.adapt.source_scores import overlap, score
from dollmaker.adapt.tasks import Task
from dollmaker.adapt.tuning import Tuned, optimizer_megabytes
from dollmaker.config.tuning import AdaptConfig
from dollmaker.measures import scores
from dollmaker.networks import batch_norm
from dollmaker.networks.augment import augment, make_transform
from dollmaker.networks.inputs import Input
from dollmaker.networks.losses import pixel_loss
from dollmaker.networks.schedule import one_cycle
from dollmaker.networks.segmenters import predict, predict_logits
from dollmaker.pixels.masks import IGNORE, surround
from dollmaker.runtime.picks import evenly

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run gives."""

    #: Points with ``step``, ``epoch``, ``loss`` (mean since the last), ``valid_miou`` (on the
    #: squares, see :func:`mean_iou`).
    curve: list[dict[str, float]]
    #: uint8 (T, K, S, S) of the test images, by the final weights, 0 outside the picture.
    predictions: npt.NDArray[np.uint8]
    #: (T, K) at the size of the sources; 1 where a class is not there and nothing is drawn, NaN
    #: where no pixel is known.
    iou: Floats
    dice: Floats  #: (T, K), likewise.
    present: npt.NDArray[np.bool_]  #: Boolean (T, K), whether the image holds the class.
    #: ``seconds`` of all, ``step_seconds`` (mean of the training steps), ``trainable``,
    #: ``encoder_trainable_share``, ``optimizer_mb``, ``adapter_mb`` (size of the file that the task
    #: costs beside the shared base), ``steps``, ``learning_rate``.
    cost: dict[str, float]


def train_run(
    tuned: Tuned,
    spec: Input,
    task: Task,
    chosen: npt.NDArray[np.int64],
    options: AdaptConfig,
    seed: int,
) -> Run:
    """Fine-tune a network, where it lies, on some images of a task and score it on the test images.

    AdamW with a one-cycle schedule. The test scores are those of the final weights; the validation
    images draw the curve. Every step's images and augmentation follow from (seed, step). Before
    each evaluation the statistics of batch normalisation are measured anew, as ``norm`` says.
    ``chosen`` are the positions of the training images, and ``options`` name one learning rate.
    """
    began = time.perf_counter()
    (rate,) = learning_rates(options.learning_rate)
    optimizer = torch.optim.AdamW(tuned.trained(), lr=rate, weight_decay=0.01, fused=True)
    steps, count = options.steps, options.evaluations
    schedule, device = one_cycle(optimizer, steps), next(tuned.parameters()).device
    points = {round(steps * (k + 1) / count) for k in range(count)}
    curve: list[dict[str, float]] = []
    losses: list[float] = []
    in_steps = 0.0
    measured = to_measure(task, chosen, options.norm)
    tuned.train()
    for step in range(steps):
        step_began = time.perf_counter()
        images, masks = make_batch(task, chosen, options, seed=seed, step=step)
        with torch.random.fork_rng(devices=[]):  # dropout
            torch.manual_seed(hash((seed, step)) % 2**63)
            logits = tuned(spec.prepare(images.to(device)))
        loss = pixel_loss(logits, masks.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        in_steps += time.perf_counter() - step_began
        if step + 1 in points:
            if measured is not None:
                batch_norm.recompute(tuned, measured, lambda x: spec.prepare(x.to(device)))
            valid = on_squares(tuned, spec, task, task.rows("valid"))
            curve.append(
                {
                    "step": step + 1,
                    "epoch": (step + 1) * options.batch_size / len(chosen),
                    "loss": float(np.mean(losses)),
                    "valid_miou": mean_iou(*valid),
                }
            )
            losses.clear()
            print(
                f"adapt {task.name} seed={seed} step {step + 1}/{steps} "
                f"valid_miou {curve[-1]['valid_miou']:.4f} ({time.perf_counter() - began:.0f} s)",
                file=sys.stderr,
                flush=True,
            )
            tuned.train()
    predictions, iou, dice = on_sources(tuned, spec, task, task.rows("test"))
    cost = {
        "seconds": round(time.perf_counter() - began, 3),
        "step_seconds": round(in_steps / steps, 6),
        "trainable": sum(p.numel() for p in tuned.trained()),
        "encoder_trainable_share": tuned.encoder_share(),
        "optimizer_mb": optimizer_megabytes(optimizer),
        "adapter_mb": len(pack(tuned)) / 1e6,
        "steps": steps,
        "learning_rate": rate,
    }
    return Run(
        curve=curve, predictions=predictions, iou=iou, dice=dice, present=task.present(), cost=cost
    )


def to_measure(task: Task, chosen: npt.NDArray[np.int64], norm: str) -> Tensor | None:
    """Images (N, C, S, S) in levels, that statistics of batch normalisation are measured on.

    ``norm`` is ``few``, those that are trained on; ``pool``, all training images of the task, whose
    masks are not looked at; ``frozen``, none. Of more than :data:`batch_norm.MOST`, so many evenly
    spread.
    """
    if norm == "frozen":
        return None
    rows = chosen if norm == "few" else task.rows("train")
    return torch.from_numpy(task.images[rows[evenly(len(rows), batch_norm.MOST)]])


def make_batch(
    task: Task, chosen: npt.NDArray[np.int64], options: AdaptConfig, *, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Images (B, C, S, S) and masks (B, K, S, S) of a step, augmented.

    The images come in rounds; every round has each image once, in an order of its own. A batch
    larger than a round spans several, so that its size never depends on the number of images.
    """
    transform = make_transform(options.augment)
    images, masks = [], []
    size, count = options.batch_size, len(chosen)
    for place in range(step * size, (step + 1) * size):
        number, position = divmod(place, count)
        row = int(np.random.default_rng([seed, number]).permutation(chosen)[position])
        image, mask = torch.from_numpy(task.images[row]), torch.from_numpy(task.masks[row])
        moved, target = augment(transform, image, mask, seed=seed, epoch=number, index=row)
        images.append(moved)
        masks.append(mask if target is None else target)
    return torch.stack(images), torch.stack(masks)


def on_squares(
    tuned: nn.Module, spec: Input, task: Task, rows: npt.NDArray[np.int64]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """IoU (T, K) on the squares and where the class is: quick, for the curve.

    Leaves the network in evaluation mode.
    """
    tuned.eval()
    predicted = predict(tuned, torch.from_numpy(task.images[rows]), spec).numpy()
    truth = task.masks[rows]
    iou: Floats = overlap(predicted, truth == 1, truth == IGNORE)[0]
    return iou, (truth == 1).any((-2, -1))


def on_sources(
    tuned: nn.Module, spec: Input, task: Task, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint8], Floats, Floats]:
    """Predictions uint8 (T, K, S, S), and IoU and Dice (T, K) at the size of the sources.

    Leaves the network in evaluation mode.
    """
    tuned.eval()
    predictions, pairs = [], []
    found = predict_logits(tuned, torch.from_numpy(task.images[rows]), spec)
    every = (logits.numpy() for batch in found for logits in batch)
    for row, logits in zip(rows, every, strict=True):
        predictions.append(surround((logits > 0).astype(np.uint8), task.boxes[row], 0))
        pairs.append(score(logits, task.true(row), task.fit))
    iou, dice = (np.stack(values) for values in zip(*pairs, strict=True))
    return np.stack(predictions), iou, dice


def mean_iou(iou: Floats, present: npt.NDArray[np.bool_]) -> float:
    """Mean over classes of the mean over the images that hold the class: what is reported, too.

    Where no image holds a class, a right "nothing" is what counts (1, else 0). Both are (T, K);
    NaN is passed over.
    """
    held = scores.nanmean(np.where(present, iou, np.nan), axis=0)
    return float(scores.nanmean(np.where(present.any(0), held, scores.nanmean(iou, axis=0))))
