"""The models of a release, each as one function from a picture to its findings."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dollmaker.adapt.saved import load_adapter
from dollmaker.networks.inputs import Input
from dollmaker.networks.segmenters import predict_logits, read_segmenter
from dollmaker.pixels import geometry
from dollmaker.pixels.geometry import level_set
from dollmaker.predict import Found, Predictor
from dollmaker.release.models import COMMITTEE, FACTS, SEGMENTER, THRESHOLDS, find_model
from dollmaker.release.read import Origin, read_origin
from dollmaker.runtime.errors import ArtifactError, ModelError
from dollmaker.store.depth import Stored, to_levels
from dollmaker.store.files import read_json, sha256_file


def open_model(release: Path, name: str, device: torch.device, min_probability: float) -> Predictor:
    """Read a model of a release: ``segmenter``, ``committee``, or an adapter by its name.

    Findings that the committee thinks less probable than ``min_probability`` are left out.

    Raises:
        ArtifactError: If a file is damaged.
        ModelError: If the release does not carry the model.
    """
    folder, ours = find_model(release, name), name == SEGMENTER
    try:
        if name == COMMITTEE:
            return _committee(folder, read_origin(release), device, min_probability)
        described = read_json(folder / ("segmenter.json" if ours else "adapter.json"))
        spec = Input(**described["input"])
        findings = [str(f) for f in described["findings" if ours else "classes"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{folder} is not as written ({type(error).__name__}: {error}); get the release again."
        ) from None
    if ours:
        weights = folder / "model.safetensors"
        if not weights.is_file() or described.get("sha256") != sha256_file(weights):
            raise ArtifactError(f"{weights} is missing or damaged; get the release again.")
    network = read_segmenter(folder) if ours else load_adapter(release, folder)
    network = network.eval().to(device)
    return Predictor(findings=findings, run=_segmenting(network, spec, findings, device))


def _segmenting(
    network: nn.Module, spec: Input, findings: list[str], device: torch.device
) -> Callable[[Stored, geometry.Box, Sequence[str]], list[Found]]:
    def run(pixels: Stored, where: geometry.Box, wanted: Sequence[str]) -> list[Found]:
        # One image a pass: what is found does not depend on its neighbours.
        logits = next(predict_logits(network, _tensor(pixels, device), spec))[0]
        chances = torch.sigmoid(logits).numpy()
        return [
            Found(
                finding=findings[k],
                probability=float(geometry.inside(chances[k], where).max()),
                map=chances[k],
                levels=logits[k].numpy(),
            )
            for k in map(findings.index, wanted)
        ]

    return run


def _committee(
    folder: Path, origin: Origin, device: torch.device, min_probability: float
) -> Predictor:
    """Classifiers that explain by the released recipe, what they find taking the labels' place."""
    from dollmaker.attribute.baselines import NEGATIVES
    from dollmaker.attribute.committee import Committee, Setup
    from dollmaker.binarize.label_free import read_thresholds
    from dollmaker.binarize.stage import Cutter
    from dollmaker.binarize.steps import make_chain
    from dollmaker.config.masks import AttributeConfig, MapsConfig, RecipeConfig
    from dollmaker.networks.frames import Frames
    from dollmaker.networks.member import load_member
    from dollmaker.store.findings import PRESENT, localized

    facts = read_json(folder / FACTS)
    members = [load_member(folder / name, device) for name in facts["members"]]
    recipes, name = origin.tree["recipes"], origin.tree["release"]["recipe"]
    recipe, size = RecipeConfig.model_validate(recipes[name]), origin.size
    maps = recipe.attribute
    if isinstance(maps, str):
        maps = MapsConfig.model_validate(recipes[maps]["attribute"])
    if NEGATIVES in maps.baselines:
        raise ModelError(
            f"recipe {name!r} starts from images of its data set, which a release does not carry; "
            "use --model segmenter."
        )
    attribute = AttributeConfig.model_validate(origin.tree["attribute"])
    setup = Setup(
        channel_mean=torch.tensor(facts["channel_mean"]),
        size=size,
        seed=origin.tree["seed"],
        precision=attribute.precision,
    )
    experts = Committee(members, maps, setup)
    table = folder / THRESHOLDS
    cuts = read_thresholds(table) if table.is_file() else {}
    cutter = Cutter(steps=recipe.binarize, chain=make_chain(recipe.binarize), cuts=cuts)
    every = members[0].findings
    letterbox = origin.fit == "letterbox"

    def run(pixels: Stored, where: geometry.Box, wanted: Sequence[str]) -> list[Found]:
        image = _tensor(pixels, device)
        chances = experts.probabilities(image)[0].cpu().numpy()
        chosen = [f for f in wanted if chances[every.index(f)] >= min_probability]  # NaN is not
        if not chosen:
            return []
        frames = Frames((where,), size) if letterbox else Frames(size=size)
        refined = experts.explain(image, ["0"], [(0, every.index(f)) for f in chosen], frames)
        # As the workflow stores them.
        stored = refined.consensus.maps.half().cpu().numpy().astype(np.float32)
        scales = refined.consensus.scale.cpu().tolist()
        found = []
        for finding, values, scale in zip(chosen, stored, scales, strict=True):
            facts = {"label": PRESENT, "probability": float(chances[every.index(finding)])}
            pair = cutter.pair(finding, values, pixels, where, scale=scale, **facts)
            done = cutter.chain(pair)
            mask = geometry.framed(np.asarray(done.mask), where, size)
            levels = level_set(mask, values, done.threshold)  # as released
            found.append(
                Found(finding=finding, probability=pair.probability, map=values, levels=levels)
            )
        return found

    return Predictor(findings=localized(every, attribute.findings), run=run)


def _tensor(pixels: Stored, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(to_levels(pixels)))[None].to(device)
