"""Training with Lightning: seeded, resumable inside an epoch, on one or several devices, quiet.

A run that was killed and resumed gives the same weights as an undisturbed one: the order of images
and all random numbers depend on the seed and the epoch alone. Several devices share each batch, and
take the steps that one device would.
"""

import logging
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dollmaker.config.networks import ClassifyConfig, SegmentConfig
from dollmaker.runtime import parallel
from dollmaker.runtime.errors import ConfigError
from dollmaker.runtime.stopping import Terminated, die_with_parent, on_sigterm
from dollmaker.store.work import Work, newest_state, remove_old_states, state_name

Key = tuple[int, int]


class EpochSampler(Sampler[Key]):
    """Yields (epoch, index) in an order that depends on the seed and the epoch alone.

    Each of several processes gets its part of every batch. The last short batch is dropped.
    """

    def __init__(self, length: int, batch: int, seed: int, processes: int, rank: int) -> None:
        self._batches = (length // batch, processes, batch // processes)
        self._length, self._rank, self._seed = length, rank, seed
        self._epoch = 0
        self.skip = 0  #: Items that the next epoch leaves out, because a stopped run has had them.

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch, also after a resume."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._length)
        used = order[: int(np.prod(self._batches))].reshape(self._batches)[:, self._rank].ravel()
        rest, self.skip = used[self.skip :], 0
        return ((self._epoch, int(index)) for index in rest)

    def __len__(self) -> int:
        return self._batches[0] * self._batches[2]


class ResumableLoader(DataLoader[Any]):
    """A loader that can start inside an epoch; Lightning keeps its state in checkpoints."""

    batches = 0  #: Those of the current epoch that were trained on; the training counts them.

    def state_dict(self) -> dict[str, Any]:
        """Where in the epoch the training is."""
        return {"batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Leave out in the next epoch what was trained on."""
        assert isinstance(self.sampler, EpochSampler)
        assert self.batch_size is not None
        self.sampler.skip = state["batches"] * self.batch_size


def train_loader(
    data: Dataset[Any], *, batch_size: int, seed: int, devices: Sequence[torch.device]
) -> ResumableLoader:
    """A loader whose data set is indexed by (epoch, index); the last short batch is dropped.

    A data set smaller than one batch gives one batch of all; ``batch_size`` is over all devices.

    Raises:
        ConfigError: If devices cannot share a batch evenly.
    """
    length, processes, gpu = len(data), len(devices), devices[0].type == "cuda"  # type: ignore[arg-type]
    batch = min(batch_size, length)
    if batch % processes:
        raise ConfigError(
            f"{processes} devices cannot share a batch of {batch} images evenly; set batch_size to "
            f"a multiple of {processes}" + (", or use one device." if batch == length else ".")
        )
    return ResumableLoader(
        data,
        batch_size=batch // processes,
        sampler=EpochSampler(length, batch, seed, processes, parallel.rank()),
        num_workers=4 if gpu else 0,
        persistent_workers=gpu,
        pin_memory=gpu,
    )


class _Seeds(lightning.Callback):
    """Seeds the random numbers of a step (dropout) by seed, step and process."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        key = (self._seed, trainer.global_step)
        torch.manual_seed(hash(key + (parallel.rank(),) * (parallel.rank() > 0)) % 2**63)


class EpochLoss(lightning.LightningModule):
    """A module that reports the mean loss of each epoch, resumed epochs included."""

    #: Names of what a run that goes on must know beside weights.
    kept: tuple[str, ...] = ("curve",)

    def __init__(self) -> None:
        super().__init__()
        self._loss = torch.zeros(2, dtype=torch.float64)  # sum over images, images

    def note(self, loss: Tensor, images: int) -> None:
        """Count the loss of a batch (of a process's part of it; all count all parts)."""
        self._loss = self._loss.to(loss.device)
        mean = parallel.mean(loss.double())
        self._loss += torch.stack([mean * images, loss.new_tensor(images)])

    def epoch_loss(self) -> float:
        """The mean since the last call; also logged as ``loss``."""
        mean = float(self._loss[0] / self._loss[1])
        self._loss = torch.zeros_like(self._loss)
        self.log("loss", mean)
        return mean

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is needed to resume, and what the interrupted epoch has summed up."""
        checkpoint["epoch_loss"] = self._loss.cpu()
        checkpoint["dollmaker"] = {name: getattr(self, name) for name in self.kept}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up where a killed run stopped."""
        self._loss = checkpoint["epoch_loss"]
        for name, value in checkpoint["dollmaker"].items():
            setattr(self, name, value)


class _State(Checkpoint):
    """Writes the state of the run after every epoch, and when SIGTERM comes after that step.

    A ``Checkpoint`` runs after the module's own ``on_train_epoch_end``, so the state is complete.
    """

    def __init__(self, work: Work, loader: ResumableLoader) -> None:
        self._work = work
        self._loader = loader
        self._stop = False

    def stop(self, *_: Any) -> None:
        """Stop after the current step."""
        self._stop = True

    def on_train_start(self, *_: Any) -> None:
        """Replace Lightning's handler, which waits for the other processes, perhaps for ever."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.stop)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = batch_idx + 1 == trainer.num_training_batches  # the epoch's end asks again
        if not last and parallel.agree(self._stop, module.device):
            self._loader.batches = batch_idx + 1
            self._save(trainer)
            raise Terminated

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        self._loader.batches = 0
        self._save(trainer)
        if parallel.agree(self._stop, module.device):
            raise Terminated

    def _save(self, trainer: lightning.Trainer) -> None:
        folder = self._work.folder
        if parallel.rank():
            trainer.save_checkpoint(folder / "unused")  # the first one writes, all take part
            return
        self._work.require()
        with tempfile.TemporaryDirectory(dir=folder, prefix=".state-", suffix=".part") as name:
            part = Path(name) / "state"
            trainer.save_checkpoint(part)
            part.replace(folder / state_name(trainer.global_step, part))
        remove_old_states(folder)


class _Progress(Checkpoint):
    """One line an epoch on stderr."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._start = time.monotonic()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        if parallel.rank():
            return
        seconds = time.monotonic() - self._start
        values = " ".join(f"{k} {float(v):.4f}" for k, v in trainer.callback_metrics.items())
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        print(f"{self._label} {epoch} {values} ({seconds:.0f} s)", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Training:
    """How a module is trained, on which devices (:mod:`dollmaker.runtime.devices`).

    The options say how many epochs at most, and the precision; ``label`` begins each progress line.
    """

    options: ClassifyConfig | SegmentConfig
    seed: int
    devices: Sequence[torch.device]
    label: str


def fit(
    module: lightning.LightningModule, loader: ResumableLoader, training: Training, work: Work
) -> None:
    """Train a module, from the state in ``work`` if there is one.

    The module reports with ``self.log`` and stops early with ``self.trainer.should_stop = True``
    in ``on_train_epoch_end``. What it needs beside weights (curves, the best weights) it names in
    :attr:`EpochLoss.kept`.

    On several devices the command is started once more for each of the others (Lightning's DDP).
    Those processes end here; this function returns in the first only. Batch normalisation takes
    its statistics over all GPUs; on CPUs, where this is for tests, over those of each process.

    Raises:
        Terminated: After SIGTERM, when the state is written.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
    state = _State(work, loader)
    devices, several = training.devices, len(training.devices) > 1
    gpu = devices[0].type == "cuda"
    backend = "nccl" if gpu else "gloo"
    ddp = DDPStrategy(process_group_backend=backend, find_unused_parameters=True)
    trainer = lightning.Trainer(
        max_epochs=training.options.epochs,
        accelerator="gpu" if gpu else "cpu",
        devices=[device.index for device in devices] if gpu else len(devices),
        strategy=ddp if several else "auto",
        sync_batchnorm=gpu and several,
        use_distributed_sampler=False,  # the loader knows its part
        precision=training.options.precision,
        callbacks=[_Seeds(training.seed), _Progress(training.label), state],
        # Whatever starts it: a scheduler's variables must not change how it trains.
        plugins=[LightningEnvironment()],
        default_root_dir=work.folder,
        logger=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    resume = newest_state(work.folder)
    first = parallel.rank() == 0
    if not first:
        die_with_parent()
    try:
        with on_sigterm(state.stop):
            trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    except Terminated:
        if first:
            raise
    if not first:
        sys.exit(0)
