"""Segmentation networks of segmentation-models-pytorch by name, and their starting weights.

Networks start from random numbers or from local files; named weights were fetched before.
"""

import difflib
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.encoders import encoders as NATIVE_ENCODERS
from torch import Tensor, nn

from dollmaker.config import weight_names
from dollmaker.networks.inputs import Input
from dollmaker.networks.weights import Normalisation, load_weights, read_normalisation, read_weights
from dollmaker.runtime.errors import ArtifactError, ModelError, first_line, unknown
from dollmaker.store.files import read_json, sha256_file

if TYPE_CHECKING:  # who predicts with a release has no pydantic
    from dollmaker.config.networks import SegmentConfig

ARCHITECTURES: dict[str, str] = {
    name: model.__name__ for name, model in smp.MODEL_ARCHITECTURES_MAPPING.items()
}

#: Keys of section ``segment`` that make the network.
NETWORK = ("architecture", "encoder", "arguments")

#: Arguments that this project sets itself, or that would change what the network returns.
_RESERVED = (
    *("encoder_name", "encoder_weights", "in_channels", "classes"),
    *("activation", "aux_params"),
)

#: Images of a pass.
BATCH = 32


def read_segmenter(folder: Path) -> nn.Module:
    """Read a segmenter from its folder, or from a release that carries it.

    Raises:
        ModelError: If there is none.
    """
    if (folder / "models" / "segmenter").is_dir():
        folder = folder / "models" / "segmenter"
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no segmenter; give the folder that the stage segment made.")
    with redirect_stdout(io.StringIO()):
        model: nn.Module = smp.from_pretrained(folder)
    return model


def create(
    options: "SegmentConfig", *, channels: int, classes: int, size: int, seed: int
) -> nn.Module:
    """A network with random weights that depend on the seed alone.

    The encoder draws its random numbers first, then the decoder, then the head: networks of one
    architecture and seed have the same decoder whatever is loaded into the encoder afterwards. Of
    the options :data:`NETWORK` counts. ``classes`` are the channels of the output, logits.

    Raises:
        ModelError: If a name is unknown, or architecture, encoder, arguments and size do not fit.
    """
    architecture, encoder = options.architecture, options.encoder
    check_names(architecture, encoder)
    for name in _RESERVED:
        if name in options.arguments:
            raise ModelError(f"segment.arguments may not hold {name!r}; remove it.")
    title = f"{ARCHITECTURES[architecture.lower()]} with encoder {encoder}"
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            model: nn.Module = smp.create_model(
                architecture, encoder, encoder_weights=None, in_channels=channels, classes=classes,
                **options.arguments,
            )  # fmt: skip
    except Exception as error:  # the libraries raise many types for combinations that do not fit
        raise ModelError(
            f"cannot make {title} ({first_line(error)}); correct segment.arguments."
        ) from None
    _check_size(model, title, channels, size)
    return model.to(memory_format=torch.channels_last)


def narrow(
    model: nn.Module, options: "SegmentConfig", *, channels: int, classes: int, size: int
) -> nn.Module:
    """The same network with the first ``classes`` channels of its output only."""
    new = create(options, channels=channels, classes=classes, size=size, seed=0)
    own = new.state_dict()
    new.load_state_dict(
        {k: t[: len(own[k])] if t.ndim else t for k, t in model.state_dict().items()}
    )
    return new


def check_names(architecture: str, encoder: str) -> None:
    """Refuse an architecture or an encoder that does not exist, with the names there are."""
    if architecture.lower() not in ARCHITECTURES:
        raise ModelError(unknown("architecture", architecture, ARCHITECTURES.values()))
    if encoder in NATIVE_ENCODERS:
        return
    if encoder.startswith("tu-") and timm.is_model(encoder.removeprefix("tu-").split(".")[0]):
        return
    known = [*NATIVE_ENCODERS, *(f"tu-{name}" for name in timm.list_models())]
    close = difflib.get_close_matches(encoder, known, n=5, cutoff=0.5)
    close += [name for name in known if name == f"tu-{encoder}" and name not in close]
    hint = f"did you mean {', '.join(close)}? " if close else ""
    raise ModelError(
        f"unknown encoder {encoder!r}; {hint}Use one of: {', '.join(NATIVE_ENCODERS)}, or tu- and "
        "the name of a timm network."
    )


def _check_size(model: nn.Module, title: str, channels: int, size: int) -> None:
    """Pass zeros forward: a size that does not fit fails here, before hours of work."""
    model.eval()
    try:
        with torch.no_grad():
            out = model(torch.zeros(1, channels, size, size))
    except Exception as error:
        remedy = "a multiple of 32" if size % 32 else "more, or choose another segment.architecture"
        raise ModelError(
            f"{title} does not take images of {size} pixels ({first_line(error)}); set "
            f"prepare.size to {remedy} (ViT: give img_size in segment.arguments)."
        ) from None
    if out.shape[-2:] != (size, size):
        raise ModelError(
            f"{title} gives {out.shape[-1]} pixels for {size}; set prepare.size to a multiple "
            "of 32."
        )
    model.train()


@dataclass(frozen=True, kw_only=True)
class Start:
    """Weights an encoder starts from, and their checksum; both are empty for random weights.

    ``input`` is what the network that they come from expects, ``source`` is for messages.
    """

    state: dict[str, Tensor]
    input: Input
    source: str
    sha256: str = ""

    def load(self, encoder: nn.Module) -> None:
        """Fill an encoder, in place; a ``ModelError`` if the weights belong to another network."""
        if self.state:
            load_weights(encoder, self.state, source=self.source)


def find_start(
    options: "SegmentConfig",
    committee: Sequence[Path],
    weights_root: Path,
    *,
    channels: int,
    size: int,
) -> Start:
    """The start of the encoder that ``options.init`` names, for images of channels and size.

    It is ``random``, a committee member, whose folder is among those of the members, published
    weights by name, or a file under ``weights_root``.

    Raises:
        ModelError: If it is neither, or the file is not usable.
    """
    init = options.init
    if init == "random":
        return random_start(channels=channels, size=size)
    members = {folder.name: folder for folder in committee}
    if init in members:
        return member_start(members[init], channels=channels, size=size)
    file = weight_names.locate(weights_root, init, weight_names.of_encoder(options.encoder))
    if not file.is_file():
        known = "".join(f"{name}, " for name in members)
        raise ModelError(
            f"segment.init {init!r} is no committee member and no file under {weights_root}; use "
            f"random, {known}or the name of a safetensors file there."
        )
    return file_start(file, channels=channels, size=size)


def random_start(*, channels: int, size: int) -> Start:
    """No weights, and images in [-1, 1]."""
    return Start(state={}, input=Input(channels=channels, size=size), source="random weights")


def member_start(folder: Path, *, channels: int, size: int) -> Start:
    """A committee member as start: its weights and its normalisation.

    Channels and size stay those of the images. The first convolution, mean and deviation are
    adapted to the channels (:func:`dollmaker.networks.weights.load_weights`,
    :func:`dollmaker.networks.inputs.per_channel`).

    Raises:
        ArtifactError: If its description is missing or damaged.
        ModelError: If its weights are not usable.
    """
    description = read_json(folder / "model.json")
    try:
        theirs, architecture = description["input"], description["architecture"]
        spec = Input(channels=channels, size=size, mean=theirs["mean"], std=theirs["std"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{folder / 'model.json'} is not as written ({error}); train the member {folder.name} "
            "again."
        ) from None
    file = folder / "model.safetensors"
    source = f"committee member {folder.name} ({architecture})"
    return Start(state=read_weights(file), input=spec, sha256=sha256_file(file), source=source)


def file_start(file: Path, *, channels: int, size: int) -> Start:
    """A weights file as start, with the normalisation that it names, else pixels in [-1, 1].

    Raises:
        ModelError: If it is missing or is not safetensors.
    """
    state = read_weights(file)
    own = read_normalisation(file) or Normalisation()
    spec = Input(channels=channels, size=size, mean=own.mean, std=own.std)
    return Start(state=state, input=spec, sha256=sha256_file(file), source=f"weights file {file}")


def predict(model: nn.Module, images: Tensor, spec: Input) -> Tensor:
    """Predicted masks, bool (B, K, H, W), of images (B, C, H, W) in levels.

    The network runs where it lies, in the mode (training or evaluation) that it is in.
    """
    return torch.cat([logits > 0 for logits in predict_logits(model, images, spec)])


@torch.no_grad()
def predict_logits(model: nn.Module, images: Tensor, spec: Input) -> Iterator[Tensor]:
    """Logits float32 (b, K, H, W) of stored images, batch by batch. As :func:`predict`."""
    device = next(model.parameters(), images).device
    for batch in torch.split(images, BATCH):
        yield model(spec.prepare(batch.to(device))).float().cpu()
