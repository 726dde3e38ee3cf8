"""The whole configuration."""

from typing import Literal

from pydantic import Field

from dollmaker.config.base import Name, Named, Section
from dollmaker.config.masks import (
    AttributeConfig,
    CompareConfig,
    RecipeConfig,
    SampleConfig,
)
from dollmaker.config.networks import ClassifyConfig, ExplainConfig, SegmentConfig
from dollmaker.config.results import EvaluateConfig, ReleaseConfig, ReportConfig, TruthConfig
from dollmaker.config.sources import PrepareConfig, SourceConfig
from dollmaker.config.tuning import AdaptConfig, StudyConfig, TaskConfig


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
    seed: int = Field(default=0, ge=0)
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
    recipes: Named[Name, RecipeConfig] = Field(
        default={"doll": RecipeConfig(binarize=[{"gate": {}}, {"otsu": {}}, {"clean": {}}])}
    )
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
