"""Thresholds without truth, one for each finding, from the sample's views.

Each criterion is a number for every candidate threshold; the best candidate wins:

- ``evidence``: the sum of ``stability`` and half of ``expectation``. Our own, and the default
  (docs/evidence.md, "Thresholds without truth").
- ``stability``: how much more the masks that different members draw of an image and its mirror
  image resemble each other (mean IoU) than masks of other images, with or without the finding,
  whichever resemble them more. Noise does not come again; what comes again in other images is not
  evidence of the finding. A single member is compared with itself in the mirror.
- ``expectation``: the mean IoU to expect if what is more relevant than in images without the
  finding is the finding, see :func:`likelihood`; 0 without such images.

Candidates are those of :mod:`dollmaker.binarize.cuts`. The curve of a finding is drawn towards the
mean over findings, the more the fewer pairs it has, and smoothed over neighbouring thresholds.

The stage writes a table of the thresholds of each sample.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from dollmaker.binarize.cuts import COUNT, FAMILIES, Cut, candidates, levels
from dollmaker.store import provenance, tables
from dollmaker.store.files import sha256_file
from dollmaker.store.findings import PRESENT
from dollmaker.store.shards import Shard

Criterion = Literal["evidence", "stability", "expectation"]
CRITERIA = get_args(Criterion)

#: The criterion that is taken where none is named.
CRITERION: Criterion = "evidence"

#: One row per finding and candidate; the finding "" stands for all that have no pair.
COLUMNS: dict[str, Any] = {
    "finding": pl.String,
    "pairs": pl.Int64,
    "family": pl.String,
    "value": pl.Float64,
    **dict.fromkeys(CRITERIA, pl.Float64),
    **{f"chosen_by_{name}": pl.Boolean for name in CRITERIA},
}

#: Pairs that the mean over findings is worth when a finding's curve is drawn towards it.
PRIOR = 10

#: Weights of neighbouring candidates when a curve is smoothed.
_NEIGHBOURS = np.array([0.25, 0.75, 1.0, 0.75, 0.25]) / 3
_REACH = len(_NEIGHBOURS) // 2

#: What an IoU that is expected is worth beside one that is seen.
_WEIGHT = 0.5

#: Bins of relevance that likelihoods are counted in, and the share of the pixels without the
#: finding that may be over a level from which the finding's share is read.
_BINS, _MOST = 200, 0.5

Curve = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chosen:
    """The candidates of a finding, and which of them was chosen."""

    candidates: tuple[Cut, ...]  #: In the order of the table, which is that of every finding.
    places: Mapping[tuple[str, str], int]  #: Criterion and family -> place of the chosen candidate.


Cuts = Mapping[str, Chosen]


@dataclass(frozen=True)
class Views:
    """Maps of P images by M members, plain and mirrored (turned back), of the picture alone.

    Both arrays are NaN for members that do not know the finding of an image.
    """

    maps: Floats  #: float32 (P, M, 2, N).
    scales: Floats  #: float32 (P, M, 2), logits per pixel that a value of 1 stands for.

    def of(self, rows: npt.NDArray[np.bool_]) -> "Views":
        """The views of some of the images."""
        return Views(self.maps[rows], self.scales[rows])

    def experts(self, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Numbers of the members that know the finding of these images."""
        return np.flatnonzero(~np.isnan(self.scales[rows]).all((0, 2)))

    def by(self, members: npt.NDArray[np.int64]) -> "Views":
        """The views by some of the members."""
        return Views(self.maps[:, members], self.scales[:, members])

    def joined(self) -> tuple[Floats, Floats]:
        """The mean of all views of an image (P, N), and its scale (P,), more than 0."""
        scales = np.maximum(self.scales.mean((1, 2)), np.finfo(np.float32).tiny)
        logits = (self.maps * self.scales[..., None]).mean((1, 2))
        return np.asarray(logits / scales[:, None]), np.asarray(scales)

    def known(self) -> tuple[Floats, Floats]:
        """The maps (K, N) that are not NaN, and their scales (K,)."""
        known = ~np.isnan(self.scales)
        return self.maps[known], self.scales[known]


@dataclass(frozen=True)
class Masks:
    """Masks of views."""

    pixels: Floats  #: float32 (..., N), 0 or 1.
    #: float32 (...), how many are 1: a whole number, so that the order of a sum does not matter.
    areas: Floats

    def view(self, member: int, mirrored: int) -> "Masks":
        """Those of one member, (P, N)."""
        return Masks(self.pixels[:, member, mirrored], self.areas[:, member, mirrored])


def curves(
    views: Views, null: Views, numbers: Mapping[str, npt.NDArray[np.float64]]
) -> dict[str, dict[str, Curve]]:
    """Every criterion for every candidate: criterion -> family -> (G,).

    Views are of at least one image with the finding, and of images without it, maybe none.
    ``numbers`` are the candidates (G,) of each family.
    """
    found: dict[str, dict[str, Curve]] = {name: {} for name in CRITERIA}
    maps, scales = views.joined()
    likely = _likely(maps, scales, null)
    for family, values in numbers.items():
        drawn = (_masks(family, values, some) for some in (views, null))
        stability = np.array([_stability(*masks) for masks in zip(*drawn, strict=True)])
        cut = levels(family, values, maps, scales)
        expected = _expected(maps > cut[..., None], likely)
        found["stability"][family], found["expectation"][family] = stability, expected
        found["evidence"][family] = stability + _WEIGHT * expected
    return found


def _likely(maps: Floats, scales: Floats, null: Views) -> Floats:
    """The likelihood of joined maps' pixels (P, N); 0 without null images."""
    if not len(null.maps):
        return np.zeros_like(maps)
    without, per_pixel = null.joined()
    return likelihood(maps * scales[:, None], without * per_pixel[:, None])


def likelihood(logits: Floats, without: Floats) -> Floats:
    """How likely each pixel of images with a finding belongs to it, from its relevance alone.

    Pixels of images with the finding are a mixture: a share of them is the finding, the others are
    as in images without it. The share is the largest that both distributions allow (Blanchard, Lee
    and Scott 2010), and what a level has in excess of the others' is the finding's (learning from
    positive and unlabelled data, Ivanov 2020), more at higher levels.

    Args:
        logits: (P, N), relevance in logits per pixel with the finding.
        without: (Q, N), without it; Q >= 1.

    Returns:
        (P, N) in 0..1.
    """
    from scipy.optimize import isotonic_regression

    edges = np.unique(np.quantile(logits, np.linspace(0, 1, _BINS + 1), method="lower"))
    if len(edges) < 2:
        return np.zeros_like(logits)
    here = np.histogram(logits, edges)[0] / logits.size
    there = np.histogram(np.minimum(without, edges[-1]), edges)[0] / without.size
    above, above_without = here[::-1].cumsum(), there[::-1].cumsum()
    low = above_without < _MOST
    share = ((above - above_without)[low] / (1 - above_without[low])).max(initial=0.0)
    found = isotonic_regression(1 - (1 - share) * there / here, weights=here).x.clip(0, 1)
    return np.asarray(found[np.searchsorted(edges[1:-1], logits, side="right")], np.float32)


def _expected(masks: npt.NDArray[np.bool_], likely: Floats) -> Curve:
    """The mean IoU of masks (G, P, N) to expect where pixels are the finding's as likely, (G,)."""
    inside = np.where(masks, likely, 0).sum(-1)
    either = masks.sum(-1) + likely.sum(-1) - inside
    return np.asarray((inside / np.maximum(either, 1e-9)).mean(-1), np.float64)


def _masks(family: str, numbers: npt.NDArray[np.float64], views: Views) -> Iterator[Masks]:
    """The masks (P, M, 2, N) of each of the numbers."""
    if not len(views.maps):
        yield from (Masks(views.maps, views.scales) for _ in numbers)
        return
    for level in levels(family, numbers, views.maps, views.scales):
        pixels = (views.maps > level[..., None]).astype(np.float32)
        yield Masks(pixels, pixels.sum(-1))


def choose(
    given: Mapping[str, Mapping[str, Mapping[str, Curve]]], counts: Mapping[str, int]
) -> dict[str, dict[str, dict[str, int]]]:
    """The best candidate of each finding by each criterion, in each family.

    Finding -> criterion -> family -> place of the candidate, from each finding's curves and number
    of pairs. The finding "" is for those without a pair: what is best on the mean over all.
    """
    chosen: dict[str, dict[str, dict[str, int]]] = {
        finding: {name: {} for name in CRITERIA} for finding in (*given, "")
    }
    for criterion in CRITERIA:
        for family in next(iter(given.values()))[criterion]:
            own = {finding: all_curves[criterion][family] for finding, all_curves in given.items()}
            mean = _mean(list(own.values()), [counts[finding] for finding in own])
            chosen[""][criterion][family] = _best(mean)
            for finding, curve in own.items():
                drawn = _mean([curve, mean], [counts[finding], PRIOR])
                chosen[finding][criterion][family] = _best(drawn)
    return chosen


def _best(curve: Curve) -> int:
    smooth = np.convolve(np.pad(curve, _REACH, mode="edge"), _NEIGHBOURS, "valid")
    return int(np.argmax(smooth))


def _mean(values: Sequence[Curve], weights: Sequence[float]) -> Curve:
    scale = np.asarray(weights, np.float64)[:, None]
    return np.asarray((np.stack(values) * scale).sum(0) / scale.sum())


def _stability(masks: Masks, absent: Masks) -> float:
    """Mean IoU of independent views of an image, minus that with other images.

    Masks of images with the finding are (P, M, 2, N), of those without it (Q, M, 2, N).
    """
    same, others, without = [], [], []
    for a, b in _independent(masks.pixels.shape[1]):
        table = _overlaps(masks.view(*a), masks.view(*b))
        count = len(table)
        same.append(float(np.trace(table)) / count)
        others.append((float(table.sum()) - float(np.trace(table))) / max(1, count * (count - 1)))
        for one, other in ((a, b), (b, a)) if len(absent.pixels) else ():
            tables = _overlaps(masks.view(*one), absent.view(*other))
            without.append(float(tables.mean()))
    return float(np.mean(same) - max(np.mean(others), np.mean(without) if without else 0.0))


def _independent(members: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of independent views, each a member and whether it is the mirrored one."""
    if members == 1:
        yield (0, 0), (0, 1)
    for a in range(members):
        for b in range(a):
            yield from (((a, i), (b, j)) for i in (0, 1) for j in (0, 1))


def _overlaps(a: Masks, b: Masks) -> Floats:
    """IoU of each mask (P, N) with each of (Q, N); 0 for two empty ones."""
    both = a.pixels @ b.pixels.T
    either = a.areas[:, None] + b.areas[None] - both
    return np.asarray(both / np.maximum(either, 1))


def choose_thresholds(sample: Path, output: Path) -> None:
    """Choose thresholds without truth, from the sample of a recipe.

    Args:
        sample: The sample that ``dollmaker sample`` made, with at least one pair that has its
            finding.
        output: The table to write (Parquet).
    """
    with Shard(sample, "relevance") as shard:
        table, maps = shard.table(), shard.read("views").astype(np.float32)
        views = Views(maps.reshape(*maps.shape[:3], -1), shard.read("view_scale"))
    positive = table["label"] == PRESENT
    findings = list(dict.fromkeys(table["finding"][positive]))
    numbers = {"": _candidates(views.of(positive), views.of(~positive))}
    given, counts = {}, {}
    for finding in findings:
        rows_of = table["finding"] == finding
        mine = views.by(views.experts(rows_of))
        with_it, without = mine.of(positive & rows_of), mine.of(~positive & rows_of)
        numbers[finding] = _candidates(with_it, without)
        given[finding] = curves(with_it, without, numbers[finding])
        counts[finding] = len(with_it.maps)
    chosen = choose(given, counts)
    rows = [
        {
            "finding": finding,
            "pairs": counts.get(finding, 0),
            "family": family,
            "value": float(value),
            **{name: given[finding][name][family][place] if finding else None for name in CRITERIA},
            **{f"chosen_by_{name}": chosen[finding][name][family] == place for name in CRITERIA},
        }
        for finding in (*findings, "")
        for family in FAMILIES
        for place, value in enumerate(numbers[finding][family])
    ]
    header = provenance.header(
        "thresholds", {"candidates": COUNT}, inputs={"sample": sha256_file(sample)}
    )
    tables.write(pl.DataFrame(rows, schema=COLUMNS, orient="row"), output, header)


def _candidates(views: Views, null: Views) -> Mapping[str, Any]:
    parts = (views.known(), null.known())
    return candidates(*(array for maps, scales in parts for array in (maps, scales[:, None])))


def read_thresholds(file: Path) -> Cuts:
    """Finding -> what was chosen for it, from a table of :func:`choose_thresholds`."""
    found: dict[str, Chosen] = {}
    table = tables.read(file)
    for (finding,), rows in table.group_by(["finding"], maintain_order=True):
        places = {
            (name, str(family)): place
            for name in CRITERIA
            for place, (family, chosen) in enumerate(
                rows.select("family", f"chosen_by_{name}").iter_rows()
            )
            if chosen
        }
        cuts = (Cut(*row) for row in rows.select("family", "value").iter_rows())
        found[str(finding)] = Chosen(tuple(cuts), places)
    return found


def chosen_of(cuts: Cuts, finding: str) -> Chosen:
    """What was chosen for a finding; without pairs in the sample, the choice for all findings."""
    return cuts[finding] if finding in cuts else cuts[""]


def cuts_of(cuts: Cuts, finding: str) -> dict[tuple[str, str], Cut]:
    """Criterion and family -> cut of one finding; empty without thresholds."""
    if not cuts:
        return {}
    chosen = chosen_of(cuts, finding)
    return {key: chosen.candidates[place] for key, place in chosen.places.items()}
