"""Seconds, shards, bytes and their text, against cases computed by hand."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dollmaker.config import settings as configuration
from dollmaker.plan import cost, disk, table
from dollmaker.plan.calibrate import Rates
from dollmaker.plan.clock import Rate
from dollmaker.plan.count import Counts, Source, midpoints
from dollmaker.plan.maps import Attribution, Masks, extrapolate, fit_budget
from dollmaker.plan.stage import list_stages
from dollmaker.plan.training import Training


@pytest.mark.parametrize(
    ("jobs", "devices", "seconds"),
    [
        ([5.0], 1, 5.0),
        ([5.0], 9, 5.0),
        ([5.0, 3.0, 2.0], 1, 10.0),
        ([2.0, 5.0, 3.0], 2, 5.0),  # the longest first: 5 beside 3 + 2
        ([4.0, 4.0, 4.0], 2, 8.0),
        ([1.0] * 64, 8, 8.0),
        ([1.0] * 65, 8, 9.0),
        ([], 3, 0.0),
    ],
)
def test_the_longest_job_goes_first(jobs: list[float], devices: int, seconds: float) -> None:
    assert cost.makespan(jobs, devices) == pytest.approx(seconds)


def test_steps_are_those_of_the_loader() -> None:
    assert [cost.steps_per_epoch(n, 16) for n in (0, 5, 16, 31, 32)] == [0, 1, 1, 1, 2]


def test_training_validates_after_every_epoch() -> None:
    # 3 epochs of 6 steps (100 // 16) of 2 s, and 10 images of 0.5 s each time: 3 * (12 + 5).
    seconds = cost.training_seconds(images=100, valid=10, batch=16, epochs=3, step=2.0, image=0.5)
    assert seconds == pytest.approx(51.0)


def test_tuning_scores_valid_often_and_test_once() -> None:
    counts = {"train": 50, "valid": 4, "test": 8}
    # 6 runs of 10 steps of 1 s, and 5 * 4 + 8 = 28 images of 0.1 s: 6 * 12.8.
    seconds = cost.tuning_seconds(
        runs=6, steps=10, evaluations=5, step=1.0, image=0.1, counts=counts
    )
    assert seconds == pytest.approx(76.8)


def test_every_job_has_its_start() -> None:
    assert cost.shared_out(100.0, 4, 2.0) == [27.0] * 4


@pytest.mark.parametrize(
    ("hours", "devices", "images", "shards"),
    [
        (0.01, 1, 1000, 1),
        (0.01, 4, 1000, 4),  # at least one a device
        (10, 1, 10**6, 20),  # half an hour each
        (10, 8, 10**6, 24),  # three rounds of eight, 25 minutes each
        (2.2, 4, 10**6, 5),  # 8 jobs of 16.5 minutes would be too short
        (1000, 1, 7, 7),  # not more than images
    ],
)
def test_shards_make_jobs_of_half_an_hour(
    hours: float, devices: int, images: int, shards: int
) -> None:
    assert cost.suggest_shards(hours * 3600, devices, images) == shards


@pytest.mark.parametrize(
    ("configured", "hours", "devices", "said"),
    [
        (20, 10, 1, None),
        (10, 10, 1, None),  # an hour: not far off
        (2, 10, 1, "so long"),
        (200, 10, 1, "short"),
        (2, 10, 8, "6 of 8 devices idle"),
        (2, 0.01, 1, None),
    ],
)
def test_a_warning_when_the_shards_are_far_off(
    configured: int, hours: float, devices: int, said: str | None
) -> None:
    suggested = cost.suggest_shards(hours * 3600, devices, 10**6)
    warning = cost.judge_shards(configured, suggested, hours * 3600, devices)
    assert (warning is None) == (said is None)
    assert (said or "") in (warning or "")
    assert warning is None or warning.endswith(f"set prepare.shards to about {suggested}.")


def resolved(**changes: Any) -> dict[str, Any]:
    return configuration.resolve({"dataset": "x", "source": {"kind": "phantoms"}, **changes})


def test_disk_by_hand() -> None:
    task = {
        **{"table": "t", "images": "i", "masks": "m", "image_column": "a", "mask_column": "b"},
        "classes": {"one": [1], "two": [2]},
    }
    config = resolved(
        prepare={"size": 100, "channels": 3},
        classify={"members": {"a": {}, "b": {}}},
        recipes={"doll": {"binarize": [{"otsu": {}}]}, "q": {"binarize": [{"otsu": {}}]}},
        tasks={"t": task},
        adapt={"runs": ["random/full"], "n": [5, "all"], "seeds": 3},
    )
    counts = Counts(
        images={"train": 70, "valid": 20, "test": 10},
        patients=50,
        explained=60,
        maps={"A": 30, "B": 10},
        most=40,
        segment={"train": 60, "valid": 10},
        tasks={"t": {"train": 5, "valid": 2, "test": 4}},
    )
    listed = disk.artifacts(
        config, counts, explained=2, image_bytes=20_000.0, members=1000, segmenter=500
    )
    found = {one.name: (one.bytes, one.most) for one in listed}
    assert found == {
        "index.parquet, prepare/": (15_000, 15_000),
        "images/": (2_000_000, 100 * 30_180),
        "committee/": (1000 + 30 * 2 * 4 * 2, 1000 + 30 * 2 * 4 * 2),
        "relevance/": (2 * 40 * 20_350, 2 * 40 * 20_350),
        "masks/": (2 * 40 * (625 + 600), 2 * 40 * 10_600),
        "labels/": (40 * (400 + 550), 40 * 10_550),
        "segmenter/": (500, 500),
        "tasks/": (4 * 2 * 2 * 3 * 20 + 4 * 30_000,) * 2,
        # a code and polygons a pair, an empty one for each other image and finding, the segmenter
        "release/": (
            40 * (400 + 550) + 40 * (400 + 800) + 160 * 60 + 500,
            40 * 10_550 + 40 * (400 + 8000) + 160 * 60 + 500,
        ),
    }
    unknown = disk.artifacts(
        config, counts, explained=2, image_bytes=None, members=1000, segmenter=500
    )
    assert unknown[1].bytes == unknown[1].most == 100 * 30_180


def test_running_jobs_keep_their_state() -> None:
    kept = disk.working_bytes(relevance=1000, jobs=10, members=30, segmenter=20, devices=4)
    assert kept == 400
    kept = disk.working_bytes(relevance=100, jobs=10, members=30, segmenter=200, devices=99)
    assert kept == 600


def test_numbers_promise_two_digits() -> None:
    values = [0, 0.01234, 0.0999, 0.5, 1, 9.97, 10, 12.7, 99.9, 1234, 9960]
    said = ["0", "0.012", "0.10", "0.50", "1.0", "10", "10", "13", "100", "1,200", "10,000"]
    assert [table.rounded(value) for value in values] == said
    assert [table.duration(s) for s in (0.5, 89, 90, 5399, 5400, 36e5)] == [
        *("0.50 s", "89 s", "1.5 min", "90 min", "1.5 h", "1,000 h"),
    ]
    assert [table.size(n) for n in (0, 950, 1500, 2.5e9, 3e15)] == [
        *("0 B", "950 B", "1.5 kB", "2.5 GB", "3,000 TB"),
    ]
    assert table.rate(0.1, "map") == "10 maps/s" and table.rate(30, "map") == "30 s/map"
    assert table.rate(0, "map") == "-"


def test_positions_lie_in_the_middles_of_equal_parts() -> None:
    assert midpoints(10, 2).tolist() == [2, 7]
    assert midpoints(3, 8).tolist() == [0, 1, 2]
    assert midpoints(0, 4).tolist() == []


def recipe(**options: Any) -> dict[str, Any]:
    recipes = {"doll": {"attribute": options, "binarize": [{"otsu": {}}]}}
    attribute: dict[str, Any] = resolved(recipes=recipes)["recipes"]["doll"]["attribute"]
    return attribute


def test_a_trial_takes_as_many_images_as_its_time_allows() -> None:
    options = recipe(nodes=10, baselines=["black", "mean"])
    trial = fit_budget(options, 0.01, 1.0, 32)  # an image: 10 * 2 * 0.01 s
    assert (trial.images, trial.options, trial.more) == (5, options, None)
    assert fit_budget(options, 1e-6, 1.0, 32).images == 32


def test_a_trial_of_a_slow_device_has_fewer_nodes_and_copies() -> None:
    noise = {"samples": 5}
    trial = fit_budget(recipe(nodes=16, noise=noise), 1.0, 6.0, 32)
    assert trial.images == 1 and trial.options["noise"]["samples"] == 1
    assert trial.more is not None
    assert (trial.options["nodes"], trial.more["nodes"]) == (3, 6)
    assert trial.cut == ", 1 of 5 noisy copies and 3 to 6 of 16 nodes, scaled"
    adaptive = recipe(adaptive={"max_nodes": 40})
    slow = fit_budget(adaptive, 1.0, 9.0, 32)  # 40 s at most: more than four times the budget
    assert slow.options["adaptive"] is None and slow.options["nodes"] == 4
    risked = fit_budget(adaptive, 1.0, 10.0, 32)
    assert (risked.images, risked.options) == (1, adaptive)
    assert fit_budget(adaptive, 1.0, 30.0, 32).images == 3  # about 10 s each
    saliency = fit_budget(recipe(method="saliency", noise=noise), 9.0, 1.0, 32)
    assert saliency.more is None and saliency.cut == ", 1 of 5 noisy copies, scaled"
    single = fit_budget(recipe(nodes=1), 9.0, 1.0, 32)
    assert (single.images, single.more, single.cut) == (1, None, "")


def test_seconds_of_more_nodes_follow_from_two_trials() -> None:
    # 1 node 5 s, 2 nodes 8 s: 2 s before the first, 3 s each; 16 nodes take 50 s.
    assert extrapolate(1, 5.0, 2, 8.0, 16) == pytest.approx(50.0)
    assert extrapolate(1, 5.0, 2, 4.0, 16) == 5.0


def test_the_jobs_of_every_stage_by_hand(tmp_path: Path) -> None:
    task = {
        **{"table": "t", "images": "i", "masks": "m", "image_column": "a", "mask_column": "b"},
        "classes": {"one": [1]},
    }
    binarize = [{"otsu": {}}]
    config = resolved(
        prepare={"shards": 2},
        classify={"members": {"a": {}, "b": {}}, "epochs": 2, "batch_size": 10},
        recipes={
            **{"doll": {"binarize": binarize}, "cam": {"binarize": binarize}},
            "band": {"attribute": "doll", "binarize": binarize},
        },
        segment={"epochs": 3, "batch_size": 5},
        tasks={"t": task},
        adapt={"runs": ["random/full", "doll/head"], "n": [5], "seeds": 2, "steps": 10}
        | {"evaluations": 1},
    )
    counts = Counts(
        images={"train": 40, "valid": 10, "test": 10},
        patients=60,
        explained=20,
        maps={"A": 100},
        most=100,
        segment={"train": 25, "valid": 4},
        tasks={"t": {"train": 6, "valid": 2, "test": 2}},
    )

    def training(step: float) -> Training:
        return Training(step=step, image=0.1, bytes=8, steps=3, how="")

    def maps(each: float) -> Attribution:
        return Attribution(map=each, nodes=5.0, assumed=False, build=1.0, repetitions=3, how="")

    made = Masks(mask=0.01, repetitions=3, number=9, file=tmp_path)
    rates = Rates(
        decode=Rate(what="decode", unit="image", seconds=0.2, repetitions=3, how=""),
        audit=Rate(what="audit", unit="image", seconds=0.05, repetitions=3, how=""),
        image_bytes=100.0,
        real_images=True,
        trained=False,
        attribute={"doll": maps(1.0), "cam": maps(0.5)},
        binarize={"doll": made, "cam": made, "band": made},
        release=made,
        classify={"a": training(1.0), "b": training(2.0)},
        segment=training(1.0),
        adapt={"full": training(1.0), "head": training(0.5)},
    )
    source = Source(
        index=pl.DataFrame(), findings=["A"], localized=["A"], tasks=counts.tasks, root=tmp_path
    )
    stages = {s.name: s for s in list_stages(config, source, counts, rates, 1.0, 5.0)}
    wanted = {
        "decode": [7.0, 7.0],  # 1 + 30 * 0.2
        "audit": [4.0],  # 1 + 60 * 0.05
        "classify": [17.0, 25.0],  # 5 + 2 * (4 steps + 10 * 0.1) + 20 * 0.1
        "attribute": [56.0, 56.0, 31.0, 31.0],  # 5 + 1 + 50 maps
        "binarize": [1.5] * 6,
        "release": [2.0],
        "segment": [21.2],  # 5 + 3 * (5 steps + 4 * 0.1)
        "adapt": [29.8, 19.8],  # 5 + 2 * 10 * 0.2 + 2 * (10 steps + (2 + 2) * 0.1)
    }
    assert {name: list(stage.jobs) for name, stage in stages.items()} == {
        name: pytest.approx(jobs) for name, jobs in wanted.items()
    }
    units = {name: (stage.units, stage.unit) for name, stage in stages.items()}
    assert units["classify"] == (16, "steps") and units["attribute"] == (200, "maps")
    assert units["binarize"] == (300, "masks") and units["adapt"] == (40, "steps")
    config["adapt"]["learning_rate"] = [0.1, 0.2]
    tuned = {s.name: s for s in list_stages(config, source, counts, rates, 1.0, 5.0)}["adapt"]
    assert list(tuned.jobs) == pytest.approx([50.6, 30.6]) and tuned.units == 80
