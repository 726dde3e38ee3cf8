"""The stage: train one member, measure it, write it."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import nn

from dollmaker.classify.calibrate import fit_temperature
from dollmaker.classify.data import LabelledImages, label_matrix, targets
from dollmaker.classify.train import ClassifierTraining, positive_weights
from dollmaker.config import weight_names
from dollmaker.config.ready import input_options, is_ready, is_xrv
from dollmaker.measures import scores
from dollmaker.networks import positions
from dollmaker.networks.classifiers import create_network, head_name, published_normalisation
from dollmaker.networks.inputs import Input
from dollmaker.networks.member import Calibration, Member, save_member
from dollmaker.networks.outputs import take
from dollmaker.networks.training import fit, train_loader
from dollmaker.networks.weights import Normalisation, load_weights, read_normalisation, read_weights
from dollmaker.runtime import devices, parallel
from dollmaker.runtime.errors import ConfigError, DataError, unknown
from dollmaker.store import provenance, tables
from dollmaker.store.files import atomic_path, sha256_file
from dollmaker.store.findings import BLANK, PRESENT
from dollmaker.store.index import digest_index, read_index
from dollmaker.store.shards import ImageShards
from dollmaker.store.work import Work

_BATCH = 64


def member_input(
    config: dict[str, Any], member: dict[str, Any], own: Normalisation | None = None
) -> Input:
    """What a configured member expects, by the rule of :func:`input_options`.

    Args:
        config: The resolved configuration (sections prepare and classify).
        member: Its settings.
        own: What its weights file names.
    """
    return Input(**input_options(config, member, vars(own) if own else {}))


def _normalisation(
    name: str, config: dict[str, Any], member: dict[str, Any], file: Path | None
) -> tuple[Normalisation | None, dict[str, str]]:
    """Mean and deviation of a member's weights, and what ``model.json`` says of their origin.

    A file that names none is taken for the published one where the architecture is one of timm's
    transformers (:func:`published_normalisation`); the log says so.
    """
    own = read_normalisation(file) if file else None
    places = (member, config["classify"])
    given = all(any(one[key] is not None for one in places) for key in ("mean", "std"))
    if not file or own or given or is_xrv(member):
        return own, {}
    published = published_normalisation(member["architecture"])
    if not published:
        return None, {}
    print(
        f"classify {name}: {file.name} names no mean and deviation; those of {published[1]} are "
        "taken, set mean and std if it was trained on others",
        file=sys.stderr,
    )
    return published[0], {"normalisation": published[1]}


def member_options(member: dict[str, Any]) -> dict[str, Any]:
    """What a member changes in section ``classify``.

    Statistics of batch normalisation are frozen as they came with weights; without weights there
    are none, and a network that kept its first ones would not learn.
    """
    own = {key: member[key] for key in ("optimizer", "epochs", "learning_rate")}
    changed = {key: value for key, value in own.items() if value is not None}
    return changed if member["weights"] else {**changed, "freeze_batch_norm": False}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a member learns from.

    Attributes:
        index: The index.
        images: Folder of the image shards.
        weights_root: Folder of weights files.
    """

    index: Path
    images: Path
    weights_root: Path


def train_member(
    config: dict[str, Any], member_name: str, inputs: Inputs, output: Path, gpus: int = 1
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
    options, name = config["classify"], member_name
    if name not in options["members"]:
        raise ConfigError(unknown("member", name, options["members"]))
    mine = options["members"][name]
    options = {**options, **member_options(mine)}
    chosen = devices.choose_several(config["device"], gpus)
    device = chosen[parallel.rank()]
    seed = config["seed"] * 1000 + mine["seed"]
    index, findings = read_index(inputs.index)
    images, sources = ImageShards(inputs.images), {"index": digest_index(index)}
    file = None
    if mine["weights"]:
        file = weight_names.locate(inputs.weights_root, mine["weights"], mine["architecture"])
    own, facts = _normalisation(name, config, mine, file)
    spec = member_input(config, mine, own)
    if file and is_ready(mine):
        member, outputs = take(name, mine, spec, findings, file, device)
        header = provenance.header(
            "classify",
            {**options, "members": {name: mine}},
            seed=seed,
            inputs={**sources, "weights": sha256_file(file)},
        )
        work = Work(output, provenance.digest([header, vars(spec)]))
        _write(
            member, index, images, options, seed, device, work, output, header,
            best_epoch=0, curve=[], outputs=outputs,
            unknown=[finding for finding in findings if finding not in outputs], **facts,
        )  # fmt: skip
        return
    train = index.filter(pl.col("split") == "train")
    if train.is_empty():
        raise DataError("the index has no training images; lower prepare.valid and prepare.test.")
    torch.manual_seed(seed)
    network, architecture = create_network(
        mine["architecture"], outputs=len(findings), channels=spec.channels, size=spec.size
    )
    head = head_name(network, len(findings))
    if file:
        state = read_weights(file)
        load_weights(network, state, optional=(head,), source=f"weights file {file}")
        if mine["linear_probe"] or not options["epochs"]:
            positions.keep(network, state)
        sources["weights"] = sha256_file(file)
    network = network.to(device).to(memory_format=torch.channels_last)
    member = Member(
        name=name,
        network=network,
        findings=findings,
        input=spec,
        sha256="",
        architecture=architecture,
    )
    values, weights = targets(
        label_matrix(train, findings), findings, options["uncertain"], options["blank"], seed
    )
    data = LabelledImages(train, images, values, weights, kind=options["augment"], seed=seed)
    loader = train_loader(data, batch_size=options["batch_size"], seed=seed, devices=chosen)
    valid = index.filter(pl.col("split") == "valid")

    def validate(current: nn.Module) -> float:
        return macro_auroc(
            valid, findings, predict(member, valid, images, device), options["blank"]
        )

    positive = positive_weights(values, weights) if options["balance"] else None
    module = ClassifierTraining(
        network,
        member.prepare,
        positive,
        validate,
        options,
        head if mine["linear_probe"] else "",
        len(loader) * options["epochs"],
    )
    header = provenance.header(
        "classify", {**options, "members": {name: mine}}, seed=seed, inputs=sources
    )
    key = [header, vars(spec), architecture, config["prepare"]["fit"]]
    work = Work(output, provenance.digest(key))
    if options["epochs"]:
        fit(
            module,
            loader,
            epochs=options["epochs"],
            seed=seed,
            devices=chosen,
            precision=options["precision"],
            work=work,
            label=f"classify {name}",
        )
        network.load_state_dict(module.best)
        network.to(device)
    if positive is not None and options["epochs"]:
        member = replace(member, calibration=Calibration(shift=positive.log().tolist()))
    curve = [{key: _finite(value) for key, value in row.items()} for row in module.curve]
    _write(
        member, index, images, options, seed, device, work, output, header,
        best_epoch=module.best_epoch, curve=curve, **facts,
    )  # fmt: skip


def _write(
    member: Member,
    index: pl.DataFrame,
    images: ImageShards,
    options: dict[str, Any],
    seed: int,
    device: torch.device,
    work: Work,
    output: Path,
    header: dict[str, Any],
    **facts: Any,
) -> None:
    """Calibrate and measure a member, and write its folder."""
    findings = member.findings
    silent = [k for k in range(len(findings)) if not member.knows(k)]
    if options["calibrate"] == "temperature":
        valid = index.filter(pl.col("split") == "valid")
        positive, counts = known_labels(valid, findings, options["blank"])
        counts[:, silent] = False
        found = fit_temperature(predict(member, valid, images, device), positive, counts)
        calibration = replace(member.calibration, temperature=found)
        member = replace(member, calibration=calibration)
    held_out = index.filter(pl.col("split") != "train")
    probabilities = predict(member, held_out, images, device)
    probabilities[:, silent] = np.nan
    work.require()
    with atomic_path(output) as folder:
        folder.mkdir()
        save_member(
            folder,
            member.network,
            member.architecture,
            findings,
            member.input,
            calibration=vars(member.calibration),
            metrics=measure(held_out, findings, probabilities, options, seed),
            **facts,
            header=header,
        )
        columns = {f: probabilities[:, k] for k, f in enumerate(findings)}
        tables.write(
            held_out.select("image_id", "split").with_columns(
                pl.Series(f, column, dtype=pl.Float32, nan_to_null=True)
                for f, column in columns.items()
            ),
            folder / "predictions.parquet",
            header,
        )
    work.finish()


def predict(
    member: Member, index: pl.DataFrame, images: ImageShards, device: torch.device
) -> npt.NDArray[np.float32]:
    """The member's probabilities (N, K) of the images of an index, in its order."""
    places = index.select("shard", "row").rows()
    network = member.network
    was_training = network.training
    network.eval()
    parts = [np.zeros((0, len(member.findings)), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(places), _BATCH):
            batch = np.stack([images.read(*place) for place in places[start : start + _BATCH]])
            x = member.prepare(torch.from_numpy(batch).to(device))
            logits = network(x)
            parts.append(member.calibration.probabilities(logits.float()).cpu().numpy())
    network.train(was_training)
    return np.concatenate(parts)


def known_labels(
    index: pl.DataFrame, findings: list[str], blank: str
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Positive labels and which labels count, both (N, K): -1 never, blank as configured."""
    labels = label_matrix(index, findings)
    counts = labels >= 0
    if blank == "zeros":
        counts |= labels == BLANK
    return labels == PRESENT, counts


def macro_auroc(
    index: pl.DataFrame, findings: list[str], probabilities: npt.NDArray[np.float32], blank: str
) -> float:
    """Mean AUROC over the findings that have positives and negatives; NaN if none has."""
    if index.is_empty():
        return float("nan")
    positive, counts = known_labels(index, findings, blank)
    counts &= ~np.isnan(probabilities)
    values = [
        scores.auroc(positive[counts[:, k], k], probabilities[counts[:, k], k])
        for k in range(len(findings))
    ]
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def measure(
    index: pl.DataFrame,
    findings: list[str],
    probabilities: npt.NDArray[np.float32],
    options: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """AUROC per finding on test (or valid) images with patient-bootstrap intervals."""
    split = "test" if "test" in index["split"] else "valid"
    rows = (index["split"] == split).to_numpy()
    chosen = index.filter(pl.col("split") == split)
    positive, counts = known_labels(chosen, findings, options["blank"])
    counts &= ~np.isnan(probabilities[rows])
    patients = chosen["patient_id"].to_numpy()
    per_finding: dict[str, Any] = {}
    for k, finding in enumerate(findings):
        use = counts[:, k]
        value, low, high = scores.auroc_interval(
            positive[use, k],
            probabilities[rows][use, k],
            patients[use],
            replicates=options["bootstrap"],
            seed=seed,
        )
        per_finding[finding] = {
            "auroc": _finite(value),
            "low": _finite(low),
            "high": _finite(high),
            "positives": int(positive[use, k].sum()),
            "negatives": int((~positive[use, k]).sum()),
        }
    macro = macro_auroc(chosen, findings, probabilities[rows], options["blank"])
    return {"split": split, "macro_auroc": _finite(macro), "findings": per_finding}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
