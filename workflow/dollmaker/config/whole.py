"""The whole configuration, and what comes out: scores, the release and the report."""

from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from dollmaker.config.base import (
    Count,
    Filled,
    Name,
    Named,
    Number,
    Section,
    Seed,
    Some,
    Version,
    lacks,
    needs,
)
from dollmaker.config.masks import (
    AttributeConfig,
    CompareConfig,
    MapsConfig,
    RecipeConfig,
    SampleConfig,
)
from dollmaker.config.networks import ClassifyConfig, ExplainConfig, SegmentConfig
from dollmaker.config.sources import TEST, PrepareConfig, SourceConfig
from dollmaker.config.tuning import AdaptConfig, StudyConfig, TaskConfig


class TruthConfig(Section):
    """True masks of the source, for scores only."""

    model_config = ConfigDict(json_schema_extra={"allOf": [needs("kind", "boxes", "file")]})
    may_lack: ClassVar = frozenset({"file", "folder", "column", "targets"})

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
    """index: a pixel holds a value; bits: a pixel holds a sum of bits, each named by its value (1,
    2, 4 ...; kind masks)."""
    findings: Some[str] | None = None
    """Findings whose truth the masks are; null means all (kind masks)."""
    when_labelled: bool = True
    """The mask counts where the finding's label is 1 only; false: in every image that has one
    (kind masks)."""
    missing: Literal["unknown", "empty"] = "unknown"
    """What it means that the truth has no entry of an image (boxes: none of a finding): unknown,
    the pair is not scored; empty, the finding is absent, so that a mask there is a false alarm."""
    targets: Named[str, Filled[Count]] | None = None
    """Target name -> pixel values (index) or bit values (bits) that belong to it; scores by
    finding in the card, charts and bounds are of the first (kind masks)."""

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


class Config(Section):
    """The whole configuration, resolved: every key has its value."""

    dataset: Name
    """Name of the data set; everything is written to results/{dataset}/."""
    data_root: str = "data/"
    """Folder that holds the source data. No path of a table may leave it."""
    weights_root: str = "weights/"
    """Folder with weights files (safetensors): the user's, and those that are fetched by name."""
    allow_links: bool = False
    """Whether symbolic links below data_root and weights_root may lead out of them: set it if you
    trust what lies there."""
    seed: Seed = 0
    """Seed of everything random. Equal seeds give equal masks."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run. auto takes a GPU when there is one; cuda insists on it."""
    source: SourceConfig
    """The data set with image-level labels."""
    prepare: PrepareConfig = PrepareConfig()
    """Decoding, splitting and sharding."""
    classify: ClassifyConfig = ClassifyConfig()
    """The committee of multi-label classifiers."""
    attribute: AttributeConfig = AttributeConfig()
    """What is explained."""
    recipes: Named[Name, RecipeConfig] = Field(default={"doll": RecipeConfig()})
    """Recipe name -> its chain of steps, or {} for the recipe of that name in the catalogue
    (dollmaker/config/catalogue.yaml)."""
    sample: SampleConfig = SampleConfig()
    """Pairs on which thresholds are chosen without truth and recipes are checked: explained once
    more by each member, mirrored, and with random weights."""
    compare: CompareConfig = CompareConfig()
    """The comparison of recipes (snakemake compare)."""
    release: ReleaseConfig = ReleaseConfig()
    """What leaves the building."""
    segment: SegmentConfig = SegmentConfig()
    """Pre-training of the segmenter on the release, end to end."""
    explain: ExplainConfig = ExplainConfig()
    """Where the segmenter looks (snakemake explain)."""
    tasks: dict[Name, TaskConfig] = Field(default={})
    """Downstream task name -> images with true masks."""
    adapt: AdaptConfig = AdaptConfig()
    """Fine-tuning on the tasks."""
    study: StudyConfig = StudyConfig()
    """What a start is worth (`snakemake study`): every architecture, task, start, tuning, number
    of images and seed; the rest as in section adapt."""
    truth: TruthConfig | None = None
    """True masks of the source, for scores only, never for training. Null if there are none."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Scores."""
    report: ReportConfig = ReportConfig()
    """The report."""

    @model_validator(mode="after")
    def _hold_out_patients(self) -> Self:
        """Where ``prepare.test`` is left out, it follows from who says which images are test."""
        prepare = self.prepare
        if "test" not in prepare.model_fields_set:
            said = self.source.says_test or prepare.hold_out_truth
            held = prepare.replace(test=0.0 if said else TEST)
            object.__setattr__(self, "prepare", held)
        return self

    def maps(self, recipe: str) -> MapsConfig:
        """How the maps that a recipe uses are made."""
        own = self.recipes[recipe].attribute
        return own if isinstance(own, MapsConfig) else self.maps(own)

    def donor(self, recipe: str) -> str:
        """The recipe whose maps a recipe uses (often its own)."""
        own = self.recipes[recipe].attribute
        return recipe if isinstance(own, MapsConfig) else self.donor(own)
