"""Downstream tasks, fine-tuning on them, and the study of what a start is worth."""

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from dollmaker.config.base import (
    Augment,
    Count,
    Distinct,
    Filled,
    Named,
    Number,
    Rate,
    Run,
    Section,
    Some,
    StudyName,
    Text,
    Tuned,
    TuningName,
)


class TaskConfig(Section):
    """A downstream task: images with true masks."""

    table: str | None = None
    """CSV or Parquet file under data_root; null takes every picture of the folder images, and each
    is its own patient."""
    images: str
    """Folder of the images."""
    masks: str
    """Folder of the masks; of coco and chexlocalize the JSON file."""
    image_column: str = "image"
    """Column with the image's file name."""
    mask_column: str | None = None
    """Column with the mask's file name; rows without one are left out. Null: a mask is called as
    its image."""
    patient_column: str | None = None
    """Column with the patient; null means every image is its own."""
    encoding: Literal["index", "bits", "files", "coco", "chexlocalize"] = "index"
    """index: a pixel holds a class number; bits: a sum of class bits, each named by its value (1,
    2, 4 ...); files: a folder of masks for every class; coco, chexlocalize: a JSON file."""
    classes: Named[str, Filled[Count | Text]]
    """Class name -> its pixel values (index), bit values (bits), folders (files), categories
    (coco) or findings (chexlocalize)."""
    ignore: int | None = None
    """Pixel value that is neither class nor background; null if none."""
    train_empty: bool = True
    """Draw training images among those whose mask is empty, too. False: the n training images each
    hold a class, as when a person draws masks where there is something to draw; validation and
    test keep all."""
    valid: Number | None = Field(default=0.15, gt=0, lt=1)
    """Share of patients for validation; null takes the split of the data set."""
    test: Number | None = Field(default=0.35, gt=0, lt=1)
    """Share of patients for the test scores; null takes the split of the data set."""


class AdaptConfig(Section):
    """Fine-tuning on the tasks."""

    runs: Distinct[Run] = Field(default=["random/full", "doll/full", "doll/adapter"])
    """Combinations, each init/tuning; init is random, imagenet, classifier or doll; tuning is
    full, head, decoder (decoder and head), adapter or lora (small things in a frozen encoder,
    decoder and head), or bias (biases, normalisation weights and head)."""
    imagenet: str | None = None
    """Weights of the imagenet start, by name as in classify.members.*.weights, or a file under
    weights_root. Mean and deviation come with them; a file that names none sees pixels in [-1,
    1]."""
    n: Some[Count | Literal["all"]] = Field(default=[5, "all"])
    """Numbers of training images; all takes every one."""
    seeds: int = Field(default=2, ge=1)
    """Number of seeds (choices of images and of random weights)."""
    steps: int = Field(default=100, ge=1)
    """Optimiser steps of a run."""
    batch_size: int = Field(default=8, ge=1)
    """Images a step."""
    learning_rate: Rate | Some[Rate] = 0.002
    """Peak learning rate. Too low, and the runs stop before they have learned, which favours
    starts with a trained decoder. Of several, each start, tuning and n takes the one with the best
    validation mIoU, mean over seeds."""
    freeze_batch_norm: bool = True
    """Keep the encoder's batch normalisation statistics (never for random)."""
    norm: Literal["few", "pool", "frozen"] = "few"
    """What the statistics of batch normalisation that is not frozen are measured on before each
    evaluation, the weights unchanged: few, the run's training images; pool, all training images of
    the task, without their masks; frozen, nothing: they stay as training left them."""
    new_blocks: int | None = Field(default=None, ge=0)
    """Blocks at the end of a pre-trained decoder that start anew: those that draw the outline
    transfer worst. 0 keeps all, as tunings head and bias always do; null is 0 where the head is
    kept, otherwise 2 for Unet, Linknet and MAnet, 0 for others."""
    new_head: bool = False
    """The head of a pre-trained segmenter starts anew even for classes that it was pre-trained on
    (classes of the task called as findings). They otherwise keep their part of the head, unless
    new_blocks are under it."""
    adapter_width: Number = Field(default=0.125, le=1, gt=0)
    """Bottleneck of an adapter as a share of the stage's channels; narrowed where five percent of
    the encoder would be passed."""
    lora_rank: int = Field(default=4, ge=1)
    """Rank of the updates of tuning lora."""
    augment: Augment = "geometric"
    """Augmentation as in classify."""
    allow_alike: bool = False
    """Take a task although a test image of it looks like an image that its start has seen
    (perceptual hash, at most 16 of 256 bits apart): for different pictures that look alike. The
    same patient, name or file is refused in any case."""
    evaluations: int = Field(default=5, ge=1)
    """Times the validation set is scored during a run (points of the curve)."""


_FULL: list[Tuned] = ["full"]


class PretrainingConfig(Section):
    """How a start of the study is pre-trained on the release."""

    segment: dict[str, Any] = Field(default={})
    """What differs from section segment, e.g. objectives."""
    new_blocks: int | None = Field(default=None, ge=0)
    """As adapt.new_blocks, for this start; null takes that."""


class TuningConfig(Section):
    """What differs of a tuning of the study from section adapt."""

    model_config = ConfigDict(extra="allow")
    may_lack: ClassVar = frozenset({"tuning"})

    tuning: Tuned | None = None
    """What is trained; else the tuning's name says it."""


class StudyConfig(Section):
    """What a start is worth (`snakemake study`)."""

    architectures: Named[StudyName, dict[str, Any]] = Field(default={"default": {}})
    """Name -> what differs from section segment (architecture, encoder, arguments)."""
    pretrainings: dict[StudyName, PretrainingConfig] = Field(default={"doll": PretrainingConfig()})
    """Name of a start -> how its segmenter is pre-trained on the release. Those that differ only
    in new_blocks share one segmenter."""
    inits: Some[str] = Field(default=["random", "classifier", "doll"])
    """Starts: random, imagenet, classifier, or names of pretrainings."""
    tunings: Some[Tuned] | Named[TuningName, TuningConfig] = Field(default=_FULL)
    """Tunings as in adapt.runs; or name -> what differs from section adapt (steps, learning_rate,
    new_blocks ...), and `tuning`, what is trained, where the name is not one of those."""
    tasks: Filled[str] | None = None
    """Tasks of the section tasks; null takes all."""
    n: Some[Count | Literal["all"]] = Field(default=[5, 20])
    """Numbers of training images; all takes every one."""
    seeds: int = Field(default=3, ge=1)
    """Number of seeds."""
