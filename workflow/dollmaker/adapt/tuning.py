"""What is trained of a network: all of it, adapters and decoder, or the head alone."""

from typing import Literal, Self

import torch
from torch import Tensor, nn

from dollmaker.adapt.adapters import add_adapters
from dollmaker.weights import freeze_batch_norm

Tuning = Literal["full", "adapter", "head"]


class Tuned(nn.Module):
    """A network with its frozen parts kept frozen, whatever mode it is put in.

    - ``full``: everything is trained, but for the encoder's batch normalisation if it is frozen.
    - ``adapter``: adapters in the encoder, decoder and head are trained; the encoder, its batch
      normalisation and dropout are as in evaluation.
    - ``head``: the last layer is trained; encoder and decoder are as in evaluation.

    Args:
        model: A network of segmentation-models-pytorch, changed in place.
        tuning: What is trained.
        x: An input it takes, (1, C, H, W), to place the adapters.
        freeze_norm: Keep the encoder's batch normalisation (``full`` only, else it always is).
        adapter_width: Width of the adapters as a share of the channels.
        seed: Seed of the adapters' weights.
    """

    def __init__(
        self,
        model: nn.Module,
        tuning: Tuning,
        x: Tensor,
        *,
        freeze_norm: bool,
        adapter_width: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.model = model
        self._freeze_norm = freeze_norm
        parts = {"full": [], "adapter": ["encoder"], "head": ["encoder", "decoder"]}[tuning]
        self._frozen = parts
        for part in parts:
            model.get_submodule(part).requires_grad_(False)
        encoder = model.get_submodule("encoder")
        self._encoder_size = sum(p.numel() for p in encoder.parameters())
        share, adapters = adapter_width, nn.ModuleList()
        if tuning == "adapter":
            adapters = add_adapters(encoder, x, share, seed)
        self.adapters = adapters
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, H, W)."""
        logits: Tensor = self.model(x)
        return logits

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for what is frozen."""
        super().train(mode)
        for part in self._frozen:
            self.model.get_submodule(part).eval()
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


def optimizer_megabytes(optimizer: torch.optim.Optimizer) -> float:
    """Size of an optimiser's state in millions of bytes."""
    tensors = (v for state in optimizer.state.values() for v in state.values())
    return sum(v.numel() * v.element_size() for v in tensors if isinstance(v, Tensor)) / 1e6
