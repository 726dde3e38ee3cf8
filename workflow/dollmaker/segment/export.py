"""The encoder of a segmenter as a state dict of timm or torchvision, with their own names."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dollmaker.errors import ModelError
from dollmaker.files import atomic_path, read_json
from dollmaker.weights import to_bytes

#: Encoders of segmentation-models-pytorch that are torchvision's networks under its names.
_TORCHVISION = re.compile(
    r"(resnet(18|34|50|101|152)|resnext(50_32x4d|101_32x8d)|densenet(121|169|201|161)"
    r"|mobilenet_v2|vgg(11|13|16|19)(_bn)?)$"
)


def read_segmenter(folder: Path) -> nn.Module:
    """Read a segmenter as segmentation-models-pytorch does, without its word on standard output.

    Raises:
        ModelError: If there is none.
    """
    import segmentation_models_pytorch as smp

    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no segmenter; give the folder that the stage segment made.")
    with redirect_stdout(io.StringIO()):
        model: nn.Module = smp.from_pretrained(folder)
    return model


def export_encoder(segmenter: Path | str, output: Path | str) -> list[str]:
    """Write the encoder of a segmenter as a plain network's state dict.

    ``tu-`` encoders get the names of ``timm.create_model`` and keep their input channels (give it
    ``in_chans``). Torchvision's networks take three: a first convolution of one channel is spread
    over three, so that a grey image fed thrice gives the same output. Other encoders keep the
    names of segmentation-models-pytorch. The metadata of the file says which (``library``,
    ``architecture``, ``channels``).

    Args:
        segmenter: Folder that the stage segment made.
        output: The safetensors file to write.

    Returns:
        Names that the plain network has besides: its classifier head, and in some networks of
        timm the layers between the last feature map and the head.

    Raises:
        ModelError: If there is no segmenter.
    """
    segmenter, output = Path(segmenter), Path(output)
    encoder: Any = read_segmenter(segmenter).get_submodule("encoder")
    name = str(read_json(segmenter / "config.json")["encoder_name"])
    state = {key: tensor.detach().clone() for key, tensor in encoder.state_dict().items()}
    channels = int(encoder.out_channels[0])
    if name.startswith("tu-"):
        library, name = "timm", name.removeprefix("tu-")
        plain = _names(library, name)
        state = _rename(state, plain)
    elif _TORCHVISION.match(name):
        library, plain = "torchvision", _names("torchvision", name)
        first = next((k for k, m in encoder.named_modules() if isinstance(m, nn.Conv2d)), None)
        if first and channels == 1:
            channels = 3
            state[f"{first}.weight"] = state[f"{first}.weight"].repeat(1, 3, 1, 1) / 3
    else:
        library, plain = "segmentation_models_pytorch", list(state)
    metadata = {
        "format": "pt",
        "library": library,
        "architecture": name,
        "channels": str(channels),
    }
    with atomic_path(output) as part:
        part.write_bytes(to_bytes(state, metadata))
    return [key for key in plain if key not in state]


def _names(library: str, name: str) -> list[str]:
    """Names in the state dict of a network with random weights."""
    import timm
    import torchvision

    with torch.random.fork_rng(devices=[]):
        if library == "timm":
            return list(timm.create_model(name, pretrained=False).state_dict())
        return list(torchvision.models.get_model(name, weights=None).state_dict())


def _rename(state: dict[str, Tensor], plain: list[str]) -> dict[str, Tensor]:
    """Give tensors the names of the whole network; those that it does not have keep theirs."""
    known = {_flat(name): name for name in plain}
    return {known.get(_flat(name), _flat(name)): tensor for name, tensor in state.items()}


def _flat(name: str) -> str:
    """Without the wrappers of feature extraction: ``model.stages_0.x`` is ``stages.0.x``."""
    while name.startswith("model."):
        name = name.removeprefix("model.")
    return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", name)
