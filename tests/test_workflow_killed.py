"""A run that is killed on the way and made in other shards."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from micro_run import COMMAND, MICRO, snakemake

#: One shard, where the run that it is compared with has two.
OTHER = MICRO.read_text().replace("shards: 2", "shards: 1")
WORDS = ("--configfile", "other.yaml")


def test_killed_and_in_other_shards_the_release_has_the_same_bytes(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The finished run is asked for at the end: meanwhile another worker makes it."""
    (tmp_path / "other.yaml").write_text(OTHER)
    words = ["results/micro/release.verified", *WORDS]
    log = tmp_path / "results/micro/logs/train_member-a.log"
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while not (log.exists() and "epoch 1/" in log.read_text()):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "results/micro/committee/a").exists()
    snakemake(tmp_path, "--unlock", *WORDS)
    snakemake(tmp_path, *words)
    text = log.read_text()
    assert "epoch 2/" in text or "epoch 3/" in text
    finished = request.getfixturevalue("finished")
    again = tmp_path / "results/micro/release/SHA256SUMS"
    assert again.read_text() == (finished / "results/micro/release/SHA256SUMS").read_text()
