"""The networks: the committee, the segmenter, and where the segmenter looks."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dollmaker.config.base import (
    Augment,
    Filled,
    Name,
    Named,
    Number,
    Pair,
    Precision,
    Rate,
    Section,
    Seed,
    Some,
    Text,
)


class InputConfig(Section):
    """What a member's network expects."""

    may_lack: ClassVar = frozenset({"channels", "size"})

    channels: int | None = Field(default=None, ge=1, le=1000)
    """Instead of classify.input_channels."""
    size: int | None = Field(default=None, ge=16, le=4096)
    """Side in pixels, instead of prepare.size: images are resized to it, and maps back."""


class MemberConfig(Section):
    """A member of the committee, as far as it differs from the others."""

    architecture: str = "mobilenet_v2"
    """torchvision or timm name, or micranet; torchvision:NAME, timm:NAME or dollmaker:NAME insists
    on one. mil:NAME is a plain vision transformer of timm with a head on every patch, for maps by
    grad_cam (docs/how-to/choose-a-recipe.md). xrv:NAME is a ready classifier of torchxrayvision
    (docs/how-to/ready-classifiers.md)."""
    weights: str | None = None
    """What it starts from: pretrained (the library's default for the architecture), timm:NAME.TAG,
    torchvision:NAME.WEIGHTS, hf:OWNER/REPO[@REVISION][/FILE], or a safetensors file under
    weights_root; null starts from random weights (of xrv:NAME null and pretrained are the file
    xrv-NAME.safetensors)."""
    findings: Filled[str | None] | None = None
    """Of a ready classifier, with epochs 0: what the outputs of its last layer are called, in
    order, null for those that are no finding. They are matched to the data set's findings by name.
    Null trains a last layer for the findings; xrv: networks know their own."""
    input: InputConfig = InputConfig()
    """What the network expects, where it differs from the others; mean and std beside it do the
    same. xrv: networks know their own."""
    linear_probe: bool = False
    """Train the last layer only."""
    committee: Name = "doll"
    """The committee it votes in; recipes name the one that explains. Without members of these
    names, probe is a linear probe on the weights of the first member and micranet is MICRA-Net's
    network."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """adamw and adam follow a one-cycle schedule; sgd has momentum and a tenth of the rate every
    50 epochs (ExplainSeg)."""
    epochs: int | None = Field(default=None, ge=0)
    """Most epochs of this member; null takes classify.epochs, 0 leaves it as its weights are: a
    ready classifier, or features only."""
    learning_rate: Number | None = Field(default=None, gt=0)
    """Peak learning rate of this member; null takes classify.learning_rate."""
    mean: Number | Filled[Number] | None = None
    """As classify.mean, for this member; null takes that."""
    std: Rate | Filled[Rate] | None = None
    """As classify.std, for this member; null takes that."""
    seed: Seed = 0
    """Added to the global seed."""


class ClassifyConfig(Section):
    """The committee of multi-label classifiers."""

    members: Named[Name, MemberConfig] = Field(default={"member0": MemberConfig()})
    """Member name -> what differs from the others."""
    input_channels: int | None = Field(default=None, ge=1, le=1000)
    """Channels of the networks; null means those of the images. Grey images are repeated; 1 takes
    the mean of the images' channels."""
    mean: Number | Filled[Number] | None = None
    """Mean that is subtracted from images in [0, 1], one number or one for each channel; null
    takes what each member's weights name, or 0.5."""
    std: Rate | Filled[Rate] | None = None
    """Deviation that images in [0, 1] are divided by; as mean."""
    epochs: int = Field(default=10, ge=1)
    """Most epochs."""
    patience: int = Field(default=3, ge=1)
    """Stop after this many epochs without a better validation AUROC."""
    batch_size: int = Field(default=32, ge=1)
    """Images a step."""
    learning_rate: Number = Field(default=0.001, gt=0)
    """Peak learning rate (AdamW with a one-cycle schedule)."""
    weight_decay: Number = Field(default=0.01, ge=0)
    """Weight decay."""
    freeze_batch_norm: bool = False
    """Keep the statistics of batch normalisation as they came with the weights (never for members
    without)."""
    augment: Augment = "geometric"
    """Random shift, scale and rotation; flip adds mirroring left to right."""
    balance: bool = True
    """Weight positives of each finding by their rarity (capped at 10). Probabilities take the
    weights back."""
    calibrate: Literal["none", "temperature"] = "none"
    """temperature divides the logits of each member by the one number under which the labels of
    the validation images are most likely; it changes probabilities, not maps."""
    uncertain: dict[str, Literal["ignore", "zeros", "ones", "smooth-ones"]] = Field(
        default={"default": "ignore"}
    )
    """Policy for label -1 by finding; 'default' is for those not named. smooth-ones is 0.55 to
    0.85."""
    blank: Literal["zeros", "ignore"] = "zeros"
    """Policy for findings that were not mentioned."""
    precision: Precision = "32-true"
    """Numbers of training."""
    bootstrap: int = Field(default=1000, ge=10)
    """Bootstrap replicates over patients for the intervals."""


class ObjectivesConfig(Section):
    """Weights of what a segmenter learns together; 0 leaves it out."""

    masks: Number = Field(default=1, ge=0)
    """The pseudo-masks."""
    structure: Number = Field(default=0, ge=0)
    """Clusters of the starting encoder's features, a label for every pixel of every image."""
    classification: Number = Field(default=0, ge=0)
    """The image-level labels, from the encoder."""


class SegmentConfig(Section):
    """Pre-training of the segmenter on the release, end to end."""

    architecture: str = "Unet"
    """segmentation-models-pytorch architecture."""
    encoder: str = "mobilenet_v2"
    """Its encoder; tu-NAME takes any timm network."""
    arguments: dict[str, Any] = Field(default={})
    """More arguments of the architecture, e.g. decoder_channels."""
    init: str = "random"
    """Start of the encoder: random, a committee member's name, published weights by name as in
    classify.members.*.weights, or a weights file under weights_root."""
    epochs: int = Field(default=5, ge=1)
    """Epochs."""
    batch_size: int = Field(default=16, ge=1)
    """Images a step."""
    learning_rate: Number = Field(default=0.001, gt=0)
    """Peak learning rate of the decoder."""
    encoder_learning_rate: Number = Field(default=0.1, ge=0)
    """The encoder's learning rate as a factor of the decoder's; always 1 for a random encoder."""
    loss: Literal["bce_dice", "focal"] = "bce_dice"
    """Pixel loss."""
    objectives: ObjectivesConfig = ObjectivesConfig()
    """Weights of what is learned together; 0 leaves it out."""
    clusters: int = Field(default=16, ge=2)
    """Number of clusters of the structure."""
    background_weight: Number = Field(default=0.1, ge=0, le=1)
    """Weight of background pixels."""
    quality_weight: bool = True
    """Weight each mask by its quality."""
    freeze_batch_norm: bool = False
    """Keep the encoder's batch normalisation statistics (never for random)."""
    augment: Augment = "geometric"
    """Augmentation as in classify."""
    precision: Precision = "32-true"
    """Numbers of training."""


class ExplainConfig(Section):
    """Where the segmenter looks (snakemake explain)."""

    methods: Some[Literal["seg_grad_cam", "seg_hires_cam"]] = Field(
        default=["seg_grad_cam", "seg_hires_cam"]
    )
    """Methods to set side by side."""
    layer: Text = "encoder.-1"
    """Layer whose feature maps are looked at: a module, or a stage such as encoder.-1 (the
    deepest) or decoder.0."""
    pixels: Literal["image", "class", "truth", "point", "zero"] | None = None
    """Pixels whose logits are explained: image (all), class (those predicted as the class), truth
    (those of the pseudo-mask), point or zero (none). Null is point if one is given, else class."""
    point: Pair[Annotated[int, Field(ge=0)]] | None = None
    """Column and row of the point."""
    images: int | None = Field(default=None, ge=1)
    """Images to explain at most, the first by name; null means all."""
