"""Training of one classifier: masked BCE, class balance, the best epoch by validation AUROC."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dollmaker.config.networks import ClassifyConfig, MemberConfig
from dollmaker.networks.batch_norm import freeze_batch_norm
from dollmaker.networks.classifiers import head_name
from dollmaker.networks.member import Member
from dollmaker.networks.schedule import one_cycle
from dollmaker.networks.training import EpochLoss
from dollmaker.runtime import parallel

Probabilities = npt.NDArray[np.float32]

#: Epochs after which SGD's learning rate falls to a tenth (ExplainSeg).
_SGD_EPOCHS = 50


def positive_weights(values: Probabilities, weights: Probabilities, cap: float = 10.0) -> Tensor:
    """Weight of the positives of each finding: negatives / positives, within 1..cap."""
    positives = (values * weights).sum(0)
    negatives = weights.sum(0) - positives
    ratio = negatives / np.maximum(positives, 1)
    return torch.from_numpy(np.clip(ratio, 1.0, cap).astype(np.float32))


def masked_bce(logits: Tensor, values: Tensor, weights: Tensor, positive: Tensor | None) -> Tensor:
    """Binary cross-entropy (B, K) over the labels with weight 1 (not 0), mean over their number."""
    loss = nn.functional.binary_cross_entropy_with_logits(
        logits, values, pos_weight=positive, reduction="none"
    )
    return (loss * weights).sum() / parallel.share(weights.sum(), 1)


class ClassifierTraining(EpochLoss):
    """Model, loss and optimiser of one member, for all steps of its schedule.

    ``options`` are the section ``classify``, with what the member changes, ``mine`` its own
    settings. ``validate`` maps the network to its validation macro AUROC (NaN if there is none);
    ``positive`` are the weights of positives (K), if they have any.
    """

    kept = ("curve", "best", "best_score", "best_epoch", "progress_epoch", "stopped")

    def __init__(
        self,
        member: Member,
        options: ClassifyConfig,
        mine: MemberConfig,
        *,
        validate: Callable[[nn.Module], float],
        positive: Tensor | None,
        steps: int,
    ) -> None:
        super().__init__()
        self.network = member.network
        self.curve: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_score = float("-inf")
        self.best_epoch = self.progress_epoch = 0
        self.stopped = False
        self._prepare, self._validate = member.prepare, validate
        self._options, self._mine = options, mine
        self._positive, self._steps = positive, steps
        head = head_name(self.network, len(member.findings)) if mine.linear_probe else ""
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name.startswith(head))

    def on_train_start(self) -> None:
        """A run that goes on inside an epoch does not start that epoch again."""
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Training mode, but for what is frozen."""
        self.network.train(not self._mine.linear_probe)
        if self._options.freeze_batch_norm:
            freeze_batch_norm(self.network)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _: int) -> Tensor:
        """Loss of a batch."""
        images, values, weights = batch
        logits = self.network(self._prepare(images))
        positive = None if self._positive is None else self._positive.to(logits.device)
        loss = masked_bce(logits, values, weights, positive)
        self.note(loss, len(images))
        return loss

    def on_train_epoch_end(self) -> None:
        """Score, keep the best weights, stop when there is no progress."""
        score = float("nan") if parallel.rank() else self._validate(self.network)
        score = parallel.of_the_first(score, self.device)
        epoch = self.current_epoch + 1
        self.log("valid_macro_auroc", score)
        loss = self.epoch_loss()
        self.curve.append({"epoch": epoch, "loss": loss, "valid_macro_auroc": score})
        if np.isnan(score) or score >= self.best_score:  # of equals, the one trained longer
            self.best_epoch = epoch
            self.best = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        if not score <= self.best_score:
            self.best_score = self.best_score if np.isnan(score) else score
            self.progress_epoch = epoch
        elif epoch - self.progress_epoch >= self._options.patience:
            self.stopped = self.trainer.should_stop = True
            if not parallel.rank():
                epochs = f"{self._options.patience} epochs (classify.patience)"
                print(f"stopped: no better score in {epochs}", file=sys.stderr)

    def configure_optimizers(self) -> Any:
        """AdamW or Adam with a one-cycle schedule over all steps, or ExplainSeg's SGD."""
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        rate, decay = self._options.learning_rate, self._options.weight_decay
        if self._mine.optimizer == "sgd":
            sgd = torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=decay)
            steps = torch.optim.lr_scheduler.StepLR(sgd, _SGD_EPOCHS, 0.1)
            return {"optimizer": sgd, "lr_scheduler": {"scheduler": steps, "interval": "epoch"}}
        kind = torch.optim.Adam if self._mine.optimizer == "adam" else torch.optim.AdamW
        optimizer = kind(parameters, lr=rate, weight_decay=decay, fused=True)
        schedule = one_cycle(optimizer, self._steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up where a killed run stopped."""
        super().on_load_checkpoint(checkpoint)
        if self.stopped:  # killed after that: no epoch more than an undisturbed run
            self.trainer.should_stop = True
