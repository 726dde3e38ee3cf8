"""The encoder of a segmenter as a state dict of timm or torchvision, with their own names."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dollmaker.networks.inputs import Input, per_channel
from dollmaker.networks.segmenters import read_segmenter
from dollmaker.networks.weights import Normalisation, inflate, to_bytes, unify
from dollmaker.runtime.errors import ArtifactError, ModelError
from dollmaker.store.files import atomic_path, read_json

#: Encoders of segmentation-models-pytorch that are torchvision's networks under its names.
_TORCHVISION = re.compile(
    r"(resnet(18|34|50|101|152)|resnext(50_32x4d|101_32x8d)|densenet(121|169|201|161)"
    r"|mobilenet_v2|vgg(11|13|16|19)(_bn)?)$"
)


def export_encoder(segmenter: Path | str, output: Path | str) -> list[str]:
    """Write the encoder of a segmenter as a plain network's state dict.

    ``tu-`` encoders get the names of ``timm.create_model`` and keep their input channels (give it
    ``in_chans``). Torchvision's networks take three: a first convolution of one channel is spread
    over three, so that a grey image fed thrice gives the same output
    (:func:`dollmaker.networks.weights.inflate`); any other number stays. Other encoders keep the
    names of segmentation-models-pytorch. The metadata of the file says which (``library``,
    ``architecture``, ``channels``, ``mean`` and ``std``, and ``img_size`` where a transformer of
    timm has a fixed one). A classifier head is left out: it was never trained.

    Args:
        segmenter: Folder that the stage segment made.
        output: The safetensors file to write.

    Returns:
        Names that the plain network has besides: its classifier head, and in some networks of
        timm the layers between the last feature map and the head.

    Raises:
        ModelError: If there is no segmenter, or its tensors are not those of timm's network.
    """
    segmenter, output = Path(segmenter), Path(output)
    encoder: Any = read_segmenter(segmenter).get_submodule("encoder")
    name = str(read_json(segmenter / "config.json")["encoder_name"])
    state = {key: tensor.detach().clone() for key, tensor in encoder.state_dict().items()}
    channels = read_json(segmenter / "config.json")["in_channels"]
    more = {}
    if name.startswith("tu-"):
        library, name = "timm", name.removeprefix("tu-")
        plain, heads = _timm(name)
        state = _rename(state, plain, name)
        state = {key: tensor for key, tensor in state.items() if not key.startswith(heads)}
        size = getattr(getattr(encoder.model, "patch_embed", None), "img_size", None)
        more = {"img_size": str(size[0])} if size else {}
    elif _TORCHVISION.match(name):
        library, plain = "torchvision", _torchvision(name)
        first = next((k for k, m in encoder.named_modules() if isinstance(m, nn.Conv2d)), None)
        if first and channels == 1:
            channels = 3
            state[f"{first}.weight"] = inflate(state[f"{first}.weight"], channels)
    else:
        library, plain = "segmentation_models_pytorch", list(state)
    metadata = {
        **_normalisation(segmenter, channels),
        "format": "pt",
        "library": library,
        "architecture": name,
        "channels": str(channels),
        **more,
    }
    with atomic_path(output) as part:
        part.write_bytes(to_bytes(state, metadata))
    return [key for key in plain if key not in state]


def _normalisation(segmenter: Path, channels: int) -> dict[str, str]:
    """What the file says of mean and deviation, so that they come with the weights."""
    file = segmenter / "segmenter.json"
    try:
        spec = Input(**{**read_json(file)["input"], "channels": channels})
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{file} is not as written ({error}); make the segmenter again."
        ) from None
    mean, std = (per_channel(numbers, channels) for numbers in (spec.mean, spec.std))
    return Normalisation(mean=mean, std=std).metadata()


def _torchvision(name: str) -> list[str]:
    """Names in the state dict of a network of torchvision."""
    import torchvision

    with torch.random.fork_rng(devices=[]):
        return list(torchvision.models.get_model(name, weights=None).state_dict())


def _timm(name: str) -> tuple[list[str], tuple[str, ...]]:
    """Names in the state dict of a network of timm, and prefixes of its classifier heads."""
    import timm

    with torch.random.fork_rng(devices=[]):
        network = timm.create_model(name, pretrained=False)
    heads = network.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    return list(network.state_dict()), tuple(f"{head}." for head in heads)


def _rename(state: dict[str, Tensor], plain: list[str], name: str) -> dict[str, Tensor]:
    """Give the tensors of an encoder the names of the whole network, which has them all."""
    known = {unify(key): key for key in plain}
    renamed = {}
    for key, tensor in state.items():
        bare = unify(key.removeprefix("model."))
        found = known.get(bare) or known.get(bare.removeprefix("body_"))
        if found is None or found in renamed:
            raise ModelError(
                f"tensor {key!r} of the encoder is none of timm's {name}; use the whole segmenter, "
                "model.safetensors."
            )
        renamed[found] = tensor
    return renamed
