"""Names of published weights and their files."""

from pathlib import Path

import pytest

from dollmaker.config import settings as configuration
from dollmaker.config import weight_names
from dollmaker.config.whole import Config
from dollmaker.fetch import needed
from dollmaker.runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "network", "name", "stem"),
    [
        ("pretrained", "timm:resnet18", "pretrained:timm:resnet18", "pretrained--timm--resnet18"),
        ("pretrained", "mobilenet_v2", "pretrained:mobilenet_v2", "pretrained--mobilenet_v2"),
        ("timm:resnet18.a1_in1k", "x", "timm:resnet18.a1_in1k", "timm--resnet18.a1_in1k"),
        ("torchvision:resnet18.DEFAULT", "x", None, "torchvision--resnet18.DEFAULT"),
        ("hf:a/b", "x", None, "hf--a--b"),
        ("hf:a/b-c@v1.0", "x", None, "hf--a--b-c@v1.0"),
        ("hf:a/b@main/model.safetensors", "x", None, "hf--a--b@main--model"),
        ("hf:a/b/sub/w.bin", "x", None, "hf--a--b--sub--w.bin"),
    ],
)
def test_a_name_and_its_file_tell_each_other(
    text: str, network: str, name: str | None, stem: str
) -> None:
    found = weight_names.parse(text, network)
    assert found == (name or text)
    assert weight_names.stem(found) == stem and weight_names.name_of(stem) == found
    assert weight_names.locate(Path("w"), text, network) == Path("w", f"{stem}.safetensors")


@pytest.mark.parametrize(
    "text", ["mine.safetensors", "sub/mine.safetensors", "tim:resnet18.a1", ""]
)
def test_anything_else_is_a_file_of_the_users(text: str) -> None:
    assert weight_names.parse(text, "x") == ""
    assert weight_names.locate(Path("w"), text, "x") == Path("w", text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("timm:resnet18", "x"),
        ("timm:../x.y", "x"),
        ("torchvision:resnet18", "x"),
        ("hf:owner", "x"),
        ("hf:a/b/../../c.bin", "x"),
        ("hf:a/b//c.bin", "x"),
        ("hf:a--b/c", "x"),
        ("hf:a/b/readme.md", "x"),
        ("hf:a/..", "x"),
        ("timm:a.b\n", "x"),
        ("pretrained", "hf:a/b"),
        ("pretrained", "timm:a/../b"),
    ],
)
def test_what_is_no_name_and_what_leaves_the_folder_is_refused(text: str, network: str) -> None:
    with pytest.raises(ConfigError, match="have no such name; write"):
        weight_names.parse(text, network)


def settings(**sections: object) -> Config:
    return configuration.resolved({"dataset": "x", "source": {"kind": "phantoms"}, **sections})


TASK = {"t": {"images": "i", "masks": "m", "classes": {"c": [1]}}}


def test_every_place_that_names_weights_is_found() -> None:
    members = {
        "a": {"architecture": "timm:test_resnet", "weights": "pretrained"},
        "b": {"architecture": "resnet18", "weights": "torchvision:resnet18.IMAGENET1K_V1"},
        "c": {"weights": "own.safetensors"},
        "d": {"architecture": "timm:test_resnet", "weights": "pretrained", "seed": 2},
        "e": {},
    }
    full = settings(
        classify={"members": members},
        segment={"init": "pretrained", "encoder": "tu-test_vit"},
        adapt={"runs": ["imagenet/full"], "imagenet": "pretrained"},
        tasks=TASK,
        study={
            "architectures": {"r": {"encoder": "resnet18"}, "s": {}},
            "inits": ["imagenet", "one"],
            "pretrainings": {"one": {"segment": {"init": "hf:a/b"}}},
        },
    )
    assert [(need.name, need.file.name, need.place) for need in needed.of_config(full)] == [
        (
            "pretrained:timm:test_resnet",
            "pretrained--timm--test_resnet.safetensors",
            "classify.members.a.weights",
        ),
        (
            "torchvision:resnet18.IMAGENET1K_V1",
            "torchvision--resnet18.IMAGENET1K_V1.safetensors",
            "classify.members.b.weights",
        ),
        ("", "own.safetensors", "classify.members.c.weights"),
        ("pretrained:timm:test_vit", "pretrained--timm--test_vit.safetensors", "segment.init"),
    ]
    assert {need.name for need in needed.of_study(full)} == {
        "pretrained:smp:resnet18",
        "pretrained:timm:test_vit",
        "hf:a/b",
    }
    wired = needed.files(full, needed.of_member(full, "d"))
    assert wired == ["weights/pretrained--timm--test_resnet.safetensors"]
    assert needed.files(full, needed.of_member(full, "c")) == []
    assert needed.files(full, needed.of_tuning(full, "imagenet", "r")) == [
        "weights/pretrained--smp--resnet18.safetensors"
    ]
    assert needed.of_tuning(full, "random") is None


def test_braces_in_the_folder_are_no_wildcards() -> None:
    assert needed.pattern(settings(weights_root="./w{x}/")) == "w{{x}}/{weights}.safetensors"
    assert needed.pattern(settings(weights_root="./")) == "{weights}.safetensors"


def test_a_wrong_name_is_refused_with_its_place() -> None:
    full = settings(classify={"members": {"a": {"weights": "timm:resnet18"}}})
    with pytest.raises(
        ConfigError, match=r"^classify\.members\.a\.weights: the weights 'timm:resn"
    ):
        needed.of_config(full)
