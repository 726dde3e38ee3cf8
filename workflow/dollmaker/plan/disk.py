"""Bytes of every artifact: pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dollmaker.plan.count import Counts

# Measured on the three data sets of docs/benchmarks.md (80, 128 and 160 pixels): a mask takes a
# sixteenth of its pixels in a shard and a twenty-fifth in a release, and its row of the tables,
# with what HDF5 needs, so many bytes more. Float maps hardly compress (1.0 to 1.1 times).
_MASK, _RELEASED = 16, 25
_IMAGE_ROW, _MAP_ROW, _MASK_ROW, _RELEASE_ROW, _INDEX_ROW, _SCORE_ROW = 180, 350, 600, 550, 150, 20
_CONTACT_SHEET = 1_200_000
# CheXlocalize's and COCO's JSON grow with the outlines (measured: 2,250 bytes for two ellipses on
# 224 pixels in images of 390x320); images of ten times the square's side are the upper bound.
# CheXlocalize's form names every finding of every image.
_CODE_ROW, _CODE_COLUMN, _EMPTY_CODE, _LARGEST = 400, 8, 60, 10

#: Copies of the weights in the state of a training: themselves, the best, two moments of Adam.
_STATE = 4


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A folder of the results.

    Attributes:
        name: The folder.
        bytes: Estimate.
        most: Upper bound, for what compresses by an unknown amount; else the same.
    """

    name: str
    bytes: int
    most: int


def artifacts(
    config: Mapping[str, Any],
    counts: Counts,
    *,
    explained: int,
    image_bytes: float | None,
    members: int,
    segmenter: int,
) -> list[Artifact]:
    """What a full run leaves on disk.

    Args:
        config: The resolved configuration.
        counts: What the run has to do.
        explained: Recipes with maps of their own.
        image_bytes: Compressed bytes of an image, if that is known.
        members: Bytes of all members' weights.
        segmenter: Bytes of the segmenter's weights.
    """
    prepare, pairs = config["prepare"], counts.pairs
    pixels = prepare["size"] ** 2
    images = sum(counts.images.values())
    stored = prepare["channels"] * prepare["bits"] // 8 * pixels
    raw = images * (stored + _IMAGE_ROW)
    held_out = counts.images["valid"] + counts.images["test"]
    predictions = held_out * len(counts.maps) * 4 * len(config["classify"]["members"])
    sheet = _CONTACT_SHEET if config["release"]["pictures"] else 0
    maps = pixels if config["release"]["relevance"] else 0
    labels = pairs * (pixels // _RELEASED + maps + _RELEASE_ROW)
    most = pairs * (pixels + maps + _RELEASE_ROW)

    def forms(side: int) -> int:
        empty = max(0, images * len(counts.maps) - pairs) * _EMPTY_CODE
        return pairs * (_CODE_ROW + _CODE_COLUMN * side) + empty

    return [
        _exact("index.parquet, prepare/", images * _INDEX_ROW),
        Artifact(
            name="images/",
            bytes=raw if image_bytes is None else min(raw, round(images * image_bytes)),
            most=raw,
        ),
        _exact("committee/", members + predictions),
        _exact("relevance/", explained * pairs * (2 * pixels + _MAP_ROW)),
        Artifact(
            name="masks/",
            bytes=len(config["recipes"]) * pairs * (pixels // _MASK + _MASK_ROW),
            most=len(config["recipes"]) * pairs * (pixels + _MASK_ROW),
        ),
        Artifact(name="labels/", bytes=labels, most=most),
        _exact("segmenter/", segmenter),
        _exact("tasks/", _task_bytes(config, counts)),
        Artifact(
            name="release/",
            bytes=labels + forms(prepare["size"]) + sheet + segmenter,
            most=most + forms(prepare["size"] * _LARGEST) + sheet + segmenter,
        ),
    ]


def working_bytes(*, relevance: int, jobs: int, members: int, segmenter: int, devices: int) -> int:
    """Most bytes of the resumable state of running jobs, which goes away when they end.

    Args:
        relevance: Bytes of all maps.
        jobs: Jobs of the attribution.
        members: Bytes of all members' weights.
        segmenter: Bytes of the segmenter's.
        devices: Jobs that run at a time.
    """
    maps = relevance // max(1, jobs) * min(devices, jobs)
    return max(maps, _STATE * members, (_STATE - 1) * segmenter)


def _task_bytes(config: Mapping[str, Any], counts: Counts) -> int:
    """Scores of every run, and a few examples of every start and tuning."""
    adapt, prepare = config["adapt"], config["prepare"]
    total = 0
    for name, task in counts.tasks.items():
        rows = task["test"] * len(config["tasks"][name]["classes"]) * len(adapt["n"])
        examples = min(6, task["test"]) * prepare["channels"] * prepare["size"] ** 2
        total += len(adapt["runs"]) * (rows * adapt["seeds"] * _SCORE_ROW + examples)
    return total


def _exact(name: str, size: int) -> Artifact:
    return Artifact(name=name, bytes=size, most=size)
