"""Integrated gradients, ours and Captum's, on the same network and images in one run.

All contenders take turns in every round, so that a slow moment of the machine hits all of them;
what is reported is the median over the rounds. Nothing is written, nothing depends on the disk.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dollmaker.attribute.frozen import FrozenNetwork
from dollmaker.attribute.integrated_gradients import integrated_gradients
from dollmaker.attribute.memory import Chunk, fitting_rows
from dollmaker.attribute.quadrature import nested
from dollmaker.attribute.refine import Paths, Refined, Stop, refine
from dollmaker.bench.fidelity import Tuned, fidelity, summarize, tune
from dollmaker.bench.subject import Subject
from dollmaker.runtime import devices
from dollmaker.runtime.errors import ModelError
from dollmaker.runtime.progress import peak_memory_mb

#: Rows of a pass that are tried for Captum; the fastest is taken.
_BATCHES = (8, 16, 25, 50)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the command line says; see there."""

    nodes: int
    reference: int
    rounds: int
    chunk: int | None
    precision: str
    compiled: bool


def measure(subject: Subject, setting: Setting) -> dict[str, Any]:
    """Run the benchmark.

    Returns:
        JSON-serialisable numbers: seconds per image of every contender, ratios, fidelities.

    Raises:
        ModelError: If Captum is not installed.
    """
    devices.set_precision(setting.precision)
    captum = _captum(subject, setting.precision)
    x, origin, count = subject.images, subject.baseline, subject.findings
    cuda = x.device.type == "cuda"
    frozen = FrozenNetwork(
        subject.network, x[:1], precision=setting.precision, compiled=setting.compiled
    )
    chunk = setting.chunk or fitting_rows(frozen, x[:1])
    _say(f"{subject.name} on {_device(x)}: rows of our passes {chunk}")
    tuned, found = _fidelities(subject, frozen, captum, setting, chunk)

    batch = _best_batch(captum, x[:1], origin)
    _say(f"Captum is fastest with internal_batch_size {batch} (of {_BATCHES})")
    step = len(x) if cuda else 1  # images of the slow contenders in one turn

    def per_finding(some: Tensor) -> None:
        for output in range(count):
            captum(some, origin, output, setting.nodes, batch)

    def expanded(some: Tensor) -> None:
        outputs = torch.arange(count, device=x.device).repeat(len(some))
        captum(some.repeat_interleave(count, 0), origin, outputs, setting.nodes, batch)

    def same(some: Tensor) -> None:
        pairs = _pairs(len(some), count)
        integrated_gradients(frozen, some, origin, pairs, nodes=setting.nodes, chunk=chunk)

    def ceiling(some: Tensor) -> None:
        bare(frozen, some, count, setting.nodes * len(some), chunk)

    def adaptive(some: Tensor) -> None:
        _adaptive(frozen, some, origin, count, tuned, chunk)

    turns: dict[str, tuple[Callable[[Tensor], None], int]] = {
        "captum_per_finding": (per_finding, step),
        "captum_expanded": (expanded, step),
        "ours_same_nodes": (same, step),
        "ours_adaptive": (adaptive, len(x) if cuda else min(4, len(x))),
        "ceiling": (ceiling, step),
    }
    seconds = _interleave(turns, x, setting.rounds)
    return {
        "subject": subject.name,
        "trained": subject.trained,
        "device": _device(x),
        "precision": setting.precision,
        "compiled": setting.compiled,
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
        "peak_rss_mb": peak_memory_mb(),
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
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise ModelError("Captum is not installed; run pip install captum.") from None

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
    subject: Subject, frozen: FrozenNetwork, captum: Captum, setting: Setting, chunk: int
) -> tuple[Tuned, dict[str, Any]]:
    """Tune the adaptive kernel on one half of the images, measure all on the other."""
    x, origin, count = subject.images, subject.baseline, subject.findings
    if x.device.type == "cpu" and not subject.trained:
        x = x[:2]  # an untrained network answers all images alike; the reference is expensive
    half = len(x) // 2
    _say(f"tuning on {half} images against {setting.reference} nodes ...")
    tuned = tune(frozen, x[:half], origin, count, reference=setting.reference, chunk=chunk)
    rest = x[half:]
    pairs = _pairs(len(rest), count)
    _say(f"measuring fidelity on {len(rest)} other images ...")
    wanted = summarize(
        integrated_gradients(
            frozen, rest, origin, pairs, nodes=setting.reference, chunk=chunk, rule="midpoint"
        ).maps
    )
    ours = integrated_gradients(frozen, rest, origin, pairs, nodes=setting.nodes, chunk=chunk).maps
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
