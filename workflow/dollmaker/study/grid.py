"""Which networks are pre-trained and fine-tuned in a study, and with which configuration."""

import json
from collections.abc import Mapping
from typing import Any

from dollmaker.adapt import PLAIN, TUNINGS
from dollmaker.config.settings import resolved
from dollmaker.config.whole import Config
from dollmaker.runtime.errors import ConfigError, unknown

#: Keys of section segment that make the network.
_NETWORK = ("architecture", "encoder", "arguments")

#: Keys of section adapt that runs of other lengths may have of their own.
_OF_A_BUDGET = ("steps", "learning_rate", "evaluations")


def runs(config: Config) -> list[str]:
    """All runs, as folders ``{architecture}/{task}/{init}-{tuning}``.

    Raises:
        ConfigError: If the study names a start or a task that does not exist.
    """
    study = config.study
    known = [*PLAIN, *study.pretrainings]
    for init in study.inits:
        if init not in known:
            raise ConfigError(unknown("start in study.inits", init, known))
    if "imagenet" in study.inits and config.adapt.imagenet is None:
        raise ConfigError(
            "study.inits has imagenet but adapt.imagenet names no weights file; add it."
        )
    tasks = study.tasks or list(config.tasks)
    for task in tasks:
        if task not in config.tasks:
            raise ConfigError(unknown("task in study.tasks", task, config.tasks))
    return [
        f"{architecture}/{task}/{init}-{tuning}"
        for architecture in study.architectures
        for task in tasks
        for init in study.inits
        for tuning in tunings(config)
    ]


def tunings(config: Config) -> dict[str, dict[str, Any]]:
    """Name of a tuning -> what differs from section adapt, and ``tuning``: what is trained."""
    given = config.study.tunings
    if isinstance(given, list):
        return {name: {"tuning": name} for name in given}
    return {name: {"tuning": name, **changes.dump()} for name, changes in given.items()}


def budgets(config: Config) -> dict[str, dict[int, str]]:
    """Tunings that differ in steps (and in rates and evaluations) alone.

    Returns:
        Name of the longest -> steps -> tuning. Left out is what has one budget, or several tunings
        of the same steps: nothing says which of them would be the run of that length.
    """
    groups: dict[str, list[tuple[int, str]]] = {}
    for name, changes in tunings(config).items():
        adapt = _tuned(config, name).adapt.dump()
        same = {key: adapt[key] for key in adapt if key not in _OF_A_BUDGET}
        key = json.dumps([changes["tuning"], same], sort_keys=True)
        groups.setdefault(key, []).append((adapt["steps"], name))
    return {
        max(group)[1]: dict(group)
        for group in groups.values()
        if len(group) == len(dict(group)) > 1
    }


def check(config: Config) -> None:
    """Refuse a study that could not be run.

    Raises:
        ConfigError: If a start, a task or a key of an architecture, pre-training or tuning is
            unknown, or a name stands for something else.
    """
    runs(config)
    study = config.study
    for key, names, taken in (
        ("study.pretrainings", study.pretrainings, PLAIN),
        ("study.architectures", study.architectures, ("report",)),  # folders of the study
        ("tasks", study.tasks or config.tasks, ("segmenter",)),
        ("study.tunings", study.tunings, ("best",)),  # rows of the results
    ):
        for name in taken:
            if name in names:
                raise ConfigError(f"{key} has {name!r}, which has a meaning of its own; rename it.")
    for tuning, changes in tunings(config).items():
        _check_tuning(config, tuning, changes)
    for pretraining, options in study.pretrainings.items():
        if pretraining.endswith(tuple(f"-{tuning}" for tuning in (*TUNINGS, *tunings(config)))):
            raise ConfigError(
                f"study.pretrainings has {pretraining!r}, which ends like a tuning; rename it."
            )
        for key in _NETWORK:
            if key in options.segment:
                raise ConfigError(
                    f"study.pretrainings.{pretraining}.segment has {key}: a pre-training and its "
                    "fine-tunings are of one network; put it into study.architectures."
                )
    for architecture in study.architectures:
        for pretraining in study.pretrainings:
            try:
                pretraining_config(config, architecture, pretraining)
            except ConfigError as error:
                where = f"study.architectures.{architecture} and study.pretrainings.{pretraining}"
                raise ConfigError(f"{where}, laid over segment: {error}") from None


def _check_tuning(config: Config, name: str, changes: Mapping[str, Any]) -> None:
    where = f"study.tunings.{name}"
    if name in TUNINGS and changes["tuning"] != name:
        raise ConfigError(f"{where} trains {changes['tuning']!r}; give it a name of its own.")
    if changes["tuning"] not in TUNINGS:
        raise ConfigError(unknown(f"tuning in {where}", changes["tuning"], TUNINGS))
    for key in ("runs", "imagenet", "n", "seeds"):
        if key in changes:
            raise ConfigError(f"{where} has {key}, which is the same for all tunings; take it out.")
    try:
        _tuned(config, name)
    except ConfigError as error:
        raise ConfigError(f"{where}, laid over adapt: {error}") from None


def segmenter(config: Config, architecture: str, pretraining: str) -> str:
    """The pre-training whose segmenter a pre-training takes.

    Pre-trainings that differ only in what fine-tuning does with them share one segmenter, that of
    the first: an epoch of pre-training costs more than a fine-tuning.
    """
    mine = pretraining_config(config, architecture, pretraining).segment
    names = config.study.pretrainings
    return next(n for n in names if pretraining_config(config, architecture, n).segment == mine)


def pretraining_config(config: Config, architecture: str, pretraining: str) -> Config:
    """The configuration with the network and the objectives of one pre-training.

    Raises:
        ConfigError: If a key of theirs is not one of section segment.
    """
    changes = config.study.pretrainings[pretraining].segment
    return _with_segment(config, config.study.architectures[architecture], changes)


def run_config(config: Config, architecture: str, task: str, init: str, tuning: str) -> Config:
    """The configuration of a fine-tuning."""
    study = config.study
    full = _with_segment(_tuned(config, tuning), study.architectures[architecture])
    changes: dict[str, Any] = {"n": study.n, "seeds": study.seeds}
    if init in study.pretrainings and study.pretrainings[init].new_blocks is not None:
        changes["new_blocks"] = study.pretrainings[init].new_blocks
    adapt = full.adapt.model_copy(update=changes)
    return full.model_copy(update={"adapt": adapt, "tasks": {task: full.tasks[task]}})


def _tuned(config: Config, tuning: str) -> Config:
    tree, changes = config.dump(), tunings(config)[tuning]
    tree["adapt"] |= {key: value for key, value in changes.items() if key != "tuning"}
    return resolved(tree)


def _with_segment(config: Config, *changes: Mapping[str, Any]) -> Config:
    """The configuration with changes of section segment: objectives one by one, all else whole."""
    tree = config.dump()
    segment = tree["segment"]
    for change in changes:
        objectives = segment["objectives"] | change.get("objectives", {})
        segment = {**segment, **change, "objectives": objectives}
    return resolved({**tree, "segment": segment})
