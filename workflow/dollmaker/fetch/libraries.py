"""What published weights are, as timm, torchvision and the Hub describe them; no network is asked.

Which file of which place, how images were normalised for it, and under which licence it is.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dollmaker.config import weight_names
from dollmaker.fetch import lock
from dollmaker.networks.weights import Normalisation
from dollmaker.runtime.errors import ModelError, unknown

#: Files of the Hub that hold the weights of a whole network, the best first.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")

#: Small files beside them with how images were normalised: timm's and smp's, then transformers'.
_HUB_EXTRAS = ("config.json", "preprocessor_config.json")

#: The revision of the Hub where none is named.
_NEWEST = "main"

#: What libraries call the licence of what they do not know it of.
_UNKNOWN = (None, "", "unknown")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where published weights lie, and what they are."""

    name: str  #: Full name; ``pretrained`` is resolved.
    files: tuple[str, ...]  #: Names of the file, the best first; the first that is there is taken.
    repo: str = ""  #: Owner and repository of the Hub; empty if the file lies elsewhere.
    revision: str = _NEWEST  #: Of the repository.
    url: str = ""  #: Of the file, where it does not lie on the Hub.
    #: Files of the repository that may say how images were normalised.
    extras: tuple[str, ...] = ()
    #: Name by which timm makes the network that brings the weights into its own form; empty if they
    #: stay as they are.
    network: str = ""
    #: How images were normalised; ``None`` if an extra must tell.
    normalisation: Normalisation | None = None
    licence: str = ""  #: As the library has it; empty if it does not say.

    def address(self, file: str) -> str:
        """Where a file lies."""
        if not self.repo:
            return self.url
        from huggingface_hub import hf_hub_url

        return str(hf_hub_url(self.repo, file, revision=self.revision))


def locked(name: str, root: Path) -> Source:
    """What a name stands for as the lock has it: the default of then, and the same revision.

    Args:
        name: As :func:`dollmaker.config.weight_names.parse` gives it.
        root: ``weights_root``.

    Raises:
        ModelError: If the library has no such weights, or the lock is damaged.
    """
    noted = lock.read(root).get(name, {})
    library, _, rest = (noted.get("weights") or name).partition(":")
    source = _DESCRIBE[library](rest)
    if source.repo and noted.get("revision"):
        return replace(source, revision=noted["revision"])
    return source


def _timm(rest: str) -> Source:
    import timm

    network, _, tag = rest.partition(".")
    if not timm.is_model(network):
        raise ModelError(f"timm has no network {network!r}; correct the name of the weights.")
    known = [full.partition(".")[2] for full in timm.list_pretrained(f"{network}.*")]
    if tag not in known:
        raise ModelError(unknown(f"tag of timm's {network}", tag, known))
    described: Any = timm.get_pretrained_cfg(rest)
    found = Source(
        name=f"timm:{rest}",
        files=_HUB_FILES,
        repo=described.hf_hub_id or "",
        network=rest,
        normalisation=Normalisation(mean=tuple(described.mean), std=tuple(described.std)),
        licence="" if described.license in _UNKNOWN else str(described.license),
    )
    if found.repo:
        return found
    return replace(found, files=(described.url.rpartition("/")[2],), url=described.url)


def _torchvision(rest: str) -> Source:
    import torchvision

    network, _, name = rest.partition(".")
    if network not in torchvision.models.list_models(module=torchvision.models):
        raise ModelError(f"torchvision has no network {network!r}; correct the name.")
    listed = torchvision.models.get_model_weights(network)
    known = dict(listed.__members__)  # with DEFAULT, another name of one of them
    if name not in known:
        raise ModelError(unknown(f"weights of torchvision's {network}", name, known))
    weights: Any = known[name]
    shape = weights.transforms()
    return Source(
        name=f"torchvision:{network}.{weights.name}",
        files=(weights.url.rpartition("/")[2],),
        url=weights.url,
        normalisation=Normalisation(mean=tuple(shape.mean), std=tuple(shape.std)),
        licence=str(weights.meta.get("license", "")),
    )


def _hub(rest: str) -> Source:
    owner, _, path = rest.partition("/")
    repo, _, file = path.partition("/")
    repo, _, revision = repo.partition("@")
    return Source(
        name=f"hf:{rest}",
        files=(file,) if file else _HUB_FILES,
        repo=f"{owner}/{repo}",
        revision=revision or _NEWEST,
        extras=_HUB_EXTRAS,
    )


def _pretrained(network: str) -> Source:
    library, _, name = network.rpartition(":")
    if library == "smp":
        return _encoder(name)
    from dollmaker.networks.classifiers import OF_TIMM, find_architecture

    library, name = find_architecture(network)
    if library == "torchvision":
        return _torchvision(f"{name}.DEFAULT")
    if library in OF_TIMM:
        import timm

        known: Any = timm.get_pretrained_cfg(name)
        if known is not None and known.has_weights:
            return _timm(f"{known.architecture}.{known.tag}")
    raise ModelError(
        f"{library} has no weights for {name!r}; name another architecture, or a file of weights."
    )


def _encoder(name: str) -> Source:
    """The default of an encoder of segmentation-models-pytorch's own."""
    from segmentation_models_pytorch.encoders import encoders

    if name not in encoders or name.startswith("timm-"):
        raise ModelError(
            f"segmentation-models-pytorch has no weights of its own for {name!r}; take the encoder "
            "of timm, tu- and the name of its network."
        )
    known = encoders[name]["pretrained_settings"]
    settings = known.get("imagenet") or next(iter(known.values()))  # some have others only
    return replace(_hub(f"{settings['repo_id']}@{settings['revision']}"), files=_HUB_FILES[:1])


_DESCRIBE = {
    "timm": _timm,
    "torchvision": _torchvision,
    "hf": _hub,
    weight_names.PRETRAINED: _pretrained,
}
