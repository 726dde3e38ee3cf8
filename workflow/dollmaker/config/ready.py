"""Ready classifiers: published classifiers that explain without any training here.

A member is ready when its architecture is one of torchxrayvision's (:mod:`dollmaker.config.xrv`),
or when it names its outputs (``findings``). Outputs are matched to the findings of the data set by
name, whatever the case, spaces, hyphens and underscores; :data:`SYNONYMS` match, too. Nothing here
imports torch: configurations are checked with it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dollmaker.config import weight_names, xrv
from dollmaker.runtime.errors import ConfigError, unknown

if TYPE_CHECKING:  # who predicts with a release has no pydantic
    from dollmaker.config.networks import MemberConfig
    from dollmaker.config.whole import Config

#: Names of one thing: those that torchxrayvision itself renames when it reads CheXpert, MIMIC-CXR,
#: VinDr-CXR, OpenI and CheXlocalize. Mass, Nodule and Lung Lesion are three things.
SYNONYMS = (
    ("Effusion", "Pleural Effusion"),
    ("Lung Opacity", "Airspace Opacity", "Opacity"),
    ("Lung Lesion", "Lesion"),
    ("Infiltration", "Infiltrate"),
    ("Atelectasis", "Atelectases"),
)


def is_ready(member: "MemberConfig") -> bool:
    """Whether a member is a ready classifier."""
    return is_xrv(member) or member.findings is not None


def is_xrv(member: "MemberConfig") -> bool:
    """Whether its network is one of torchxrayvision's."""
    return member.architecture.startswith(xrv.PREFIX)


def complete(members: Mapping[str, "MemberConfig"]) -> dict[str, "MemberConfig"]:
    """Members with the weights file of torchxrayvision's networks, where no other is named."""
    return {
        name: member.replace(weights=xrv.file_name(member.architecture))
        if is_xrv(member) and member.weights in (None, weight_names.PRETRAINED)
        else member
        for name, member in members.items()
    }


def outputs(architecture: str, named: Sequence[str | None] | None) -> list[str | None]:
    """What the outputs of a ready member are called, in order; ``None`` is no finding.

    ``named`` are the member's ``findings``; torchxrayvision's networks know their own.
    """
    if named is not None:
        return [name or None for name in named]
    network = xrv.find(architecture)
    return network.outputs if network else []


def input_options(
    config: "Config", member: "MemberConfig", own: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a member's network expects, as :class:`dollmaker.networks.inputs.Input` takes it.

    Of torchxrayvision's networks it is known. Of others, channels and size are the member's own
    (``input``), else the committee's and the images'; mean and deviation are the member's own, else
    the committee's, else those of its weights, else those of ``Input``, which put pixels into
    [-1, 1].

    ``own`` are ``mean`` and ``std`` that its weights file names, if it names any.
    """
    if network := xrv.find(member.architecture):
        return {"channels": 1, "size": network.size, "mean": xrv.MEAN, "std": xrv.STD}
    whole, options = config.classify, dict(own or {})
    for mean, std in ((whole.mean, whole.std), (member.mean, member.std)):
        given = {"mean": mean, "std": std}
        options |= {key: value for key, value in given.items() if value is not None}
    options["channels"] = member.input.channels or whole.input_channels or config.prepare.channels
    options["size"] = member.input.size or config.prepare.size
    return options


def match(given: Sequence[str | None], findings: Sequence[str]) -> dict[int, int]:
    """Number of each finding that is known -> number of the output that is it.

    The same name goes first, then the spelling, then a synonym. Outputs that are ``None`` are no
    finding.

    Raises:
        ConfigError: If two outputs are the same finding.
    """
    found: dict[int, int] = {}
    for same in (lambda name: name, _plain, _meaning):
        free = {k: same(name) for k, name in enumerate(given) if name and k not in found.values()}
        for number, finding in enumerate(findings):
            fitting = [k for k, name in free.items() if name == same(finding)]
            if number in found or not fitting:
                continue
            if len(fitting) > 1:
                both = " and ".join(repr(given[k]) for k in fitting[:2])
                raise ConfigError(
                    f"the outputs {both} of a ready classifier are both the finding {finding!r}; "
                    "put null for those that shall not count."
                )
            found[number] = fitting[0]
            del free[fitting[0]]
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


_MEANINGS = {_plain(name): group[0] for group in SYNONYMS for name in group}


def _meaning(name: str) -> str:
    return _MEANINGS.get(_plain(name), _plain(name))


def check(config: "Config") -> None:
    """Refuse ready members that contradict themselves, by a ``ConfigError``."""
    for name, member in config.classify.members.items():
        place = f"classify.members.{name}"
        epochs = config.classify.epochs if member.epochs is None else member.epochs
        if is_ready(member) and epochs:
            raise ConfigError(
                f"{place} is a ready classifier and not trained here; set its epochs to 0, or "
                "leave its findings out and name a network of torchvision or timm to train."
            )
        if is_xrv(member):
            _check_xrv(place, member, config.prepare.fit)
        elif is_ready(member) and not member.weights:
            raise ConfigError(
                f"{place} names what its outputs are but no weights; add its weights file."
            )


def _check_xrv(place: str, member: "MemberConfig", fit: str) -> None:
    if xrv.find(member.architecture) is None:
        known = [xrv.PREFIX + name for name in xrv.NETWORKS]
        raise ConfigError(f"{place}: {unknown('architecture', member.architecture, known)}")
    if member.input.dump() or member.mean is not None or member.std is not None:
        raise ConfigError(
            f"{place}: what torchxrayvision's networks expect is known; leave input, mean and std "
            "out."
        )
    if fit != "crop":
        raise ConfigError(
            f"{place}: torchxrayvision's networks were trained on the centre square of each image; "
            "set prepare.fit to crop."
        )
    if member.findings and len(member.findings) != len(xrv.OUTPUTS):
        raise ConfigError(
            f"{place}.findings has {len(member.findings)} names; torchxrayvision's networks have "
            f"{len(xrv.OUTPUTS)} outputs, whose names are known: leave it out."
        )


def unknown_to(member: "MemberConfig", findings: Sequence[str]) -> frozenset[str]:
    """The findings that a member does not know."""
    if not is_ready(member):
        return frozenset()
    matched = match(outputs(member.architecture, member.findings), findings)
    return frozenset(findings) - {findings[number] for number in matched}
