"""The stage: train a segmenter on the labels, write it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from dollmaker.config.networks import SegmentConfig
from dollmaker.config.whole import Config
from dollmaker.networks import batch_norm
from dollmaker.networks.inputs import Input, Numbers, per_channel
from dollmaker.networks.segmenters import ARCHITECTURES, create, find_start, narrow
from dollmaker.networks.training import Training, fit, train_loader
from dollmaker.pixels.geometry import Box
from dollmaker.release.parts import find_parts
from dollmaker.runtime import devices, parallel
from dollmaker.runtime.errors import DataError, ModelError
from dollmaker.runtime.picks import evenly
from dollmaker.segment.data import PseudoLabelled, list_targets
from dollmaker.segment.export import export_encoder
from dollmaker.segment.structure import make_structure
from dollmaker.segment.train import Lessons, SegmenterTraining, pseudo_miou
from dollmaker.store import findings, provenance
from dollmaker.store.files import atomic_path, sha256_file, write_json, write_text
from dollmaker.store.shards import ImageShards, ShardSeries
from dollmaker.store.sums import CHECKSUMS
from dollmaker.store.tables import digest_index, read_index
from dollmaker.store.work import Work

#: Images that the clusters of the structure are found from.
_SAMPLE = 400


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a segmenter learns from."""

    index: Path  #: The index.
    images: Path  #: Folder of the image shards.
    labels: Path  #: Folder of the labels, or a release.
    weights_root: Path  #: Folder of weights files.
    committee: Sequence[Path] = ()  #: Folders of the members, for ``segment.init``.


def train_segmenter(config: Config, inputs: Inputs, output: Path, gpus: int = 1) -> None:
    """Pre-train a segmenter on the labels.

    Args:
        config: The resolved configuration (sections prepare, classify, attribute, segment).
        inputs: What it learns from.
        output: Folder to make.
        gpus: GPUs that train together, 0 for all that the job sees; with ``device: cpu``,
            processes.

    Raises:
        DataError: If there is no mask to train on.
        ModelError: If network, weights or device are unknown, missing or do not fit.
    """
    options, prepare, seed = config.segment, config.prepare, config.seed
    chosen = devices.choose_several(config.device, gpus)
    device = chosen[parallel.rank()]
    index, names = read_index(inputs.index)
    names = findings.localized(names, config.attribute.findings)
    channels, size, objectives = prepare.channels, prepare.size, options.objectives
    clusters = options.clusters if objectives.structure else 0
    start = find_start(options, inputs.committee, inputs.weights_root, channels=channels, size=size)
    if clusters and not start.state:
        raise ModelError(
            "segment.objectives.structure needs an encoder that has learned something; set "
            "segment.init to a member or a weights file, or structure to 0."
        )
    if not start.state:  # a random encoder learns as the decoder does, statistics included
        changes = {"encoder_learning_rate": 1.0, "freeze_batch_norm": False}
        options = options.model_copy(update=changes)
    model = create(options, channels=channels, classes=len(names) + clusters, size=size, seed=seed)
    encoder = model.get_submodule("encoder")
    start.load(encoder)
    model.to(device)

    data, headers = _read(config, index, names, inputs)
    sums = inputs.labels / CHECKSUMS
    sources = {"index": digest_index(index)}
    sources["labels"] = sha256_file(sums) if sums.is_file() else provenance.digest(headers)
    if start.sha256:
        sources["weights"] = start.sha256
    header = provenance.header("segment", options.dump(), seed=seed, inputs=sources)
    loader = train_loader(data["train"], batch_size=options.batch_size, seed=seed, devices=chosen)

    def validate(current: nn.Module) -> float:
        if "valid" not in data:
            return float("nan")
        return pseudo_miou(current, data["valid"], start.input)

    torch.manual_seed(seed)  # for the layer that guesses the labels
    structure = None
    if clusters:
        images, boxes = _spread(data["train"], _SAMPLE)
        spec, images = start.input, images.to(device)
        structure = make_structure(encoder, images, boxes, spec, clusters, seed)
    lessons = Lessons(
        steps=len(loader) * options.epochs,
        structure=structure,
        labels=len(names) if objectives.classification else 0,
        sample=_spread(data["train"], batch_norm.MOST)[0],
    )
    module = SegmenterTraining(model, start.input, options, lessons, validate).to(device)
    key = [header, vars(start.input), names, config.classify.blank, prepare.fit]
    work = Work(output, provenance.digest(key))
    fit(module, loader, Training(options, seed, chosen, "segment"), work)
    if clusters:
        model = narrow(model, options, channels=channels, classes=len(names), size=size)
    work.require()
    with atomic_path(output) as folder:
        folder.mkdir()
        save(folder, model, options, names, start.input, curve=module.curve, header=header)
        _export(folder)
    work.finish()


def _read(
    config: Config, index: pl.DataFrame, names: list[str], inputs: Inputs
) -> tuple[dict[str, PseudoLabelled], dict[str, Any]]:
    """Data of the splits train and valid (if it has images), and headers of their masks."""
    options, images = config.segment, ImageShards(inputs.images)
    data, headers = {}, {}
    for split in ("train", "valid"):
        rows = index.filter(split=split)
        if split == "valid" and rows.is_empty():
            continue
        masks = ShardSeries(find_parts(inputs.labels, "masks", split))
        headers[split] = masks.headers()
        source = f"{inputs.labels / 'masks'}, split {split}"
        targets = list_targets(
            rows,
            names,
            masks.table(),
            blank=config.classify.blank,
            source=source,
            everything=bool(options.objectives.structure) and split == "train",
        )
        if split == "train" and not (targets.row >= 0).any():
            raise DataError(f"{source}, has no mask to train on; loosen the gate of the recipe.")
        data[split] = PseudoLabelled(
            targets, images, masks, options, fit=config.prepare.fit, seed=config.seed
        )
    return data, headers


def _spread(data: PseudoLabelled, most: int) -> tuple[Tensor, list[Box]]:
    """So many images of a data set at most, (N, C, H, W), evenly spread, and their boxes."""
    chosen = evenly(len(data), most)
    images = np.stack([data.read(i)[0] for i in chosen])
    return torch.from_numpy(images), [data.where(i, images.shape[-1]) for i in chosen]


def _export(folder: Path) -> None:
    """The encoder alone, beside the segmenter; not worth the training if it cannot be."""
    try:
        export_encoder(folder, folder / "encoder.safetensors")
    except ModelError as error:
        print(f"encoder.safetensors is left out: {error}", file=sys.stderr)


def save(
    folder: Path,
    model: nn.Module,
    options: SegmentConfig,
    names: list[str],
    spec: Input,
    **more: Any,
) -> None:
    """Write a network as segmentation-models-pytorch does, and what it expects and predicts."""
    architecture = ARCHITECTURES[options.architecture.lower()]
    write_text(folder / "README.md", _card(architecture, options.encoder, names, spec))
    plain: Any = model.to("cpu").to(memory_format=torch.contiguous_format).eval()
    plain.save_pretrained(folder)  # keeps a README that exists
    write_json(
        folder / "segmenter.json",
        {
            "findings": names,
            "input": vars(spec),
            "architecture": architecture,
            "encoder": options.encoder,
            "init": options.init,
            **more,
            "sha256": sha256_file(folder / "model.safetensors"),
        },
    )


def _number(numbers: Numbers, channels: int) -> str:
    """Python for one number, or for one of each channel beside (B, C, H, W)."""
    spread = per_channel(numbers, channels)
    listed = [np.format_float_positional(one) for one in spread]
    if len(set(spread)) == 1:
        return listed[0]
    return f"torch.tensor([{', '.join(listed)}])[:, None, None]"


def _card(architecture: str, encoder: str, names: list[str], spec: Input) -> str:
    listed = "\n".join(f"{k}. {name}" for k, name in enumerate(names))
    mean, std = (_number(numbers, spec.channels) for numbers in (spec.mean, spec.std))
    more = "\nimport torch" if "torch." in mean + std else ""
    return f"""# {architecture} with encoder {encoder}, pre-trained on pseudo-masks

```python
import segmentation_models_pytorch as smp{more}

model = smp.from_pretrained("segmenter").eval()
# x: (B, {spec.channels}, {spec.size}, {spec.size}), values in 0..255
logits = model((x / 255 - {mean}) / {std})
```

Each output channel is a finding of its own; it is present where the logit is above 0:

{listed}

The masks it learned from are explanations of classifiers, not drawn by people.
Not for clinical use.
"""
