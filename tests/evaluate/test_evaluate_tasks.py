"""Differences between starts: over patients and seeds, paired."""

import numpy as np
from numpy.testing import assert_allclose

from dollmaker.evaluate.tasks import Runs, compare_starts, mean_score, score_tasks
from dollmaker.measures import scores


def test_what_images_and_seeds_have_in_common_cancels() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=(100, 4, 2)) * 5
    people = np.arange(100).astype(str)
    assert_allclose(mean_score((hard + 0.3) - hard, people), 0.3)


def test_the_interval_holds_the_scatter_of_patients_and_of_seeds() -> None:
    # A difference with a part of each patient and a part of each seed: variances add up.
    rng = np.random.default_rng(1)
    people, seeds = 200, 30
    of_patient, of_seed = rng.normal(size=people), rng.normal(size=seeds)
    differences = (of_patient[:, None] + of_seed)[..., None]
    interval = mean_score(differences, np.arange(people).astype(str))
    expected = 1.96 * np.sqrt(of_patient.var() / people + of_seed.var() / seeds)
    assert_allclose(interval.point, of_patient.mean() + of_seed.mean())
    assert_allclose((interval.high - interval.low) / 2, expected, rtol=0.1)


def test_one_seed_that_turns_the_difference_around_is_seen() -> None:
    differences = np.full((50, 3, 1), 0.1)
    differences[:, 2] = -0.05  # whatever the patient
    interval = mean_score(differences, np.arange(50).astype(str))
    assert interval.low < 0 < interval.point < interval.high


def test_scores_that_one_start_lacks_count_for_neither() -> None:
    nothing = np.nan
    first = np.array([[[0.8, 0.0]], [[0.8, nothing]]])
    second = np.array([[[0.8, nothing]], [[0.8, nothing]]])
    assert_allclose(mean_score(first - second, ["p", "q"]), 0.0)


def test_without_patients_to_draw_there_is_no_interval() -> None:
    one = mean_score(np.full((3, 2, 1), 0.3), ["p"] * 3)
    assert_allclose(one.point, 0.3)
    assert np.isnan(one[1:]).all()
    assert np.isnan(mean_score(np.zeros((0, 2, 1)), [])).all()


def test_a_starts_own_interval_holds_the_scatter_of_seeds() -> None:
    # Patients alike, seeds far apart: an interval over patients alone would have no width.
    people, seeds = 40, 30
    of_seed = np.random.default_rng(2).normal(size=seeds)
    values = np.broadcast_to(of_seed[None, :, None], (people, seeds, 1)).copy()
    interval = mean_score(values, np.arange(people).astype(str))
    assert_allclose(interval.point, of_seed.mean())
    expected = 1.96 * of_seed.std() / np.sqrt(seeds)
    assert_allclose((interval.high - interval.low) / 2, expected, rtol=0.1)
    run = Runs(
        task="t",
        init="i",
        tuning="full",
        n="5",
        n_images=5,
        classes=["c"],
        images=[f"{i}" for i in range(people)],
        patients=np.arange(people).astype(str),
        seeds=list(range(seeds)),
        iou=values,
        dice=values,
        present=np.ones((people, 1), bool),
    )
    row = score_tasks([run], 1000, 0).row(0, named=True)
    assert (row["miou"], row["miou_low"], row["miou_high"]) == tuple(interval)
    assert_allclose(row["seeds"], of_seed)


def test_beside_the_mean_stands_that_of_the_images_that_hold_the_class() -> None:
    rng = np.random.default_rng(5)
    people, seeds = 60, 4
    present = np.column_stack([rng.random(people) < 0.4, rng.random(people) < 0.7])
    # Seeds differ much where the class is there; elsewhere nothing is drawn, which is right.
    drawn = rng.random((people, seeds, 2)) * np.linspace(0.2, 1, seeds)[None, :, None]
    iou = np.where(present[:, None], drawn, 1.0)
    run = Runs(
        task="t",
        init="i",
        tuning="full",
        n="5",
        n_images=5,
        classes=["a", "b"],
        images=[f"{i:02d}" for i in range(people)],
        patients=np.array([f"p{i // 3}" for i in range(people)]),
        seeds=list(range(seeds)),
        iou=iou,
        dice=iou,
        present=present,
    )
    table = score_tasks([run], 2000, 0)
    rows = {row["class"]: row for row in table.iter_rows(named=True)}
    means = []
    for k, name in enumerate("ab"):
        held = [drawn[i, :, k].mean() for i in range(people) if present[i, k]]
        assert rows[name]["images_present"] == len(held) and rows[name]["images"] == people
        assert_allclose(rows[name]["miou_present"], np.mean(held))
        assert rows[name]["miou"] > rows[name]["miou_present"] + 0.1
        means.append(np.mean(held))
    assert_allclose(rows["mean"]["miou_present"], np.mean(means))
    assert rows["mean"]["images_present"] == int(present.any(1).sum())
    # Of patients alone it would be a third as wide: the standard error over seeds is 0.07.
    width = rows["a"]["miou_present_high"] - rows["a"]["miou_present_low"]
    alone = scores.bootstrap_interval(
        np.where(present[:, 0], drawn[:, :, 0].mean(1), np.nan), run.patients, replicates=2000
    )
    assert width > 1.5 * (alone.high - alone.low)
    low = rows["a"]["miou_present_low"]
    assert low < rows["a"]["miou_present"] < rows["a"]["miou_present_high"]


def test_a_class_that_no_test_image_holds_has_no_mean_where_present() -> None:
    ones = np.ones((4, 2, 1))
    people = np.array(list("abcd"))
    run = Runs(
        task="t", init="i", tuning="full", n="5", n_images=5, classes=["c"], images=list("abcd"),
        patients=people, seeds=[0, 1], iou=ones, dice=ones, present=np.zeros((4, 1), bool),
    )  # fmt: skip
    row = score_tasks([run], 50, 0).row(0, named=True)
    assert row["miou"] == 1 and row["images_present"] == 0 and np.isnan(row["miou_present"])


def test_a_start_is_compared_with_every_other_that_is_not_of_masks() -> None:
    runs = [
        Runs(
            task="t",
            init=init,
            tuning="full",
            n="5",
            n_images=5,
            classes=["a"],
            images=["i", "j"],
            patients=np.array(["p", "q"]),
            seeds=[0],
            iou=np.full((2, 1, 1), level),
            dice=np.full((2, 1, 1), level),
            present=np.ones((2, 1), bool),
        )
        for init, level in (("random", 0.2), ("imagenet", 0.6), ("classifier", 0.7), ("doll", 0.5))
    ]
    mine = compare_starts(runs, 10, 0).filter(**{"init": "doll", "class": "mean"})
    found = dict(mine.select("reference", "difference").iter_rows())
    assert list(found) == ["random", "imagenet", "classifier"]
    assert_allclose(list(found.values()), [0.3, -0.1, -0.2])
