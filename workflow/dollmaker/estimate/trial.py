"""The trial: every stage's own code on a few images.

A stage does little and then more; the difference is what a unit takes, so that what a job takes to
begin does not count as work.
"""

import contextlib
import io
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch

from dollmaker.attribute import stage as attribute
from dollmaker.attribute.selection import select_images
from dollmaker.binarize.stage import binarize_shard
from dollmaker.classify import stage as classify
from dollmaker.config.catalogue import committee
from dollmaker.config.masks import AttributeConfig, MapsConfig, RecipeConfig, Step
from dollmaker.config.whole import Config
from dollmaker.estimate.jobs import LOOKED_AT, SPLITS
from dollmaker.launch import pipeline
from dollmaker.prepare import stage as prepare
from dollmaker.release import labels
from dollmaker.runtime.errors import DataError, DollmakerError
from dollmaker.segment import stage as segment
from dollmaker.store import provenance, tables
from dollmaker.store.files import write_json
from dollmaker.store.index import read_index
from dollmaker.store.shards import Kind, Shard

#: A recipe whose masks are there whatever the maps look like: the segmenter learns from them.
_OTSU = "estimate-otsu"

#: Nodes of a path that are tried, and times that images are trained on; more take as much longer.
_NODES, _TIMES = 4, 4

_ALL = {"splits": list(SPLITS), "min_probability": None, "max_images": None, "with_truth": False}


class Trial:
    """The stages on a few images of a source, in a temporary folder laid out as results are.

    Attributes:
        seconds: Key -> seconds of a unit.
        unknown: Key -> why it could not be tried.
    """

    def __init__(self, config: Config, device: torch.device, folder: Path) -> None:
        self._full, self._config = config, _reduce(config)
        self._device, self._folder = device, folder
        self.seconds: dict[str, float] = {}
        self.unknown: dict[str, str] = {}

    def run(self, plan: pl.DataFrame, names: list[str], root: Path) -> None:
        """Try every stage on the images of a plan of two shards."""
        header = provenance.header("prepare", self._config.prepare.dump()) | {"findings": names}
        tables.write(plan, self._folder / "listing.parquet", header)
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

    def _try(self, key: str, needs: list[str], work: Callable[[bool], float]) -> None:
        """Note the seconds of a unit, or why they are unknown; ``work`` returns what it did."""
        if missing := [need for need in needs if need not in self.seconds]:
            self.unknown[key] = f"it needs {missing[0]}"
            return
        print(f"estimate: {key}", file=sys.stderr, flush=True)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                work(False)  # the first call loads libraries
                (less, few), (seconds, units) = self._clock(work, False), self._clock(work, True)
        except torch.OutOfMemoryError:
            self.unknown[key] = "a batch does not fit this GPU's memory"
        except DollmakerError as error:
            self.unknown[key] = str(error).rstrip(".")
        else:
            if units > few and seconds > less:
                units, seconds = units - few, seconds - less
            self.seconds[key] = seconds / max(units, 1)

    def _clock(self, work: Callable[[bool], float], more: bool) -> tuple[float, float]:
        """Seconds and units; on a CPU seconds of its cores, if others keep it from running."""
        began, cores = time.perf_counter(), sum(os.times()[:4])
        units = work(more)
        if self._device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter() - began, units
        return min(time.perf_counter() - began, sum(os.times()[:4]) - cores), units

    def _file(self, folder: str, more: bool) -> Path:
        """One of two shards, of which the first is the smaller."""
        return self._folder / folder / f"{int(more):04d}.h5"

    def _images(self, more: bool = False) -> tuple[Path, Path]:
        """The index, or one in which each image comes several times, and the images."""
        return self._folder / f"index{int(more)}.parquet", self._folder / "images"

    def _committee(self, recipe: str) -> list[Path]:
        return [self._folder / "committee" / name for name in committee(self._config, recipe)]

    def _learned(self, batch: int, more: bool = False) -> tuple[float, int]:
        """Passes of an epoch, whose last short batch is dropped, and images not learned from."""
        splits = read_index(self._images(more)[0])[0]["split"].to_list()
        train, valid = splits.count("train"), splits.count("valid")
        batch = max(1, min(batch, train))
        return train // batch * batch + LOOKED_AT * valid, len(splits) - train

    def _decode(self, root: Path, more: bool) -> float:
        plan, output = self._folder / "listing.parquet", self._file("images", more)
        rows = [self._folder / f"{name}.parquet" for name in ("0000", "0001")]
        inputs = prepare.Inputs(listing=plan, data_root=root)
        prepare.decode_shard(self._config, inputs, output.stem, output, rows[more])
        if more:
            index, longer = self._images()[0], self._images(more=True)[0]
            prepare.build_index(self._config, plan, rows, index, self._folder / "quarantine.csv")
            table = tables.read(index)
            if table.is_empty():
                raise DataError("none of the images that were tried can be read")
            tables.write(pl.concat([table] * _TIMES), longer, tables.read_header(index))
        return _length(output, "images")

    def _train(self, name: str, more: bool) -> float:
        output, root = self._folder / "committee" / name, Path(self._config.weights_root)
        shutil.rmtree(output, ignore_errors=True)
        index, images = self._images(more)
        inputs = classify.Inputs(index=index, images=images, weights_root=root)
        classify.train_member(self._config, name, inputs, output)
        options = self._config.classify
        passes, held_out = self._learned(options.batch_size, more)
        ready = options.members[name].epochs == 0
        return LOOKED_AT * held_out + (0 if ready else passes)

    def _explain(self, recipe: str, more: bool) -> float:
        output, (index, images) = self._file(f"relevance/{recipe}", more), self._images()
        inputs = attribute.Inputs(index=index, images=images, committee=self._committee(recipe))
        attribute.explain_shard(self._config, inputs, recipe, output.stem, output)
        less = _nodes(self._config, recipe) / _nodes(self._full, recipe)
        return _length(output, "relevance") * less

    def _binarize(self, recipe: str, more: bool) -> float:
        donor = self._config.donor(recipe)
        images, maps = (self._file(name, more) for name in ("images", f"relevance/{donor}"))
        output = self._file(f"masks/{recipe}", more)
        binarize_shard(self._config, images, maps, recipe, output)
        return _length(output, "masks")

    def _collect(self, more: bool) -> float:
        passed = dict.fromkeys(("ignores_model", "ignores_finding", "uninformative"), False)
        sanity, output = self._folder / "sanity.json", self._folder / "labels"
        write_json(sanity, {"recipe": _OTSU, **passed, "doubts": [], "verdict": ""})
        shutil.rmtree(output, ignore_errors=True)
        masks, maps = f"masks/{_OTSU}", f"relevance/{self._config.donor(_OTSU)}"
        both = (False, True)[: more + 1]
        cut, whole = ([self._file(name, k) for k in both] for name in (masks, maps))
        inputs = labels.Inputs(
            index=self._images()[0],
            masks=cut,
            relevance=whole,
            committee=self._committee(_OTSU),
            sanity=sanity,
        )
        labels.collect_labels(self._config, inputs, output)
        return sum(_length(file, "masks") for file in cut)

    def _segment(self, more: bool) -> float:
        epochs, output = _TIMES if more else 1, self._folder / "segmenter"
        config = self._config.replace(segment=self._config.segment.replace(epochs=epochs))
        shutil.rmtree(output, ignore_errors=True)
        start = [self._folder / "committee" / Path(f).name for f in pipeline.start_members(config)]
        index, images = self._images()
        inputs = segment.Inputs(
            index=index,
            images=images,
            labels=self._folder / "labels",
            weights_root=Path(config.weights_root),
            committee=start,
        )
        segment.train_segmenter(config, inputs, output)
        return epochs * self._learned(config.segment.batch_size)[0]


def _reduce(config: Config) -> Config:
    """One epoch, few nodes, one noisy copy, and no gate that a few images would not pass."""
    recipes = {}
    for name, recipe in config.recipes.items():
        maps = recipe.attribute
        if isinstance(maps, MapsConfig):
            noise = maps.noise and maps.noise.replace(samples=1)
            maps = maps.replace(nodes=min(_NODES, maps.nodes), adaptive=None, noise=noise)
        # Thresholds chosen without truth are not known yet; Otsu's takes as long.
        steps: list[Step] = []
        for step in recipe.steps:
            steps.append({"otsu": {}} if "label_free" in step else step)
        recipes[name] = RecipeConfig(attribute=maps, binarize=steps)
    donor = config.donor(config.release.recipe)
    recipes[_OTSU] = RecipeConfig(attribute=donor, binarize=[{"otsu": {}}])
    members = {n: m.replace(epochs=m.epochs and 1) for n, m in config.classify.members.items()}
    return config.replace(
        prepare=config.prepare.replace(max_quarantined=1.0),
        classify=config.classify.replace(members=members, bootstrap=10, epochs=1),
        attribute=config.attribute.replace(**_ALL),
        release=config.release.replace(recipe=_OTSU),
        recipes=recipes,
    )


def _nodes(config: Config, recipe: str) -> int:
    """Nodes and noisy copies of a map; with adaptive nodes the most there may be."""
    maps = config.maps(recipe)
    copies = maps.noise.samples if maps.noise else 1
    if maps.method != "integrated_gradients":
        return copies
    return copies * (maps.adaptive.max_nodes if maps.adaptive else maps.nodes)


def sample(index: pl.DataFrame, localized: list[str], number: int) -> pl.DataFrame:
    """Some images as a plan: positive ones if there are any, each of a patient of its own."""
    index = index.unique("path", keep="first", maintain_order=True)
    chosen = select_images(index, localized, AttributeConfig())
    chosen = index if chosen.is_empty() else chosen
    places = np.unique(np.linspace(0, len(chosen) - 1, number).round().astype(int))
    splits = [("train", "valid", "train", "test")[k % 4] for k in range(len(places))]
    shards = ["0000" if 4 * k < len(places) else "0001" for k in range(len(places))]
    rows: pl.DataFrame = chosen[places.tolist()].drop("row")
    return rows.with_columns(
        pl.Series("shard", shards), pl.Series("split", splits), patient_id="image_id"
    )


def _length(file: Path, kind: Kind) -> int:
    with Shard(file, kind) as shard:
        return len(shard)
