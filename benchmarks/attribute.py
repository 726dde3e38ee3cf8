"""Integrated gradients, ours and Captum's, on the same network and images in one run.

All contenders take turns in every round, so that a slow moment of the machine hits all of them;
what is reported is the median over the rounds. Nothing is written, nothing depends on the disk.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dollmaker.attribute import consensus
from dollmaker.attribute.consensus import Consensus
from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.integrated_gradients import (
    Level,
    Paths,
    Refined,
    Stop,
    contributions,
    fixed,
    forward,
    nested,
    refine,
)
from dollmaker.attribute.passes import Chunk, Pairs, fitting_rows
from dollmaker.runtime import devices
from shared import Subject, keep, make_subject, options

#: Rows of a pass that are tried for Captum; the fastest is taken.
_BATCHES = (8, 16, 25, 50)

#: Fidelity asked of the tuning images; a little more than the 0.95 that others must reach.
GOAL = 0.96

_SIGMA, _SHARE = 2.0, 0.2
_FIRST = (2, 3, 4, 5, 6)
_MOST = 129
_TARGETS = (0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.997, 0.998, 0.999, 0.9995, 0.9998)

_CONTENDERS = {
    "captum_per_finding": "(a) Captum, one call per finding",
    "captum_expanded": "(b) Captum, findings expanded into the batch",
    "ours_same_nodes": "(c) dollmaker, same nodes",
    "ours_adaptive": "(d) dollmaker, adaptive",
    "ceiling": "(e) ceiling: bare passes, same nodes",
    "captum_bf16": "(f) Captum under autocast, per finding",
}


def measure(subject: Subject, setting: argparse.Namespace) -> dict[str, Any]:
    """Seconds per image of every contender, ratios, fidelities, as JSON values."""
    devices.set_precision(setting.precision)
    captum = _captum(subject, setting.precision)
    x, origin, count = subject.images, subject.baseline, subject.findings
    cuda = x.device.type == "cuda"
    frozen = FrozenNetwork(
        subject.network, x[:1], precision=setting.precision, compiled=setting.compile
    )
    chunk = setting.chunk or fitting_rows(frozen.forward, x[:1])
    _say(f"{subject.name} on {_device(x)}: rows of our passes {chunk}")
    exact = FrozenNetwork(subject.network, x[:1])
    tuned, found = _fidelities(subject, frozen, exact, captum, setting, chunk)

    batch = _best_batch(captum, x[:1], origin)
    _say(f"Captum is fastest with internal_batch_size {batch} (of {_BATCHES})")
    # Images in one turn: of Captum, which is slow, and of ours.
    step, ours = (len(x), len(x)) if cuda else (1, min(4, len(x)))

    def per_finding(some: Tensor) -> None:
        for output in range(count):
            captum(some, origin, output, setting.nodes, batch)

    def autocast(some: Tensor) -> None:
        with torch.autocast(x.device.type, torch.bfloat16):
            per_finding(some)

    def expanded(some: Tensor) -> None:
        outputs = torch.arange(count, device=x.device).repeat(len(some))
        captum(some.repeat_interleave(count, 0), origin, outputs, setting.nodes, batch)

    def same(some: Tensor) -> None:
        pairs = _pairs(len(some), count)
        contributions(frozen, some, origin, pairs, *fixed(setting.nodes), chunk)
        for images in (some, origin):  # the logits that say whether the maps are complete
            forward(frozen, images, chunk)

    def ceiling(some: Tensor) -> None:
        bare(frozen, some, count, setting.nodes * len(some), chunk)

    def adaptive(some: Tensor) -> None:
        _adaptive(frozen, some, origin, count, tuned, chunk)

    turns: dict[str, tuple[Callable[[Tensor], None], int]] = {
        "captum_per_finding": (per_finding, step),
        "captum_expanded": (expanded, step),
        "ours_same_nodes": (same, ours),
        "ours_adaptive": (adaptive, ours),
        "ceiling": (ceiling, ours),
    }
    if setting.precision == "bf16":
        turns["captum_bf16"] = (autocast, step)
    seconds = _interleave(turns, x, setting.rounds)
    return {
        "subject": subject.name,
        "trained": subject.trained,
        "device": _device(x),
        "precision": setting.precision,
        "compiled": setting.compile,
        "torch": torch.__version__,
        "size": x.shape[-1],
        "images": len(x),
        "findings": count,
        "nodes": setting.nodes,
        "chunk": chunk,
        "captum_internal_batch_size": batch,
        "rounds": setting.rounds,
        "seconds_per_image": seconds,
        "speedup_same_nodes": seconds["captum_per_finding"] / seconds["ours_same_nodes"],
        "speedup_adaptive": seconds["captum_per_finding"] / seconds["ours_adaptive"],
        "speedup_over_expanded": seconds["captum_expanded"] / seconds["ours_same_nodes"],
        "fraction_of_ceiling": seconds["ceiling"] / seconds["ours_same_nodes"],
        **found,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_gpu_mb": torch.cuda.max_memory_allocated() / 2**20 if cuda else None,
        "threads": torch.get_num_threads(),
    }


def bare(network: FrozenNetwork, images: Tensor, findings: int, rows: int, chunk: int) -> None:
    """The device's ceiling: so many rows forward, and backward once per finding, nothing else."""
    for start in range(0, rows, chunk):
        size = min(chunk, rows - start)
        logits, leaf = network.forward(images[:1].expand(size, -1, -1, -1).contiguous())
        for output in range(findings):
            torch.autograd.grad(logits[:, output].sum(), leaf, retain_graph=output + 1 < findings)


Captum = Callable[..., Tensor]


def _captum(subject: Subject, precision: str) -> Captum:
    """Captum's integrated gradients of the network as users call it."""
    from captum.attr import IntegratedGradients

    def attribute(
        x: Tensor, origin: Tensor, target: Any, nodes: int, batch: int, *, ours: bool = False
    ) -> Tensor:
        if not ours:
            torch.backends.cudnn.allow_tf32 = True  # torch's own default, as users have it
        method = IntegratedGradients(subject.network if ours else subject.called)
        result: Tensor = method.attribute(
            x, origin, target=target, n_steps=nodes, internal_batch_size=max(batch, len(x))
        )
        devices.set_precision(precision)
        return result

    return attribute


def _fidelities(
    subject: Subject,
    frozen: FrozenNetwork,
    exact: FrozenNetwork,
    captum: Captum,
    setting: argparse.Namespace,
    chunk: int,
) -> tuple[Tuned, dict[str, Any]]:
    """Tune the adaptive kernel on one half of the images, measure all on the other.

    What is wanted is always of the network in full precision, ``exact``.
    """
    x, origin, count = subject.images, subject.baseline, subject.findings
    if x.device.type == "cpu" and not subject.trained:
        x = x[:2]  # an untrained network answers all images alike; the reference is expensive
    half = len(x) // 2
    _say(f"tuning on {half} images against {setting.reference} nodes ...")
    (many,), (level,) = fixed(setting.reference, "midpoint"), fixed(setting.nodes)

    def reference(some: Tensor) -> Tensor:
        return summarize(contributions(exact, some, origin, _pairs(len(some), count), many, chunk))

    tuned = tune(frozen, x[:half], origin, count, wanted=reference(x[:half]), chunk=chunk)
    rest = x[half:]
    pairs = _pairs(len(rest), count)
    _say(f"measuring fidelity on {len(rest)} other images ...")
    wanted = reference(rest)
    ours = contributions(frozen, rest, origin, pairs, level, chunk)
    theirs = torch.stack(
        [captum(rest[[i]], origin, k, setting.nodes, 8)[0].float() for i, k in pairs]
    )
    twin = torch.stack(
        [captum(rest[[i]], origin, k, setting.nodes, 8, ours=True)[0].float() for i, k in pairs]
    )
    refined = _adaptive(frozen, rest, origin, count, tuned, chunk)
    return tuned, {
        "fidelity_adaptive": fidelity(refined.consensus.maps, wanted),
        "fidelity_same_nodes": fidelity(summarize(ours), wanted),
        "fidelity_captum": fidelity(summarize(theirs), wanted),
        "fidelity_images": len(rest),
        "adaptive": {"first": tuned.first, "target": tuned.target},
        "adaptive_nodes": float(refined.nodes.float().mean()),
        "adaptive_completeness": float(refined.completeness.median()),
        "adaptive_convergence": float(refined.convergence.median()),
        "adaptive_missed": int((~refined.met).sum()),
        "relative_difference": float((ours - twin).norm() / twin.norm()),
        "relative_difference_as_called": float((ours - theirs).norm() / theirs.norm()),
    }


def _adaptive(
    frozen: FrozenNetwork, x: Tensor, origin: Tensor, findings: int, tuned: Tuned, chunk: int
) -> Refined:
    paths = Paths(network=frozen, chunk=Chunk(chunk), images=[x], baselines=[origin])
    stop = Stop(criterion="convergence", target=tuned.target)
    levels = nested(tuned.first, tuned.most)
    return refine([paths], _pairs(len(x), findings), levels, stop, tuned.summary)


def _pairs(images: int, findings: int) -> list[tuple[int, int]]:
    return [(image, output) for image in range(images) for output in range(findings)]


def _best_batch(captum: Captum, x: Tensor, origin: Tensor) -> int:
    """The internal batch size with which Captum is fastest here."""
    times: dict[int, float] = {}
    for batch in (*_BATCHES, *(() if x.device.type == "cpu" else (200, 400))):
        best = float("inf")
        for _ in range(3):
            best = min(best, _time(lambda b=batch: captum(x, origin, 0, b, b)))  # type: ignore[misc]
        times[batch] = best / batch
    return min(times, key=lambda batch: times[batch])


def _interleave(
    turns: dict[str, tuple[Callable[[Tensor], None], int]], x: Tensor, rounds: int
) -> dict[str, float]:
    """Median seconds per image of each contender over the rounds, warmed up before."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        for name, (work, step) in turns.items():
            some = x.roll(-number * step, 0)[:step]
            if number == 0:
                work(some[:1])
            seconds[name].append(_time(lambda w=work, s=some: w(s)) / len(some))  # type: ignore[misc]
        line = ", ".join(f"{name} {times[-1]:.2f} s" for name, times in seconds.items())
        _say(f"round {number + 1}/{rounds}, per image: {line}")
    return {name: statistics.median(times) for name, times in seconds.items()}


def _time(work: Callable[[], Any]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _device(x: Tensor) -> str:
    if x.device.type == "cuda":
        return torch.cuda.get_device_name(x.device)
    return f"CPU, {torch.get_num_threads()} threads"


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Settings of the adaptive kernel.

    Attributes:
        first: Nodes of the first level.
        target: Cosine between refinements at which a map is done.
        most: Most nodes.
    """

    first: int
    target: float
    most: int = _MOST

    def summary(self, members: list[Tensor], _: Pairs) -> Consensus:
        """The one member's attributions (P, 1, C, H, W) as blurred magnitudes."""
        return consensus.agree([summarize(members[0][:, 0])])


def summarize(attributions: Tensor) -> Tensor:
    """Attributions (P, C, H, W) to blurred magnitudes (P, H, W)."""
    return consensus.smooth(consensus.reduce_channels(attributions, "abs"), _SIGMA)


def fidelity(maps: Tensor, reference: Tensor) -> float:
    """Mean IoU of the top-20 % masks of maps and reference maps (P, H, W)."""
    return float(_overlaps(maps, reference).mean())


def tune(
    network: FrozenNetwork,
    images: Tensor,
    baseline: Tensor,
    findings: int,
    *,
    wanted: Tensor,
    chunk: int,
) -> Tuned:
    """The settings with the fewest nodes whose mean fidelity reaches the goal on some images.

    ``wanted`` are the reference maps (P, H, W) of all findings of all images.
    """
    pairs = _pairs(len(images), findings)
    best, fewest = Tuned(first=_FIRST[-1], target=_TARGETS[-1]), float("inf")
    for first in _FIRST:
        levels = nested(first, _MOST // 2)
        nodes = list(accumulate(len(level.places) for level in levels))
        scores, cosines = _climb(network, images, baseline, pairs, levels, chunk, wanted)
        for target in _TARGETS:
            done = (cosines >= target).float()
            done[-1] = 1
            place = done.argmax(0)  # the first level that meets the target
            score = scores.gather(0, place[None])[0].mean()
            cost = torch.tensor(nodes, dtype=torch.float32)[place.cpu()].mean()
            if score >= GOAL and cost < fewest:
                best, fewest = Tuned(first=first, target=target), float(cost)
    return best


def _climb(
    network: FrozenNetwork,
    images: Tensor,
    baseline: Tensor,
    pairs: list[tuple[int, int]],
    levels: Sequence[Level],
    chunk: int,
    wanted: Tensor,
) -> tuple[Tensor, Tensor]:
    """Fidelity and convergence of every pair after each level, (L, P)."""
    total = torch.zeros((len(pairs), *images.shape[1:]), device=images.device)
    before: Tensor | None = None
    scores, cosines = [], []
    for level in levels:
        total *= level.keep
        total += contributions(network, images, baseline, pairs, level, chunk)
        maps = summarize(total)
        scores.append(_overlaps(maps, wanted))
        unknown = torch.full_like(scores[-1], -1)
        cosines.append(unknown if before is None else consensus.cosine(before, maps))
        before = maps
    return torch.stack(scores), torch.stack(cosines)


def _overlaps(maps: Tensor, reference: Tensor) -> Tensor:
    a, b = _top(maps), _top(reference)
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2)).clamp(min=1)


def _top(maps: Tensor) -> Tensor:
    """The top share of the pixels of each map, bool (P, H, W)."""
    flat = maps.flatten(1)
    kept = max(1, round(_SHARE * flat.shape[1]))
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask.scatter_(1, flat.topk(kept, dim=1).indices, True)
    return mask.view_as(maps)


def print_table(results: Mapping[str, Any]) -> None:
    """Print to stdout."""
    seconds = results["seconds_per_image"]
    print(
        f"{results['subject']} ({'trained' if results['trained'] else 'untrained'}), "
        f"{results['size']} px, {results['findings']} findings, {results['nodes']} nodes, "
        f"{results['precision']}, {results['device']}, torch {results['torch']}"
    )
    print(f"{'':<48}{'s/image':>9}{'speed-up':>10}")
    for name in seconds:
        ratio = seconds["captum_per_finding"] / seconds[name]
        print(f"{_CONTENDERS[name]:<48}{seconds[name]:>9.3f}{ratio:>9.2f}x")
    print(
        f"fraction of the ceiling {results['fraction_of_ceiling']:.2f}; relative difference to "
        f"Captum on our network {results['relative_difference']:.1e}, as called "
        f"{results['relative_difference_as_called']:.1e} (rounding alone: another memory layout)\n"
        f"fidelity (mean IoU of the blurred top-20 % mask with the reference, "
        f"{results['fidelity_images']} images): adaptive {results['fidelity_adaptive']:.3f} with "
        f"{results['adaptive_nodes']:.1f} nodes a map, ours at {results['nodes']} nodes "
        f"{results['fidelity_same_nodes']:.3f}, Captum {results['fidelity_captum']:.3f}\n"
        f"adaptive, median: completeness error {results['adaptive_completeness']:.3f}, "
        f"convergence {results['adaptive_convergence']:.4f}; "
        f"{results['adaptive_missed']} missed the target\n"
        f"peak memory {results['peak_rss_mb']:.0f} MB"
    )


def main() -> None:
    """Measure and print."""
    numbers = {"size": 224, "images": 8, "rounds": 5, "findings": 5, "nodes": 50, "reference": 512}
    parser = options(__doc__, **numbers)
    parser.add_argument("--architecture", default="densenet121", help="untrained network")
    parser.add_argument("--member", type=Path, help="folder of a trained member, instead")
    parser.add_argument("--shard", type=Path, help="image shard to take the member's images from")
    parser.add_argument("--chunk", type=int, help="rows of a pass; measured if not given")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where")
    precisions = ["fp32", "tf32", "bf16"]
    parser.add_argument("--precision", choices=precisions, default="fp32", help="of ours")
    parser.add_argument("--compile", action="store_true", help="use torch.compile for ours")
    given = parser.parse_args()
    if given.images < 2:
        parser.error("--images is 1; give at least 2, one to tune on and one to measure")
    results = measure(make_subject(given), given)
    print_table(results)
    keep(results, given.json)


if __name__ == "__main__":
    main()
