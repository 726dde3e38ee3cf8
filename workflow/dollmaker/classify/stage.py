"""The stage: train one member, measure it, write it."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from dollmaker.classify.data import LabelledImages
from dollmaker.classify.labels import few, label_matrix, lessons, targets
from dollmaker.classify.scores import (
    Probabilities,
    fit_temperature,
    known_labels,
    macro_auroc,
    measure,
    predict,
)
from dollmaker.classify.train import ClassifierTraining, positive_weights
from dollmaker.config import weight_names
from dollmaker.config.networks import ClassifyConfig, MemberConfig
from dollmaker.config.ready import input_options, is_ready, is_xrv
from dollmaker.config.whole import Config
from dollmaker.measures.words import finite
from dollmaker.networks import patch_heads, positions
from dollmaker.networks.classifiers import create_network, head_name, published_normalisation
from dollmaker.networks.inputs import Input
from dollmaker.networks.member import Calibration, Member, save_member, take_ready
from dollmaker.networks.training import Training, fit, train_loader
from dollmaker.networks.weights import Normalisation, load_weights, read_normalisation, read_weights
from dollmaker.runtime import devices, parallel
from dollmaker.runtime.errors import ConfigError, DataError, unknown
from dollmaker.runtime.picks import evenly
from dollmaker.store import provenance, tables
from dollmaker.store.files import atomic_path, sha256_file
from dollmaker.store.shards import ImageShards
from dollmaker.store.tables import digest_index, read_index
from dollmaker.store.work import Work

#: Training images that the heads on patches begin with.
_BEGINNERS = 500


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a member learns from."""

    index: Path  #: The index.
    images: Path  #: Folder of the image shards.
    weights_root: Path  #: Folder of weights files.


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One member: its settings, those of the section with what it changes, and its data."""

    name: str
    mine: MemberConfig
    options: ClassifyConfig
    seed: int
    devices: Sequence[torch.device]
    index: pl.DataFrame
    findings: list[str]
    images: ImageShards

    @property
    def device(self) -> torch.device:
        return self.devices[parallel.rank()]

    def split(self, name: str) -> pl.DataFrame:
        return self.index.filter(split=name)

    def header(self, weights: Path | None) -> dict[str, Any]:
        sources = {"index": digest_index(self.index)}
        if weights:
            sources["weights"] = sha256_file(weights)
        section = {**self.options.dump(), "optimizer": self.mine.optimizer}
        section["members"] = {self.name: self.mine.dump()}
        return provenance.header("classify", section, seed=self.seed, inputs=sources)


def train_member(
    config: Config, member_name: str, inputs: Inputs, output: Path, gpus: int = 1
) -> None:
    """Train one member of the committee; a ready classifier is taken as it is.

    Args:
        config: The resolved configuration.
        member_name: Name of the member.
        inputs: What it learns from.
        output: Folder to make.
        gpus: GPUs that train together, 0 for all that the job sees; with ``device: cpu``,
            processes.

    Raises:
        ConfigError: If the configuration has no such member.
        DataError: If there is nothing to train on.
        ModelError: If its weights file or the device is missing or does not fit.
    """
    members = config.classify.members
    if member_name not in members:
        raise ConfigError(unknown("member", member_name, members))
    mine = members[member_name]
    chosen = devices.choose_several(config.device, gpus)
    index, findings = read_index(inputs.index)
    job = _Job(
        name=member_name,
        mine=mine,
        options=member_options(config.classify, mine),
        seed=config.seed * 1000 + mine.seed,
        devices=chosen,
        index=index,
        findings=findings,
        images=ImageShards(inputs.images),
    )
    file = None
    if mine.weights:
        file = weight_names.locate(inputs.weights_root, mine.weights, mine.architecture)
    own, facts = _normalisation(member_name, mine, job.options, file)
    spec = member_input(config, mine, own)
    if file and is_ready(mine):
        member, outputs = take_ready(member_name, mine, spec, findings, file)
        member.network.to(job.device).to(memory_format=torch.channels_last)
        header = job.header(file)
        work = Work(output, provenance.digest([header, vars(spec)]))
        unknown_ones = [finding for finding in findings if finding not in outputs]
        trained = {"best_epoch": 0, "curve": [], "outputs": outputs, "unknown": unknown_ones}
    else:
        member = _untrained(job, spec, file)
        header = job.header(file)
        key = [header, vars(spec), member.architecture, config.prepare.fit]
        work = Work(output, provenance.digest(key))
        member, trained = _train(job, member, work)
    member, probabilities = _measured(job, member)
    work.require()
    held_out = index.filter(pl.col("split") != "train")
    with atomic_path(output) as folder:
        folder.mkdir()
        save_member(
            folder,
            member,
            calibration=vars(member.calibration),
            metrics=measure(held_out, findings, probabilities, job.options, job.seed),
            **trained,
            **facts,
            header=header,
        )
        columns = [
            pl.Series(finding, probabilities[:, k], dtype=pl.Float32, nan_to_null=True)
            for k, finding in enumerate(findings)
        ]
        table = held_out.select("image_id", "split").with_columns(columns)
        tables.write(table, folder / "predictions.parquet", header)
    work.finish()


def member_options(options: ClassifyConfig, member: MemberConfig) -> ClassifyConfig:
    """Section ``classify`` with what a member changes.

    Statistics of batch normalisation are frozen as they came with weights; without weights there
    are none, and a network that kept its first ones would not learn.
    """
    own = {"epochs": member.epochs, "learning_rate": member.learning_rate}
    changed: dict[str, Any] = {key: value for key, value in own.items() if value is not None}
    if not member.weights:
        changed["freeze_batch_norm"] = False
    return options.model_copy(update=changed)


def member_input(config: Config, member: MemberConfig, own: Normalisation | None = None) -> Input:
    """What a member expects, by the rule of :func:`input_options`; ``own`` is of its weights."""
    return Input(**input_options(config, member, vars(own) if own else {}))


def _normalisation(
    name: str, member: MemberConfig, options: ClassifyConfig, file: Path | None
) -> tuple[Normalisation | None, dict[str, str]]:
    """Mean and deviation of a member's weights, and what ``model.json`` says of their origin.

    A file that names none is taken for the published one where the architecture is one of timm's
    transformers (:func:`published_normalisation`); the log says so.
    """
    own = read_normalisation(file) if file else None
    places = (member, options)
    given = all(any(getattr(one, key) is not None for one in places) for key in ("mean", "std"))
    if not file or own or given or is_xrv(member):
        return own, {}
    published = published_normalisation(member.architecture)
    if not published:
        return None, {}
    print(
        f"classify {name}: {file.name} names no mean and deviation; those of {published[1]} "
        "are taken, set mean and std if it was trained on others",
        file=sys.stderr,
    )
    return published[0], {"normalisation": published[1]}


def _untrained(job: _Job, spec: Input, file: Path | None) -> Member:
    """A member as its training begins."""
    if job.split("train").is_empty():
        raise DataError("the index has no training images; lower prepare.valid and prepare.test.")
    torch.manual_seed(job.seed)
    network, architecture = create_network(
        job.mine.architecture, outputs=len(job.findings), channels=spec.channels, size=spec.size
    )
    if file:
        state, head = read_weights(file), head_name(network, len(job.findings))
        load_weights(network, state, optional=(head,), source=f"weights file {file}")
        if job.mine.linear_probe or not job.options.epochs:
            positions.keep(network, state)
    network = network.to(job.device).to(memory_format=torch.channels_last)
    return Member(
        name=job.name, network=network, findings=job.findings, input=spec, architecture=architecture
    )


def _train(job: _Job, member: Member, work: Work) -> tuple[Member, dict[str, Any]]:
    """The member as its training ends, and what ``model.json`` says of it."""
    options, network, findings = job.options, member.network, job.findings
    train, valid = job.split("train"), job.split("valid")
    values, weights = targets(label_matrix(train, findings), findings, options, job.seed)
    data = LabelledImages(train, job.images, values, weights, kind=options.augment, seed=job.seed)
    loader = train_loader(data, batch_size=options.batch_size, seed=job.seed, devices=job.devices)

    def validate(_: nn.Module) -> float:
        probabilities = predict(member, valid, job.images, job.device)
        return macro_auroc(valid, findings, probabilities, options.blank)

    positive = positive_weights(values, weights) if options.balance else None
    steps = len(loader) * options.epochs
    module = ClassifierTraining(
        member, options, job.mine, validate=validate, positive=positive, steps=steps
    )
    if options.epochs:
        told = few(lessons(train, findings, options))
        if told and not parallel.rank():
            print(f"classify {job.name}: {told}", file=sys.stderr)
        patch_heads.begin(network.eval(), _first(member, train, job.images, values, weights))
        training = Training(options, job.seed, job.devices, f"classify {job.name}")
        fit(module, loader, training, work)
        network.load_state_dict(module.best)
        network.to(job.device)
        if positive is not None:
            member = replace(member, calibration=Calibration(shift=positive.log().tolist()))
    curve = [{key: finite(value) for key, value in row.items()} for row in module.curve]
    return member, {"best_epoch": module.best_epoch, "curve": curve}


def _first(
    member: Member,
    index: pl.DataFrame,
    images: ImageShards,
    values: Probabilities,
    weights: Probabilities,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Some training images as they are, spread over the index, with their targets and weights."""
    rows = evenly(len(index), _BEGINNERS)
    places = index.select("shard", "row").rows()
    device = next(member.network.parameters()).device
    for some in np.array_split(rows, -(-len(rows) // 8)):
        levels = torch.stack([torch.from_numpy(images.read(*places[row])) for row in some])
        prepared = member.prepare(levels.to(device))
        yield prepared, torch.from_numpy(values[some]), torch.from_numpy(weights[some])


def _measured(job: _Job, member: Member) -> tuple[Member, Probabilities]:
    """The member, calibrated, and its probabilities of all images that it did not learn from."""
    silent = [k for k in range(len(job.findings)) if not member.knows(k)]
    if job.options.calibrate == "temperature":
        valid = job.split("valid")
        positive, counts = known_labels(valid, job.findings, job.options.blank)
        counts[:, silent] = False
        probabilities = predict(member, valid, job.images, job.device)
        found = fit_temperature(probabilities, positive, counts)
        member = replace(member, calibration=replace(member.calibration, temperature=found))
    held_out = job.index.filter(pl.col("split") != "train")
    probabilities = predict(member, held_out, job.images, job.device)
    probabilities[:, silent] = np.nan
    return member, probabilities
