"""What Snakemake has measured: whose it is, and files that are no measurements."""

from pathlib import Path

import pytest

from dollmaker.store.benchmarks import Finished, read_finished

HEAD = "s\th:m:s\tmax_rss\tmax_vms\n"


@pytest.mark.parametrize(
    ("name", "rule", "part"),
    [
        ("evaluate", "evaluate", ""),
        ("decode_images-0001", "decode_images", ""),
        ("make_masks-doll-more-0000", "make_masks", "doll-more"),
        ("train_member-a-2024", "train_member", "a-2024"),
    ],
)
def test_a_job_is_told_by_its_name(name: str, rule: str, part: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.tsv").write_text(f"{HEAD}2.5\t0:00\tNA\t1\n3\t0:00\t7\t1\n")
    wanted = Finished(rule=rule, part=part, seconds=[2.5, 3], memory_mb=[7])
    assert list(read_finished(tmp_path)) == [wanted]


@pytest.mark.parametrize("text", ["", "no table", HEAD, f"{HEAD}nan\t\t\t\n-1\t\tinf\n", "s\n\0\n"])
def test_files_that_are_no_benchmarks_are_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "evaluate.tsv").write_text(text)
    (found,) = read_finished(tmp_path)
    assert (found.seconds, found.memory_mb) == ([], [])
    assert list(read_finished(tmp_path / "nowhere")) == []
