"""The workflow on a real Slurm: two nodes, a cancelled job, a lost node, the same release."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.loopback import NODES, CannotStart, Loopback, install
from dollmaker.release.verify import verify
from dollmaker.runtime.stopping import on_sigterm
from dollmaker.store.files import sha256_file

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

ROOT = Path(__file__).parents[2]
SHARDS = 6
ONE_THREAD = [
    f"{rule}=1"
    for rule in (
        *("train_member", "explain_images", "explain_sample", "pretrain_segmenter"),
        *("adapt_segmenter", "decode_images", "generate_phantoms", "evaluate"),
    )
]


@pytest.fixture
def cluster() -> Iterator[Loopback]:
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="pip install dollmaker[slurm]")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    try:
        install()
        with on_sigterm(), Loopback(folder) as loopback:  # also stopped, it stops its daemons
            yield loopback
    except CannotStart as error:
        pytest.skip(f"NO SLURM HERE: {error}")
    finally:
        if not os.environ.get("KEEP_SLURM"):
            shutil.rmtree(folder, ignore_errors=True)


def digests(folder: Path) -> dict[Path, str]:
    """Checksums of results; what a job says may change."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: sha256_file(path) for path in files if not {"logs", "benchmarks"} & {*path.parts}}


def snakemake(*words: str) -> list[str]:
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile")]
    return [*command, "--configfile", "c.yaml", *words]


def test_two_nodes_a_cancelled_job_and_a_lost_node(cluster: Loopback, tmp_path: Path) -> None:
    text = (ROOT / "tests/micro.yaml").read_text().replace("shards: 2", f"shards: {SHARDS}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("calm", "slurm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c.yaml").write_text(text)
    release = "results/micro/release/SHA256SUMS"
    calm = snakemake("--cores", "2", "--quiet", "--set-threads", *ONE_THREAD, "--", release)
    subprocess.run(calm, cwd=tmp_path / "calm", check=True, env=environment)

    folder = tmp_path / "slurm"
    command = snakemake(
        *("--profile", str(ROOT / "workflow/profiles/slurm"), "--jobs", "4"),
        *("--slurm-init-seconds-before-status-checks", "8", "--slurm-status-command", "squeue"),
        *("--slurm-no-account", "--set-threads", *ONE_THREAD),
    )
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
    cancelled = lost = ""
    orphans: list[int] = []
    end = time.monotonic() + 3000
    try:
        while process.poll() is None and time.monotonic() < end:
            for job, node, comment in cluster.running():
                if not cancelled and "decode_images" in comment:
                    cluster.ask("scancel", job)
                    cancelled = job
                elif cancelled and not lost and node == NODES[1] and "explain_images" in comment:
                    orphans = cluster.lose_node(node, job)
                    lost = job
            time.sleep(0.3)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(5)
            process.kill()
        process.wait()
        log.close()
    assert process.returncode == 0, (tmp_path / "log").read_text()[-5000:]
    records = cluster.records()
    states = {record["JobId"]: record["JobState"] for record in records}
    nodes = {record["NodeList"] for record in records}
    print(len(states), "jobs on", nodes, "; cancelled", cancelled, "; lost with its node", lost)
    assert len(states) >= 30
    assert nodes >= set(NODES)
    assert cancelled and states[cancelled] == "CANCELLED"
    assert lost and "NODE_FAIL" in {r["JobState"] for r in records if r["JobId"] == lost}
    before = digests(folder / "results")
    cluster.wake(orphans)
    assert digests(folder / "results") == before, "what was thought dead has written"
    assert orphans
    assert verify(folder / "results/micro/release") == []
    assert (folder / release).read_text() == (tmp_path / "calm" / release).read_text()
    results = folder / "results/micro"
    assert not [path for path in results.rglob("*") if path.name.endswith((".part", ".work"))]
