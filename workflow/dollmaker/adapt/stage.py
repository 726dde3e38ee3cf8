"""The stage: all runs of one task, start and tuning, one after another."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dollmaker import devices, provenance
from dollmaker.adapt.results import keep, kept, take, write_results
from dollmaker.adapt.saved import save_adapter
from dollmaker.adapt.starts import Beginning, find_beginning, make_network
from dollmaker.adapt.tasks import Task, read_task
from dollmaker.adapt.train import mean_iou, train_run
from dollmaker.adapt.tuning import FROZEN, Tuned, Tuning
from dollmaker.files import atomic_path
from dollmaker.work import Work


def adapt(
    config: Mapping[str, Any],
    task_name: str,
    init: str,
    tuning: Tuning,
    *,
    data_root: Path,
    weights_root: Path,
    committee: Path | None,
    segmenter: Path | None,
    output: Path,
) -> None:
    """Fine-tune with every n and seed of the configuration and write the folder of results.

    What seed 0 of the last n learned is kept in its folder ``adapter``. Finished runs are kept
    beside the output until all are done: a killed job goes on with the run it was in.

    Args:
        config: The resolved configuration (sections prepare, segment, tasks, adapt).
        task_name: Key of the section ``tasks``.
        init: Where the networks start.
        tuning: What is trained of them.
        data_root: Folder of the source data.
        weights_root: Folder of local weights files.
        committee: Folder of a member, for the start ``classifier``.
        segmenter: Folder of the segmenter, for the start ``doll`` and other pre-trainings.
        output: Folder to make.

    Raises:
        DataError: If the task's files are not as described.
        ModelError: If network, weights or device are missing or do not fit.
    """
    options = {key: value for key, value in config["adapt"].items() if key != "runs"}
    device = devices.choose(config["device"])
    beginning = find_beginning(
        init, config, committee=committee, segmenter=segmenter, weights_root=weights_root
    )
    task = read_task(task_name, config, data_root)
    inputs = {"task": task.sha256()}
    if beginning.sha256:
        inputs["weights"] = beginning.sha256
    section = {**options, "task": task_name, "init": init, "tuning": tuning}
    header = provenance.header("adapt", section, seed=config["seed"], inputs=inputs)
    network = {key: config["segment"][key] for key in ("architecture", "encoder", "arguments")}
    key = [header, network, vars(beginning.input)]
    work = Work(output, provenance.digest(key))
    files, adapter = [], work.folder / "adapter"
    for n in options["n"]:
        for seed in range(options["seeds"]):
            file = work.folder / f"{n}-{seed}.npz"
            files.append(file)
            chosen_one = n == options["n"][-1] and seed == 0  # whose adapter is kept
            if kept(file) and (adapter.exists() or not chosen_one):
                continue
            # The seed of the configuration moves the random numbers of all runs.
            number = config["seed"] * 1000 + seed
            chosen = task.choose(n, number)
            tuned = make_tuned(beginning, network, task, init, tuning, options, number)
            run = train_run(
                tuned, beginning.input, task, chosen, options, seed=number, device=device
            )
            work.require()
            if chosen_one:
                save_adapter(
                    tuned,
                    adapter,
                    classes=task.classes,
                    spec=beginning.input,
                    n=str(n),
                    seed=seed,
                    header=header,
                )
            keep(run, file, {"n": str(n), "n_images": len(chosen), "seed": seed})
            print(
                f"adapt {task_name} {init}/{tuning} n={n} ({len(chosen)} images) seed={seed} "
                f"test_miou {mean_iou(run.iou):.4f} ({run.cost['seconds']:.0f} s)",
                file=sys.stderr,
                flush=True,
            )
    work.require()
    with atomic_path(output) as folder:
        folder.mkdir()
        write_results(folder, task, [take(file) for file in files], header)
        shutil.copytree(adapter, folder / "adapter")
    work.finish()


def make_tuned(
    beginning: Beginning,
    network: Mapping[str, Any],
    task: Task,
    init: str,
    tuning: Tuning,
    options: Mapping[str, Any],
    seed: int,
) -> Tuned:
    """The network of a run, ready to be trained.

    Args:
        beginning: Its starting weights.
        network: ``architecture``, ``encoder`` and ``arguments``.
        task: The task.
        init: Where it starts; a random encoder's batch normalisation is never frozen in full
            tuning, as it has seen nothing yet.
        tuning: What is trained.
        options: The section ``adapt``.
        seed: Seed of all that is random in it.
    """
    spec = beginning.input
    # A decoder that is not trained must be the one that was.
    anew = 0 if "decoder" in FROZEN[tuning] else options["new_blocks"]
    model = make_network(beginning, network, len(task.classes), seed, anew)
    generator = torch.Generator().manual_seed(0)
    return Tuned(
        model,
        tuning,
        torch.randn(1, spec.channels, spec.size, spec.size, generator=generator),
        freeze_norm=options["freeze_batch_norm"] and init != "random",
        adapter_width=options["adapter_width"],
        lora_rank=options["lora_rank"],
        seed=seed,
        base=tuple(beginning.parts),
    )
