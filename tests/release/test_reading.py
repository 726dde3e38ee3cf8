"""A stranger with a release: load, look, compare, export."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch.utils.data import DataLoader

from dollmaker import PseudoLabels
from dollmaker.pixels.geometry import unfit_mask
from dollmaker.release.browse import diff, show
from dollmaker.release.export import export
from dollmaker.release.read import read_release, source_mask
from dollmaker.release.verify import verify
from dollmaker.runtime.cli import main
from dollmaker.runtime.errors import ArtifactError, ConfigError, DataError
from dollmaker.store.rle import decode
from release.small_release import FINDINGS


@pytest.fixture(scope="module")
def release(made: Path) -> Path:
    return made


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source images: 30 x 20, as grey as their number."""
    root = tmp_path_factory.mktemp("source")
    (root / "a").mkdir()
    for k in range(12):
        Image.new("L", (30, 20), 10 * k).save(root / f"a/{k}.png")
    return root


def test_items_are_the_rows_of_the_tables(release: Path, images: Path) -> None:
    data = PseudoLabels(release, images)
    table = pl.read_parquet(release / "data/train-00000-of-00001.parquet")
    assert len(data) == table["image_id"].n_unique() and data.findings == FINDINGS
    assert len(data.table) == len(table)
    for item in (data[k] for k in range(len(data))):
        rows = table.filter(image_id=item["image_id"])
        assert item["masks"].shape == (2, 24, 24) and item["image"].shape == (1, 24, 24)
        for number, finding in enumerate(FINDINGS):
            row = rows.filter(finding=finding).to_dicts()
            if not row:
                assert torch.isnan(item["labels"][number]) and not item["masks"][number].any()
                continue
            expected = decode(row[0]["counts"], 24, 24)
            assert (item["masks"][number].numpy() == expected).all()
            assert item["quality"][number] == pytest.approx(row[0]["quality"])
        middle = item["image"][0, 12, 12] * 255
        assert float(middle) == pytest.approx(10 * int(item["image_id"][1:]), abs=1)
    assert sum(int(item["ignore"].sum()) for item in (data[k] for k in range(len(data)))) == 72


def test_filters_workers_and_transforms(release: Path) -> None:
    few = PseudoLabels(release, findings=[FINDINGS[1]], min_quality=0.2, splits=["train", "valid"])
    assert set(few.table["finding"]) == {FINDINGS[1]} and few.table["quality"].min() >= 0.2
    alone = [few[k]["masks"] for k in range(len(few))]
    loader = DataLoader(few, batch_size=None, num_workers=2)
    assert all(torch.equal(a, b["masks"]) for a, b in zip(alone, loader, strict=True))
    named = PseudoLabels(release, transform=lambda item: item["image_id"])
    assert named[0] == "i0"
    with pytest.raises(ConfigError, match="unknown finding 'x'"):
        PseudoLabels(release, findings=["x"])
    with pytest.raises(ConfigError, match="unknown split 'dev'"):
        PseudoLabels(release, splits=["dev"])
    for wrong in ({"findings": [FINDINGS[0]] * 2}, {"findings": []}, {"splits": []}):
        with pytest.raises(ConfigError, match="name at least one, and none twice"):
            PseudoLabels(release, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "same_shape", "same_size"),
    [((30, 20), True, True), ((61, 40), True, False), ((20, 30), False, False)],
)
def test_pictures_of_another_size_are_used_where_only_the_shape_counts(
    release: Path, tmp_path: Path, size: tuple[int, int], same_shape: bool, same_size: bool
) -> None:
    (tmp_path / "a").mkdir()
    for k in range(12):
        Image.new("L", size).save(tmp_path / f"a/{k}.png")
    calls: list[tuple[bool, Callable[[], object]]] = [
        (same_shape, lambda: PseudoLabels(release, tmp_path)[0]),
        (same_shape, lambda: export(release, "yolo", tmp_path / "yolo", tmp_path)),
        (same_size, lambda: export(release, "nnunet", tmp_path / "nnunet", tmp_path)),
        (same_size, lambda: show(release, "i0", tmp_path / "i.png", tmp_path)),
    ]
    for good, call in calls:
        if good:
            call()
            continue
        told = (
            rf"image 'a/0.png' under .* is {size[0]}x{size[1]}, and the release knows 30x20; give"
        )
        with pytest.raises(DataError, match=told):
            call()


def test_a_damaged_picture_is_named(release: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for k in range(12):
        (tmp_path / f"a/{k}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"image 'a/0.png' under .* not a readable image"):
        PseudoLabels(release, tmp_path)[0]
    with pytest.raises(DataError, match=r"image 'a/0.png' under .* not a readable image"):
        show(release, "i0", tmp_path / "i.png", tmp_path)


def test_torchxrayvisions_form(release: Path, images: Path, tmp_path: Path) -> None:
    item = PseudoLabels(release, images, form="torchxrayvision")[1]
    assert set(item) == {"idx", "lab", "img", "pathology_masks"}
    assert item["img"].shape == (1, 24, 24) and item["img"].min() >= -1024
    assert item["img"][0, 12, 12] == pytest.approx((2 * 10 / 255 - 1) * 1024, abs=5)
    assert all(mask.shape == (1, 24, 24) for mask in item["pathology_masks"].values())
    with pytest.raises(DataError, match="give the root of your copy"):
        PseudoLabels(release, tmp_path)[0]


def test_batches_of_both_forms(release: Path, images: Path) -> None:
    """Images have masks of different findings, which no default makes a batch of."""
    for form in ("plain", "torchxrayvision"):
        data = PseudoLabels(release, images, form=form)  # type: ignore[arg-type]
        loader = DataLoader(data, batch_size=3, collate_fn=PseudoLabels.collate)
        items, batches = [data[i] for i in range(len(data))], list(loader)
        if form == "plain":
            found = torch.cat([batch["masks"] for batch in batches])
            assert torch.equal(found, torch.stack([item["masks"] for item in items]))
            continue
        masks = torch.cat([batch["pathology_masks"] for batch in batches])
        labels = torch.cat([batch["lab"] for batch in batches])
        assert masks.shape == (len(data), 2, 24, 24) and labels.isnan().any()
        for item, found, known in zip(items, masks, ~labels.isnan(), strict=True):
            assert [k for k in range(2) if known[k]] == list(item["pathology_masks"])
            for number in range(2):
                expected = item["pathology_masks"].get(number, np.zeros((1, 24, 24)))
                assert np.array_equal(found[number].numpy(), expected[0])


def test_numbers_for_programs(release: Path, tmp_path: Path) -> None:
    assert main(["stats", str(release), "--json", str(tmp_path / "s.json")]) == 0
    told, table = json.loads((tmp_path / "s.json").read_text()), read_release(release).table
    assert told["masks"] == len(table) == sum(row["masks"] for row in told["findings"])
    assert {i for ids in told["images"].values() for i in ids} == set(table["image_id"])
    row = next(r for r in told["findings"] if (r["finding"], r["split"]) == ("Edema", "train"))
    mine = table.filter(finding="Edema", split="train")
    assert row["median_quality"] == pytest.approx(mine["quality"].median(), abs=1e-3)
    assert row["median_quality"] == round(row["median_quality"], 3)  # no noise of float32
    assert row["median_IoU_bound"] is None


def test_exports_hold_the_same_masks(release: Path, images: Path, tmp_path: Path) -> None:
    for form in ("png", "chexlocalize", "coco", "yolo", "nnunet"):
        export(release, form, tmp_path / form, images)
    whole = read_release(release)
    truth = json.loads((tmp_path / "chexlocalize/train.json").read_text())
    coco = COCO(str(tmp_path / "coco/train.json"))
    for row in whole.table.filter(split="train").iter_rows(named=True):
        mask = source_mask(whole, row)
        assert mask.shape == (20, 30)
        code = truth[row["image_id"]][row["finding"]]
        assert (decode(code["counts"], *code["size"]) == mask).all()
        entries = [
            e
            for e in coco.loadAnns(coco.getAnnIds())
            if coco.imgs[e["image_id"]]["file_name"] == row["path"]
            and coco.cats[e["category_id"]]["name"] == row["finding"]
        ]
        assert mask.any() == bool(entries)
        if entries:
            assert (coco.annToMask(entries[0]) == mask).all()
    assert all(set(entry) == set(FINDINGS) for entry in truth.values())
    pngs = sorted((tmp_path / "png").rglob("*.png"))
    assert len(pngs) == len(whole.table)
    folders = sorted((tmp_path / "nnunet").iterdir())
    assert [f.name[:10] for f in folders] == ["Dataset901", "Dataset902"]
    facts = json.loads((folders[0] / "dataset.json").read_text())
    assert facts["labels"]["ignore"] == 2 and facts["file_ending"] == ".png"
    cases = sorted((folders[0] / "labelsTr").glob("*.png"))
    assert len(cases) == facts["numTraining"]
    assert all((folders[0] / "imagesTr" / f"{c.stem}_0000.png").exists() for c in cases)
    values = {v for f in folders for c in (f / "labelsTr").glob("*.png") for v in np.unique(Image.open(c))}  # fmt: skip # noqa: E501
    assert values == {0, 1}  # what is ignored lies in the letterbox, outside of the source
    lines = (tmp_path / "yolo/labels/train/0.txt").read_text().splitlines()
    numbers = [float(v) for v in lines[0].split()[1:]]
    assert len(numbers) >= 6 and all(0 <= v <= 1 for v in numbers)
    with pytest.raises(ConfigError, match="unknown form 'dicom'; use one of: png"):
        export(release, "dicom", tmp_path / "no")
    with pytest.raises(ConfigError, match="give --images"):
        export(release, "nnunet", tmp_path / "no")
    assert not (tmp_path / "no").exists()
    (tmp_path / "mine").mkdir()
    export(release, "coco", tmp_path / "mine")  # an empty folder is as good as none
    for taken in (tmp_path / "mine", tmp_path / "mine/train.json"):
        with pytest.raises(DataError, match="exists already; give a new folder"):
            export(release, "png", taken)
    assert (tmp_path / "mine/train.json").is_file()


def test_differences_are_counted(release: Path, tmp_path: Path) -> None:
    same = diff(release, release)["findings"][0]
    assert (same["added"], same["removed"], same["changed"], same["iou"]) == (0, 0, 0, 1.0)
    other = shutil.copytree(release, tmp_path / "y")
    table = pl.read_parquet(other / "data/train-00000-of-00001.parquet")
    from dollmaker.store import rle, tables

    mask = decode(table["counts"][0], 24, 24)
    half = mask.copy()
    half[np.nonzero(mask)[0].min()] = False  # one of eight rows is gone
    counts = [rle.encode(half), *table["counts"][1:]]
    header = tables.read_header(other / "data/train-00000-of-00001.parquet")
    tables.write(
        table.with_columns(pl.Series("counts", counts))[:-1],
        other / "data/train-00000-of-00001.parquet",
        header,
    )
    found = diff(release, other)["findings"][0]
    assert (found["removed"], found["added"], found["changed"]) == (1, 0, 1)
    kept = len(read_release(other).table)
    assert found["iou"] == pytest.approx((kept - 1 + half.sum() / mask.sum()) / kept)


def test_the_users_images_are_compared_byte_by_byte(release: Path, images: Path) -> None:
    faults = verify(release, images)
    count = read_release(release).table["path"].n_unique()
    assert len(faults) == count  # the fixture's checksums are zeros
    assert all("not the file that the masks were made from" in fault for fault in faults)
    first = read_release(release).table["path"][0]
    (wrong,) = verify(release, images / "a")
    assert f"no image is under {images / 'a'}" in wrong and first in wrong
    hidden = (images / first).rename(images / "hidden")
    assert sum(f"image {first}: missing under" in fault for fault in verify(release, images)) == 1
    hidden.rename(images / first)
    assert verify(release) == []
    assert verify(release, images / "absent") == [
        f"folder of images {images / 'absent'} does not exist"
    ]


def test_links_below_the_root_of_the_images_are_followed(
    release: Path, images: Path, tmp_path: Path
) -> None:
    linked = tmp_path / "root"
    linked.mkdir()
    (linked / "a").symlink_to(images / "a")
    for form in ("yolo", "nnunet"):
        export(release, form, tmp_path / form, linked)
    assert (tmp_path / "yolo/images/test/11.png").read_bytes() == (images / "a/11.png").read_bytes()
    data = [PseudoLabels(release, root)[3] for root in (linked, images)]
    assert torch.equal(data[0]["image"], data[1]["image"])
    for root in (linked, images):
        show(release, "i4", tmp_path / f"{root.name}.png", root)
    shown = [(tmp_path / f"{root.name}.png").read_bytes() for root in (linked, images)]
    assert shown[0] == shown[1]
    assert verify(release, linked) == verify(release, images)
    (linked / "a").unlink()
    (linked / "a").symlink_to(tmp_path / "unplugged")
    with pytest.raises(DataError, match=r"a/0.png' under .*missing; give the root of your copy"):
        PseudoLabels(release, linked)[0]
    for form in ("yolo", "nnunet"):
        with pytest.raises(DataError, match=r"image 'a/0.png' under .*is missing; give the root"):
            export(release, form, tmp_path / "no", linked)


@pytest.mark.parametrize("content", ["{}", "[]", '{"config": {"prepare": {}}, "findings": []}'])
def test_a_folder_with_another_provenance_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "provenance.json").write_text(content)
    with pytest.raises(ArtifactError, match="give the folder of a release"):
        read_release(tmp_path)


def test_commands(
    release: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stats", str(release)]) == 0
    assert "masks of" in capsys.readouterr().out
    words = ["show", str(release), "i0", "--output", str(tmp_path / "i.png")]
    assert main([*words, "--images", str(images)]) == 0
    width, height = Image.open(tmp_path / "i.png").size
    assert width > 100 and height > 20  # words need more room than so small a picture
    assert main(words) == 0
    assert main(["show", str(release), "i00", "--output", str(tmp_path / "j.png")]) == 1
    assert "did you mean i0" in capsys.readouterr().err
    assert main(["show", str(release), "zzz", "--output", str(tmp_path / "j.png")]) == 1
    assert "column image_id of data/*.parquet" in capsys.readouterr().err
    assert main([*words, "--images", str(tmp_path)]) == 1
    assert "is missing; give the root of your copy" in capsys.readouterr().err
    assert main(["diff", str(release), str(release), "--json", str(tmp_path / "d.json")]) == 0
    assert json.loads((tmp_path / "d.json").read_text())["versions"] == ["1.0.0", "1.0.0"]
    assert "removed" in capsys.readouterr().out
    assert main(["stats", str(tmp_path)]) == 1
    assert unfit_mask(np.ones((24, 24)), 30, 20, "letterbox").shape == (20, 30)
