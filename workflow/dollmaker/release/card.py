"""The data set card: README.md of a release, a datasheet with every number computed."""

import json
import textwrap
from typing import Any

import polars as pl

from dollmaker.release.bounds import RANK_ONLY, percent, tell
from dollmaker.release.facts import (
    Facts,
    headline,
    interval,
    means,
    number,
    of_recipe,
    summary,
    worst,
)
from dollmaker.release.licence import hub_licence, licence_url
from dollmaker.release.parts import BOUND, SPLITS

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_card(facts: Facts) -> str:
    """The card in Markdown with a YAML front matter.

    Questions and order are those of Gebru et al., Datasheets for Datasets.
    """
    options = facts.config["release"]
    parts = (
        _front_matter(facts),
        f"# {_text(options['name'])} {options['version']}\n",
        _introduction(facts),
        _composition(facts),
        _collection(facts),
        _scores(facts),
        _bounds(facts),
        _sanity(facts),
        _failures(facts),
        _uses(facts),
        _licence(facts),
    )
    return parts[0] + "\n" + "\n".join(map(_reflow, parts[1:]))


def _reflow(text: str) -> str:
    """Paragraphs of prose in lines of one length; tables, lists and code as they are."""
    blocks = text.split("\n\n")
    return "\n\n".join(
        textwrap.fill(block, 100, break_long_words=False, break_on_hyphens=False)
        + "\n" * block.endswith("\n")
        if (block[:1].isalpha() or block.startswith("**")) and "```" not in block
        else block
        for block in blocks
    )


def _front_matter(facts: Facts) -> str:
    options, rows = facts.config["release"], len(facts.table)
    size = next((name for limit, name in _SIZES if rows < limit), "n>1M")
    licence = hub_licence(options["license"])
    named = (
        f"license_name: {_quoted(options['license'])}\nlicense_link: LICENSE\n"
        if licence == "other"
        else ""
    )
    files = "".join(
        f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split in _splits(facts)
    )
    return f"""---
pretty_name: {_quoted(options["name"])}
license: {licence}
{named}task_categories:
- image-segmentation
tags:
- medical
- pseudo-labels
size_categories:
- {size}
configs:
- config_name: default
  data_files:
{files}---
"""


def _introduction(facts: Facts) -> str:
    images, explained = len(facts.images), int(facts.images["explained"].sum())
    return f"""Pseudo-masks ("diagnosis-oriented localization labels") for images of the data set
`{_text(facts.config["dataset"])}`: {len(facts.table)} image-finding pairs on
{facts.table["image_id"].n_unique()} images, of {images} images in all, of which {explained} were
looked at. They were made from image-level labels by explaining a committee of
{len(facts.members)} classifier{"s" * (len(facts.members) > 1)} and cutting the maps.

**No person drew or checked them. They are pseudo-labels, for pre-training and research, not for
diagnosis.** {summary(facts)} Saliency is far from what radiologists outline: a mask shows what
networks used, which may not be where the finding is.

![contact sheet](contact-sheet.png)

All of them, with filters: open `gallery/index.html` in a browser; it needs no network.

```python
from dollmaker import PseudoLabels          # pip install dollmaker

data = PseudoLabels("release", images="ROOT_OF_YOUR_COPY", min_quality=0.5)
```

Or `datasets.load_dataset("release")` for the tables; `dollmaker verify release` checks the copy.

## Motivation

Segmentation networks need masks, which are scarce; image-level labels are not. These masks carry
what classifiers learned from such labels into networks that predict pixels, as a start for tuning
on few true masks (Chen et al. 2024).
"""


def _composition(facts: Facts) -> str:
    splits, table = _splits(facts), facts.table
    size = facts.config["prepare"]["size"]
    lines = [
        f"| {_text(name)} | "
        + " | ".join(str(len(table.filter(finding=name, split=split))) for split in splits)
        + f" | {_median(table.filter(finding=name)['quality'])}"
        + f" | {_median(table.filter(finding=name)['area'] / size**2)} |"
        for name in facts.findings
    ]
    counts = [
        f"{len(rows)} {split} ({rows['patient_id'].n_unique()} patients)"
        for split in SPLITS
        if len(rows := facts.images.filter(split=split))
    ]
    maps = (
        "; and the relevance maps in 255 steps (`relevance`)"
        if facts.config["release"]["relevance"]
        else ""
    )
    bound = ", and a lower bound of its IoU (`iou_bound`)" * bool(facts.table[BOUND].count())
    pixels = "There are no pixels of the source in it"
    if facts.config["release"]["pictures"]:
        pixels += ", but for the pictures in `contact-sheet.png` and `gallery/`"
    return f"""## Composition

Images: {", ".join(counts)}; no patient is in two splits. Masks by finding:

| finding | {" | ".join(splits)} | median quality | median area (share) |
|---|{"---|" * (len(splits) + 2)}
{chr(10).join(lines)}

- `data/{{split}}-*.parquet`: one row per pair: image_id, path and sha256 of the source image, its
  width and height, finding, label, probability, the mask as COCO RLE (`size`, `counts`), area
  (pixels), box (x, y, width, height), components, threshold, quality and its parts{bound}.
- `masks/{{split}}-*.h5`: the same rows as arrays (plain gzip): `mask` with 0 background, 1 finding,
  255 ignore; `level`, positive in the mask, whose zero between pixels is the outline: enlarged
  bilinearly and cut at 0 it is the mask at the size of the source{maps}.
- `images.parquet`: all images of the source, and whether they were looked at (`explained`).
- `chexlocalize/{{split}}.json`: CheXlocalize's form, at the size of the source images: every image
  with every finding; an empty code means that there is no mask, not that the finding is absent.
- `coco/{{split}}.json`: COCO's form of the same (run lengths), images with a mask only.
- `models/segmenter/`: a network pre-trained on these masks (segmentation-models-pytorch's
  `{_text(facts.segmenter["architecture"])}`); `models/committee/`: facts of the classifiers.
- `provenance.json`, `croissant.json`, `sanity.json`, `SHA256SUMS` (`sha256sum -c SHA256SUMS`).

Masks lie on a square of {size} pixels, into which the source image was fitted by
`{facts.config["prepare"]["fit"]}`. {pixels}; join the masks with your own copy by `path` or by
`sha256`.
"""


def _collection(facts: Facts) -> str:
    config, options = facts.config, facts.config["release"]
    steps = ", ".join(next(iter(s)) for s in config["recipes"][options["recipe"]]["binarize"])
    members = [
        f"- `{_text(m['architecture'])}`, weights sha256 `{m['sha256'][:16]}…`, macro AUROC "
        f"{number(m['metrics'].get('macro_auroc'))} on {m['metrics'].get('split', 'no')} images"
        for m in facts.members.values()
    ]
    return f"""## Collection

Images and image-level labels are those of `{_text(config["dataset"])}`; who collected them, from
whom and with what consent, its own documents say. Nothing was added but what is computed.

## How the masks were made

{chr(10).join(members)}

Their maps were averaged and cut by the recipe `{_text(options["recipe"])}`: {_text(steps)}.
`quality` (0 to 1) is made of the mask's stability (its IoU with itself when the threshold changes
by ten percent), the members' agreement, completeness and the committee's probability; it knows
nothing of the truth. `provenance.json` has the whole configuration.
"""


def _scores(facts: Facts) -> str:
    scores = headline(facts)
    found = means(facts, scores)
    mine = found.pop(facts.config["release"]["recipe"], None)
    if mine is None:
        return """## Scores against truth

There is no truth for these images: nobody has measured how far these masks are from what an expert
would outline. Take them for worse than you hope.
"""
    rows = [mine, *of_recipe(facts, scores).to_dicts()]
    lines = [
        f"| {_text(row['finding'])} | {row['n']} | "
        + " | ".join(interval(row, name) for name in ("miou", "dice", "hit_rate"))
        + f" | {number(row['area_correlation'])} |"
        for row in rows
    ]
    baselines = ", ".join(f"{name} {number(row['miou'])}" for name, row in found.items())
    recipe = facts.config["release"]["recipe"]
    positive = means(facts, headline(facts, pairs="positive")).get(recipe)
    where = (
        f" Where both have pixels, mean IoU is {interval(positive, 'miou')}." if positive else ""
    )
    return f"""## Scores against truth

Of {mine["split"]} images, at the size of the source, with 95 % bootstrap intervals. Every pair
counts where mask or truth has pixels; missed findings and false alarms count zero.{where} Which
pairs have a mask goes by: {mine["gated_by"]}. The row `mean` is over {mine["mean_over"]}.

| finding | pairs | mean IoU | Dice | hit rate | area correlation |
|---|---|---|---|---|---|
{chr(10).join(lines)}

Mean IoU of trivial masks on the same pairs: {baselines}. Truth: {facts.config["truth"]["kind"]},
area `{_text(mine["target"])}`. The hit rate is the share of maps whose highest pixel is inside, of
all pairs with truth; the area correlation is Spearman's, of the areas of masks and truth.
"""


def _bounds(facts: Facts) -> str:
    """How much of the truth each mask has at least, and whether that was so."""
    known, title = facts.bounds, "## Bounds on every mask"
    if known is None:
        return f"""{title}

None: no released mask has truth. `quality` can only rank the masks ({RANK_ONLY}).
"""
    bounds, sure = facts.table[BOUND].drop_nulls().to_list(), known["confidence"]
    highest = f", at best: {tell(max(bounds), sure)}" if bounds else ""
    lines = [
        f"| {_text(row['finding'])} | {row['split']} | {row['label']} | {row['patients']} "
        f"| {row['masks']} | {number(row['margin'])} | {_covered(row)} | {number(row['width'])} "
        f"| {_percent(row['telling'])} |"
        for row in known["calibrations"]
    ]
    return f"""{title}

Of {len(facts.table)} masks {len(bounds)} have a lower bound of their IoU with the truth
(`iou_bound`){highest}. It is the mask's quality minus a margin, a split-conformal quantile over the
patients with truth of the same finding, split and label. It holds with {percent(sure)} confidence
for a mask drawn from those of a new patient, if that patient is like those that calibrated: not for
masks that were chosen by their bound, nor for another hospital's. All other masks have none: their
`quality` only ranks ({RANK_ONLY}). `bounds.json` has all numbers.

| finding | split | label | patients | masks | margin | coverage | width | bounds over 0.1 |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(lines)}

Coverage is that of margins of half of the patients on the other half, each patient counting alike:
the mean of {known["draws"]} draws and the middle 95 % of them; width is the mean of 1 minus bound
there. Fewer than {known["least_patients"]} patients, or too few for the confidence, give no bound.
"""


def _covered(row: dict[str, Any]) -> str:
    if row["coverage"] is None:
        return "-"
    return interval(row, "coverage")


def _sanity(facts: Facts) -> str:
    checks = facts.sanity
    return f"""## Sanity checks

On {checks["positives"]} pairs with the finding and {checks["negatives"]} without (`sanity.json`):

- IoU (median) of the masks with those that networks with random weights have for the same pairs:
  {number(checks["same_masks"])}; over 0.5 the recipe is said to ignore the model.
- Rank correlation (median) of the maps with those of such networks:
  {number(checks["randomised"])}; with those of another finding of the image:
  {number(checks["other"])}. A map that ignores the finding has 1.
- Verdict: {checks["verdict"]}.
- Insertion {number(checks["insertion"])}, deletion {number(checks["deletion"])} (areas under the
  logit's curve; maps in random order have about the same of both).
"""


def _failures(facts: Facts) -> str:
    lines = [
        f"- Asked for the finding where it is absent, the recipe still draws a mask in "
        f"{_percent(facts.sanity['masked_negatives'])} of the pairs: a mask is no proof that the "
        "finding is there."
    ]
    lowest = ", ".join(f"{_text(row['finding'])} {interval(row, 'miou')}" for row in worst(facts))
    if lowest:
        lines.append(f"- Lowest mean IoU by finding: {lowest}.")
    counts = {name: len(facts.table.filter(finding=name)) for name in facts.findings}
    few = [f"{_text(name)} ({count})" for name, count in counts.items() if count < 10]
    if few:
        lines.append(f"- Fewer than ten masks: {', '.join(few)}.")
    half = len(facts.table.filter(pl.col("quality") < 0.5)) / len(facts.table)
    parts = len(facts.table.filter(pl.col("components") > 3)) / len(facts.table)
    lines.append(
        f"- {_percent(half)} of the masks have a quality under 0.5; {_percent(parts)} fall into "
        "more than three parts."
    )
    unseen = len(facts.images) - int(facts.images["explained"].sum())
    if unseen:
        lines.append(
            f"- {unseen} of {len(facts.images)} images were not looked at: that they have no mask "
            "says nothing."
        )
    return "## Known failures\n\n" + "\n".join(lines) + "\n"


def _uses(facts: Facts) -> str:
    return """## Uses and misuses

Good for pre-training a segmentation network that is then tuned on true masks, for research on
explanations, for finding what a classifier leans on. Filter by `quality`, leave out the pixels to
ignore, keep the splits.

Not for diagnosis or any decision about a patient; not as truth to score another method against;
not as negatives: a pair without a mask may have the finding. Shortcuts of the classifiers (devices,
text, position) are in the masks. Do not try to find out who the patients are.
"""


def _licence(facts: Facts) -> str:
    options = facts.config["release"]
    key = "".join(c for c in options["name"].lower() if c.isalnum()) or "release"
    return f"""## Licence

Labels and models: {_text(options["license"])} ({licence_url(options["license"])}). Source images:
{_text(options["source_license"])}; the masks are derived from them, respect its terms, too. Both
are in `LICENSE`.

## How to cite

```bibtex
@misc{{{key},
  title = {{{_text(options["name"])}, version {options["version"]}}},
  note = {{Made with dollmaker from image-level labels of {_text(facts.config["dataset"])}}}
}}
@article{{chen2024explanations,
  title = {{Explanations of Classifiers Enhance Medical Image Segmentation
           via End-to-end Pre-training}},
  author = {{Chen, Jiamin and Li, Xuhong and Xu, Yanwu and Du, Mengnan and Xiong, Haoyi}},
  journal = {{arXiv:2401.08469}},
  year = {{2024}}
}}
```

Cite the source of the images, too. Changes from version to version: `CHANGELOG.md`.
"""


def _splits(facts: Facts) -> list[str]:
    present = facts.table["split"].unique()
    return [split for split in SPLITS if split in present]


def _median(values: pl.Series) -> str:
    middle: Any = values.median()
    return "-" if middle is None else f"{middle:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _text(value: str) -> str:
    """Text from data, harmless in Markdown and HTML."""
    escaped = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*[]|#!" else c for c in escaped.replace("\n", " "))


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
