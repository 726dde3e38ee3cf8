"""torchxrayvision's classifiers (Cohen et al. 2022, arXiv 2111.00595), as plain facts.

Written down from the library's version 1.5.7 (``torchxrayvision.models.model_urls``; a test
compares). Its DenseNet-121 and ResNet-50 have torchvision's layers, names and results, with one
input channel, so that they run without the library. Its outputs are logits; only when its own
weights are loaded does it go on to a sigmoid, and to a scale on which every operating point
(``op_threshs``) is 0.5. What is explained here is the logit.
"""

from dataclasses import dataclass

#: What its networks are called here: ``xrv:NAME``.
PREFIX = "xrv:"

#: Its input: pixels in [-1024, 1024], which is ``(x / 255 - mean) / std``.
MEAN, STD = 0.5, 1 / 2048

#: Names of the outputs, in their order.
OUTPUTS = (
    *("Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema"),
    *("Fibrosis", "Effusion", "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule"),
    *("Mass", "Hernia", "Lung Lesion", "Fracture", "Lung Opacity", "Enlarged Cardiomediastinum"),
)


@dataclass(frozen=True)
class Network:
    """One of its networks."""

    architecture: str  #: torchvision's name of the same layers.
    size: int  #: Side of the images that it was trained on.
    #: Outputs without a name or without an operating point: nobody taught them.
    untrained: tuple[str, ...]

    @property
    def outputs(self) -> list[str | None]:
        """Names of the outputs in their order, ``None`` for those that are untrained."""
        return [None if name in self.untrained else name for name in OUTPUTS]


_NOT_NIH = ("Lung Lesion", "Fracture", "Lung Opacity", "Enlarged Cardiomediastinum")
_NOT_CHEXPERT = (
    *("Infiltration", "Emphysema", "Fibrosis", "Pleural_Thickening"),
    *("Nodule", "Mass", "Hernia"),
)
_UNTRAINED = {
    "densenet121-res224-all": (),
    "densenet121-res224-nih": _NOT_NIH,
    "densenet121-res224-pc": ("Lung Lesion", "Lung Opacity", "Enlarged Cardiomediastinum"),
    "densenet121-res224-chex": _NOT_CHEXPERT,
    "densenet121-res224-rsna": tuple(n for n in OUTPUTS if n not in ("Pneumonia", "Lung Opacity")),
    "densenet121-res224-mimic_nb": _NOT_CHEXPERT,
    "densenet121-res224-mimic_ch": _NOT_CHEXPERT,
    "resnet50-res512-all": ("Lung Lesion", "Enlarged Cardiomediastinum"),
}


def _network(name: str, untrained: tuple[str, ...]) -> Network:
    """A network by its name, which begins with architecture and size."""
    architecture, size, _ = name.split("-")
    return Network(architecture, int(size.removeprefix("res")), untrained)


#: Name -> network.
NETWORKS = {name: _network(name, untrained) for name, untrained in _UNTRAINED.items()}


def find(architecture: str) -> Network | None:
    """The network that an architecture names; ``None`` if it is none of this library's."""
    if not architecture.startswith(PREFIX):
        return None
    return NETWORKS.get(architecture.removeprefix(PREFIX))


def file_name(architecture: str) -> str:
    """How its weights file under ``weights_root`` is called unless the configuration says."""
    return f"xrv-{architecture.removeprefix(PREFIX)}.safetensors"
