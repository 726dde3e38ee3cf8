"""The masks of a release in the forms of CheXlocalize and COCO, at the size of the source.

Files are written and compared piece by piece: none is ever held as a whole.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from dollmaker.pixels.geometry import Fit
from dollmaker.release.parts import find_parts
from dollmaker.release.source import SourceMask, to_source
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store import rle
from dollmaker.store.shards import Shard

Form = Literal["chexlocalize", "coco"]
FORMS: tuple[Form, ...] = ("chexlocalize", "coco")

_BLOCK = 512


def source_masks(
    folder: Path, split: str, table: pl.DataFrame, fit: Fit, *, polygons: bool = False
) -> Iterator[SourceMask]:
    """The masks of a split of a release at the size of the source, read block by block.

    ``table`` are the rows of the split; with ``polygons`` outlines are traced, too.
    """
    sizes = table.select("width", "height")
    first = 0
    for path in find_parts(folder, "masks", split):
        with Shard(path, "masks") as shard:
            for start in range(0, len(shard), _BLOCK):
                block = slice(start, start + _BLOCK)
                squares = list(shard.read("level", block)) or list(shard.read("mask", block) == 1)
                part = sizes[first : first + len(squares)].rows()
                yield from to_source(squares, part, fit, polygons=polygons)
                first += len(squares)


def write_formats(folder: Path, split: str, pieces: Iterable[tuple[Form, str]]) -> None:
    """Write ``{form}/{split}.json`` of each form that there are pieces of."""
    with ExitStack() as stack:
        files: dict[Form, Any] = {}
        for form, text in pieces:
            if form not in files:
                path = folder / form / f"{split}.json"
                path.parent.mkdir(exist_ok=True)
                files[form] = stack.enter_context(path.open("w", encoding="utf-8", newline="\n"))
            files[form].write(text)


def pieces(
    images: pl.DataFrame, table: pl.DataFrame, masks: Iterable[SourceMask], findings: Sequence[str]
) -> Iterator[tuple[Form, str]]:
    """The text of both files of a split, in order.

    CheXlocalize's has every image with every finding; a finding without a mask has an empty one.
    COCO's has the images with a row, and as ``score`` the quality. Its masks are run lengths, or
    polygons where masks have them: pycocotools makes the very mask of either. A mask so thin that
    no pixel of a smaller source image is left of it is no annotation. The rows of the table, and
    their masks, are in the order of the images.

    Raises:
        ArtifactError: If rows are not in the order of the images, or of another finding.
    """
    category = {name: k for k, name in enumerate(findings, start=1)}
    listed = table.unique("image_id", keep="first", maintain_order=True)
    number: dict[str, int] = {}
    yield "coco", '{\n"images": ['
    facts = listed.select("image_id", "path", "width", "height")
    for image, path, width, height in facts.iter_rows():
        number[image] = len(number) + 1
        entry = {"id": number[image], "file_name": path, "width": width, "height": height}
        yield "coco", _start(len(number)) + _dump(entry)
    yield "coco", "\n" * (not number) + '\n],\n"annotations": ['
    rows = zip(table.select("image_id", "finding", "quality").iter_rows(), masks, strict=True)
    groups = groupby(rows, key=lambda pair: str(pair[0][0]))
    following = next(groups, None)
    count = 0
    for k, (name, *size) in enumerate(images.select("image_id", "height", "width").iter_rows()):
        codes = dict.fromkeys(findings, _empty(size[0] * size[1]))
        here = following is not None and following[0] == name
        for (_, finding, quality), mask in following[1] if following and here else ():
            if finding not in category:
                raise ArtifactError(f"finding {finding!r} of {name!r} is not in provenance.json.")
            codes[finding] = mask.counts
            if mask.area:
                count += 1
                annotation = {
                    "id": count,
                    "image_id": number[name],
                    "category_id": category[finding],
                    "segmentation": mask.polygons or {"size": size, "counts": mask.counts},
                    "bbox": mask.box,
                    "area": mask.area,
                    "iscrowd": 0,
                    "score": round(float(quality), 4),
                }
                yield "coco", _start(count) + _dump(annotation)
        if here:
            following = next(groups, None)
        found = {finding: {"size": size, "counts": code} for finding, code in codes.items()}
        yield "chexlocalize", f"{',' if k else '{'}\n{_dump(name)}: {_dump(found)}"
    if following is not None:
        raise ArtifactError(f"rows of {following[0]!r} are not in the order of images.parquet.")
    yield "chexlocalize", "\n}\n"
    categories = [{"id": k, "name": name} for name, k in category.items()]
    lines = ",\n".join(map(_dump, categories))
    yield "coco", "\n" * (not count) + f'\n],\n"categories": [\n{lines}\n]\n}}\n'


def _start(number: int) -> str:
    """What divides an entry from the one before."""
    return "\n" if number == 1 else ",\n"


@lru_cache
def _empty(pixels: int) -> str:
    return rle.write_runs([np.array([pixels])])[0]


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
