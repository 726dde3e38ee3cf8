"""Training with Lightning: seeded by (seed, epoch), resumable after every epoch, quiet.

A run that is killed and started again gives the same weights as an undisturbed one: the order of
the images and all random numbers come from the seed and the epoch, never from the past.
"""

import logging
import sys
import time
import warnings
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch.utils.data import DataLoader, Dataset, Sampler

from dollmaker.files import atomic_path

Key = tuple[int, int]


class EpochSampler(Sampler[Key]):
    """Yields (epoch, index) in an order that depends on the seed and the epoch alone."""

    def __init__(self, data: Sized, seed: int) -> None:
        self._length = len(data)
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch, also after a resume."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._length)
        return ((self._epoch, int(index)) for index in order)

    def __len__(self) -> int:
        return self._length


def train_loader(
    data: Dataset[Any], *, batch_size: int, seed: int, device: torch.device
) -> DataLoader[Any]:
    """A loader whose data set is indexed by (epoch, index); the last short batch is dropped.

    A data set smaller than one batch gives one batch of all.
    """
    length = len(data)  # type: ignore[arg-type]
    return DataLoader(
        data,
        batch_size=batch_size,
        sampler=EpochSampler(range(length), seed),
        drop_last=length >= batch_size,
        num_workers=4 if device.type == "cuda" else 0,
        persistent_workers=device.type == "cuda",
        pin_memory=device.type == "cuda",
    )


class _Seeds(lightning.Callback):
    """Random numbers inside a step (dropout) from (seed, step)."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        torch.manual_seed(hash((self._seed, trainer.global_step)) % 2**63)


class _State(Checkpoint):
    """Writes the state of the run after every epoch, atomically.

    A ``Checkpoint`` runs after the module's own ``on_train_epoch_end``, so the state is complete.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        with atomic_path(self._file) as part:
            trainer.save_checkpoint(part)


class _Progress(Checkpoint):
    """One line an epoch on stderr."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._start = time.monotonic()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        seconds = time.monotonic() - self._start
        values = " ".join(f"{k} {float(v):.4f}" for k, v in trainer.callback_metrics.items())
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        print(f"{self._label} {epoch} {values} ({seconds:.0f} s)", file=sys.stderr, flush=True)


def fit(
    module: lightning.LightningModule,
    loader: DataLoader[Any],
    *,
    epochs: int,
    seed: int,
    device: torch.device,
    precision: Any,
    work: Path,
    label: str,
) -> None:
    """Train a module, from the state in ``work`` if there is one.

    The module reports with ``self.log`` and stops early with ``self.trainer.should_stop = True``
    in ``on_train_epoch_end``. What it needs beside weights (curves, the best weights) it keeps
    through ``on_save_checkpoint`` and ``on_load_checkpoint``.

    Args:
        module: Model, loss and optimiser.
        loader: Made by :func:`train_loader`.
        epochs: Most epochs.
        seed: Seed of the run.
        device: Where to train.
        precision: Lightning's name of the precision.
        work: Folder for the state, see :func:`dollmaker.files.work_folder`.
        label: Begins each progress line.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
    state = work / "state.ckpt"
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=precision,
        callbacks=[_Seeds(seed), _Progress(label), _State(state)],
        logger=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    resume = str(state) if state.exists() else None
    trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
