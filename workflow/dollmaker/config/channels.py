"""Do the configured channels fit the source and the networks?"""

from collections.abc import Mapping
from typing import Any

from dollmaker.config import ready
from dollmaker.runtime.errors import ConfigError

#: Sources whose pictures are grey or colours. The files of others decide.
_PICTURES = ("phantoms", "chexpert", "nih", "jsrt")


def check(config: Mapping[str, Any]) -> None:
    """Refuse channels that do not go together, as far as the configuration alone tells.

    Raises:
        ConfigError: With the first mistake.
    """
    asked, source = config["prepare"]["channels"], config["source"]
    if source["kind"] in _PICTURES and asked not in (1, 3):
        raise ConfigError(
            f"prepare.channels is {asked}, and the pictures of source.kind {source['kind']} are "
            "grey; set it to 1, or to 3, which repeats them."
        )
    if source["kind"] == "msd" and isinstance(source["msd"]["channels"], list):
        require_volumes(len(source["msd"]["channels"]), asked)
    for name, member in config["classify"]["members"].items():
        seen = ready.input_options(config, member)["channels"]
        if seen != asked and 1 not in (seen, asked):
            raise ConfigError(
                f"classify.members.{name} sees {seen} channels, and images have {asked} "
                f"(prepare.channels); give the network {asked}, or 1, which takes their mean."
            )


def require_volumes(count: int, asked: int) -> None:
    """Refuse volumes of other channels than ``prepare.channels``; one may be repeated to three.

    Raises:
        ConfigError: If they do not agree.
    """
    if count != asked and (count, asked) != (1, 3):
        chosen = "one channel" if count == 1 else f"{count} channels"
        raise ConfigError(
            f"prepare.channels is {asked}, and source.msd chooses {chosen}; set prepare.channels "
            f"to {count}, or name other channels in source.msd.channels."
        )
