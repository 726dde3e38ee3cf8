"""Levers for opacities of NIH's sample, each alone: which maps lie where readers drew boxes?

python docs/lab/2026-11-30-opacities.py RESULTS DATA TABLE

RESULTS is results/nih-sample after `snakemake --configfile workflow/configs/nih-sample.yaml`, DATA
holds nih/, TABLE is the CSV to write. Every image with a box is scored, whatever its split: no
network has seen a box; ``hit_rate_test`` is of test patients, whose labels none has seen either.

The rows of the table beside this file are of several runs of these functions, those of doubts and
on top with 2 to 8 nodes, some with names of other words; the rows of tokens are of tokens.py.
"""

import copy
import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image
from torch import Tensor

from dollmaker.adapt.saved import load_adapter
from dollmaker.attribute import consensus
from dollmaker.attribute.baselines import make_baseline
from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.integrated_gradients import fixed, integrated_gradients
from dollmaker.attribute.methods import METHODS
from dollmaker.attribute.passes import Question
from dollmaker.attribute.selection import draw_negatives
from dollmaker.measures.scores import average_precision, bootstrap_interval, hit
from dollmaker.networks.frames import WHOLE
from dollmaker.networks.inputs import Input
from dollmaker.networks.member import Member, load_member
from dollmaker.store import tables
from dollmaker.store.files import read_json
from dollmaker.store.shards import Shard

FINDING, SIGMA, CHUNK, NODES = "Lung_Opacity", 4.0, 16, 8
BRIGHTER = "positive where brighter"

#: Attributions and x - baseline, each (P, C, H, W), to maps (P, H, W), one baseline at a time.
REDUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "positive": lambda a, d: a.clamp(min=0).sum(1),
    "magnitude": lambda a, d: a.abs().sum(1),
    BRIGHTER: lambda a, d: (a.clamp(min=0) * (d > 0)).sum(1),
    "positive where darker": lambda a, d: (a.clamp(min=0) * (d < 0)).sum(1),
    "signed": lambda a, d: a.sum(1),
}


class Subject:
    """The images with boxes, the training images, and the committee."""

    def __init__(self, results: Path, data: Path) -> None:
        index = tables.read(results / "index.parquet")
        self.mean = torch.tensor(tables.read_header(results / "index.parquet")["channel_mean"])
        with (data / "nih/labels.csv").open() as file:
            facts = {Path(row["image"]).stem: row for row in csv.DictReader(file)}
        self.pictures: dict[str, Tensor] = {}
        for (shard,), rows in index.group_by(["shard"]):
            with Shard(results / f"images/{shard}.h5", "images") as source:
                stored = torch.from_numpy(source.read("image", slice(0, len(rows)))).float()
            self.pictures |= dict(zip(rows.sort("row")["image_id"], stored, strict=True))
        self.size = next(iter(self.pictures.values())).shape[-1]
        boxed = [row for row in index.sort("image_id").to_dicts() if row[FINDING] == 1]
        masks = [
            Image.open(data / f"nih/opacity_boxes/{Path(row['path']).stem}.png").resize(
                (self.size, self.size), Image.Resampling.NEAREST
            )
            for row in boxed
        ]
        self.truth = np.stack([np.asarray(mask) > 0 for mask in masks])
        self.patients = np.array([row["patient_id"] for row in boxed])
        self.test = np.array([row["split"] == "test" for row in boxed])
        self.images = torch.stack([self.pictures[row["image_id"]] for row in boxed])
        self.train = index.filter(split="train")
        self.views = [facts[Path(path).stem]["view"] for path in self.train["path"]]
        names = ("a", "b")
        self.members = [load_member(results / "committee" / n, torch.device("cpu")) for n in names]

    def drawn(
        self, count: int, seed: int, *, value: int = 0, column: str = FINDING
    ) -> list[Tensor]:
        """So many training images with a value of a label."""
        asked = pl.when(pl.col(column) == value).then(0).otherwise(1).alias("asked")
        chosen = draw_negatives(self.train.with_columns(asked), ["asked"], count, seed)
        return [self.pictures[image] for image in chosen["image_id"]]

    def maps(
        self,
        starts: Sequence[Tensor],
        reductions: Sequence[str] = (BRIGHTER,),
        *,
        finding: str = FINDING,
        nodes: int = NODES,
        members: Sequence[Member] = (),
    ) -> list[Tensor]:
        """The committee's maps (P, S, S) by each reduction, from baselines ([P, ]C, S, S)."""
        parts: list[list[Tensor]] = [[] for _ in reductions]
        for member in members or self.members:
            output, x = member.findings.index(finding), member.prepare(self.images)
            network = FrozenNetwork(member.network, x[:1])
            pairs = [(row, output) for row in range(len(x))]
            totals = [torch.zeros(len(x), *x.shape[2:]) for _ in reductions]
            for start in starts:
                base = member.prepare(start if start.ndim == 4 else start[None])
                found = integrated_gradients(network, x, base, pairs, fixed(nodes), CHUNK).maps
                for total, how in zip(totals, reductions, strict=True):
                    total += REDUCTIONS[how](found, (x - base).expand_as(x))
            for part, total in zip(parts, totals, strict=True):
                part.append(total)
        return [vote(part) for part in parts]


def vote(maps: Sequence[Tensor], sigma: float = SIGMA) -> Tensor:
    """The mean of members' maps at equal length, smoothed."""
    return consensus.agree([consensus.smooth(one, sigma) for one in maps]).maps


def randomised(member: Member, seed: int) -> Member:
    """The member with random weights."""
    torch.manual_seed(seed)
    network = copy.deepcopy(member.network)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return replace(member, network=network.eval().requires_grad_(False))


class Table:
    """Scores of maps on the images with boxes."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.rows = subject, []  # type: ignore[var-annotated]

    def add(self, kind: str, name: str, maps: Tensor) -> Tensor:
        """Score, print and keep."""
        truth = self.subject.truth
        every = maps.expand(len(truth), -1, -1).float().numpy()
        pairs = list(zip(every, truth, strict=True))
        hits = np.array([hit(m, t) for m, t in pairs])
        band = bootstrap_interval(hits, self.subject.patients)
        positive = [np.clip(m, 0, None) for m in every]
        tenth = [m >= np.quantile(m, 0.9) for m in every]
        row = {
            "hit_rate": hits.mean(),
            "low": band.low,
            "high": band.high,
            "hit_rate_test": hits[self.subject.test].mean(),
            "auprc": np.mean([average_precision(t.ravel(), m.ravel()) for m, t in pairs]),
            "inside": np.mean(
                [m[t].sum() / max(m.sum(), 1e-9) for m, t in zip(positive, truth, strict=True)]
            ),
            "miou_of_top_tenth": np.mean(
                [(d & t).sum() / (d | t).sum() for d, t in zip(tenth, truth, strict=True)]
            ),
        }
        numbers = {key: round(float(value), 4) for key, value in row.items()}
        self.rows.append({"kind": kind, "map": name, "images": len(hits), **numbers})
        print(*self.rows[-1].values(), sep=" | ", flush=True)
        return maps


def without_network(subject: Subject, table: Table) -> None:
    """What needs no network."""
    size, images = subject.size, subject.images[:, 0]
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    table.add("no network", "centre", -(y**2 + x**2)[None])
    table.add("no network", "brightness", consensus.smooth(images, SIGMA))
    six = subject.drawn(6, 0)
    lit = torch.stack([(images - one[0]).clamp(min=0) for one in six]).mean(0)
    table.add("no network", "brighter than six negatives", vote([lit]))
    for width in (0.3, 0.5, 0.7):  # of half a side
        bell = torch.exp(-(y**2 + x**2) / 2 / width**2)
        name = f"brighter than six negatives, times a bell in the centre (sigma {width})"
        table.add("no network", name, vote([lit]) * bell)
    training = torch.stack([subject.pictures[i] for i in subject.train["image_id"]])[:, 0]
    known, views = subject.train[FINDING].to_numpy(), np.array(subject.views)
    gap = torch.zeros(size, size)
    for view in ("AP", "PA"):
        gap += training[(views == view) & (known == 1)].mean(0)
        gap -= training[(views == view) & (known == 0)].mean(0)
    table.add("no network", "mean positive less mean negative, by view", vote([gap[None]]))
    others = [subject.truth[subject.patients != p].mean(0) for p in subject.patients]
    table.add(
        "told boxes", "mean box map of the other patients", torch.from_numpy(np.stack(others))
    )


def baselines(subject: Subject, table: Table) -> dict[str, Tensor]:
    """Every baseline with every reduction."""
    names = ("black", "white", "mean", "median", "blur")
    images, mean = subject.images, subject.mean
    starts = {name: [make_baseline(name, images, mean, WHOLE)] for name in names}
    starts["mean and blur"] = starts["mean"] + starts["blur"]
    starts["its mirror image"] = [images.flip(-1)]
    starts["six negatives"] = subject.drawn(6, 0)
    starts["mean of negatives"] = [torch.stack(subject.drawn(999, 0)).mean(0)]
    found = {}
    for name, start in starts.items():
        for how, maps in zip(REDUCTIONS, subject.maps(start, list(REDUCTIONS)), strict=True):
            found[f"{name}, {how}"] = table.add("baseline", f"{name}, {how}", maps)
    return found


def doubts(subject: Subject, table: Table) -> None:
    """Other draws and numbers of negatives, other images, other findings, random networks."""
    six = subject.drawn(6, 0)
    for seed in range(3):
        blind = [randomised(member, seed) for member in subject.members]
        table.add("doubt", f"random networks {seed}", *subject.maps(six, nodes=2, members=blind))
    for seed in (1, 2):
        table.add(
            "doubt", f"six negatives, draw {seed}", *subject.maps(subject.drawn(6, seed), nodes=3)
        )
    for nodes in (1, 3):
        table.add("doubt", f"six negatives, {nodes} nodes", *subject.maps(six, nodes=nodes))
    table.add("doubt", "sixteen negatives", *subject.maps(subject.drawn(16, 0), nodes=2))
    positives = subject.drawn(6, 0, value=1)
    table.add("doubt", "six positives", *subject.maps(positives, nodes=3))
    healthy = subject.drawn(6, 0, value=1, column="No_Finding")
    table.add("doubt", "six of No_Finding", *subject.maps(healthy, nodes=3))
    middle, spread = (
        f(subject.images, dim=(1, 2, 3), keepdim=True) for f in (torch.mean, torch.std)
    )
    exposed = [((one - one.mean()) / one.std() * spread + middle).clamp(0, 255) for one in six]
    exposure = "six negatives, exposed as the image (mean and deviation)"
    table.add("doubt", exposure, *subject.maps(exposed, nodes=3))
    for finding in ("Effusion", "Edema", "Pneumonia", "No_Finding"):
        table.add("doubt", f"asked for {finding}", *subject.maps(six, nodes=2, finding=finding))


def methods(subject: Subject, table: Table) -> Tensor:
    """Attribution methods by name, positive part; the maps of LayerCAM."""
    mean = make_baseline("mean", subject.images, subject.mean, WHOLE)
    found = {}
    for name in (
        "saliency",
        "guided_backprop",
        "input_x_gradient",
        "grad_cam",
        "layer_cam",
        "occlusion",
    ):
        parts = []
        for member in subject.members:
            output = member.findings.index(FINDING)
            pairs = [(row, output) for row in range(len(subject.images))]
            asked = Question(member.network, member.prepare(subject.images), pairs, CHUNK)
            known = {"layer": None, "window": 0.2, "stride": 0.1}
            options = {key: known[key] for key in METHODS[name].options}
            if METHODS[name].baselines:
                options["baseline"] = member.prepare(mean)
            parts.append(METHODS[name].call(asked, **options).clamp(min=0).sum(1))
        found[name] = table.add("method", f"{name}, positive", vote(parts))
    return found["layer_cam"]


def on_top(results: Path, subject: Subject, table: Table, maps: dict[str, Tensor]) -> None:
    """What can be done with maps: lungs as a gate, LayerCAM as a gate, the mean over images."""
    folder = results / "tasks/organs/doll-full/adapter"
    network, facts = load_adapter(results / "segmenter", folder), read_json(folder / "adapter.json")
    spec, lung = Input(**facts["input"]), list(facts["classes"]).index("lungs")
    with torch.no_grad():
        lungs = torch.cat([network(spec.prepare(one[None]))[:, lung] for one in subject.images])
    for name, found in maps.items():
        positive = found.clamp(min=0)
        table.add("on top", f"{name}: inside the lungs (five masks)", positive * (lungs > 0))
        table.add("on top", f"{name}: times LayerCAM", positive * maps["LayerCAM"].clamp(min=0))
        table.add("on top", f"{name}: less its mirror image", found - found.flip(-1))
        place = consensus.smooth(positive.mean(0)[None], 2 * SIGMA)
        table.add("on top", f"{name}: mean over images, one place for all", place)


def main(results: Path, data: Path, output: Path) -> None:
    """Score every lever."""
    subject = Subject(results, data)
    table = Table(subject)
    without_network(subject, table)
    found = baselines(subject, table)
    doubts(subject, table)
    cams = methods(subject, table)
    chosen = {
        name: found[name] for name in (f"six negatives, {BRIGHTER}", "mean and blur, positive")
    }
    on_top(results, subject, table, {**chosen, "LayerCAM": cams})
    pl.DataFrame(table.rows).write_csv(output)


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:4]))
