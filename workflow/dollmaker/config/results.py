"""What comes out: scores against true masks, the release and the report."""

from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from dollmaker.config.base import Count, Filled, Named, Number, Section, Some, Version, lacks, needs


class TruthConfig(Section):
    """True masks of the source, for scores only."""

    model_config = ConfigDict(json_schema_extra={"allOf": [needs("kind", "boxes", "file")]})
    may_lack: ClassVar = frozenset({"file", "folder", "column", "targets"})
    may_be_null: ClassVar = frozenset({"column"})

    kind: Literal["chexlocalize", "masks", "boxes"]
    """chexlocalize: JSON files; masks: PNG files; boxes: a CSV file such as BBox_List_2017.csv of
    ChestX-ray14, its columns told by their header."""
    file: str | None = None
    """The table of boxes under data_root (kind boxes)."""
    space: int | None = Field(default=1024, ge=1)
    """Side in pixels of the square images that the boxes were drawn on, as ChestX-ray14's 1024; 1
    for shares of the sides; null: boxes are in pixels of the images themselves, as VinDr-CXR's
    (kind boxes)."""
    files: list[str] = Field(default=[])
    """JSON files under data_root (kind chexlocalize)."""
    folder: str | None = None
    """Folder of the masks under data_root (kind masks)."""
    column: str | None = None
    """Column of the source table with the mask's file name; null: a mask is called as its image,
    with .png, and images without one have no truth (kind masks)."""
    encoding: Literal["index", "bits"] = "index"
    """index: a pixel holds a value; bits: a pixel holds a sum of bits (kind masks)."""
    findings: Some[str] | None = None
    """Findings whose truth the masks are; null means all (kind masks)."""
    when_labelled: bool = True
    """The mask counts where the finding's label is 1 only; false: in every image that has one
    (kind masks)."""
    missing: Literal["unknown", "empty"] = "unknown"
    """What it means that the truth has no entry of an image (boxes: none of a finding): unknown,
    the pair is not scored; empty, the finding is absent, so that a mask there is a false alarm."""
    targets: Named[str, Filled[Count]] | None = None
    """Target name -> pixel values (index) or bit values (bits) that belong to it; the first is the
    headline (kind masks)."""

    @model_validator(mode="after")
    def _name_the_table_of_boxes(self) -> Self:
        if self.kind == "boxes" and self.file is None:
            raise lacks("file")
        return self


class EvaluateConfig(Section):
    """Scores."""

    bootstrap: int = Field(default=1000, ge=10)
    """Bootstrap replicates."""
    min_probability: Number = Field(default=0.0, ge=0, le=1)
    """Masks of pairs under this probability are scored as empty (full slice)."""
    min_pairs: int = Field(default=10, ge=1)
    """Pairs with truth that each finding needs for a mean over findings; else the mean is over all
    pairs, and says so."""
    confidence: Number = Field(default=0.9, ge=0.5, le=0.999)
    """Confidence of the lower bounds of the masks' IoU that a release has where 20 patients of a
    finding and split have true masks."""


class ReleaseConfig(Section):
    """What leaves the building."""

    recipe: str = "doll"
    """Recipe whose masks are released."""
    name: str = "DoLL"
    """Name of the data set."""
    version: Version = "1.0.0"
    """Semantic version of the release."""
    source_license: str = "unknown"
    """Licence of the source images as the card states it."""
    license: str = "CC-BY-4.0"
    """Licence of the labels and models, an SPDX name."""
    changes: dict[Version, Filled[str]] = Field(default={})
    """What changed, by version, for the release's CHANGELOG.md. Empty: it is the first release."""
    relevance: bool = False
    """Release the relevance maps, too, in 255 steps."""
    pictures: bool = False
    """Show source images in the card (only if their licence allows it)."""
    models: list[str] = Field(default=[])
    """Models that the release carries besides the segmenter: committee (its weights), and
    fine-tunings as TASK/START/TUNING, such as organs/doll/adapter."""
    allow_failed_sanity: bool = False
    """Release masks of a recipe whose maps do not depend on the trained network or on the
    finding."""


class ReportConfig(Section):
    """The report."""

    gallery: int = Field(default=24, ge=0)
    """Pairs shown of each recipe (best and worst, by true IoU where known)."""
    explained: bool = False
    """Whether to explain the segmenter (section explain) and show it."""
