"""Which runs a study has, and with which configuration."""

import json
from typing import Any

import pytest

from dollmaker.config.settings import resolved
from dollmaker.config.whole import Config
from dollmaker.launch import pipeline
from dollmaker.runtime.errors import ConfigError
from dollmaker.study import grid

TASK = {"table": "t.csv", "images": "i", "masks": "m", "image_column": "image",
        "mask_column": "mask", "patient_column": None, "classes": {"lungs": [1]}}  # fmt: skip


def config(**study: Any) -> Config:
    return resolved(
        {
            "dataset": "fake",
            "source": {"kind": "phantoms"},
            "segment": {"arguments": {"decoder_channels": [8, 8]}, "objectives": {"masks": 0.5}},
            "tasks": {"organs": TASK, "infection": TASK},
            "adapt": {"new_blocks": 3, "steps": 7, "imagenet": "i.safetensors"},
            "study": study,
        }
    )


def test_all_combinations_in_order() -> None:
    runs = grid.runs(
        config(
            architectures={"unet": {}, "fpn": {"architecture": "FPN"}},
            inits=["imagenet", "doll"],
            tunings=["full", "adapter"],
            tasks=["organs"],
        )
    )
    assert len(runs) == 8
    assert runs[:3] == [
        "unet/organs/imagenet-full",
        "unet/organs/imagenet-adapter",
        "unet/organs/doll-full",
    ]
    assert len(grid.runs(config())) == 2 * 3


def test_a_pretraining_changes_what_it_names_and_no_more() -> None:
    settings = config(
        architectures={"fpn": {"architecture": "FPN", "arguments": {}}},
        pretrainings={"both": {"segment": {"objectives": {"structure": 1}, "epochs": 9}}},
        inits=["both"],
    )
    segment = grid.pretraining_config(settings, "fpn", "both").segment
    assert segment.objectives.dump() == {"masks": 0.5, "structure": 1, "classification": 0}
    assert (segment.architecture, segment.arguments, segment.epochs) == ("FPN", {}, 9)
    # A run needs the network alone: other objectives make no other fine-tuning.
    segment = grid.run_config(settings, "fpn", "organs", "both", "full").segment
    assert (segment.architecture, segment.epochs) == ("FPN", settings.segment.epochs)


def test_a_run_takes_the_study_numbers_and_the_rest_of_adapt() -> None:
    settings = config(
        pretrainings={"doll": {}, "whole": {"new_blocks": 0}},
        inits=["random", "doll", "whole"],
        n=[3],
        seeds=5,
    )
    adapt = grid.run_config(settings, "default", "organs", "doll", "full").adapt
    assert (adapt.n, adapt.seeds, adapt.steps, adapt.new_blocks) == ([3], 5, 7, 3)
    whole = grid.run_config(settings, "default", "organs", "whole", "full")
    assert whole.adapt.new_blocks == 0
    assert list(whole.tasks) == ["organs"]


def test_tunings_with_settings_of_their_own() -> None:
    settings = config(
        pretrainings={"doll": {}, "new": {"new_blocks": 9}},
        inits=["random", "doll"],
        tunings={
            "bias": {"learning_rate": [0.01, 0.1]},
            "short": {"tuning": "full", "steps": 2, "new_blocks": 0},
        },
        tasks=["organs"],
    )
    grid.check(settings)
    assert grid.runs(settings)[:2] == [
        "default/organs/random-bias",
        "default/organs/random-short",
    ]
    trained = {name: changes["tuning"] for name, changes in grid.tunings(settings).items()}
    assert trained == {"bias": "bias", "short": "full"}
    bias, short, new = (
        grid.run_config(settings, "default", "organs", init, name).adapt
        for init, name in (("doll", "bias"), ("doll", "short"), ("new", "short"))
    )
    assert (bias.learning_rate, bias.steps, bias.new_blocks) == ([0.01, 0.1], 7, 3)
    default = settings.adapt.learning_rate
    assert (short.learning_rate, short.steps, short.new_blocks) == (default, 2, 0)
    assert (new.steps, new.new_blocks) == (2, 9)  # the start's own number counts
    run = grid.run_config(settings, "default", "organs", "doll", "short")
    assert json.loads(pipeline.task_config(run, "organs"))["adapt"]["steps"] == 2


def test_pretrainings_that_are_the_same_share_a_segmenter() -> None:
    settings = config(
        architectures={"unet": {}, "fpn": {"architecture": "FPN", "epochs": 3}},
        pretrainings={
            "doll": {},
            "new": {"new_blocks": 9},
            "long": {"segment": {"epochs": 9}},
            "short": {"segment": {"epochs": 3}, "new_blocks": 0},
        },
    )
    for start, name in (("doll", "doll"), ("new", "doll"), ("long", "long"), ("short", "short")):
        assert grid.segmenter(settings, "unet", start) == name
    assert grid.segmenter(settings, "fpn", "short") == "doll"  # this network has 3 epochs anyway
    folders = ["results/fake/study/unet/segmenter/doll"]
    assert pipeline.start_folders(settings, "new", "unet") == folders
    assert pipeline.start_words("new", folders) == ["--segmenter", *folders]
    assert pipeline.start_folders(settings, "imagenet", "unet") == []
    (member,) = pipeline.start_folders(settings, "classifier", "unet")
    assert member == f"results/fake/committee/{next(iter(settings.classify.members))}"
    assert pipeline.start_words("classifier", [member]) == ["--committee", member]


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"inits": ["dol"]}, "did you mean|use one of"),
        ({"tasks": ["lung"]}, "task in study.tasks"),
        ({"architectures": {"a": {"encodr": "x"}}}, "unknown key 'encodr'"),
        ({"pretrainings": {"doll": {"segment": {"objectives": {"x": 1}}}}}, "unknown key 'x'"),
        ({"pretrainings": {"doll-full": {}}, "inits": ["random"]}, "ends like a tuning"),
        ({"pretrainings": {"doll": {"segment": {"encoder": "resnet18"}}}}, "study.architectures"),
        ({"pretrainings": {"random": {}}, "inits": ["random"]}, "'random', which has a meaning"),
        ({"architectures": {"report": {}}}, "'report', which has a meaning"),
        ({"tunings": {"best": {"tuning": "full"}}}, "'best', which has a meaning"),
        ({"tunings": {"short": {"steps": 2}}}, "tuning in study.tunings.short"),
        ({"tunings": {"full": {"tuning": "bias"}}}, "give it a name of its own"),
        ({"tunings": {"full": {"stps": 2}}}, "laid over adapt.*unknown key 'stps'"),
        ({"tunings": {"full": {"seeds": 2}}}, "seeds, which is the same for all"),
        (
            {"pretrainings": {"doll": {}, "x-short": {}}, "tunings": {"short": {"tuning": "full"}}},
            "ends like a tuning",
        ),
    ],
)
def test_what_does_not_exist_is_refused(study: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grid.check(config(**study))


def test_imagenet_needs_its_file() -> None:
    settings = config(inits=["imagenet"])
    adapt = settings.adapt.model_copy(update={"imagenet": None})
    settings = settings.model_copy(update={"adapt": adapt})
    with pytest.raises(ConfigError, match=r"adapt\.imagenet"):
        grid.check(settings)


def test_budgets_are_tunings_that_differ_in_steps_alone() -> None:
    tunings = {
        "full": {"learning_rate": [0.001, 0.002]},
        "bias": {},
        "short": {"tuning": "full", "steps": 3, "evaluations": 1},
        "shorter": {"tuning": "full", "steps": 2},
        "small": {"tuning": "full", "steps": 4, "batch_size": 1},
    }
    assert grid.budgets(config(tunings=tunings)) == {"full": {7: "full", 3: "short", 2: "shorter"}}
    assert grid.budgets(config()) == {}
    # Which of two would be the run of three steps?
    tunings["again"] = {"tuning": "full", "steps": 3, "learning_rate": 0.1}
    assert grid.budgets(config(tunings=tunings)) == {}
