"""No test image of a task is one that its start, or its training images, have shown already."""

import polars as pl

from dollmaker.adapt.tasks import Task
from dollmaker.pixels.image_hash import NEAR, near_pairs
from dollmaker.runtime.errors import DataError


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
