"""From images to masks: what is explained, the recipes, their sample and their comparison."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from dollmaker.config.base import Filled, Number, Section, Some, Split

#: A step: its name and its arguments.
Step = Annotated[dict[str, dict[str, Any] | None], Field(min_length=1, max_length=1)]


#: A chain of steps.
Steps = Sequence[dict[str, dict[str, Any] | None]]


class AttributeConfig(Section):
    """What is explained."""

    splits: Some[Split] = Field(default=["train", "valid", "test"])
    """Splits to explain."""
    findings: Some[str] | None = None
    """Findings to localize; null means all but No Finding."""
    min_probability: Number | None = Field(default=None, ge=0, le=1)
    """Also explain pairs without a positive label when the committee's probability reaches this;
    null means positive labels only."""
    max_images: int | None = Field(default=None, ge=1)
    """Explain at most this many images of each split, spread evenly; null means all."""
    with_truth: bool = False
    """Explain only images that have a true mask (truth.kind masks): enough to compare recipes."""
    chunk: int | None = Field(default=None, ge=1)
    """Rows (image x node) a forward pass holds; null measures how many fit. Halved when memory
    runs out."""
    compile: bool = False
    """Use torch.compile; costs minutes at the start of every job."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Numbers of the networks: fp32, tf32 (GPU only) or bf16 (autocast), which changes maps more
    than it is worth (docs/evidence.md). Maps are summed in float32."""


class AdaptiveConfig(Section):
    """Refinement of a path until a target is met."""

    criterion: Literal["convergence", "completeness"] = "convergence"
    """convergence: cosine between successive refinements of the consensus reaches target;
    completeness: relative error of the worst member falls under target."""
    target: Number = Field(default=0.998, gt=0, lt=1)
    """The target; with convergence at least two levels are needed. 0.998 gives masks that overlap
    by about 0.95 with those of 512 nodes."""
    first: int = Field(default=3, ge=1, le=1024)
    """Nodes of the first level; each later level about doubles them."""
    max_nodes: int = Field(default=97, ge=1, le=8192)
    """Most nodes of a path."""


class NoiseConfig(Section):
    """Noisy copies of the image, which are averaged."""

    kind: Literal["smoothgrad", "smoothgrad_sq", "vargrad"] = "smoothgrad"
    """smoothgrad (mean), smoothgrad_sq (mean of squares) or vargrad (variance)."""
    samples: int = Field(default=5, ge=1, le=1000)
    """Number of copies."""
    stdev: Number = Field(default=0.15, gt=0)
    """Standard deviation as a share of the image's range."""


class MapsConfig(Section):
    """How a recipe's maps are made."""

    method: Literal[
        "integrated_gradients",
        "saliency",
        "input_x_gradient",
        "guided_backprop",
        "deconvolution",
        "deep_lift",
        "occlusion",
        "grad_cam",
        "hires_cam",
        "layer_cam",
        "multi_layer_cam",
        "attention_rollout",
        "tokencut",
        "maskcut",
        "found",
    ] = "integrated_gradients"
    """Attribution method."""
    committee: str = "doll"
    """Who explains: the members of classify.members with this committee."""
    fuse: bool = False
    """Multiply the map with the strength of the network's features (ExplainSeg's fusion)."""
    side: Annotated[int, Field(ge=16, le=2048)] | Literal["published"] | None = None
    """Side in pixels at which tokencut, maskcut, found and fuse show the images to the network.
    null is a transformer's own, and makes the last feature map of others about 14 across, as
    TokenCut has it. published is 480 for transformers, or the largest whole number of patches
    within (476 for patches of 14), and null for others. Numbers and published ask for a plain
    vision transformer of timm (or a network that is none); a number is a whole number of its
    patches."""
    masks: int = Field(default=3, ge=1, le=10)
    """Most masks of maskcut."""
    tau: Number | None = Field(default=None, ge=0, lt=1)
    """Cosine over which two places are alike to tokencut, maskcut and found; null is the published
    one (0.2, 0.15, 0.3)."""
    centred: bool = False
    """Subtract the mean over an image's places before tokencut, maskcut and found compare them.
    Not published; without it keys of DINOv2 are all alike, and their maps empty."""
    part: Literal["query", "key", "value"] = "key"
    """What of a transformer's attention tokencut, maskcut and found take for the feature of a
    place; published is key."""
    block: int = -1
    """Which attention of a transformer that is, counted from 0 or from the end; published is the
    last, -1."""
    upsample: Literal["nearest", "bilinear"] = "nearest"
    """How multi_layer_cam enlarges its layers' maps; MICRA-Net's is nearest."""
    nodes: int = Field(default=16, ge=1, le=4096)
    """Nodes of integrated_gradients, unless adaptive is given."""
    quadrature: Literal["gauss_legendre", "midpoint"] = "gauss_legendre"
    """Rule for a fixed number of nodes."""
    adaptive: AdaptiveConfig | None = None
    """Refine each map of integrated_gradients until it meets a target; null takes a fixed number
    of nodes."""
    noise: NoiseConfig | None = None
    """Average over noisy copies of the image; null does not."""
    layer: str | None = None
    """Layer of grad_cam, hires_cam, layer_cam by name; null takes the last with a spatial map."""
    layers: Filled[str] | None = None
    """Layers of multi_layer_cam by name; null takes the convolution blocks."""
    window: Number = Field(default=0.2, le=1, gt=0)
    """Window of occlusion as a share of the side."""
    stride: Number = Field(default=0.1, le=1, gt=0)
    """Step of occlusion's window as a share of the side."""
    baselines: Some[Literal["black", "white", "mean", "border", "median", "blur", "negatives"]] = (
        Field(default=["border"])
    )
    """Baselines to average over: black, white, mean (data set), border (the median of the image's
    outermost pixels: black around a brain, the bright field around a cell), median (image), blur,
    negatives (six training images without any finding)."""
    reduction: Literal["abs", "positive", "signed", "brighter"] = "abs"
    """Channels to one map. brighter is positive where the image is brighter than the baseline, one
    baseline at a time: for findings that are denser than what should be there (opacities)."""
    smoothing: Number | None = Field(default=None, ge=0)
    """Gaussian blur of the consensus (sigma in pixels of the map); null is 1/64 of its side."""


class RecipeConfig(Section):
    """A recipe: how maps are made, and how they become masks."""

    attribute: str | MapsConfig = Field(default_factory=MapsConfig)
    """How maps are made, or the name of another recipe whose maps are used."""
    binarize: Filled[Step] = Field(
        default=[{"gate": {}}, {"label_free": {}}, {"dense_crf": {"unary": "map"}}]
    )
    """Steps from map to mask, in order; each is one name with its arguments."""


class SampleConfig(Section):
    """Pairs on which thresholds are chosen without truth and recipes are checked."""

    splits: Some[Split] = Field(default=["train", "valid"])
    """Splits to draw from."""
    positives: int = Field(default=24, ge=2)
    """Pairs of each finding with a positive label."""
    checks: int = Field(default=8, ge=1)
    """Of these, how many are explained with random weights and for another finding; and how many
    pairs without the finding are explained."""


class CompareConfig(Section):
    """The comparison of recipes (snakemake compare)."""

    recipes: Some[str] | None = None
    """Recipes by name, configured or of the catalogue; null means all of both."""
    tuning: Number = Field(default=0.3, gt=0, lt=1)
    """Share of the patients with true masks whose masks choose the tuned thresholds; the scores
    are of the others."""
    few: int = Field(default=5, ge=1)
    """True masks of each finding that the few-shot rule sees."""
    timed: int = Field(default=6, ge=1)
    """Images on which seconds per image are measured."""
