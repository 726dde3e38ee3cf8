"""Small things inside a frozen encoder: adapters and LoRA.

An adapter is a residual bottleneck, ``x + up(relu(down(x)))``, behind each stage of the encoder, as
those of Houlsby et al. (2019) and Rebuffi et al. (2018). ``up`` starts at zero, so that at first
nothing changes. The adapters of DoLL (Chen et al., arXiv 2401.08469) are not described there; this
is our choice.

LoRA, by the library peft, are low-rank updates of convolutions and linear layers (Hu et al.,
arXiv 2106.09685). Convolutions with groups or dilation are left out: peft cannot merge the first
and computes the second without their dilation.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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
        layer: Any = nn.Linear if last else partial(nn.Conv2d, kernel_size=1)
        self.down, self.up = layer(channels, width), layer(width, channels)
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

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
    """Where an adapter goes: an encoder's module whose output is a stage's feature map.

    ``last`` says whether its channels are the last dimension.
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
        if (place := next(good, None)) is None:
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
    """The places of an encoder's adapters, for an input x (1, C, H, W), with a share as width.

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


def find_layers(encoder: nn.Module, x: Tensor) -> list[str]:
    """Names of the layers of an encoder that can carry LoRA, by a pass of ``x`` (1, C, H, W).

    Subclasses are left out, which compute something else than their base (standardised weights,
    padding), and layers whose weights are read without a call (within attention of torch).

    Raises:
        ModelError: If there is none.
    """
    names = [name for name, module in encoder.named_modules() if _fits(module)]
    called: set[str] = set()
    hooks = [
        encoder.get_submodule(name).register_forward_hook(lambda *_, name=name: called.add(name))
        for name in names
    ]
    was_training = encoder.training
    encoder.eval()
    with torch.no_grad():
        encoder(x)
    encoder.train(was_training)
    for hook in hooks:
        hook.remove()
    found = [name for name in names if name in called]
    if not found:
        raise ModelError(
            "this encoder has no layer that LoRA fits; use the tuning adapter, or another encoder."
        )
    return found


def _fits(module: nn.Module) -> bool:
    if type(module) is nn.Conv2d:
        plain = module.groups == 1 and set(module.dilation) == {1}
        return plain and module.padding_mode == "zeros"
    return type(module) is nn.Linear


def add_lora(encoder: nn.Module, layers: Sequence[str], rank: int, seed: int) -> None:
    """Put LoRA into layers of an encoder, in place; at first nothing changes.

    The encoder's own parameters are frozen, and the updates are scaled by 2 (``lora_alpha`` is
    twice the rank).
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    # A pattern: names in a list would also match the ends of other names.
    pattern = "|".join(re.escape(name) for name in layers)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=pattern)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LoraModel(encoder, config, "default")


def remove_lora(encoder: nn.Module, layers: Sequence[str], *, merge: bool) -> None:
    """Take LoRA out of those layers of an encoder that have it, in place.

    peft's own ``unload`` takes every module with a child ``base_layer`` for its own (DLA has one).
    ``merge`` adds the updates to the weights: to copies, as others may share them.
    """
    for name in layers:
        wrapped: Any = encoder.get_submodule(name)
        if merge:
            wrapped.merge(safe_merge=True)
        encoder.set_submodule(name, wrapped.get_base_layer())
    if hasattr(encoder, "peft_config"):
        del encoder.peft_config
