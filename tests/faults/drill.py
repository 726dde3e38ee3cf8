"""Kill jobs and Snakemake at random, and compare the release with that of an undisturbed run.

python tests/faults/drill.py FOLDER [--kills 20] [--seed 0] [--config tests/micro.yaml]

In FOLDER, ``calm`` is the undisturbed run and ``drill`` the disturbed one; what is there already is
used again. Jobs are killed (SIGKILL) at seeded random moments after they start, in turn those of
each costly stage; every third round Snakemake dies, too, and is started again. The last line is a
JSON object of what happened; the exit status is 1 unless all is as it should be.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Commands that are killed.
STAGES = ("classify", "attribute", "binarize", "release", "segment", "adapt")

#: Longest time in seconds that a job lives before it is killed; some are done sooner.
_PATIENCE = {"release": 1.5, "binarize": 5.0}
_OTHERWISE = 9.0


def command(config: Path) -> list[str]:
    """A plain Snakemake call, as a user types it."""
    words = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--cores", "2"]
    return [*words, "--configfile", str(config.resolve())]


def processes(below: int) -> Iterator[tuple[int, str]]:
    """Process id and stage of the dollmaker commands that descend from a process."""
    parents, stages = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        pid = int(folder.name)
        parents[pid] = int(stat.rpartition(")")[2].split()[1])
        if words[1:3] == ["-m", "dollmaker"]:
            stages[pid] = words[3]
    for pid, stage in stages.items():
        above = pid
        while above in parents and above != below:
            above = parents[above]
        if above == below:
            yield pid, stage


def disturb(folder: Path, config: Path, kills: int, seed: int) -> Counter[str]:
    """Run the workflow and kill what it does, until so many kills are done and it is finished."""
    dice = random.Random(seed)
    done: Counter[str] = Counter()
    round_number = 0
    while True:
        round_number += 1
        log = (folder / "drill.log").open("a")
        subprocess.run([*command(config), "--unlock"], cwd=folder, stdout=log, stderr=log)
        process = subprocess.Popen(
            [*command(config), "--keep-going"],
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        wanted: dict[int, float] = {}
        while process.poll() is None:
            now = time.monotonic()
            for pid, stage in processes(process.pid):
                few = [name for name in STAGES if done[name] < -(-kills // len(STAGES))]
                if pid not in wanted and stage in few:
                    wanted[pid] = now + dice.uniform(0.1, _PATIENCE.get(stage, _OTHERWISE))
                if wanted.get(pid, now + 1) <= now:
                    wanted[pid] = float("inf")
                    with_snakemake = round_number % 3 == 0
                    try:
                        if with_snakemake:
                            os.killpg(process.pid, signal.SIGKILL)
                        else:
                            os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                    done[stage] += 1
                    done["snakemake"] += with_snakemake
                    print(f"round {round_number}: {stage} killed", file=sys.stderr, flush=True)
            time.sleep(0.05)
        if process.returncode == 0:
            return done
        if round_number > 20 * kills:
            raise SystemExit("the workflow does not finish; see drill.log.")


def sums(folder: Path, dataset: str) -> str:
    return (folder / "results" / dataset / "release/SHA256SUMS").read_text()


def main() -> int:
    """Run the drill."""
    parser = argparse.ArgumentParser(description="Kill jobs of the workflow at random.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", type=Path, default=ROOT / "tests/micro.yaml")
    parser.add_argument("--dataset", default="micro")
    given = parser.parse_args()
    calm, drill = given.folder / "calm", given.folder / "drill"
    for folder in (calm, drill):
        folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    subprocess.run([*command(given.config), "--quiet"], cwd=calm, check=True)
    undisturbed = time.monotonic() - started
    done = disturb(drill, given.config, given.kills, given.seed)
    same = sums(calm, given.dataset) == sums(drill, given.dataset)
    left = [str(p) for p in drill.rglob("*") if p.name.endswith((".part", ".work", ".damaged"))]
    facts = {
        "kills": sum(done[stage] for stage in STAGES),
        "by_stage": dict(done),
        "same_release": same,
        "left_over": left,
        "seconds_undisturbed": round(undisturbed),
        "seconds_disturbed": round(time.monotonic() - started - undisturbed),
    }
    print(json.dumps(facts))
    enough = sum(done[stage] for stage in STAGES) >= given.kills
    return 0 if same and enough and not left else 1


if __name__ == "__main__":
    sys.exit(main())
