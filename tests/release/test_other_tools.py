"""A release in the hands of other tools: Hugging Face, Croissant, COCO, CheXlocalize, nnU-Net."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from dollmaker.release.export import FORMS, export
from dollmaker.release.parts import SPLITS, read_rows
from dollmaker.release.read import read_release, source_mask
from dollmaker.store.rle import decode
from release.small_release import FINDINGS, build


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    patch = pytest.MonkeyPatch()
    patch.setattr("dollmaker.release.labels.ROWS_PER_FILE", 5)
    yield build(tmp_path_factory.mktemp("tools") / "x", truth=True, license="CC-BY-NC-4.0")
    patch.undo()


def test_hugging_face_loads_the_tables(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: not tested")
    found = datasets.load_dataset(str(release), cache_dir=str(tmp_path / "cache"))
    assert set(found) == set(SPLITS)
    for split in SPLITS:
        rows = read_rows(release, split).drop("iou_bound").to_dicts()
        assert found[split].num_rows == len(rows)
        for mine, theirs in zip(rows, found[split], strict=True):
            assert mine == theirs


def test_mlcroissant_validates_and_iterates(release: Path) -> None:
    mlc = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed: not tested")
    data = mlc.Dataset(jsonld=str(release / "croissant.json"))
    assert not data.metadata.issues.errors
    assert str(data.metadata.ctx.conforms_to.value).endswith("croissant/1.1")
    content = json.loads((release / "croissant.json").read_text())
    assert {key for key in content if key.startswith("rai:")} >= {
        "rai:dataCollection",
        "rai:dataLimitations",
        "rai:dataBiases",
        "rai:dataUseCases",
        "rai:dataAnnotationProtocol",
        "rai:personalSensitiveInformation",
    }
    rows = pl.concat([read_rows(release, split) for split in SPLITS]).drop("iou_bound")
    mine = {(row["image_id"], row["finding"]): row for row in rows.to_dicts()}
    count = 0
    for record in data.records("masks"):
        record = {key.removeprefix("masks/"): _plain(value) for key, value in record.items()}
        assert record == mine[record["image_id"], record["finding"]]
        count += 1
    assert count == len(mine)
    images = [_plain(record["images/image_id"]) for record in data.records("images")]
    assert images == [f"i{k}" for k in range(12)]


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def test_coco_reads_every_split(release: Path) -> None:
    whole = read_release(release)
    for split in SPLITS:
        coco = COCO(str(release / f"coco/{split}.json"))
        rows = whole.table.filter(split=split).to_dicts()
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == FINDINGS
        seen = 0
        for row in rows:
            mask = source_mask(whole, row)
            (image,) = (i for i in coco.imgs.values() if i["file_name"] == row["path"])
            number = coco.getCatIds(catNms=[row["finding"]])
            entries = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]], catIds=number))
            assert len(entries) == int(mask.any())
            for entry in entries:
                assert (coco.annToMask(entry) == mask).all() and entry["area"] == mask.sum()
                assert entry["segmentation"]["size"] == [20, 30]
                x, y, w, h = entry["bbox"]
                assert mask[y : y + h, x : x + w].sum() == mask.sum()
                assert entry["score"] == pytest.approx(row["quality"], abs=1e-4)
                seen += 1
        assert seen == len(coco.anns)


def test_chexlocalizes_json_has_every_image_and_finding(release: Path) -> None:
    whole = read_release(release)
    rows = whole.table.to_dicts()
    masks = {(row["image_id"], row["finding"]): source_mask(whole, row) for row in rows}
    images = pl.read_parquet(release / "images.parquet")
    empty = 0
    for split in SPLITS:
        content = json.loads((release / f"chexlocalize/{split}.json").read_text())
        assert list(content) == images.filter(split=split)["image_id"].to_list()
        for image, entry in content.items():
            assert list(entry) == FINDINGS
            for finding, code in entry.items():
                assert code["size"] == [20, 30]
                mask = masks.get((image, finding), np.zeros((20, 30), bool))
                assert (decode(code["counts"], 20, 30) == mask).all()
                empty += not mask.any()
    assert empty >= 2


def check_nnunet(folder: Path) -> None:
    """The rules of nnU-Net v2's documentation of its raw format and integrity check."""
    assert re.fullmatch(r"Dataset\d{3}_[A-Za-z0-9.-]+", folder.name)
    facts = json.loads((folder / "dataset.json").read_text())
    assert {"channel_names", "labels", "numTraining", "file_ending"} <= set(facts)
    channels = facts["channel_names"]
    assert list(channels) == [str(k) for k in range(len(channels))]
    assert facts["file_ending"] in (".png", ".bmp", ".tif", ".nii.gz", ".nrrd", ".mha")
    values = list(facts["labels"].values())
    assert facts["labels"]["background"] == 0
    assert sorted(values) == list(range(len(values)))
    assert facts["labels"]["ignore"] == max(values)
    for kind in ("Tr", "Ts"):
        images = sorted((folder / f"images{kind}").glob("*"))
        labels = sorted((folder / f"labels{kind}").glob("*"))
        assert [p.name for p in images] == [f"{p.stem}_0000.png" for p in labels]
        if kind == "Tr":
            assert len(labels) == facts["numTraining"] > 0
        for image, label in zip(images, labels, strict=True):
            pixels, truth = np.asarray(Image.open(image)), np.asarray(Image.open(label))
            assert pixels.shape[:2] == truth.shape and truth.ndim == 2
            assert (pixels.shape[2] if pixels.ndim == 3 else 1) == len(channels)
            assert set(np.unique(truth)) <= set(values)


@pytest.mark.parametrize("colours", ["none", "one", "all"])
def test_nnunets_rules_hold(release: Path, tmp_path: Path, colours: str) -> None:
    root = tmp_path / "source"
    (root / "a").mkdir(parents=True)
    for k in range(12):
        mode = "RGB" if colours == "all" or (colours == "one" and k == 9) else "L"
        Image.new(mode, (30, 20)).save(root / f"a/{k}.png")
    export(release, "nnunet", tmp_path / "out", root)
    folders = sorted((tmp_path / "out").iterdir())
    assert len(folders) == 2
    for folder in folders:
        check_nnunet(folder)
        names = json.loads((folder / "dataset.json").read_text())["channel_names"]
        assert len(names) == (1 if colours == "none" else 3)
    whole = read_release(release)
    row = whole.table.row(0, named=True)
    label = Image.open(folders[0] / "labelsTr" / f"{row['image_id']}.png")
    assert (np.asarray(label) == 1).sum() == source_mask(whole, row).sum() > 0


def test_what_a_crop_does_not_show_is_unknown_to_nnunet(release: Path, tmp_path: Path) -> None:
    whole = replace(read_release(release), fit="crop")
    (tmp_path / "a").mkdir()
    for k in range(12):
        Image.new("L", (30, 20)).save(tmp_path / f"a/{k}.png")
    FORMS["nnunet"](whole, tmp_path / "out", tmp_path)
    for path in (tmp_path / "out").rglob("labelsTr/*.png"):
        label = np.asarray(Image.open(path))
        assert (label[:, :5] == 2).all() and (label[:, 25:] == 2).all()
        assert (label[:, 5:25] == 0).any()


def front_matter(release: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((release / "README.md").read_text().split("---\n")[1])
    return found


def test_the_card_says_how_good_the_masks_are(release: Path, tmp_path: Path) -> None:
    facts = front_matter(release)
    assert facts["license"] == "cc-by-nc-4.0" and facts["size_categories"] == ["n<1K"]
    (only,) = facts["configs"]
    assert [f["split"] for f in only["data_files"]] == list(SPLITS)
    card = (release / "README.md").read_text()
    assert "mean IoU over findings is 0.25 [0.25, 0.25]" in card
    assert "best trivial baseline is 0.12" in card
    assert "| Edema | 2 | 0.25 [0.25, 0.25] |" in card and "[0.25, 0.25] | 0.50 |" in card
    assert "Which pairs have a mask goes by: label. The row `mean` is over findings." in " ".join(
        card.split()
    )
    assert "still draws a mask in 50 % of the pairs" in card
    assert "| Edema | 8 | 2 | 2 |" in card
    assert "<script>" not in card.split("---\n", 2)[2]
    code = card.split("```python\n")[1].split("\n```\n")[0]
    compile(code, "card", "exec")
    assert code.endswith("min_quality=0.5)")
    assert "There are no pixels of the source in it;" in card.replace("\n", " ")
    headings = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert headings == [
        *("Motivation", "Composition", "Collection", "How the masks were made"),
        *(
            "Scores against truth",
            "Bounds on every mask",
            "Sanity checks",
            "Known failures",
            "Uses and misuses",
        ),
        *("Licence", "How to cite"),
    ]
    plain = build(tmp_path / "y", license="Mine-1.0")
    assert "There is no truth for these images" in (plain / "README.md").read_text()
    facts = front_matter(plain)
    assert facts["license"] == "other" and facts["license_name"] == "Mine-1.0"


def test_the_card_tells_every_target_beside_its_trivial_baseline(tmp_path: Path) -> None:
    levels = {"nucleus": (0.41, 0.56), "<b>cell": (0.95, 0.87)}
    release = build(tmp_path / "x", truth=levels)
    told = (
        "Against true masks of test images the mean IoU is 0.41 [0.41, 0.41] for the target "
        "nucleus, over findings (best trivial baseline: 0.56); 0.95 [0.95, 0.95] for the target "
        "{}, over findings (best trivial baseline: 0.87)."
    )
    card = " ".join((release / "README.md").read_text().split())
    assert told.format("&lt;b&gt;cell") in card and "<b>cell" not in card
    description = json.loads((release / "croissant.json").read_text())["description"]
    assert told.format("<b>cell") in description


def test_licence_and_changes(tmp_path: Path) -> None:
    changes = {"1.0.0": ["First."], "1.10.0": ["Third.", "More."], "1.2.0": ["Second."]}
    release = build(tmp_path / "x", changes=changes, version="1.10.0", source_license="Theirs")
    text = (release / "CHANGELOG.md").read_text()
    assert re.findall(r"## (\S+)", text) == ["1.10.0", "1.2.0", "1.0.0"]
    assert "- Third.\n- More.\n" in text
    notice = (release / "LICENSE").read_text()
    assert "CC-BY-4.0\nhttps://creativecommons.org/licenses/by/4.0/" in notice
    assert "Theirs" in notice


def test_provenance_says_what_it_was_made_of(release: Path) -> None:
    found = json.loads((release / "provenance.json").read_text())
    assert (found["format"], found["stage"]) == (2, "release")
    assert found["inputs"]["a"] == "f" * 64 and found["inputs"]["segmenter"] == "e" * 64
    sums = (release.parent / "labels/SHA256SUMS").read_bytes()
    assert found["inputs"]["labels"] == hashlib.sha256(sums).hexdigest()
    assert found["findings"] == FINDINGS and found["config"]["release"]["recipe"] == "doll"
    assert found["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", found["commit"])
