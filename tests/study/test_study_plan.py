"""Which runs a study has, and with which configuration."""

from typing import Any

import pytest

from dollmaker import pipeline
from dollmaker.config import resolve
from dollmaker.errors import ConfigError
from dollmaker.study import plan

TASK = {"table": "t.csv", "images": "i", "masks": "m", "image_column": "image",
        "mask_column": "mask", "patient_column": None, "classes": {"lungs": [1]}}  # fmt: skip


def config(**study: Any) -> dict[str, Any]:
    return resolve(
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
    runs = plan.runs(
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
    assert len(plan.runs(config())) == 2 * 3


def test_a_pretraining_changes_what_it_names_and_no_more() -> None:
    settings = config(
        architectures={"fpn": {"architecture": "FPN", "arguments": {}}},
        pretrainings={"both": {"segment": {"objectives": {"structure": 1}, "epochs": 9}}},
        inits=["both"],
    )
    segment = plan.pretraining_config(settings, "fpn", "both")["segment"]
    assert segment["objectives"] == {"masks": 0.5, "structure": 1, "classification": 0}
    assert (segment["architecture"], segment["arguments"], segment["epochs"]) == ("FPN", {}, 9)
    # A run needs the network alone: other objectives make no other fine-tuning.
    segment = plan.run_config(settings, "fpn", "organs", "both")["segment"]
    assert (segment["architecture"], segment["epochs"]) == ("FPN", settings["segment"]["epochs"])


def test_a_run_takes_the_study_numbers_and_the_rest_of_adapt() -> None:
    settings = config(
        pretrainings={"doll": {}, "whole": {"new_blocks": 0}},
        inits=["random", "doll", "whole"],
        n=[3],
        seeds=5,
    )
    adapt = plan.run_config(settings, "default", "organs", "doll")["adapt"]
    assert (adapt["n"], adapt["seeds"], adapt["steps"], adapt["new_blocks"]) == ([3], 5, 7, 3)
    whole = plan.run_config(settings, "default", "organs", "whole")
    assert whole["adapt"]["new_blocks"] == 0
    assert list(whole["tasks"]) == ["organs"]


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
        assert plan.segmenter(settings, "unet", start) == name
    assert plan.segmenter(settings, "fpn", "short") == "doll"  # this network has 3 epochs anyway
    assert pipeline.study_segmenter(settings, "unet", "new") == [
        "results/fake/study/unet/segmenter/doll"
    ]
    assert pipeline.study_segmenter(settings, "unet", "imagenet") == []


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
    ],
)
def test_what_does_not_exist_is_refused(study: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan.check(config(**study))


def test_imagenet_needs_its_file() -> None:
    settings = config(inits=["imagenet"])
    settings["adapt"]["imagenet"] = None
    with pytest.raises(ConfigError, match=r"adapt\.imagenet"):
        plan.check(settings)
