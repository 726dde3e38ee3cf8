"""What it costs to start a job of each stage: a process until its work could begin.

The stages run one after another in this process, on phantoms, so that each finds its inputs; the
jobs that are measured are fresh processes on the same inputs, which end where the work begins.
"""

import contextlib
import importlib
import io
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from dollmaker.runtime.cli import main
from dollmaker.store.files import write_json
from shared import keep, options, write_sanity

#: The share of a job that its start should stay under.
SHARE = 0.05

#: What a process prints when the work begins.
BEGUN = "the work begins"

_IMPORT_TORCH = "import torch"

#: Networks of the kinds that are used in earnest; that they learn nothing does not matter.
_CONFIG: dict[str, Any] = {
    "dataset": "bench",
    "source": {"kind": "phantoms"},
    "classify": {
        "members": {"a": {"architecture": "torchvision:resnet18"}},
        "epochs": 1,
        "bootstrap": 10,
    },
    "attribute": {"max_images": 4},
    "recipes": {
        "doll": {
            "attribute": {"nodes": 2},
            "binarize": [{"gate": {}}, {"quantile": {}}, {"clean": {}}],
        }
    },
    "segment": {"encoder": "resnet18", "init": "random", "epochs": 1},
    "tasks": {
        "organs": {
            "table": "organs/index.csv",
            "images": "organs",
            "masks": "organs",
            "image_column": "image",
            "mask_column": "mask",
            "patient_column": "patient_id",
            "encoding": "bits",
            "classes": {"lungs": [1], "heart": [2]},
        }
    },
    "adapt": {"runs": ["doll/full"], "n": [2], "seeds": 1, "steps": 1, "evaluations": 1},
    "truth": {"kind": "chexlocalize", "files": ["truth/train.json", "truth/valid.json"]},
    "evaluate": {"bootstrap": 10},
}


@dataclass(frozen=True)
class Step:
    """A command of the run.

    Attributes:
        words: Its name and options; ``{config}`` and ``{root}`` stand for their paths.
        work: ``module:name`` of what it calls first when its work begins; "" if its start is
            not measured.
    """

    words: str
    work: str = ""


_INDEX = "--index {root}/index.parquet --images {root}/images"
_MEMBER = "--committee {root}/committee/a"

#: In the order the data flow.
STEPS = (
    Step("phantom --images {images} --size {size} --task-images 16 --output {root}/phantoms"),
    Step(
        "prepare-list --config {config} --data-root {root}/phantoms --output {root}/listing.parquet"
    ),
    Step(
        "prepare-decode --config {config} --listing {root}/listing.parquet --shard 0000 "
        "--data-root {root}/phantoms --output {root}/images/0000.h5 --rows {root}/0000.parquet",
        "dollmaker.prepare.stage:decode",
    ),
    Step(
        "prepare-index --config {config} --listing {root}/listing.parquet "
        "--rows {root}/0000.parquet --quarantine {root}/quarantine.csv "
        "--output {root}/index.parquet"
    ),
    Step(
        f"classify --config {{config}} {_INDEX} --member a --weights-root {{root}} "
        "--output {root}/committee/a",
        "dollmaker.classify.train:ClassifierTraining.training_step",
    ),
    Step(
        f"attribute --config {{config}} {_INDEX} --shard 0000 {_MEMBER} --recipe doll "
        "--output {root}/relevance/doll/0000.h5",
        "dollmaker.attribute.stage:Committee.probabilities",
    ),
    Step(
        "binarize --config {config} --images {root}/images/0000.h5 --relevance "
        "{root}/relevance/doll/0000.h5 --recipe doll --output {root}/masks/doll/0000.h5",
        "dollmaker.binarize.stage:Pair",
    ),
    Step(
        "labels --config {config} --index {root}/index.parquet --masks {root}/masks/doll/0000.h5 "
        f"--relevance {{root}}/relevance/doll/0000.h5 {_MEMBER} --sanity {{root}}/sanity.json "
        "--output {root}/labels",
        "dollmaker.release.labels:compare_masks",
    ),
    Step(
        f"segment --config {{config}} {_INDEX} --labels {{root}}/labels {_MEMBER} "
        "--weights-root {root} --output {root}/segmenter",
        "dollmaker.segment.train:SegmenterTraining.training_step",
    ),
    Step(
        f"explain --config {{config}} {_INDEX} --labels {{root}}/labels --segmenter "
        "{root}/segmenter --output {root}/explained",
        "dollmaker.explain.stage:create_shard",
    ),
    Step(
        "adapt --config {config} --task organs --init doll --tuning full --data-root "
        "{root}/phantoms --weights-root {root} --segmenter {root}/segmenter "
        f"{_MEMBER} --output {{root}}/tasks/organs/doll-full",
        "dollmaker.adapt.train:make_batch",
    ),
    Step(
        f"evaluate --config {{config}} {_INDEX} --data-root {{root}}/phantoms {_MEMBER} "
        "--relevance {root}/relevance --masks {root}/masks --tasks {root}/tasks/organs/doll-full "
        "--output {root}/scores",
        "dollmaker.evaluate.stage:score_pairs",
    ),
    Step(
        f"release --config {{config}} {_INDEX} --labels {{root}}/labels --segmenter "
        f"{{root}}/segmenter {_MEMBER} --sanity {{root}}/sanity.json "
        "--scores {root}/scores/masks.parquet --pairs {root}/scores/pairs.parquet "
        "--output {root}/release",
        "dollmaker.release.stage:write_formats",
    ),
)


def measure(*, size: int, images: int, rounds: int) -> dict[str, Any]:
    """Start a job of every stage a few times.

    Args:
        size: Side of the images in pixels, a multiple of 32.
        images: Images of the run; few, so that reading them is not what is measured.
        rounds: Medians are taken over these.

    Returns:
        ``stages``: name -> ``wall`` and ``cpu``, in seconds, and ``shard``, the CPU seconds of
        work at which the start is 5 % of it; ``torch`` is the process that only imports it.
    """
    stages = {"import torch": _median([sys.executable, "-c", _IMPORT_TORCH], rounds)}
    with TemporaryDirectory(prefix="dollmaker-bench-") as name:
        root = Path(name)
        config = root / "config.json"
        write_sanity(root / "sanity.json")  # the one thing made up: finding it out takes long
        write_json(config, {**_CONFIG, "prepare": {"size": size, "shards": 1, "valid": 0.2}})
        for step in STEPS:
            values = {"config": config, "root": root, "images": images, "size": size}
            words = [word.format(**values) for word in step.words.split()]
            if step.work:
                begin = [sys.executable, __file__, "--until", step.work, *words]
                stages[words[0]] = _median(begin, rounds)
            _run(words)
    for seconds in stages.values():
        seconds["shard"] = seconds["cpu"] / SHARE
    return {
        "size": size,
        "images": images,
        "rounds": rounds,
        "processor": platform.processor() or platform.machine(),
        "stages": stages,
    }


def _median(command: Sequence[str], rounds: int) -> dict[str, float]:
    """Medians of the seconds on the clock and of all cores."""
    times = [_start(command) for _ in range(rounds)]
    return {
        "wall": statistics.median(wall for wall, _ in times),
        "cpu": statistics.median(cpu for _, cpu in times),
    }


def _start(command: Sequence[str]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), _cpu_of_children()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - wall, _cpu_of_children() - cpu
    if done.returncode or (BEGUN not in done.stdout and "--until" in command):
        raise RuntimeError(f"{' '.join(command)}: its work never began\n{done.stderr[-2000:]}")
    return seconds


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(words: list[str]) -> None:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(words)
    if code:
        raise RuntimeError(f"dollmaker {words[0]}: {said.getvalue()[-2000:]}")


def print_starts(results: dict[str, Any]) -> None:
    """Print to stdout."""
    print(
        f"a process until its work begins, median of {results['rounds']} rounds, "
        f"{results['images']} images of {results['size']} px, {results['processor']}"
    )
    print(f"{'':<18}{'s by the clock':>16}{'s of cores':>12}{f'{SHARE:.0%} of':>12}")
    for name, seconds in results["stages"].items():
        shard = f"{seconds['shard']:.0f} s"
        print(f"{name:<18}{seconds['wall']:>16.2f}{seconds['cpu']:>12.2f}{shard:>12}")


def begin(work: str, words: list[str]) -> NoReturn:
    """Run a command until it first calls ``work``, ``module:name``, and end there.

    What the process took until then is what starting the command costs.
    """
    module, _, path = work.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    assert callable(getattr(owner, name))
    setattr(owner, name, _leave)
    sys.exit(main(words))


def _leave(*_: Any, **__: Any) -> NoReturn:
    """At once: nothing is closed or written any more."""
    print(BEGUN, flush=True)
    os._exit(0)


def bench() -> None:
    """Measure and print."""
    given = options(__doc__, size=64, images=60, rounds=3).parse_args()
    results = measure(size=given.size, images=given.images, rounds=given.rounds)
    print_starts(results)
    keep(results, given.json)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--until"]:
        begin(sys.argv[2], sys.argv[3:])
    bench()
