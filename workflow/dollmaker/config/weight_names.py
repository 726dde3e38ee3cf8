"""How weights are named, and the file of each name.

``pretrained`` is the library's default for a network; ``timm:NAME.TAG``,
``torchvision:NAME.WEIGHTS`` and ``hf:OWNER/REPO[@REVISION][/FILE]`` are published weights; anything
else is a file of the user's. Name and file follow from each other, without a table or a library.
"""

import re
from pathlib import Path

from dollmaker.runtime.errors import ConfigError

PRETRAINED = "pretrained"

#: Files that the Hub may hold weights in; all but the first are pickles.
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")

#: Library -> how its names look, and how to say so.
_FORMS = {
    "timm": (r"\w+\.[\w.-]+", "timm:NAME.TAG, e.g. timm:resnet18.a1_in1k"),
    "torchvision": (
        r"\w+\.\w+",
        "torchvision:NAME.WEIGHTS, e.g. torchvision:resnet18.IMAGENET1K_V1",
    ),
    "hf": (
        r"[\w.-]+/[\w.-]+(@[\w.-]+)?(/[\w./-]+)?",
        "hf:OWNER/REPO[@REVISION][/FILE], FILE ending in " + ", ".join(SUFFIXES),
    ),
}

#: How a network is named whose default is wanted: its library, if one is named, and its name.
_NETWORK = r"((timm|torchvision|mil|dollmaker|smp):)?[\w.-]+"

#: The start of files that come of names, a regular expression.
FILES = rf"(?:{'|'.join((PRETRAINED, *_FORMS))})--[^/]+"


def of_encoder(encoder: str) -> str:
    """The network behind an encoder of segmentation-models-pytorch, for :func:`parse`."""
    library = "timm" if encoder.startswith("tu-") else "smp"
    return f"{library}:{encoder.removeprefix('tu-')}"


def parse(text: str, network: str) -> str:
    """The full name of published weights, as configured; empty for a file of the user's.

    ``network`` shall start from them: an architecture of a member, or what :func:`of_encoder`
    gives.

    Raises:
        ConfigError: If a name is not as its library's are.
    """
    library, _, rest = text.partition(":")
    if text == PRETRAINED:
        library, rest, (form, shape) = PRETRAINED, network, (_NETWORK, "the name of a network")
    elif library in _FORMS and rest:
        form, shape = _FORMS[library]
    else:
        return ""
    file = rest.partition("/")[2].partition("/")[2] if library == "hf" else ""
    sound = re.fullmatch(form, rest, re.ASCII) and not re.search(r"--|\.\.|//|[./]$", rest)
    if not sound or (file and not file.endswith(SUFFIXES)):
        raise ConfigError(f"the weights {text!r} of {network!r} have no such name; write {shape}.")
    return f"{library}:{rest}"


def stem(name: str) -> str:
    """The file of weights of a full name without its ending; also the folder of their originals."""
    return re.sub("[:/]", "--", name.removesuffix(SUFFIXES[0]))


def name_of(stem: str) -> str:
    """The name of published weights whose file is called so, without its ending."""
    library, *parts = stem.split("--")
    if library != "hf":
        return ":".join((library, *parts))
    if len(parts) > 2 and not parts[-1].endswith(SUFFIXES):
        parts[-1] += SUFFIXES[0]
    return f"hf:{'/'.join(parts)}"


def locate(root: Path, text: str, network: str) -> Path:
    """The safetensors file below ``weights_root`` of what :func:`parse` takes.

    Raises:
        ConfigError: If a name is not as its library's are.
    """
    name = parse(text, network)
    return root / f"{stem(name)}.safetensors" if name else root / text
