"""The weights files that jobs start from.

A file that comes of a name is an input, made by the rule ``fetch_weights``. A file of the user's is
no input of any rule: the checksum of its content is a parameter.
"""

from pathlib import Path

from dollmaker.config import weight_names
from dollmaker.config.whole import Config
from dollmaker.study import grid

#: A start: as the configuration has it, and the network for :func:`weight_names.parse`; ``None`` if
#: it is no file.
Start = tuple[str, str] | None


def pattern(config: Config) -> str:
    """The files of names, with the wildcard ``weights``."""
    root = Path(config.weights_root.replace("{", "{{").replace("}", "}}"))
    return str(root / "{weights}.safetensors")


def of_member(config: Config, member: str) -> Start:
    """What a member starts from."""
    mine = config.classify.members[member]
    return (mine.weights, mine.architecture) if mine.weights else None


def of_segmenter(config: Config) -> Start:
    """The weights that the segmenter's encoder starts from."""
    init = config.segment.init
    if init == "random" or init in config.classify.members:
        return None
    return init, weight_names.of_encoder(config.segment.encoder)


def of_pretraining(config: Config, architecture: str, pretraining: str) -> Start:
    """As :func:`of_segmenter`, of a pre-training of the study."""
    tree = grid.pretraining_config(config.dump(), architecture, pretraining)
    return of_segmenter(Config.model_validate(tree))


def of_tuning(config: Config, init: str, architecture: str | None = None) -> Start:
    """The weights that a fine-tuning starts from, of an architecture of the study if one is given.

    Members and segmenters are folders of the workflow, and not meant.
    """
    if init != "imagenet" or not config.adapt.imagenet:
        return None
    changes = config.study.architectures[architecture] if architecture else {}
    encoder = changes.get("encoder", config.segment.encoder)
    return config.adapt.imagenet, weight_names.of_encoder(encoder)


def files(config: Config, start: Start) -> list[str]:
    """The file of a start that comes of a name: an input of the job."""
    if start is None or not weight_names.parse(*start):
        return []
    return [str(weight_names.locate(Path(config.weights_root), *start))]
