"""Scores at the size of the sources, against masks read from the files and enlarged by torch."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from dollmaker.adapt import train
from dollmaker.adapt.results import score_baselines
from dollmaker.adapt.source_scores import overlap, pack, score
from dollmaker.adapt.tasks import Task, read_task
from dollmaker.config.settings import resolved
from dollmaker.networks.inputs import Input
from dollmaker.pixels.geometry import Fit, fit_mask
from dollmaker.pixels.masks import IGNORE

#: Width and height of sources: wide, high, square, smaller than the square of 32.
SHAPES = [(61, 37), (33, 83), (47, 47), (23, 29)]


def smooth(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    coarse = torch.from_numpy(rng.normal(size=(1, 1, 5, 5)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return np.asarray(fine[0, 0])


def shown(size: int, width: int, height: int, fit: Fit) -> tuple[slice, slice, slice, slice]:
    """Rows and columns of the square that are picture, and of the source that are shown."""
    if fit == "letterbox":
        scale = size / max(width, height)
        w, h = round(width * scale), round(height * scale)
        left, top = (size - w) // 2, (size - h) // 2
        return slice(top, top + h), slice(left, left + w), slice(0, height), slice(0, width)
    all_of_it = slice(0, size)
    if fit == "resize":
        return all_of_it, all_of_it, slice(0, height), slice(0, width)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return all_of_it, all_of_it, slice(top, top + side), slice(left, left + side)


def enlarged(logit: npt.NDArray[np.float32], width: int, height: int, fit: Fit) -> Any:
    """The mask of a square logit at the size of the source, by torch's bilinear interpolation."""
    rows, columns, high, wide = shown(len(logit), width, height, fit)
    inner = torch.from_numpy(logit[rows, columns].copy())[None, None]
    size = (high.stop - high.start, wide.stop - wide.start)
    large = torch.nn.functional.interpolate(inner, size, mode="bilinear", align_corners=False)
    mask = np.zeros((height, width), bool)
    mask[high, wide] = large[0, 0].numpy() > 0
    return mask


def by_counting(drawn: Any, truth: Any) -> tuple[float, float]:
    known = truth != IGNORE
    one, two = set(np.flatnonzero(drawn & known)), set(np.flatnonzero((truth == 1) & known))
    if not one | two:
        return 1.0, 1.0
    return len(one & two) / len(one | two), 2 * len(one & two) / (len(one) + len(two))


@pytest.mark.parametrize("fit", ["letterbox", "resize", "crop"])
@pytest.mark.parametrize(("width", "height"), SHAPES)
def test_logits_are_enlarged_and_cut_at_the_sources_size(width: int, height: int, fit: Fit) -> None:
    rng = np.random.default_rng(width)
    logits = np.stack([smooth(rng, 32, 32) for _ in range(3)])
    truth = np.stack([smooth(rng, height, width) > 0.3 for _ in range(3)]).astype(np.uint8)
    truth[1, : height // 3] = IGNORE
    truth[2] = 0
    iou, dice = score(logits, pack(truth), fit)
    for k in range(3):
        expected = by_counting(enlarged(logits[k], width, height, fit), truth[k])
        assert (iou[k], dice[k]) == pytest.approx(expected)
        assert 0 <= iou[k] < 1


def test_an_outline_between_pixels_is_not_held_against_a_network() -> None:
    def height(side: int) -> Any:
        y, x = (np.mgrid[:side, :side] + 0.5) * 120 / side
        return (31 - np.hypot(y - 63, x - 47)).astype(np.float32)

    disc, logit = (height(120) > 0).astype(np.uint8), height(30)
    iou = score(logit[None], pack(disc[None]), "letterbox")[0][0]
    stepped = overlap(np.kron(logit > 0, np.ones((4, 4))) > 0, disc == 1)[0]
    assert iou > 0.99 > 0.97 > stepped


def test_masks_come_back_from_their_bits() -> None:
    rng = np.random.default_rng(0)
    masks = rng.choice(np.array([0, 1, IGNORE], np.uint8), (3, 7, 11))
    masks[2] = masks[2] == 1
    packed = pack(masks)
    for k, mask in enumerate(masks):
        present, ignored = packed.read(k)
        np.testing.assert_array_equal(present, mask == 1)
        if k == 2:
            assert ignored is None
        else:
            np.testing.assert_array_equal(ignored, mask == IGNORE)
    other = masks.copy()
    other[0, 0, 0] = 1 - (other[0, 0, 0] == 1)
    contents = {pack(each).content() for each in (masks, other, masks.reshape(3, 11, 7))}
    assert len(contents) == 3 and packed.content() in contents


def test_packed_masks_are_small() -> None:
    y, x = np.mgrid[:2000, :2000]
    packed = pack((np.hypot(y - 900, x - 1100) < 500)[None].astype(np.uint8))
    assert len(packed.present[0]) < 40_000


def test_a_right_nothing_scores_one_and_a_false_alarm_zero() -> None:
    truth = np.zeros((2, 6, 6), np.uint8)
    drawn = np.zeros((6, 6), bool)
    truth[0, :2, :2] = 1
    drawn[:2, 0] = True
    unknown = np.ones((6, 6), bool)
    assert overlap(drawn, truth[0] == 1) == (0.5, pytest.approx(2 / 3))
    assert overlap(drawn, truth[1] == 1) == (0, 0)
    assert overlap(~unknown, truth[1] == 1) == (1, 1)
    assert overlap(~unknown, truth[1] == 1, drawn) == (1, 1)
    assert np.isnan(overlap(drawn, truth[1] == 1, unknown)).all()
    together = overlap(np.stack([drawn, ~unknown]), truth == 1)
    np.testing.assert_allclose(together, [[0.5, 1], [2 / 3, 1]])


@pytest.fixture
def odd(config: dict[str, Any], root: Path) -> Path:
    """The task with images and masks of odd sizes."""
    for i in range(24):
        for folder in ("images", "masks"):
            file = root / "task" / folder / f"case{i:02d}.png"
            pixels = np.asarray(Image.open(file))[: 40 - i % 5, : 48 - i % 11]
            Image.fromarray(pixels.T if i % 3 == 0 else pixels).save(file)
    return root


def file_truth(root: Path, task: Task, row: int) -> npt.NDArray[np.uint8]:
    """Masks (2, h, w) by the numbers in the file."""
    numbers = np.asarray(Image.open(root / "task" / "masks" / f"{task.image_ids[row]}.png"))
    truth = np.stack([numbers == 1, numbers == 3]).astype(np.uint8)
    truth[:, numbers == 2] = IGNORE
    return truth


@pytest.mark.parametrize("fit", ["letterbox", "resize", "crop"])
def test_test_images_are_scored_by_the_masks_of_their_files(
    config: dict[str, Any], odd: Path, fit: Fit
) -> None:
    class Memory(torch.nn.Module):
        """Gives each image its logits, in turn."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            start = self.given
            self.given += len(x)
            return torch.from_numpy(logits[start : self.given])

    config["prepare"]["fit"] = fit
    task = read_task("squares", resolved(config), odd)
    rows, rng = task.rows("test"), np.random.default_rng(3)
    logits = np.stack([[smooth(rng, 32, 32) for _ in range(2)] for _ in rows])
    network = Memory()
    network.given = 0
    spec = Input(channels=1, size=32)
    predictions, iou, dice = train.on_sources(network, spec, task, rows)
    assert len(rows) > 4
    for i, row in enumerate(rows):
        truth = file_truth(odd, task, row)
        height, width = truth.shape[1:]
        high, wide, _, _ = shown(32, width, height, fit)
        bars = np.ones((32, 32), bool)
        bars[high, wide] = False
        assert not predictions[i][:, bars].any()
        np.testing.assert_array_equal(predictions[i][:, ~bars], (logits[i] > 0)[:, ~bars])
        assert (task.masks[row][:, bars] == IGNORE).all()
        for k in range(2):
            expected = by_counting(enlarged(logits[i, k], width, height, fit), truth[k])
            assert (iou[i, k], dice[i, k]) == pytest.approx(expected), (i, k)


def test_only_test_images_keep_their_large_masks(config: dict[str, Any], odd: Path) -> None:
    task = read_task("squares", resolved(config), odd)
    assert [truth is not None for truth in task.truth] == [s == "test" for s in task.splits]
    rows = task.rows("train")
    with pytest.raises(ValueError, match="is not of the test images"):
        train.on_sources(torch.nn.Identity(), Input(channels=1, size=32), task, rows)
    changed = task.truth[task.rows("test")[0]]
    assert changed is not None
    before = task.sha256()
    file = odd / "task" / "masks" / f"{task.image_ids[task.rows('test')[0]]}.png"
    numbers = np.asarray(Image.open(file)).copy()
    numbers[-1, 0] = 1 - (numbers[-1, 0] == 1)  # a pixel that no square shows alone
    Image.fromarray(numbers).save(file)
    assert read_task("squares", resolved(config), odd).sha256() != before


def test_baselines_are_scored_as_networks_are(config: dict[str, Any], odd: Path) -> None:
    task = read_task("squares", resolved(config), odd)
    row = int(task.rows("test")[0])
    truth = file_truth(odd, task, row)
    truth[1][truth[1] == 1] = 0
    kept = list(task.truth)
    kept[row] = pack(truth)
    task = Task(**{**vars(task), "truth": kept})
    table = score_baselines(task)
    assert len(table) == 4 * len(task.rows("test")) * 2
    for row_ in table.filter(image_id=task.image_ids[row]).iter_rows(named=True):
        k = task.classes.index(row_["class"])
        assert row_["present"] == (k == 0)
        if row_["baseline"] in ("empty", "whole"):
            drawn = np.full(truth[k].shape, row_["baseline"] == "whole")
            assert (row_["iou"], row_["dice"]) == pytest.approx(by_counting(drawn, truth[k]))


def test_the_curve_is_of_the_squares(config: dict[str, Any], odd: Path) -> None:
    task = read_task("squares", resolved(config), odd)
    row = int(task.rows("valid")[0])
    numbers = file_truth(odd, task, row)
    fitted = np.stack([fit_mask(mask, 32, "letterbox") for mask in numbers])
    inside = task.masks[row] != IGNORE
    np.testing.assert_array_equal(fitted[inside], task.masks[row][inside])
