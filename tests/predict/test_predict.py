"""Masks of new pictures by the models of a release, against the same arithmetic written out."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from dollmaker.adapt.saved import load_adapter, save_adapter
from dollmaker.adapt.tuning import Small, Tuned
from dollmaker.config.networks import SegmentConfig
from dollmaker.config.settings import resolved
from dollmaker.launch.pipeline import released_tasks, released_thresholds
from dollmaker.networks.classifiers import create_network
from dollmaker.networks.inputs import Input
from dollmaker.networks.member import Member, load_member, save_member
from dollmaker.networks.segmenters import create, read_segmenter
from dollmaker.predict.stage import predict
from dollmaker.release.models import Inputs, add_models, check, list_models
from dollmaker.runtime.cli import main
from dollmaker.runtime.errors import ArtifactError, ConfigError, DataError, ModelError
from dollmaker.segment.stage import save
from dollmaker.store import tables
from dollmaker.store.files import write_json
from dollmaker.store.rle import decode

SIZE = 32
SPEC = Input(channels=1, size=SIZE)
FINDINGS = ["Edema", "A b"]
NETWORK = {"architecture": "Unet", "encoder": "tu-test_resnet", "init": "random"}
OPTIONS = {**NETWORK, "arguments": {"decoder_channels": [16, 8, 8, 8, 4]}}
CONFIG: dict[str, Any] = {
    "dataset": "x",
    "source": {"kind": "phantoms"},
    "prepare": {"size": SIZE, "fit": "resize"},
    "recipes": {
        "doll": {
            "attribute": {"method": "saliency", "smoothing": 1.0},
            "binarize": [{"gate": {"labels": [1]}}, {"otsu": {}}],
        }
    },
}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a release carries to predict: a configuration and models with random weights."""
    folder = tmp_path_factory.mktemp("predict")
    model = create(SegmentConfig(**OPTIONS), channels=1, classes=2, size=SIZE, seed=0)
    (folder / "segmenter").mkdir()
    save(folder / "segmenter", model, SegmentConfig(**OPTIONS), FINDINGS, SPEC)
    base = read_segmenter(folder / "segmenter")
    small = Small(x=torch.zeros(1, 1, SIZE, SIZE).normal_())
    tuned = Tuned(base, "adapter", small, freeze_norm=True)
    torch.nn.init.normal_(tuned.adapters[-1].up.bias, std=3)
    tuned.eval()
    task = folder / "t/doll-adapter"
    task.mkdir(parents=True)
    save_adapter(tuned, task / "adapter", classes=FINDINGS, spec=SPEC)
    members = [folder / name for name in ("b", "a")]
    for seed, member in enumerate(members):
        torch.manual_seed(seed)
        member.mkdir()
        network, _ = create_network("timm:test_resnet", outputs=2, channels=1, size=SIZE)
        made_of = {"architecture": "timm:test_resnet", "findings": FINDINGS, "input": SPEC}
        save_member(member, Member(name=member.name, network=network, **made_of))
    made = folder / "release"
    tables.write(pl.DataFrame({"image_id": ["i"]}), folder / "index", {"channel_mean": [100.0]})
    others = dict.fromkeys(("images", "labels", "sanity", "scores", "pairs"), folder)
    inputs = Inputs(
        index=folder / "index",
        segmenter=folder / "segmenter",
        committee=members,
        tasks=[task],
        **others,
    )
    add_models(made, inputs, ["committee"])
    facts = {"findings": FINDINGS, "config": resolved(CONFIG).dump()}
    write_json(made / "provenance.json", facts)
    return made


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "in/deep").mkdir(parents=True)
    for name, shape in (("a", (40, 50)), ("b", (33, 21)), ("deep/a", (64, 64))):
        pixels = rng.integers(0, 255, (4, 4), np.uint8)
        picture = Image.fromarray(pixels).resize(shape, Image.Resampling.BICUBIC)
        picture.save(tmp_path / f"in/{name}.png")
    return tmp_path / "in"


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "predictions.csv").open(encoding="utf-8")))


def mask(folder: Path, finding: str, image: str) -> Any:
    return np.asarray(Image.open(next(folder.glob(f"masks/{finding}*/{image}*.png")))) > 0


@pytest.mark.parametrize("model", ["segmenter", "t-doll-adapter"])
def test_masks_are_the_enlarged_logits_cut_at_zero(
    release: Path, images: Path, tmp_path: Path, model: str
) -> None:
    predict(release, images, tmp_path / "o", model=model, maps=True)
    network = (
        read_segmenter(release) if model == "segmenter" else load_adapter(release, "t-doll-adapter")
    )
    for name in ("a", "b"):
        picture = Image.open(images / f"{name}.png")
        small = np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        with torch.no_grad():
            logits = network.eval()(SPEC.prepare(torch.from_numpy(small.copy())[None, None]))
        large = torch.nn.functional.interpolate(logits, picture.size[::-1], mode="bilinear")[0]
        for finding, expected in zip(FINDINGS, large.numpy(), strict=True):
            found = mask(tmp_path / "o", finding[0], name)
            unsure = np.abs(expected) < 1e-5
            assert found.shape == expected.shape and ((found == (expected > 0)) | unsure).all()
    listed = rows(tmp_path / "o")
    assert [row["image_id"] for row in listed[::2]] == ["a", "b", "deep_a"]
    assert int(listed[0]["area"]) == mask(tmp_path / "o", "E", "a").sum()
    values = np.asarray(Image.open(tmp_path / "o/maps/Edema/a.png"))
    assert values.dtype == np.uint16 and values.shape == (50, 40)


def test_adapters_change_the_segmenter_and_need_its_release(release: Path, images: Path) -> None:
    x = torch.rand(1, 1, SIZE, SIZE)
    with torch.no_grad():
        one = read_segmenter(release)(x)
        other = load_adapter(release, release / "models/adapters/t-doll-adapter")(x)
    assert not torch.equal(one, other)


def test_every_form_holds_the_same_masks(release: Path, images: Path, tmp_path: Path) -> None:
    for form in ("png", "nifti", "chexlocalize", "overlay"):
        words = ["--output", str(tmp_path / form), "--to", form, "--device", "cpu"]
        assert main(["predict", str(release), str(images), *words]) == 0
    codes = json.loads((tmp_path / "chexlocalize/predictions.json").read_text())
    assert list(codes) == ["a", "b", "deep_a"] and list(codes["a"]) == FINDINGS
    for finding in FINDINGS:
        expected = mask(tmp_path / "png", finding[0], "b")
        code = codes["b"][finding]
        assert np.array_equal(decode(code["counts"], *code["size"]), expected)
        volume: Any = nibabel.load(next(tmp_path.glob(f"nifti/masks/{finding[0]}*/b.nii.gz")))
        assert np.array_equal(np.asarray(volume.dataobj)[..., 0].T, expected)
    drawn = Image.open(tmp_path / "overlay/b.png")
    assert drawn.mode == "RGB" and drawn.width >= 33 and drawn.height > 21  # words are below


def test_a_picture_has_the_same_masks_alone_and_among_others(
    release: Path, images: Path, tmp_path: Path
) -> None:
    for model in ("segmenter", "committee"):
        predict(release, images, tmp_path / model, model=model, min_probability=0)
        predict(release, images / "b.png", tmp_path / f"{model}1", model=model, min_probability=0)
        for finding in FINDINGS:
            both = [mask(tmp_path / f"{model}{end}", finding[0], "b") for end in ("", "1")]
            assert np.array_equal(*both)


def test_the_committee_explains_what_it_finds(release: Path, images: Path, tmp_path: Path) -> None:
    predict(release, images, tmp_path / "o", model="committee", min_probability=0)
    members = [
        load_member(release / f"models/committee/{name}", torch.device("cpu")) for name in "ba"
    ]
    small = np.asarray(Image.open(images / "a.png").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    x = SPEC.prepare(torch.from_numpy(small.copy())[None, None])
    with torch.no_grad():
        chances = torch.stack([member.network(x).sigmoid() for member in members]).mean(0)[0]
    found = [float(row["probability"]) for row in rows(tmp_path / "o")[:2]]
    assert found == pytest.approx(chances.tolist(), abs=2e-4)
    least = sorted(found)[0] + 1e-3
    predict(release, images / "a.png", tmp_path / "p", model="committee", min_probability=least)
    assert len(rows(tmp_path / "p")) == 1
    predict(release, images, tmp_path / "q", model="committee", min_probability=1)
    assert rows(tmp_path / "q") == []


def test_pictures_that_cannot_be_read_are_left_out(
    release: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "c.png").write_bytes(b"no picture")
    predict(release, images, tmp_path / "o", findings=["Edema"])
    assert len(rows(tmp_path / "o")) == 3
    assert "c.png is left out: not a readable image" in capsys.readouterr().err
    with pytest.raises(DataError, match="no picture that can be read"):
        predict(release, images / "c.png", tmp_path / "p")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": "x"}, ModelError, "unknown model 'x'; use one of: segmenter, committee, t-doll"),
        ({"to": "x"}, ConfigError, "unknown form 'x'"),
        ({"to": "overlay", "maps": True}, ConfigError, "has no maps"),
        ({"findings": ["x"]}, ConfigError, "unknown finding 'x'; use one of: Edema, A b"),
        ({"min_probability": 2}, ConfigError, "from 0 to 1"),
        ({"images": Path("nowhere")}, DataError, "does not exist"),
        ({"images": Path()}, DataError, "holds no picture"),
        ({"release": Path()}, ArtifactError, "holds no provenance.json"),
        ({"output": Path("taken")}, DataError, "exists already"),
    ],
)
def test_refuses_in_one_sentence(
    release: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any], error: type[Exception], words: str,
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    given = {"release": release, "images": images, "output": tmp_path / "o", **change}
    if "output" in change:
        Path("taken").write_text("mine")
    with pytest.raises(error, match=words):
        predict(given.pop("release"), given.pop("images"), **given)


def test_damaged_models_are_found(release: Path, images: Path, tmp_path: Path) -> None:
    import shutil

    for name, words in (("model.safetensors", "damaged"), ("segmenter.json", "not as written")):
        shutil.copytree(release, tmp_path / name)
        file = tmp_path / name / "models/segmenter" / name
        file.write_bytes(b"{}")
        with pytest.raises(ArtifactError, match=words):
            predict(tmp_path / name, images, tmp_path / "o")


def test_a_release_carries_what_its_configuration_names(release: Path) -> None:
    assert list_models(release) == ["segmenter", "committee", "t-doll-adapter"]
    runs = {"runs": ["doll/adapter", "random/full", "imagenet/head"]}
    tasks = {"t": {"images": "i", "masks": "m", "classes": {"c": [1]}}}
    for names, words in ((["t/doll/adapter", "committee"], ""), (["t/imagenet/head"], "trains all"),
                         (["x"], "release.models names 'x'")):  # fmt: skip
        config = resolved({**CONFIG, "tasks": tasks, "adapt": {**runs, "imagenet": "w"},
                           "release": {"models": names}})  # fmt: skip
        if words:
            with pytest.raises(ConfigError, match=words):
                check(config)
            continue
        check(config)
        assert released_tasks(config) == ["results/x/tasks/t/doll-adapter"]
        assert released_thresholds(config) == []
