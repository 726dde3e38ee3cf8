"""Cores of a job, not of its node."""

import os
import sys

import pytest

from dollmaker.runtime.cores import cores, planned, share


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert cores() == 2


def test_cores_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


@pytest.mark.parametrize(
    ("given", "jobs", "threads"),
    [(2, 1, 2), (2, 5, 1), (64, 1, 64), (64, 5, 12), (1, 3, 1), (64, 0, 64)],
)
def test_jobs_share_the_cores_that_there_are(given: int, jobs: int, threads: int) -> None:
    assert share(jobs, planned(given)) == threads


def test_a_cluster_shares_out_its_own_cores() -> None:
    assert planned(None) == planned(sys.maxsize) == 2
