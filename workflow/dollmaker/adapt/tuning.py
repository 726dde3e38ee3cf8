"""What is trained of a network: all of it, parts, or small things put into a frozen encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from dollmaker.adapt.adapters import (
    Inserted,
    add_lora,
    find_inserted,
    find_layers,
    insert,
    remove_lora,
)
from dollmaker.networks import dry_run
from dollmaker.networks.batch_norm import Norm, freeze_batch_norm
from dollmaker.runtime.errors import ModelError

Tuning = Literal["full", "head", "decoder", "adapter", "lora", "bias"]

#: Parts of a network that a tuning keeps as in evaluation.
FROZEN: dict[Tuning, tuple[str, ...]] = {
    "full": (),
    "head": ("encoder", "decoder"),
    "decoder": ("encoder",),
    "adapter": ("encoder",),
    "lora": ("encoder",),
    "bias": ("encoder", "decoder"),
}


@dataclass(frozen=True, kw_only=True)
class Small:
    """The small things that the tunings ``adapter`` and ``lora`` put into an encoder."""

    x: Tensor | None = None  #: An input that the network takes, (1, C, H, W), to find their places.
    adapter_width: float = 0.125  #: Width of adapters as a share of the channels.
    lora_rank: int = 4
    seed: int = 0
    #: ``inserted`` of another network, to make the same; nothing else counts then.
    inserted: Mapping[str, Any] | None = None

    def find(self, encoder: nn.Module, tuning: Tuning) -> dict[str, Any]:
        """What is put where, as JSON holds it; nothing for other tunings.

        Raises:
            ModelError: If it cannot be placed.
        """
        if self.inserted is not None:
            return dict(self.inserted)
        if tuning not in ("adapter", "lora"):
            return {}
        if self.x is None:
            raise ModelError(f"the tuning {tuning} needs an input to find its places; give x.")
        if tuning == "lora":
            return {"lora": {"rank": self.lora_rank, "layers": find_layers(encoder, self.x)}}
        found = find_inserted(encoder, self.x, self.adapter_width)
        return {"adapters": [vars(place) for place in found]}


class Tuned(nn.Module):
    """A network with its frozen parts kept frozen, whatever mode it is put in.

    - ``full``: everything is trained, but for the encoder's batch normalisation if it is frozen.
    - ``head``: the last layer is trained.
    - ``decoder``: decoder and head are trained.
    - ``adapter``: adapters in the encoder, decoder and head are trained.
    - ``lora``: low-rank updates of the encoder's layers, decoder and head are trained.
    - ``bias``: the head, and of encoder and decoder the biases and the weights of normalisation
      layers are trained (Ben Zaken et al., arXiv 2106.10199).

    A part that is not trained (or of which only biases are) is as in evaluation: neither the
    running statistics of its batch normalisation nor its dropout do anything. With ``measure`` a
    part that is not in the base normalises with the batch: nothing was learned that its first
    statistics, 0 and 1, would fit.

    Args:
        model: A network of segmentation-models-pytorch, changed in place.
        tuning: What is trained.
        small: What is put into the encoder by ``adapter`` and ``lora``.
        freeze_norm: Keep the encoder's batch normalisation (``full`` only).
        base: Parts whose starting weights others have as well (a shared base). What is frozen but
            not in the base belongs to the task: see :meth:`own_state`.
        measure: Statistics are measured before evaluation (:mod:`dollmaker.networks.batch_norm`).

    Attributes:
        inserted: What was put into the encoder and where, as JSON holds it.
    """

    def __init__(
        self,
        model: nn.Module,
        tuning: Tuning,
        small: Small,
        *,
        freeze_norm: bool,
        base: Sequence[str] = ("encoder", "decoder"),
        measure: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.tuning = tuning
        self._freeze_norm = freeze_norm and tuning == "full"
        self._frozen = FROZEN[tuning]
        self.base = tuple(part for part in ("encoder", "decoder") if part in base)
        self._measured = set(self._frozen) - set(base) if measure else set[str]()
        for part in self._frozen:
            own = model.get_submodule(part)
            own.requires_grad_(False)
            for parameter in biases(own) if tuning == "bias" else []:
                parameter.requires_grad_(True)
        encoder = model.get_submodule("encoder")
        self._encoder_size = sum(p.numel() for p in encoder.parameters())
        self.adapters = nn.ModuleList()
        self._lora: list[str] = []
        self.inserted = small.find(encoder, tuning)
        if tuning == "adapter":
            places = [Inserted(**place) for place in self.inserted["adapters"]]
            self.adapters = insert(encoder, places, small.seed)
        if tuning == "lora":
            options = self.inserted["lora"]
            add_lora(encoder, options["layers"], options["rank"], small.seed)
            self._lora = list(options["layers"])
        self.to(next(encoder.parameters()).device)
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, H, W).

        Raises:
            ModelError: If it is trained on one image and has a batch normalisation of single
                values, which needs two.
        """
        try:
            logits: Tensor = self.model(x)
        except ValueError as error:
            if len(x) == 1 and dry_run.too_few(error):
                raise ModelError(one_image(type(self.model).__name__)) from None
            raise
        return logits

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for what is frozen."""
        super().train(mode)
        for part in self._frozen:
            own = self.model.get_submodule(part).eval()
            if mode and part in self._measured:  # statistics are those of the batch
                for layer in own.modules():
                    if isinstance(layer, Norm):
                        layer.train()
        if self._freeze_norm:
            freeze_batch_norm(self.model.get_submodule("encoder"))
        return self

    def trained(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [p for p in self.parameters() if p.requires_grad]

    def encoder_share(self) -> float:
        """Trained parameters in the encoder, adapters included, as a share of the encoder's."""
        encoder = self.model.get_submodule("encoder")
        inside = [*encoder.parameters(), *self.adapters.parameters()]
        return sum(p.numel() for p in inside if p.requires_grad) / self._encoder_size

    def base_state(self) -> dict[str, Tensor]:
        """The tensors that are the shared base's, by their names in the plain network."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        shared = tuple(f"model.{part}." for part in self._frozen if part in self.base)
        return {
            self._plain(name): tensor
            for name, tensor in self.state_dict().items()
            if shared and name.startswith(shared) and name not in trained
        }

    def own_state(self) -> dict[str, Tensor]:
        """All other tensors: what the task costs beside a base that is there anyway."""
        base = self.base_state()
        every = {self._plain(name): tensor for name, tensor in self.state_dict().items()}
        return {name: tensor for name, tensor in every.items() if name not in base}

    def _plain(self, name: str) -> str:
        """A name in the network without peft's layers around its own.

        Networks have modules called ``base_layer``, too (DLA): only below LoRA it is peft's.
        """
        name = name.removeprefix("model.")
        layer, _, last = name.rpartition(".base_layer.")
        return f"{layer}.{last}" if layer.removeprefix("encoder.") in self._lora else name

    def unload(self) -> nn.Module:
        """Take adapters or LoRA out: the plain network, its encoder bit for bit as it was."""
        for adapter in self.adapters:
            adapter.handle.remove()  # type: ignore[operator, union-attr]
        self.adapters = nn.ModuleList()
        remove_lora(self.model.get_submodule("encoder"), self._lora, merge=False)
        self._lora = []
        return self.model

    def merge(self) -> nn.Module:
        """Fold LoRA into the encoder's weights: a plain network with the same outputs.

        Raises:
            ModelError: If there are adapters, which have no place in a plain network.
        """
        if len(self.adapters):
            raise ModelError("adapters cannot be merged; keep them, or use the tuning lora.")
        remove_lora(self.model.get_submodule("encoder"), self._lora, merge=True)
        self._lora = []
        return self.model


def one_image(network: str) -> str:
    """The sentence for a network that cannot be trained on batches of one image."""
    remedy = (
        "set adapt.batch_size to 2 or more (adapt.n may be 1: a batch then holds the image several "
        "times), or choose another segment.architecture"
    )
    return dry_run.needs_two(network, remedy)


def biases(module: nn.Module) -> list[nn.Parameter]:
    """Biases of all layers and weights of normalisation layers."""
    found = []
    for layer in module.modules():
        norm = "norm" in type(layer).__name__.lower()
        for name, parameter in layer.named_parameters(recurse=False):
            if name == "bias" or name.endswith("_bias") or (norm and parameter.ndim == 1):
                found.append(parameter)
    return found


def optimizer_megabytes(optimizer: torch.optim.Optimizer) -> float:
    """Size of an optimiser's state in millions of bytes."""
    tensors = (v for state in optimizer.state.values() for v in state.values())
    return sum(v.numel() * v.element_size() for v in tensors if isinstance(v, Tensor)) / 1e6
