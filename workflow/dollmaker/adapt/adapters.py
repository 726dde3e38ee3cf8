"""Segmentation adapters: small residual bottlenecks inside a frozen encoder.

One adapter follows each stage of the encoder, ``x + up(relu(down(x)))``, as adapters of Houlsby et
al. (2019) and Rebuffi et al. (2018). ``up`` starts at zero, so that at first nothing changes. The
adapters of DoLL (Chen et al., arXiv 2401.08469) are not described there; this is our choice.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dollmaker.runtime.errors import ModelError

#: Adapters have less than this share of the encoder's parameters.
MOST = 0.05


class Adapter(nn.Module):
    """A residual bottleneck over the channels, which are the last dimension or the second."""

    def __init__(self, channels: int, width: int, last: bool) -> None:
        super().__init__()
        self.handle: RemovableHandle | None = None
        self.down: nn.Module
        self.up: nn.Linear | nn.Conv2d
        if last:
            self.down, self.up = nn.Linear(channels, width), nn.Linear(width, channels)
        else:
            self.down, self.up = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1)
        nn.init.zeros_(self.up.weight)
        if self.up.bias is not None:
            nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The adapted features, same shape."""
        adapted: Tensor = x + self.up(torch.relu(self.down(x)))
        return adapted

    def follow(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        """The forward hook that puts it behind a module."""
        adapted: Tensor = self(output)
        return adapted


@dataclass(frozen=True)
class Place:
    """Where an adapter goes.

    Attributes:
        module: Name of the encoder's module whose output is a stage's feature map.
        channels: Its channels.
        last: Whether they are the last dimension.
    """

    module: str
    channels: int
    last: bool


def find_places(encoder: nn.Module, x: Tensor) -> list[Place]:
    """The modules whose outputs are the feature maps of an encoder, one per stage.

    A forward pass of ``x`` (1, C, H, W) with hooks tells which modules give a feature map; of
    those, the outermost is taken that is in the stream: changing its output changes the map, no
    earlier map, and the next.

    Raises:
        ModelError: If a stage has no such module.
    """
    was_training = encoder.training
    encoder.eval()
    outputs: list[tuple[str, Tensor]] = []
    calls: Counter[str] = Counter()

    def record(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            calls[name] += 1
            if isinstance(output, Tensor):
                outputs.append((name, output))

        return hook

    hooks = [m.register_forward_hook(record(name)) for name, m in encoder.named_modules() if name]
    features = _features(encoder, x)
    for handle in hooks:
        handle.remove()
    places = []
    stages = [i for i, feature in enumerate(features) if feature is not x and feature.numel()]
    for i in stages:
        candidates = [
            Place(name, features[i].shape[1], last)
            for name, output in reversed(outputs)
            if calls[name] == 1 and (last := _holds(output, features[i])) is not None
        ]
        good = (p for p in candidates if _in_stream(encoder, p, x, features, stages, i))
        place = next(good, None)
        if place is None:
            raise ModelError(
                f"adapters cannot be put into stage {i} of this encoder; use the tuning full or "
                "head, or another encoder."
            )
        places.append(place)
    encoder.train(was_training)
    return places


@torch.no_grad()
def _features(encoder: nn.Module, x: Tensor) -> list[Tensor]:
    found = encoder(x)
    # Plain vision transformers give (feature maps, class tokens).
    return list(found[0] if isinstance(found, tuple) and isinstance(found[0], list) else found)


def _holds(output: Tensor, feature: Tensor) -> bool | None:
    """Whether an output is a feature map: False as it is, True with channels last, None if not."""
    if output is feature or (output.shape == feature.shape and torch.equal(output, feature)):
        return False
    flat = feature.flatten(2).transpose(1, 2)
    if output.ndim < 3 or output.shape[0] != len(flat) or output.shape[-1] != flat.shape[-1]:
        return None
    tokens = output.flatten(1, -2)[:, -flat.shape[1] :]
    return True if tokens.shape == flat.shape and torch.equal(tokens, flat) else None


def _in_stream(
    encoder: nn.Module, place: Place, x: Tensor, before: list[Tensor], stages: list[int], i: int
) -> bool:
    changed: list[Tensor] = []

    def change(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        # A ramp and not a constant, which a normalisation that follows would take away again.
        ramp = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype).view(output.shape)
        changed.append(output + ramp)
        return changed[-1]

    handle = encoder.get_submodule(place.module).register_forward_hook(change)
    after = _features(encoder, x)
    handle.remove()
    at = stages.index(i)
    return (
        all(torch.equal(before[j], after[j]) for j in stages[:at])
        and _holds(changed[0], after[i]) is not None
        and (i == stages[-1] or not torch.equal(before[stages[at + 1]], after[stages[at + 1]]))
    )


def widths(channels: Sequence[int], share: float, budget: float) -> list[int]:
    """Widths of bottlenecks: a share of the channels, narrowed until they are under a budget.

    Raises:
        ModelError: If bottlenecks of a single channel have more parameters than that.
    """
    while True:
        chosen = [max(1, int(share * c)) for c in channels]
        total = sum(2 * c * w + c + w for c, w in zip(channels, chosen, strict=True))
        if total < budget:
            return chosen
        if max(chosen) == 1:
            raise ModelError(
                f"adapters of one channel have {total} parameters, more than {MOST:.0%} of this "
                "encoder; use the tuning full or head, or a larger encoder."
            )
        share *= 0.95


@dataclass(frozen=True)
class Inserted(Place):
    """An adapter in its place: ``width`` are the channels of its bottleneck."""

    width: int


def find_inserted(encoder: nn.Module, x: Tensor, share: float) -> list[Inserted]:
    """The places of an encoder's adapters, for an input x (1, C, H, W), and their widths.

    ``share`` is the width as a share of the channels.

    Raises:
        ModelError: If they cannot be placed, or not with less than 5 % of the parameters.
    """
    places = find_places(encoder, x)
    budget = MOST * sum(p.numel() for p in encoder.parameters())
    chosen = widths([place.channels for place in places], share, budget)
    return [
        Inserted(**vars(place), width=width) for place, width in zip(places, chosen, strict=True)
    ]


def insert(encoder: nn.Module, places: Sequence[Inserted], seed: int) -> nn.ModuleList:
    """Put adapters into an encoder, with random weights that the seed decides.

    They run through forward hooks and are no children of the encoder, whose parameters, names and
    mode stay as they are. The attribute ``handle`` of an adapter removes its hook.
    """
    adapters = nn.ModuleList()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for place in places:
            adapter = Adapter(place.channels, place.width, place.last)
            module = encoder.get_submodule(place.module)
            adapter.handle = module.register_forward_hook(adapter.follow)
            adapters.append(adapter)
    return adapters


def has_adapters(model: nn.Module) -> bool:
    """Whether adapters are in a network: they are no children of it, but hooks."""
    hooks = (hook for module in model.modules() for hook in module._forward_hooks.values())
    return any(isinstance(getattr(hook, "__self__", None), Adapter) for hook in hooks)
