"""The pixel losses against loops, and against segmentation-models-pytorch on full masks."""

import math

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from dollmaker.networks.losses import cluster_loss, label_loss, pixel_loss


def sample(seed: int = 0, ignore: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 5, 4, generator=generator) * 3
    targets = torch.randint(0, 2, (2, 3, 5, 4), generator=generator).to(torch.uint8)
    if ignore:
        targets[torch.rand(targets.shape, generator=generator) < 0.3] = 255
        targets[0, 1] = 255
    targets[1, 2][targets[1, 2] == 1] = 0
    return logits, targets, torch.rand(2, 3, generator=generator)


def by_loops(
    logits: Tensor, targets: Tensor, weights: Tensor, kind: str, background: float
) -> float:
    top = bottom = dice_top = dice_bottom = 0.0
    for b, k in np.ndindex(2, 3):
        overlap = total = 0.0
        present = False
        for i, j in np.ndindex(5, 4):
            t = int(targets[b, k, i, j])
            if t == 255:
                continue
            p = 1 / (1 + math.exp(-float(logits[b, k, i, j])))
            right = p if t else 1 - p
            value = -math.log(right) * ((1 - right) ** 2 if kind == "focal" else 1)
            weight = float(weights[b, k]) * (1 if t else background)
            top, bottom = top + weight * value, bottom + weight
            overlap, total, present = overlap + p * t, total + p + t, present or t == 1
        if present:
            dice_top += float(weights[b, k]) * (1 - 2 * overlap / total)
            dice_bottom += float(weights[b, k])
    return top / bottom + (dice_top / dice_bottom if kind == "bce_dice" else 0)


@pytest.mark.parametrize("kind", ["bce_dice", "focal"])
@pytest.mark.parametrize("background", [1.0, 0.1])
def test_equals_a_loop_over_pixels(kind: str, background: float) -> None:
    logits, targets, weights = sample()
    loss = pixel_loss(logits, targets, weights, kind=kind, background_weight=background)  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(
        by_loops(logits, targets, weights, kind, background), rel=1e-5
    )


def test_equals_smp_on_full_masks() -> None:
    logits, targets, _ = sample(ignore=False)
    truth = targets.float()
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    # smp sums Dice over the batch and multiplies empty classes by zero: one mask at a time.
    dice = smp.losses.DiceLoss("multilabel", smooth=0.0)
    each = [
        dice(logits[b : b + 1, k : k + 1], truth[b : b + 1, k : k + 1])
        for b, k in np.ndindex(2, 3)
        if truth[b, k].any()
    ]
    assert float(pixel_loss(logits, targets)) == pytest.approx(
        float(bce + sum(each) / len(each)), rel=1e-5
    )
    focal = smp.losses.FocalLoss("multilabel")(logits, truth)
    assert float(pixel_loss(logits, targets, kind="focal")) == pytest.approx(float(focal), rel=1e-5)


@pytest.mark.parametrize("kind", ["bce_dice", "focal"])
def test_ignored_pixels_have_no_gradient(kind: str) -> None:
    logits, targets, weights = sample()
    logits.requires_grad_()
    pixel_loss(logits, targets, weights, kind=kind, background_weight=0.1).backward()  # type: ignore[arg-type]
    assert logits.grad is not None
    assert (logits.grad[targets == 255] == 0).all()
    assert (logits.grad[targets != 255] != 0).all()


@pytest.mark.parametrize("fill", [0, 255])
def test_nothing_to_learn_is_finite(fill: int) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    targets = torch.full((2, 3, 4, 4), fill, dtype=torch.uint8)
    loss = pixel_loss(logits, targets, background_weight=0.0 if fill == 0 else 1.0)
    loss.backward()
    assert float(loss) == 0
    assert logits.grad is not None and (logits.grad == 0).all()


def test_empty_targets_push_down() -> None:
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    pixel_loss(logits, torch.zeros(1, 1, 4, 4, dtype=torch.uint8)).backward()
    assert logits.grad is not None and (logits.grad > 0).all()


def test_large_logits_stay_finite() -> None:
    logits = torch.tensor([[[[200.0, -200.0]]]], requires_grad=True)
    targets = torch.tensor([[[[0, 1]]]], dtype=torch.uint8)
    for kind in ("bce_dice", "focal"):
        loss = pixel_loss(logits, targets, kind=kind)  # type: ignore[arg-type]
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, logits)[0]).all()


def test_labels_that_are_unknown_do_not_count() -> None:
    logits = torch.tensor([[0.0, 2.0], [-1.0, 5.0]])
    labels = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]])
    expected = (math.log(2) + math.log(1 + math.exp(-1))) / 2
    assert float(label_loss(logits, labels)) == pytest.approx(expected)
    nothing = torch.full((2, 2), float("nan"))
    assert float(label_loss(logits, nothing)) == 0


def test_clusters_outside_the_picture_do_not_count() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 6, 7, generator=generator, requires_grad=True)
    clusters = torch.randint(0, 5, (2, 6, 7), generator=generator)
    picture = torch.ones(2, 6, 7, dtype=torch.bool)
    picture[0, :2] = picture[1, :, 5:] = False
    loss = cluster_loss(logits, clusters, picture)
    places = [(b, r, c) for b, r, c in np.ndindex(2, 6, 7) if picture[b, r, c]]
    each = [-torch.log_softmax(logits[b, :, r, c], 0)[clusters[b, r, c]] for b, r, c in places]
    assert float(loss) == pytest.approx(float(torch.stack(each).mean()), rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert ((logits.grad != 0).all(1) == picture).all()
    whole = cluster_loss(logits, clusters, torch.ones_like(picture))
    expected = torch.nn.functional.cross_entropy(logits, clusters)
    assert float(whole) == pytest.approx(float(expected), rel=1e-6)
    assert float(cluster_loss(logits, clusters, torch.zeros_like(picture))) == 0
