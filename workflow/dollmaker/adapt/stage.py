"""The stage: all runs of one task, start and tuning, one after another."""

import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from dollmaker.adapt import learning_rates
from dollmaker.adapt.results import keep, kept, take, write_results
from dollmaker.adapt.saved import save_adapter
from dollmaker.adapt.starts import Beginning, Inputs, find_beginning, make_network
from dollmaker.adapt.tasks import Task, read_task
from dollmaker.adapt.train import mean_iou, train_run
from dollmaker.adapt.tuning import FROZEN, Small, Tuned, Tuning
from dollmaker.config.networks import SegmentConfig
from dollmaker.config.tuning import AdaptConfig
from dollmaker.config.whole import Config
from dollmaker.measures import scores
from dollmaker.networks.segmenters import NETWORK
from dollmaker.pixels.image_hash import NEAR, near_pairs
from dollmaker.runtime import devices
from dollmaker.runtime.errors import DataError
from dollmaker.store import provenance
from dollmaker.store.files import atomic_path
from dollmaker.store.tables import read_index
from dollmaker.store.work import Work

#: Starts that no image of the data set has taught anything.
NEVER_SAW = ("random", "imagenet")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A task, a start and a tuning: what the runs have in common."""

    task: Task
    init: str
    tuning: Tuning
    beginning: Beginning
    network: SegmentConfig
    options: AdaptConfig

    def make_tuned(self, seed: int) -> Tuned:
        """The network of a run, ready to be trained; all that is random follows from the seed.

        A random encoder's batch normalisation is never frozen in full tuning: it has seen nothing.
        """
        options, spec = self.options, self.beginning.input
        # A decoder that is not trained must be the one that was.
        anew = 0 if "decoder" in FROZEN[self.tuning] else options.new_blocks
        model = make_network(
            self.beginning, self.network, self.task.classes, seed, anew, new_head=options.new_head
        )
        generator = torch.Generator().manual_seed(0)
        small = Small(
            x=torch.randn(1, spec.channels, spec.size, spec.size, generator=generator),
            adapter_width=options.adapter_width,
            lora_rank=options.lora_rank,
            seed=seed,
        )
        return Tuned(
            model,
            self.tuning,
            small,
            freeze_norm=options.freeze_batch_norm and self.init != "random",
            base=tuple(self.beginning.parts),
            measure=options.norm != "frozen",
        )


def adapt(
    config: Config, task_name: str, init: str, tuning: Tuning, inputs: Inputs, output: Path
) -> None:
    """Fine-tune on a task with true masks, with every n and seed of the configuration.

    Of several learning rates, each n takes the one with the best validation mIoU, mean over seeds:
    of one seed it is too noisy, and a start is then compared at a rate that does not suit it. What
    seed 0 of the last n learned is kept in the folder ``adapter``. Finished runs are kept beside
    the output until all are done: a killed job goes on with the run it was in.

    Args:
        config: The resolved configuration (sections prepare, segment, tasks, adapt).
        task_name: Key of the section ``tasks``.
        init: Where the networks start: random, imagenet, classifier, or the name of a segmenter.
        tuning: What is trained of them.
        inputs: What they start from and learn from.
        output: Folder to make.

    Raises:
        DataError: If the task's files are not as described, or the start has seen its test images.
        ModelError: If network, weights or device are missing or do not fit.
    """
    options, device = config.adapt, devices.choose(config.device)
    beginning = find_beginning(init, config, inputs)
    task = read_task(task_name, config, inputs.data_root)
    if inputs.index is not None and init not in NEVER_SAW:
        require_unseen(task, read_index(inputs.index)[0], allow_alike=options.allow_alike)
    counts = ", ".join(f"{split} {len(task.rows(split))}" for split in ("train", "valid", "test"))
    print(f"task {task_name}: images {counts}", file=sys.stderr)
    if pairs := alike_within(task):
        print(
            f"task {task_name}: test image {pairs[0][1]!r} looks like the training image "
            f"{pairs[0][0]!r} of another patient ({len(pairs)} such pairs): if they are the same "
            "picture, scores are too good; give both the same patient",
            file=sys.stderr,
        )
    sources = {"task": task.sha256()}
    if beginning.sha256:
        sources["weights"] = beginning.sha256
    section = {**options.dump(), "task": task_name, "init": init, "tuning": tuning}
    del section["runs"]
    header = provenance.header("adapt", section, seed=config.seed, inputs=sources)
    network = {name: getattr(config.segment, name) for name in NETWORK}
    work = Work(output, provenance.digest([header, network, vars(beginning.input)]))
    rates = learning_rates(options.learning_rate)
    case = Case(
        task=task,
        init=init,
        tuning=tuning,
        beginning=beginning,
        network=config.segment,
        options=options,
    )

    def run_once(n: int | str, seed: int, rate: float, place: Path, keep_adapter: bool) -> None:
        if kept(place.with_suffix(".npz")) and (place.exists() or not keep_adapter):
            return
        # The seed of the configuration moves the random numbers of all runs.
        number = config.seed * 1000 + seed
        chosen, tuned = task.choose(n, number), case.make_tuned(number).to(device)
        mine = options.model_copy(update={"learning_rate": rate})
        run = train_run(tuned, beginning.input, task, chosen, mine, number)
        work.require()
        if keep_adapter:
            more = {"n": str(n), "seed": seed, "learning_rate": rate, "header": header}
            save_adapter(tuned, place, classes=task.classes, spec=beginning.input, **more)
        keys = {"n": str(n), "n_images": len(chosen), "seed": seed}
        keep(run, place.with_suffix(".npz"), keys)
        # Who looks on while rates are tried sees what chooses among them.
        score = f"valid_miou {run.curve[-1]['valid_miou']:.4f}"
        if len(rates) == 1:
            score = f"test_miou {mean_iou(run.iou, run.present):.4f}"
        print(
            f"adapt {task_name} {init}/{tuning} n={n} ({len(chosen)} images) seed={seed} "
            f"learning_rate={rate:g} {score} ({run.cost['seconds']:.0f} s)",
            file=sys.stderr,
            flush=True,
        )

    results: list[Path] = []
    attempts: list[dict[str, Any]] = []
    adapter, seeds = work.folder, range(options.seeds)
    for n in options.n:
        means: list[float] = []
        for k, rate in enumerate(rates):
            ends: list[float] = []
            for seed in seeds:
                place = work.folder / f"{n}-{seed}-{k}"
                run_once(n, seed, rate, place, n == options.n[-1] and seed == 0)
                end = take(place.with_suffix(".npz"))[1].curve[-1]["valid_miou"]
                ends.append(end)
                if len(rates) > 1:
                    tried = {"n": str(n), "seed": seed, "learning_rate": rate, "valid_miou": end}
                    attempts.append(tried)
            means.append(float(scores.nanmean(np.array(ends))))
        best = choose(means, task_name)
        results += [work.folder / f"{n}-{seed}-{best}.npz" for seed in seeds]
        adapter = work.folder / f"{n}-0-{best}"
    work.require()
    with atomic_path(output) as folder:
        folder.mkdir()
        write_results(folder, task, [take(file) for file in results], attempts, header)
        shutil.copytree(adapter, folder / "adapter")
    work.finish()


def choose(ends: Sequence[float], task: str) -> int:
    """The position of the highest final validation mIoU; of equals the first.

    Raises:
        DataError: If there is something to choose and nothing to choose by: all are NaN.
    """
    if len(ends) > 1 and all(map(math.isnan, ends)):
        raise DataError(
            f"adapt.learning_rate names {len(ends)} rates, to be chosen from by the validation "
            f"images of the task {task}, and no pixel of their masks is known; name one rate."
        )
    return int(np.argmax(np.nan_to_num(ends, nan=-1.0)))


def require_unseen(task: Task, index: pl.DataFrame, *, allow_alike: bool = False) -> None:
    """Refuse a task whose test images classifiers and segmenters were trained or stopped on.

    These see the splits train and valid of the index. Test images are compared by patient, by
    name, for tasks that call patients otherwise or not at all, by the content of their files, and
    by their looks (unless ``allow_alike``): the same picture in another file
    (:mod:`dollmaker.pixels.image_hash`).

    Raises:
        DataError: With the first that was seen.
    """
    before = index.filter(pl.col("split") != "test")
    test = task.rows("test").tolist()
    remedy = (
        f"set tasks.{task.name}.valid and test to null, so that the task keeps the data set's "
        "splits, and prepare.test above 0 if that has no test images"
    )
    compared = {
        "patient": ("patient_id", task.patients),
        "image": ("image_id", task.image_ids),
        "file with SHA-256": ("sha256", task.files),
    }
    for what, (column, values) in compared.items():
        seen = set(before[column].unique()) if column in before else set()
        both = sorted({values[row] for row in test} & seen) if values else []
        if both:
            raise DataError(
                f"task {task.name}: test {what} {both[0]!r} ({len(both)} in all) was in the "
                f"training or validation images of the classifiers and the segmenter; {remedy}."
            )
    if allow_alike or "hash" not in before or not task.hashes:
        return
    known = before["hash"].fill_null("").to_list()
    pairs = list(near_pairs([task.hashes[row] for row in test], known))
    if pairs:
        mine, its = pairs[0]
        file = before["path" if "path" in before else "image_id"][its]
        raise DataError(
            f"task {task.name}: test image {task.image_ids[test[mine]]!r} looks like {file!r} "
            f"({len({mine for mine, _ in pairs})} such in all, at most {NEAR} of 256 bits apart), "
            "which was in the training or validation images of the classifiers and the segmenter; "
            f"{remedy}, or adapt.allow_alike to true if they are different pictures."
        )


def alike_within(task: Task) -> list[tuple[str, str]]:
    """Training and test images of different patients that look alike, (training, test)."""
    if not task.hashes:
        return []
    train, test = (task.rows(split).tolist() for split in ("train", "test"))
    learned, tested = ([task.hashes[row] for row in rows] for rows in (train, test))
    rows = [(train[i], test[j]) for i, j in near_pairs(learned, tested)]
    return [
        (task.image_ids[i], task.image_ids[j])
        for i, j in rows
        if task.patients[i] != task.patients[j]
    ]
