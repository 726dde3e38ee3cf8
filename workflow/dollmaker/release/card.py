"""The data set card: README.md of a release, every number computed."""

from typing import Any

import polars as pl

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_card(
    table: pl.DataFrame,
    config: dict[str, Any],
    committee: list[dict[str, Any]],
    sanity: dict[str, Any],
) -> str:
    """The card in Markdown with a YAML front matter.

    Args:
        table: All rows of the release.
        config: The resolved configuration.
        committee: Descriptions (model.json) of the members.
        sanity: What the stage sanity says about the recipe.
    """
    options = config["release"]
    splits = [s for s in ("train", "valid", "test") if s in table["split"]]
    counts = [
        f"| {_text(name)} | "
        + " | ".join(str(len(table.filter(finding=name, split=split))) for split in splits)
        + f" | {_median(table.filter(finding=name)['quality'])}"
        + f" | {_median(table.filter(finding=name)['area'] / _pixels(table))} |"
        for name in table["finding"].unique().sort()
    ]
    members = [
        f"- `{_text(m['architecture'])}`, weights sha256 `{m['sha256'][:16]}…`, macro AUROC "
        f"{_number(m['metrics']['macro_auroc'])} on {m['metrics']['split']} images"
        for m in committee
    ]
    steps = ", ".join(next(iter(s)) for s in config["recipes"][options["recipe"]]["binarize"])
    size = next((name for limit, name in _SIZES if len(table) < limit), "n>1M")
    return f"""---
pretty_name: {_quoted(options["name"])}
license: other
license_name: {_quoted(options["source_license"])}
task_categories:
- image-segmentation
tags:
- medical
- pseudo-labels
size_categories:
- {size}
---

# {_text(options["name"])} {options["version"]}

Pseudo-masks ("diagnosis-oriented localization labels") for {table["image_id"].n_unique()} images of
the data set `{_text(config["dataset"])}`: {len(table)} image-finding pairs. They were made from
image-level labels by explaining a committee of {len(committee)} classifiers and cutting the maps.
**No person drew or checked them. They are for pre-training and research, not for diagnosis:**
relevance maps are far from radiologists' outlines, and a mask shows what a network used, which may
not be where the finding is.

![contact sheet](contact-sheet.png)

## What is in it

| finding | {" | ".join(splits)} | median quality | median area (share) |
|---|{"---|" * (len(splits) + 2)}
{chr(10).join(counts)}

- `data/{{split}}.parquet`: one row per pair: image_id, path and sha256 of the source image, its
  width and height, finding, label, probability, the mask as COCO RLE (`size`, `counts`), area
  (pixels), box (x, y, width, height), components, threshold, quality and its parts.
- `masks/{{split}}.h5`: the same rows as arrays, 0 background, 1 finding, 255 ignore (plain gzip).
- `provenance.json`, `SHA256SUMS` (`sha256sum -c SHA256SUMS`, or `dollmaker verify`).

Masks lie on a square of {config["prepare"]["size"]} pixels, into which the source image was
fitted by `{config["prepare"]["fit"]}`. The masks hold no pixels of the source; join them with your
own copy by `path` or by `sha256`. Splits are by patient.

## How it was made

{chr(10).join(members)}

Recipe `{_text(options["recipe"])}`: steps {_text(steps)}. `provenance.json` has the configuration.
`quality` (0 to 1) is made of the mask's stability (its IoU with itself when the threshold changes
by ten percent), the members' agreement, completeness and the committee's probability; it knows
nothing of the truth.

## Sanity checks

On {sanity["positives"]} pairs with the finding and {sanity["negatives"]} without (`sanity.json`):

- Rank correlation (median) of the maps with those of a network with random weights:
  {_number(sanity["randomised"])}; with those of another finding of the image:
  {_number(sanity["other"])}. A map that ignores the model or the finding has 1.
- Insertion {_number(sanity["insertion"])}, deletion {_number(sanity["deletion"])} (areas under the
  logit's curve; maps in random order have about the same of both).
- Asked for the finding where it is absent, the recipe still draws a mask in
  {_percent(sanity["masked_negatives"])} of the pairs: a mask is no proof that the finding is there.

## Licence

Source images: {_text(options["source_license"])}. The masks are derived from them: respect its
terms.
"""


def _pixels(table: pl.DataFrame) -> int:
    sizes = table["size"].to_list()
    return int(sizes[0][0] * sizes[0][1]) if sizes else 1


def _median(values: pl.Series) -> str:
    middle = values.median()
    return _number(float(middle)) if isinstance(middle, int | float) else "-"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _text(value: str) -> str:
    """Text from data, harmless in Markdown and HTML."""
    escaped = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*[]|#!" else c for c in escaped.replace("\n", " "))


def _quoted(value: str) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
