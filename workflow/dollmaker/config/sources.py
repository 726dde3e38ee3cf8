"""What is read: the source of images and labels, and how it is prepared."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from dollmaker.config.base import (
    Count,
    Filled,
    Named,
    Number,
    Pair,
    Section,
    Some,
    Text,
    lacks,
    needs,
)

#: Kinds of sources whose pictures are made before anything else.
CONVERTED = ("dicom", "patches", "msd", "jsrt")

#: Share of patients held out for scores, where nothing else says which.
TEST = 0.2

#: A value of labels, and a share of voxels in percent.
Voxel = Annotated[int, Field(ge=1, le=255)]
Percentile = Annotated[Number, Field(ge=0, le=100)]


class PhantomsConfig(Section):
    """The generated radiographs (kind phantoms)."""

    images: int = Field(default=1000, ge=20)
    """Number of images."""
    size: int = Field(default=128, ge=32, le=4096)
    """Long side in pixels."""
    task_images: int = Field(default=120, ge=10)
    """Number of images of each downstream task."""


class ChexpertConfig(Section):
    """CheXpert as released (kind chexpert)."""

    folder: str = "CheXpert-v1.0-small"
    """Folder under data_root with train.csv and valid.csv."""
    views: Some[Literal["frontal", "lateral"]] = Field(default=["frontal"])
    """Views to use."""


class TableConfig(Section):
    """Any table and folder (kind table)."""

    file: str
    """CSV or Parquet file under data_root."""
    images: str
    """Folder of the images under data_root."""
    image_column: str
    """Column with the image's path inside that folder."""
    patient_column: str | None = None
    """Column that says which images belong to one patient; null means every image is its own
    patient."""
    label_column: str | None = None
    """One column with the class name of each image. Give this or finding_columns."""
    finding_columns: Some[str] | None = None
    """One column per finding with 1, 0, -1 or blank. Give this or label_column."""
    split_column: str | None = None
    """Column with train, valid or test; null splits patients by hash."""


class FolderConfig(Section):
    """A folder of class folders (kind folder)."""

    root: Text
    """Folder under data_root that holds the class folders, or train, valid and test with them."""
    negative: Text | None = None
    """The class that is no finding, such as normal; null makes each class a finding."""
    patient: Text | None = None
    """Regular expression, searched in the path below root; its first group is the patient. Null
    means every image is its own patient."""
    splits: Literal["auto", "as_given", "hash"] = "auto"
    """as_given takes folders at the top called train, valid (val) and test as the splits; hash
    takes the folders at the top as classes and splits patients by hash; auto takes as_given where
    all folders at the top are so called."""


class NihConfig(Section):
    """ChestX-ray14 as released (kind nih)."""

    folder: str = "ChestX-ray14"
    """Folder under data_root with the table; images there, in images/ or in images_001/images to
    images_012/images."""
    table: str = "Data_Entry_2017_v2020.csv"
    """The table in that folder."""
    views: Some[Literal["PA", "AP"]] = Field(default=["PA", "AP"])
    """Views to use."""


class DicomConfig(Section):
    """A tree of DICOM files (kind dicom)."""

    folder: Text
    """Folder under data_root with the studies, at any depth."""
    labels: Text
    """CSV or Parquet file under data_root with one row per study, patient or image."""
    by: Literal["study", "patient", "image"]
    """What a row of the labels is of."""
    id_column: Text | None = None
    """Column that names it; null is StudyInstanceUID, PatientID or SOPInstanceUID."""
    finding_columns: Some[str]
    """One column per finding with 1, 0, -1 or blank."""
    modality: Some[str] = Field(default=["CR", "DX"])
    """Modalities to use, as headers have them."""
    view: Some[str] | None = None
    """Views to use, as ViewPosition has them, such as PA and AP; null means all, also without
    one."""
    patient: Literal["header", "study"] = "header"
    """What keeps images in one split: the PatientID of the header, or the study where that is
    missing or the same for all."""
    key: Text | None = None
    """File under data_root with at least 16 signs that nobody else knows, by which names of images
    and patients are made of those in the headers. Needed unless keep_ids."""
    keep_ids: bool = False
    """Call images and patients as the headers do, also in what is released."""


class PatchesConfig(Section):
    """Images are cut into squares, each labelled by its mask (kind patches)."""

    table: str
    """CSV or Parquet file under data_root."""
    images: str
    """Folder of the images under data_root."""
    masks: str
    """Folder of the masks under data_root."""
    image_column: str
    """Column with the image's path inside that folder."""
    mask_column: str
    """Column with the mask's path inside that folder."""
    patient_column: str | None = None
    """Column that says which images belong to one patient; null means every image is its own. All
    patches of a patient are in one split."""
    finding: Text
    """Name of the objects."""
    values: Filled[Count] | None = None
    """Pixel values of objects in the masks; null means any but 0 (in a JPEG mask, brighter than
    half)."""
    side: int = Field(default=64, ge=8, le=4096)
    """Side of a patch in pixels, after scale."""
    stride: int | None = Field(default=None, ge=1)
    """Step from patch to patch in pixels; null is side (no overlap)."""
    scale: Number = Field(default=1.0, le=16, gt=0)
    """Images are resized by this factor first."""
    min_share: Number = Field(default=0.0, ge=0, le=1)
    """A patch is positive if it holds any object pixel and their share reaches this."""
    balance: bool = True
    """Thin the larger class of each split to the number of the smaller one."""


class MsdConfig(Section):
    """Volumes laid out as the Medical Segmentation Decathlon or nnU-Net (kind msd)."""

    folder: str = "Task01_BrainTumour"
    """Folder under data_root with dataset.json."""
    channel: int | str = 0
    """Channel by number or by its name in dataset.json (modality, channel_names)."""
    channels: Literal["all"] | Some[int | str] | None = None
    """Several channels in place of one: all, or a list of numbers and names. Slices are then TIFF
    files, each channel scaled by itself, the first shown in pictures; prepare.channels says how
    many."""
    findings: Named[str, Filled[Voxel]] = Field(default={"tumour": [1, 2, 3]})
    """Finding -> label values that are it. A volume with other values is left out, unless
    dataset.json declares them and this is not the default."""
    every: int = Field(default=1, ge=1)
    """Take each n-th slice."""
    min_share: Number = Field(default=0.0, ge=0, le=1)
    """A slice is positive if it holds any voxel of the finding and their share reaches this."""
    window: Pair[Percentile] = Field(default=[0.5, 99.5])
    """Percentiles of the voxels of the body that become black and white. Outside of it is the
    value that all corners of the volume have, or else 0."""


class JsrtConfig(Section):
    """JSRT's raw radiographs and the SCR masks of organs (kind jsrt)."""

    images: str
    """Folder under data_root with the .IMG files."""
    masks: str | None = None
    """Folder under data_root with the organs' folders at any depth; null if there are none."""
    size: int = Field(default=1024, ge=16, le=4096)
    """Side of the pictures that are written (pixels)."""
    raw_size: int = Field(default=2048, ge=16, le=8192)
    """Side of the raw files (pixels)."""


class SourceConfig(Section):
    """The data set with image-level labels."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [needs("kind", kind, kind) for kind in ("folder", "nih", *CONVERTED)]
        }
    )
    may_lack: ClassVar = frozenset({"table", "folder", "nih", *CONVERTED})

    kind: Literal[
        "phantoms", "chexpert", "folder", "table", "nih", "dicom", "patches", "msd", "jsrt"
    ]
    """phantoms (generated), folder (a folder of class folders), table (any CSV or Parquet and a
    folder), as released: chexpert, nih (ChestX-ray14); converted first: dicom (a tree of studies),
    patches (images cut by their masks), msd (volumes), jsrt (raw files)."""
    phantoms: PhantomsConfig = PhantomsConfig()
    """The generated radiographs (kind phantoms)."""
    chexpert: ChexpertConfig = ChexpertConfig()
    """CheXpert as released (kind chexpert)."""
    table: TableConfig | None = None
    """Any table and folder (kind table)."""
    folder: FolderConfig | None = None
    """A folder of class folders (kind folder); an image has 1 for the class that its folder is
    called."""
    nih: NihConfig | None = None
    """ChestX-ray14 as released (kind nih). The lists of training and test images are honoured
    where they lie in the folder."""
    dicom: DicomConfig | None = None
    """A tree of DICOM files (kind dicom), whose patients and views are in their headers and whose
    labels are in a table."""
    patches: PatchesConfig | None = None
    """Images are cut into squares, each labelled by its mask (kind patches)."""
    msd: MsdConfig | None = None
    """Volumes laid out as the Medical Segmentation Decathlon or nnU-Net, turned upright and cut
    into slices from below upwards (kind msd)."""
    jsrt: JsrtConfig | None = None
    """JSRT's raw radiographs and the SCR masks of organs (kind jsrt)."""

    @property
    def own(self) -> Any:
        """The section of its kind."""
        return getattr(self, self.kind)

    @property
    def says_test(self) -> bool:
        """Whether it says itself which images are test, whatever files are there."""
        by_column = self.table is not None and self.table.split_column is not None
        return self.kind in ("phantoms", "chexpert") or (self.kind == "table" and by_column)

    @model_validator(mode="after")
    def _describe_the_kind(self) -> Self:
        if self.kind != "table" and self.own is None:
            raise lacks(self.kind)
        return self


def _without_default(rule: dict[str, Any]) -> None:
    """Take the default out of a key's rule in the JSON schema: it depends on other keys."""
    del rule["default"]


class PrepareConfig(Section):
    """Decoding, splitting and sharding."""

    size: int = Field(default=224, ge=16, le=4096)
    """Side of the square image the networks see (pixels)."""
    channels: int = Field(default=1, ge=1, le=1000)
    """Channels of the images: 1 (grey), 3 (colour), or as many as the source has (pages or bands
    of TIFF files, arrays, source.msd.channels)."""
    bits: Literal[8, 16] = 8
    """Bits of a stored pixel: 8, or 16 for sources that are deeper (PNG, TIFF, DICOM, volumes),
    twice as large. Windows are the same, their steps are 65536."""
    fit: Literal["letterbox", "resize", "crop"] = "letterbox"
    """letterbox keeps the aspect ratio and pads with black; resize stretches; crop takes the
    centre square."""
    shards: int = Field(default=1, ge=1, le=100000)
    """Number of shards."""
    valid: Number = Field(default=0.1, ge=0, lt=1)
    """Share of patients held out to stop training."""
    test: Number = Field(default=0.0, ge=0, lt=1, json_schema_extra=_without_default)
    """Share of patients held out for scores. Left out, it is 0.2; but 0.0 where the source says
    which images are test (phantoms; chexpert, whose valid.csv is always test; a table with
    split_column), and with hold_out_truth. ChestX-ray14's test list and a folder called test,
    where they are there, count in its place."""
    hold_out_truth: bool = False
    """All patients with a true mask are in test, whatever their hash says (truth of kind masks)."""
    max_quarantined: Number = Field(default=0.01, ge=0, le=1)
    """Share of images that may be broken before the run stops."""
    max_pixels: int = Field(default=100_000_000, ge=1)
    """Images with more pixels are refused (decompression bombs)."""
