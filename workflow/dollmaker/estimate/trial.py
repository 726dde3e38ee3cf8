"""The trial: every stage's own code on a few images.

A stage does little and then more; the difference is what a unit takes, so that what a job takes to
begin does not count as work.
"""

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path

import polars as pl
import torch

from dollmaker.attribute import stage as attribute
from dollmaker.attribute.baselines import COUNT, NEGATIVES
from dollmaker.attribute.selection import select_images
from dollmaker.binarize.stage import binarize_shard
from dollmaker.classify import stage as classify
from dollmaker.config.catalogue import committee
from dollmaker.config.masks import AttributeConfig, MapsConfig, RecipeConfig, Step
from dollmaker.config.whole import Config
from dollmaker.estimate.jobs import passes
from dollmaker.launch import pipeline
from dollmaker.prepare import stage as prepare
from dollmaker.release import labels
from dollmaker.release.parts import SPLITS
from dollmaker.runtime import devices
from dollmaker.runtime.errors import DataError, DollmakerError
from dollmaker.runtime.picks import evenly
from dollmaker.segment import stage as segment
from dollmaker.store import provenance, tables
from dollmaker.store.files import write_json
from dollmaker.store.shards import Kind, Shard

#: The only shard.
_SHARD = "0000"

#: A recipe whose masks are there whatever the maps look like: the segmenter learns from them.
_OTSU = "estimate-otsu"
_OTSU_STEP: Step = {"otsu": {}}

#: Nodes of a path that are tried, and times that images are trained on; more take as much longer.
_NODES, _TIMES = 4, 4


class Trial:
    """The stages on a fourth of some images and on all, in two folders laid out as results are."""

    def __init__(self, config: Config, folder: Path) -> None:
        self._full, self._config = config, _reduce(config)
        self._few, self._all = folder / "few", folder / "all"
        self.device = devices.choose(config.device)
        self.seconds: dict[str, float] = {}  #: Key -> seconds of a unit.
        self.unknown: dict[str, str] = {}  #: Key -> why it could not be tried.

    def run(self, plan: pl.DataFrame, names: list[str], root: Path) -> None:
        """Try every stage on the images of a plan, which lie below ``root``.

        Raises:
            DataError: If there is no stage that could be tried.
        """
        header = provenance.header("prepare", self._config.prepare.dump()) | {"findings": names}
        sound = dict.fromkeys(("ignores_model", "ignores_finding", "uninformative"), False)
        for folder, some in ((self._few, plan.head(max(2, len(plan) // 4))), (self._all, plan)):
            tables.write(some, folder / "listing.parquet", header)
            write_json(folder / "sanity.json", {"recipe": _OTSU, "doubts": [], **sound})
        self._try("decode", [], partial(self._decode, root))
        for name in self._full.classify.members:
            self._try(f"train {name}", ["decode"], partial(self._train, name))
        for name in pipeline.recipes_with_maps(self._full):
            needs = [f"train {member}" for member in committee(self._full, name)]
            self._try(f"explain {name}", needs, partial(self._explain, name))
        for name in (*self._full.recipes, _OTSU):
            needs = [f"explain {self._config.donor(name)}"]
            self._try(f"binarize {name}", needs, partial(self._binarize, name))
        self._try("labels", [f"binarize {_OTSU}"], self._collect)
        self._try("segment", ["labels"], self._segment)
        if not self.seconds:
            reasons = "; ".join(f"{key}: {reason}" for key, reason in self.unknown.items())
            raise DataError(f"no stage could be tried ({reasons}); mend it, or give --images 0.")

    def _try(self, key: str, needs: list[str], work: Callable[[Path], float]) -> None:
        """Note the seconds of a unit, or why they are unknown; ``work`` returns what it did."""
        if missing := [need for need in needs if need not in self.seconds]:
            self.unknown[key] = f"it needs {missing[0]}"
            return
        print(f"estimate: {key}", file=sys.stderr, flush=True)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                work(self._few)  # the first call loads libraries
                less, few = self._clock(work, self._few)
                seconds, units = self._clock(work, self._all)
        except torch.OutOfMemoryError:
            self.unknown[key] = "a batch does not fit this GPU's memory"
        except DollmakerError as error:
            self.unknown[key] = str(error).rstrip(".")
        else:
            if units > few and seconds > less:
                units, seconds = units - few, seconds - less
            self.seconds[key] = seconds / max(units, 1)

    def _clock(self, work: Callable[[Path], float], folder: Path) -> tuple[float, float]:
        """Seconds and units; on a CPU seconds of its cores, if others keep it from running."""
        began, cores = time.perf_counter(), sum(os.times()[:4])
        units = work(folder)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter() - began, units
        return min(time.perf_counter() - began, sum(os.times()[:4]) - cores), units

    def _decode(self, root: Path, folder: Path) -> float:
        plan, rows, index = (folder / f"{name}.parquet" for name in ("listing", "rows", "index"))
        inputs, images = prepare.Inputs(listing=plan, data_root=root), _shard(folder, "images")
        prepare.decode_shard(self._config, inputs, _SHARD, images, rows)
        prepare.build_index(self._config, plan, [rows], index, folder / "quarantine.csv")
        table = tables.read(index)
        if table.is_empty():
            raise DataError("none of the images that were tried can be read")
        header = tables.read_header(index)
        tables.write(pl.concat([table] * _TIMES), folder / "long.parquet", header)
        return _length(images, "images")

    def _train(self, name: str, folder: Path) -> float:
        config, index = self._config, folder / "long.parquet"
        weights, images = Path(config.weights_root), folder / "images"
        inputs = classify.Inputs(index=index, images=images, weights_root=weights)
        classify.train_member(config, name, inputs, folder / "committee" / name)
        learned, valid, test = _of_an_epoch(index, config.classify.batch_size)
        ready = config.classify.members[name].epochs == 0
        return passes(0, valid, test) + (0 if ready else passes(learned, valid))

    def _explain(self, recipe: str, folder: Path) -> float:
        output, experts = _shard(folder, f"relevance/{recipe}"), self._experts(recipe, folder)
        index, images = folder / "index.parquet", folder / "images"
        inputs = attribute.Inputs(index=index, images=images, committee=experts)
        attribute.explain_shard(self._config, inputs, recipe, _SHARD, output)
        less = _nodes(self._config.maps(recipe)) / _nodes(self._full.maps(recipe))
        return _length(output, "relevance") * less

    def _binarize(self, recipe: str, folder: Path) -> float:
        images, output = _shard(folder, "images"), _shard(folder, f"masks/{recipe}")
        binarize_shard(self._config, images, self._maps(recipe, folder), recipe, output)
        return _length(output, "masks")

    def _collect(self, folder: Path) -> float:
        inputs = labels.Inputs(
            index=folder / "index.parquet",
            masks=[_shard(folder, f"masks/{_OTSU}")],
            relevance=[self._maps(_OTSU, folder)],
            committee=self._experts(_OTSU, folder),
            sanity=folder / "sanity.json",
        )
        labels.collect_labels(self._config, inputs, folder / "labels")
        return _length(inputs.masks[0], "masks")

    def _segment(self, folder: Path) -> float:
        """All images once, and then more often: a batch shall be as large as it can."""
        config, epochs, folder = self._config, _TIMES if folder == self._all else 1, self._all
        inputs = segment.Inputs(
            index=folder / "index.parquet",
            images=folder / "images",
            labels=folder / "labels",
            weights_root=Path(config.weights_root),
            committee=[folder / "committee" / name for name in config.classify.members],
        )
        config = config.replace(segment=config.segment.replace(epochs=epochs))
        segment.train_segmenter(config, inputs, folder / "segmenter")
        learned, valid, _ = _of_an_epoch(inputs.index, config.segment.batch_size)
        return epochs * passes(learned, valid)

    def _experts(self, recipe: str, folder: Path) -> list[Path]:
        return [folder / "committee" / name for name in committee(self._config, recipe)]

    def _maps(self, recipe: str, folder: Path) -> Path:
        return _shard(folder, f"relevance/{self._config.donor(recipe)}")


def _shard(folder: Path, kind: str) -> Path:
    return folder / kind / f"{_SHARD}.h5"


def _length(file: Path, kind: Kind) -> int:
    with Shard(file, kind) as shard:
        return len(shard)


def _of_an_epoch(index: Path, batch: int) -> tuple[int, int, int]:
    """Images by split, those to train on without the last short batch, which is dropped."""
    train, valid, test = map(tables.read(index)["split"].to_list().count, SPLITS)
    batch = max(1, min(batch, train))
    return train // batch * batch, valid, test


def _reduce(config: Config) -> Config:
    """One epoch, few nodes, one noisy copy, and no gate that a few images would not pass."""
    recipes = {}
    for name, recipe in config.recipes.items():
        maps = recipe.attribute
        if isinstance(maps, MapsConfig):
            # Few images need not have one without a finding; others take as long.
            starts = [["mean"] * COUNT if name == NEGATIVES else [name] for name in maps.baselines]
            baselines, noise = [*chain(*starts)], maps.noise and maps.noise.replace(samples=1)
            nodes = min(_NODES, maps.nodes)
            maps = maps.replace(nodes=nodes, baselines=baselines, adaptive=None, noise=noise)
        # Thresholds chosen without truth are not known yet; Otsu's takes as long.
        steps = [_OTSU_STEP if "label_free" in step else step for step in recipe.binarize]
        recipes[name] = RecipeConfig(attribute=maps, binarize=steps)
    donor = config.donor(config.release.recipe)
    recipes[_OTSU] = RecipeConfig(attribute=donor, binarize=[_OTSU_STEP])
    members = {n: m.replace(epochs=m.epochs and 1) for n, m in config.classify.members.items()}
    return config.replace(
        prepare=config.prepare.replace(max_quarantined=1.0),
        classify=config.classify.replace(members=members, bootstrap=10, epochs=1),
        attribute=config.attribute.replace(
            splits=list(SPLITS), min_probability=None, max_images=None, with_truth=False
        ),
        release=config.release.replace(recipe=_OTSU),
        recipes=recipes,
    )


def _nodes(maps: MapsConfig) -> int:
    """Nodes and noisy copies of a map; with adaptive nodes the most there may be."""
    copies = maps.noise.samples if maps.noise else 1
    if maps.method != "integrated_gradients":
        return copies
    return copies * (maps.adaptive.max_nodes if maps.adaptive else maps.nodes)


def sample(index: pl.DataFrame, localized: list[str], number: int) -> pl.DataFrame:
    """Some images as a plan: positive ones if there are any, each of a patient of its own."""
    index = index.unique("path", keep="first", maintain_order=True)
    chosen = select_images(index, localized, AttributeConfig())
    chosen = index if chosen.is_empty() else chosen
    places = evenly(len(chosen), number)
    splits = [("train", "valid", "train", "test")[k % 4] for k in range(len(places))]
    return pl.DataFrame(chosen[places].drop("row")).with_columns(
        pl.Series("split", splits), shard=pl.lit(_SHARD), patient_id="image_id"
    )
