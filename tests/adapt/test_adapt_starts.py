"""How the doll start treats the decoder."""

from typing import Any

import torch

from dollmaker.adapt.starts import Beginning, make_network
from dollmaker.inputs import Input


def test_a_trained_decoder_is_shrunk_and_perturbed(config: dict[str, Any]) -> None:
    options = config["segment"]
    spec = Input(channels=1, size=32)

    def network(keep: float, parts: dict[str, Any], seed: int) -> Any:
        start = Beginning(parts=parts, input=spec, sha256="", source="test")
        return make_network(start, options, 2, seed, keep)

    trained = network(1.0, {}, 7)
    fresh = network(1.0, {}, 8)
    parts = {part: getattr(trained, part).state_dict() for part in ("encoder", "decoder")}
    half = network(0.5, parts, 8)
    for (name, mixed), (_, old), (_, new) in zip(
        half.decoder.named_parameters(),
        trained.decoder.named_parameters(),
        fresh.decoder.named_parameters(),
        strict=True,
    ):
        torch.testing.assert_close(mixed, (old + new) / 2, msg=name)
    for mixed, old in zip(half.encoder.parameters(), trained.encoder.parameters(), strict=True):
        assert torch.equal(mixed, old)
    whole = network(1.0, parts, 8)
    for kept, old in zip(whole.decoder.parameters(), trained.decoder.parameters(), strict=True):
        assert torch.equal(kept, old)
