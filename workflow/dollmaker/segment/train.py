"""Training of the segmenter, and its score against the pseudo-masks of the validation split."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from dollmaker.config.networks import SegmentConfig
from dollmaker.measures import scores
from dollmaker.measures.words import finite
from dollmaker.networks import batch_norm
from dollmaker.networks.batch_norm import freeze_batch_norm
from dollmaker.networks.inputs import Input
from dollmaker.networks.losses import cluster_loss, label_loss, pixel_loss
from dollmaker.networks.schedule import one_cycle
from dollmaker.networks.segmenters import BATCH, predict
from dollmaker.networks.training import EpochLoss
from dollmaker.pixels.masks import IGNORE
from dollmaker.runtime import parallel
from dollmaker.segment.data import PseudoLabelled
from dollmaker.segment.structure import Structure


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What a segmenter learns beside the masks, clusters or labels, and the steps of its schedule.

    The statistics of batch normalisation are measured on the ``sample`` of training images (N, C,
    H, W) in levels at the end of each epoch; without one they stay as training left them.
    """

    steps: int
    structure: Structure | None = None
    labels: int = 0
    sample: Tensor | None = None


class SegmenterTraining(EpochLoss):
    """Model, loss and optimiser.

    The loss is a weighted sum of what ``options.objectives`` asks for: ``masks`` of the
    findings; ``structure``, the cluster of every pixel; ``classification``, the labels, from the
    encoder's deepest features. The head's channels are the findings, then the clusters.
    ``validate`` maps the network, one of segmentation-models-pytorch, to its validation mIoU (NaN
    if there is none).
    """

    def __init__(
        self,
        model: nn.Module,
        spec: Input,
        options: SegmentConfig,
        lessons: Lessons,
        validate: Callable[[nn.Module], float],
    ) -> None:
        super().__init__()
        self.model = model
        self.structure = lessons.structure
        encoder: Any = model.get_submodule("encoder")
        labels = lessons.labels
        self.classifier = nn.Linear(encoder.out_channels[-1], labels) if labels else None
        self._deepest: list[Tensor] = []
        if labels:
            encoder.register_forward_hook(self._keep)
        self.curve: list[dict[str, float | None]] = []
        self._spec, self._options, self._lessons = spec, options, lessons
        self._validate = validate
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for frozen batch normalisation of the encoder."""
        super().train(mode)
        if self._options.freeze_batch_norm:
            freeze_batch_norm(self.model.get_submodule("encoder"))
        return self

    def training_step(self, batch: tuple[Tensor, ...], _: int) -> Tensor:
        """Loss of a batch of :class:`PseudoLabelled`."""
        images, masks, weights, labels, picture = batch
        x = self._spec.prepare(images)
        logits, findings = self.model(x), masks.shape[1]
        options, objectives = self._options, self._options.objectives
        loss: Tensor = objectives.masks * pixel_loss(
            logits[:, :findings],
            masks,
            weights,
            kind=options.loss,
            background_weight=options.background_weight,
        )
        if self.structure is not None:
            clusters = cluster_loss(logits[:, findings:], self.structure(x), picture)
            loss = loss + objectives.structure * clusters
        if self.classifier is not None:
            guessed = self.classifier(self._deepest.pop().float().mean((2, 3)))
            loss = loss + objectives.classification * label_loss(guessed, labels)
        self.note(loss, len(images))
        return loss

    def _prepare(self, images: Tensor) -> Tensor:
        return self._spec.prepare(images.to(self.device))

    def _keep(self, _: nn.Module, __: Any, output: Any) -> None:
        maps = output[0] if isinstance(output, tuple) else output
        self._deepest = [maps[-1]]

    def on_train_epoch_end(self) -> None:
        """Measure the statistics, in every process alike, and score the epoch."""
        if self._lessons.sample is not None:
            batch_norm.recompute(self.model, self._lessons.sample, self._prepare, owner=self)
        score = float("nan") if parallel.rank() else self._validate(self.model)
        score = parallel.of_the_first(score, self.device)
        self.train()
        self.log("valid_miou", score)
        epoch, loss = self.current_epoch + 1, self.epoch_loss()
        self.curve.append({"epoch": epoch, "loss": loss, "valid_miou": finite(score)})

    def configure_optimizers(self) -> Any:
        """AdamW with a one-cycle schedule; the encoder's rate is a factor of the decoder's."""
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        encoder = [p for n, p in named if n.startswith("encoder.")]
        rest = [p for n, p in named if not n.startswith("encoder.")]
        rest += self.classifier.parameters() if self.classifier is not None else []
        peak = self._options.learning_rate
        first = peak * self._options.encoder_learning_rate
        groups = [{"params": encoder, "lr": first}, {"params": rest, "lr": peak}]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
        schedule = one_cycle(optimizer, self._lessons.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def pseudo_miou(model: nn.Module, data: PseudoLabelled, spec: Input) -> float:
    """Mean over findings of the mean IoU with the pseudo-masks that are not empty.

    Pairs without a pseudo-mask do not count: most findings are absent from most images, and their
    zeros would drown the rest. Ignored pixels, those outside the picture among them, do not count.
    NaN when there is no pseudo-mask.
    """
    values = []
    model.eval()
    for images, masks in data.batches(BATCH):
        predicted = predict(model, torch.from_numpy(images), spec).numpy()
        predicted = predicted[:, : masks.shape[1]]
        truth = masks == 1
        each = scores.iou(predicted, truth, masks == IGNORE)
        values.append(np.where(truth.any((2, 3)), each, np.nan))
    if not values:
        return float("nan")
    return float(scores.nanmean(scores.nanmean(np.concatenate(values), axis=0)))
