"""A release as a torch data set, joined with the user's own copy of the images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch.utils.data import Dataset, default_collate

from dollmaker.pixels.pictures import decode
from dollmaker.release.bounds import read_bounds
from dollmaker.release.hub import find_release
from dollmaker.release.parts import BOUND, SPLITS, Row, find_parts, read_rows
from dollmaker.release.read import read_origin, require_size, user_copy
from dollmaker.runtime.errors import ConfigError, unknown
from dollmaker.store.depth import to_levels
from dollmaker.store.shards import ShardSeries

Form = Literal["plain", "torchxrayvision"]

FINDING, IGNORE = 1, 255

#: What is known of an item, and of each of its masks.
_FACTS = ("image_id", "path", "split", "width", "height")
_OF_PAIR = ("finding", "row", "quality", BOUND)


class PseudoLabels(Dataset[dict[str, Any]]):
    """One item per image of a release, safe for any number of workers.

    ``plain`` items are dictionaries:

    - ``image``: float32 (C, S, S) in [0, 1], fitted into the masks' square; absent without
      ``images``;
    - ``masks``: uint8 (K, S, S), 1 where a finding is, 0 elsewhere; ``ignore``: bool (K, S, S),
      pixels to leave out of a loss;
    - ``labels``: float32 (K,), 1 for a finding with a mask, NaN for one without (which says
      nothing: it may be absent, or its mask was not released);
    - ``quality``: float32 (K,), 0 where there is no mask; ``iou_bound``: float32 (K,), what the
      mask's IoU with the truth is at least, with the release's ``confidence``, NaN where that is
      not known; ``image_id``.

    ``torchxrayvision`` items are like those of its data sets: ``idx``, ``lab`` (K,), ``img``
    float32 (1, S, S) in [-1024, 1024], ``pathology_masks`` {number: (1, S, S)};
    :meth:`collate` makes batches of both.

    Args:
        release: Folder of the release, or ``hf:OWNER/NAME@VERSION``, fetched once and verified.
        images: Root of the source images, to which the release's paths are relative; ``None``
            gives masks only.
        splits: Splits to take.
        findings: Findings in the order of the masks; ``None`` takes all.
        min_quality: Masks under it are left out.
        min_bound: Masks whose bound of the IoU is under it, or that have none, are left out; 0
            takes all.
        channels: Of the image: 1, 3, or as many as the files hold.
        form: ``plain`` or ``torchxrayvision``.
        transform: Called on each item.

    Raises:
        ArtifactError: If the folder is no release, or damaged.
        ConfigError: For an unknown split, finding or form, one that is named twice, or none.
    """

    # nine: a torch data set takes its options by name, as those of torchvision do
    def __init__(
        self,
        release: str | Path,
        images: str | Path | None = None,
        *,
        splits: Sequence[str] = ("train",),
        findings: Sequence[str] | None = None,
        min_quality: float = 0.0,
        min_bound: float = 0.0,
        channels: int = 1,
        form: Form = "plain",
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.release = find_release(release)
        self._origin = read_origin(self.release)
        self.findings = list(self._origin.findings if findings is None else findings)
        for kind, names, known in (
            ("finding", self.findings, self._origin.findings),
            ("split", splits, SPLITS),
            ("form", [form], get_args(Form)),
        ):
            if wrong := [name for name in names if name not in known]:
                raise ConfigError(unknown(kind, wrong[0], known))
            if not names or len(set(names)) < len(names):
                raise ConfigError(f"{kind}s are {list(names)}; name at least one, and none twice.")
        if form == "torchxrayvision" and (images is None or channels != 1):
            raise ConfigError("torchxrayvision items have an image of one channel; give images.")
        self._images = Path(images) if images is not None else None
        self._channels, self._form, self._transform = channels, form, transform
        parts = [read_rows(self.release, split).with_row_index("row") for split in splits]
        rows = pl.concat(parts).filter(
            pl.col("finding").is_in(self.findings) & (pl.col("quality") >= min_quality)
        )
        bounds = read_bounds(self.release)
        #: Of the bounds; ``None`` where quality only ranks.
        self.confidence: float | None = bounds["confidence"] if bounds else None
        if min_bound > 0:
            if not rows[BOUND].count():
                raise ConfigError(
                    f"min_bound is {min_bound}, but no such mask of {self.release} has a bound of "
                    "its IoU (rank only); leave it out, and filter by min_quality."
                )
            rows = rows.filter(pl.col(BOUND) >= min_bound)
        #: One row per mask, in the order of the items.
        self.table = rows
        # Plain lists, an item's rows side by side: polars in a forked worker may hang.
        own = rows.with_row_index("place").group_by("image_id", maintain_order=True).agg("place")
        self._starts = [0, *own["place"].list.len().cum_sum()]
        columns = rows.select(*_FACTS, *_OF_PAIR)
        self._rows = columns[own["place"].explode()].to_dict(as_series=False)
        self._masks = {
            split: ShardSeries(find_parts(self.release, "masks", split)) for split in splits
        }

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, item: int) -> dict[str, Any]:
        number = range(len(self))[item]
        start, end = self._starts[number : number + 2]
        facts = {name: self._rows[name][start] for name in _FACTS}
        count, size = len(self.findings), self._origin.size
        present = np.zeros((count, size, size), bool)
        ignore = np.zeros((count, size, size), bool)
        quality = np.zeros(count, np.float32)
        labels = np.full(count, np.nan, np.float32)
        bounds = labels.copy()
        masks = self._masks[facts["split"]]
        pairs = (self._rows[name][start:end] for name in _OF_PAIR)
        for finding, row, score, bound in zip(*pairs, strict=True):
            k = self.findings.index(finding)
            stored = masks.read("mask", row)
            np.equal(stored, FINDING, out=present[k])
            np.equal(stored, IGNORE, out=ignore[k])
            quality[k], labels[k] = score, 1
            bounds[k] = np.nan if bound is None else bound
        found = {
            "image_id": facts["image_id"],
            "masks": torch.from_numpy(present.view(np.uint8)),
            "ignore": torch.from_numpy(ignore),
            "quality": torch.from_numpy(quality),
            "iou_bound": torch.from_numpy(bounds),
            "labels": torch.from_numpy(labels),
        }
        if self._images is not None:
            image = self._image(self._images, facts)
            found["image"] = torch.from_numpy(np.array(image)).float() / 255
        if self._form == "torchxrayvision":
            found = _as_torchxrayvision(number, found)
        return self._transform(found) if self._transform else found

    @staticmethod
    def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Items as a batch: the ``collate_fn`` of a DataLoader.

        The masks of ``pathology_masks``, of which each item has others, become float32
        (B, K, S, S), 0 where an item has none; ``lab`` is NaN there.
        """
        plain = [{k: v for k, v in item.items() if k != "pathology_masks"} for item in items]
        batch: dict[str, Any] = default_collate(plain)
        if "pathology_masks" in items[0]:
            sides = items[0]["img"].shape[1:]
            masks = np.zeros((*np.shape(batch["lab"]), *sides), np.float32)
            for number, item in enumerate(items):
                for finding, mask in item["pathology_masks"].items():
                    masks[number, finding] = mask[0]
            batch["pathology_masks"] = torch.from_numpy(masks)
        return batch

    def _image(self, root: Path, facts: Row) -> npt.NDArray[Any]:
        """A source image (C, S, S) in levels."""
        origin = self._origin
        with user_copy(root, facts) as path:
            decoded = decode(
                path,
                size=origin.size,
                channels=self._channels,
                fit=origin.fit,
                max_pixels=origin.max_pixels,
                bits=origin.bits,
            )
            require_size(facts, decoded.width, decoded.height, scaled=True)
        return to_levels(decoded.pixels)


def _as_torchxrayvision(item: int, found: dict[str, Any]) -> dict[str, Any]:
    masks = found["masks"].numpy().astype(np.float32)
    labels = found["labels"].numpy()
    return {
        "idx": item,
        "lab": labels,
        "img": (found["image"].numpy() * 2 - 1) * 1024,
        "pathology_masks": {int(k): masks[k : k + 1] for k in np.nonzero(~np.isnan(labels))[0]},
    }
