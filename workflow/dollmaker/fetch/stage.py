"""Fetch: one safetensors file of published weights, with all that is known of them, or a list."""

import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dollmaker.config import settings, weight_names
from dollmaker.config.whole import Config
from dollmaker.fetch import lock, needed, originals
from dollmaker.fetch.libraries import Source, locked
from dollmaker.fetch.needed import Need
from dollmaker.networks.weights import Normalisation, State, read_metadata, to_bytes
from dollmaker.runtime.errors import ModelError, UsageError, first_line, out_of_space
from dollmaker.store.files import alone, atomic_path, read_json, sha256_file


def fetch_weights(
    config: Config | None = None,
    name: str | None = None,
    weights_root: Path | None = None,
    list_: bool = False,
) -> None:
    """Fetch published weights that are named, or list them.

    Args:
        config: A resolved configuration: all that it names.
        name: One name instead of a configuration, e.g. timm:resnet18.a1_in1k.
        weights_root: Folder of weights files; default: as configured, else ``weights``.
        list_: Fetch nothing; print every file, where it is had and where to put it by hand.
    """
    if (config is None) == (name is None):
        raise UsageError("give either --config, for all that it names, or --name")
    if config is not None:
        whole = settings.complete(config)
        root = weights_root or Path(whole.weights_root)
        whole = whole.replace(weights_root=str(root))
        needs = needed.join(needed.of_config(whole), needed.of_study(whole))
    else:
        root = weights_root or Path("weights")
        needs = [needed.of_name(str(name), root)]
    if list_:
        print(listed(needs, root), end="")
        return
    for need in needs:
        if need.name:
            with alone(need.file):
                print(fetch(need.name, root))


def listed(needs: Iterable[Need], root: Path) -> str:
    """Every weights file, whether it is there, where it is had and where to put it."""
    lines = []
    for need in needs:
        there = need.file.is_file()
        state = "is there" if there else "is not there"
        lines.append(f"{need.name or need.file.name} ({need.place}): {need.file} {state}")
        if need.name and not there:
            lines += _by_hand(need.name, root)
        elif not there:
            lines.append(f"    put your file at {need.file}")
    return "".join(f"{line}\n" for line in lines) or "no weights are named\n"


def _by_hand(name: str, root: Path) -> list[str]:
    source = locked(name, root)
    folder = root / weight_names.stem(name)
    lines = []
    for number, file in enumerate(source.files):
        begin = "get" if not number else "or, where that is not there,"
        lines.append(f"    {begin} {source.address(file)}")
        lines.append(f"        and put it at {folder / Path(file).name}")
    if not source.normalisation:
        for file in source.extras:
            lines.append(f"    also, if it is there, {source.address(file)}")
            lines.append(f"        at {folder / file}")
    return lines


def fetch(name: str, root: Path) -> Path:
    """Make the file of published weights, if it is not there yet, and note it in the lock.

    What the lock names is fetched again as it names it: the same library's default, the same
    revision.

    Args:
        name: As :func:`dollmaker.config.weight_names.parse` gives it.
        root: ``weights_root``.

    Raises:
        ModelError: If the weights cannot be had or read, or are not those of the lock.
    """
    target = root / f"{weight_names.stem(name)}.safetensors"
    noted = lock.read(root).get(name, {})
    if target.is_file():
        sha256 = sha256_file(target)
        lock.check(root, name, sha256)
        if not noted:
            lock.note(root, name, {"sha256": sha256, **_named(read_metadata(target))})
        return target
    source = locked(name, root)
    folder = root / weight_names.stem(name)
    original = originals.obtain(source, folder)
    revision = original.revision or noted.get("revision", "")
    source = replace(source, revision=revision or source.revision)
    normalisation = source.normalisation or _said_beside(source, folder)
    if normalisation is None:
        print(
            f"the weights {source.name} do not say how images were normalised for them; set "
            "classify.mean and classify.std, or pixels go to [-1, 1].",
            file=sys.stderr,
        )
    # No address and the like: by a mirror or by hand the file has the same bytes.
    metadata = {"format": "pt", "weights": source.name}
    metadata |= normalisation.metadata() if normalisation else {}
    data = to_bytes(_read(source, original), metadata)
    sha256 = hashlib.sha256(data).hexdigest()
    lock.check(root, name, sha256)
    with atomic_path(target) as part:
        part.write_bytes(data)
    licence = source.licence or noted.get("licence")
    if not licence and source.repo:
        licence = originals.look_for_licence(source)
    entry = {
        **_named(metadata),
        **({"revision": revision} if revision else {}),
        "licence": licence or "not stated",
        "url": source.address(original.file),
        "original_sha256": sha256_file(original.path),
        "sha256": sha256,
    }
    lock.note(root, name, entry)
    return target


def _named(metadata: Mapping[str, str]) -> dict[str, str]:
    """The full name of weights, as their file says it."""
    return {"weights": metadata["weights"]} if metadata.get("weights") else {}


def _read(source: Source, original: originals.Original) -> State:
    """The weights in the library's own names.

    A pickle is read here, as tensors only (``weights_only``), and nowhere else.
    """
    import timm

    try:
        state: Any = timm.models.load_state_dict(str(original.path), weights_only=True)
        if not isinstance(state, dict) or not state:
            raise ValueError("it holds no weights")
        for key, value in state.items():
            if not isinstance(key, str) or not isinstance(value, Tensor):
                raise ValueError(f"{key!r} is a {type(value).__name__}, not a tensor")
        if source.network:
            state = _in_timms_form(source.network, state)
    except Exception as error:  # a file of strangers: anything can be wrong with it
        if out_of_space(error):
            raise
        original.discard()
        raise ModelError(
            f"the file of the weights {source.name}, {original.path}, cannot be read as weights "
            f"({first_line(error)}); get it again, or name others."
        ) from None
    # A clone each: safetensors refuses tensors that share memory.
    return {key: value.detach().clone() for key, value in state.items()}


def _in_timms_form(network: str, state: State) -> State:
    """Weights as timm's network holds them: it knows how each published file is to be read."""
    import timm
    import torch

    overlay = {"state_dict": state, "custom_load": False}
    with torch.random.fork_rng(devices=[]):
        made = timm.create_model(network, pretrained=True, pretrained_cfg_overlay=overlay)
    return dict(made.state_dict())


def _said_beside(source: Source, folder: Path) -> Normalisation | None:
    """How images were normalised, as the small files beside the weights say."""
    for name in source.extras:
        path = originals.obtain_extra(source, folder, name)
        said = read_json(path) if path else None
        if isinstance(said, dict) and (found := _normalisation(source, said)):
            return found
    return None


def _normalisation(source: Source, said: Mapping[str, Any]) -> Normalisation | None:
    """Mean and deviation of timm's, segmentation-models-pytorch's or transformers' description."""
    inner = said.get("pretrained_cfg", said)
    if not isinstance(inner, dict):
        return None
    for mean, std in (("mean", "std"), ("image_mean", "image_std")):
        try:
            lists = [tuple(map(float, inner[key])) for key in (mean, std)]
            highest = float(inner.get("input_range", (0, 1))[1])
        except (KeyError, TypeError, ValueError, IndexError):
            continue
        if inner.get("input_space", "RGB") != "RGB":
            raise ModelError(
                f"the weights {source.name} take colours in the order {inner['input_space']}, and "
                "ours are in RGB; name others."
            )
        of_one = [tuple(one / highest for one in numbers) for numbers in lists]
        return Normalisation(mean=of_one[0], std=of_one[1])
    return None
