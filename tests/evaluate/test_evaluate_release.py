"""A stranger's truth against a release: all its forms give the same scores."""

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from PIL import Image

from dollmaker.release.parts import SPLITS, read_rows
from dollmaker.release.read import read_release, source_mask
from dollmaker.runtime.cli import main
from dollmaker.store import rle
from dollmaker.store.files import read_json, safe_name, write_json
from release.small_release import FINDINGS, build

Masks = dict[tuple[str, str], npt.NDArray[np.bool_]]


@pytest.fixture(scope="module")
def release(made: Path) -> Path:
    return made


@pytest.fixture(scope="module")
def truth(release: Path) -> Masks:
    """Of i0 to i11 and both findings: the upper half of each mask; nothing where there is none."""
    whole = read_release(release)
    masks = {(f"i{i}", f): np.zeros((20, 30), bool) for i in range(12) for f in FINDINGS}
    for row in whole.table.iter_rows(named=True):
        mask = source_mask(whole, row)
        rows = np.flatnonzero(mask.any(1))
        mask = mask.copy()
        mask[rows[len(rows) // 2] :] = False
        masks[row["image_id"], row["finding"]] = mask
    masks["i1", FINDINGS[1]][3:9, 4:8] = True  # the release has no mask there
    return masks


def expected(release: Path, truth: Masks, split: str) -> dict[str, float]:
    """Mean IoU of each finding over pairs where either has pixels, by numpy alone."""
    whole = read_release(release)
    mine = {(r["image_id"], r["finding"]): source_mask(whole, r) for r in whole.table.to_dicts()}
    images = pl.read_parquet(release / "images.parquet").filter(split=split)["image_id"]
    means = {}
    for finding in FINDINGS:
        values = []
        for image in images:
            true = truth[image, finding]
            mask = mine.get((image, finding), np.zeros_like(true))
            if (true | mask).any():
                values.append((true & mask).sum() / (true | mask).sum())
        means[finding] = float(np.mean(values))
    return means


def scores(tmp_path: Path, release: Path, path: Path, *words: str) -> dict[str, dict[str, float]]:
    """Split -> finding -> mean IoU, from the command."""
    output = tmp_path / "out.json"
    command = ["evaluate", str(release), "--truth", str(path), "--json", str(output)]
    assert main([*command, "--bootstrap", "20", "--min-pairs", "1", *words]) == 0
    found: dict[str, dict[str, float]] = {split: {} for split in SPLITS}
    for row in json.loads(output.read_text())["scores"]:
        if row["slice"] == "full":
            low, high = row["miou_low"], row["miou_high"]  # none of a split with one patient
            assert low is None or row["n"] < 3 or low <= row["miou"] <= high
            found[row["split"]][row["finding"]] = row["miou"]
    return found


def check(release: Path, truth: Masks, found: dict[str, dict[str, float]]) -> None:
    for split in SPLITS:
        wanted = expected(release, truth, split)
        assert found[split].pop("mean") == pytest.approx(np.mean(list(wanted.values())))
        assert found[split] == pytest.approx(wanted)


def write_chexlocalize(path: Path, truth: Masks) -> Path:
    content: dict[str, dict[str, object]] = {}
    for (image, finding), mask in truth.items():
        entry = {"size": list(mask.shape), "counts": rle.encode(mask)}
        content.setdefault(image, {})[finding] = entry
    path.write_text(json.dumps(content))
    return path


def test_chexlocalizes_file(
    tmp_path: Path, release: Path, truth: Masks, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_chexlocalize(tmp_path / "truth.json", truth)
    check(release, truth, scores(tmp_path, release, path))
    out = capsys.readouterr().out
    assert "12 images with truth" in out and "share of a mask in the truth" in out
    assert all(f"\n{split}" in out for split in SPLITS) and "Edema" in out


def test_a_folder_for_each_finding(tmp_path: Path, release: Path, truth: Masks) -> None:
    for (image, finding), mask in truth.items():
        path = tmp_path / safe_name(finding) / f"{image}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    check(release, truth, scores(tmp_path, release, tmp_path))


def test_masks_of_images_that_were_turned_are_turned_too(
    tmp_path: Path, release: Path, truth: Masks, capsys: pytest.CaptureFixture[str]
) -> None:
    """Saved on the raw pixels with the image's tag (3: upside down), in folders of any case."""
    mine = tmp_path / "release"
    shutil.copytree(release, mine)
    provenance = json.loads((mine / "provenance.json").read_text())
    turned = {f"i{number}": 3 for number in range(6)}
    (mine / "provenance.json").write_text(json.dumps(provenance | {"orientation": turned}))
    exif = Image.Exif()
    exif[0x0112] = 3
    folder = tmp_path / "truth"
    for (image, finding), mask in truth.items():
        path = folder / safe_name(finding).lower() / f"{image}.{'TIF' if image > 'i5' else 'PNG'}"
        path.parent.mkdir(exist_ok=True, parents=True)
        stored = mask[::-1, ::-1] if image in turned else mask
        tag = {"exif": exif} if image in turned else {}
        Image.fromarray(stored.astype(np.uint8)).save(path, **tag)
    check(mine, truth, scores(tmp_path, mine, folder))
    for path in folder.rglob("i0.PNG"):
        Image.open(path).copy().save(path, exif=Image.Exif())
    assert main(["evaluate", str(mine), "--truth", str(folder)]) == 1
    assert "has no EXIF orientation but its image was turned" in capsys.readouterr().err


def test_one_file_an_image_with_classes(
    tmp_path: Path, release: Path, truth: Masks, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    for number in range(12):
        values = np.zeros((20, 30), np.uint8)
        values[truth[f"i{number}", "Edema"]] = 3
        Image.fromarray(values).save(folder / f"{number}.png")  # as the source's files are named
    found = scores(tmp_path, release, folder, "--classes", "Edema=3,4")
    for split in SPLITS:
        assert set(found[split]) == {"mean", "Edema"}
        assert found[split]["Edema"] == pytest.approx(expected(release, truth, split)["Edema"])
    capsys.readouterr()
    scores(tmp_path, release, folder, "--classes", *(f"{name}=3" for name in FINDINGS))
    assert ": of the same values, so scored only where" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out.json").read_text())["scores"]
    table = read_release(release).table.filter(
        pl.col("image_id").is_in([f"i{k}" for k in range(12)])
    )
    for name in FINDINGS:  # not where the release has no mask of it
        mine = [row["n"] for row in rows if row["slice"] == "full" and row["finding"] == name]
        assert sum(mine) == len(table.filter(finding=name)) > 0
    command = ["evaluate", str(release), "--truth", str(folder)]
    assert main(command) == 1
    assert "--classes Edema=1" in capsys.readouterr().err
    assert main([*command, "--classes", "Edema=x"]) == 1
    assert "is not FINDING=VALUES" in capsys.readouterr().err
    assert main([*command, "--classes", "Oedema=1"]) == 1
    assert "unknown finding 'Oedema'" in capsys.readouterr().err


def test_boxes(tmp_path: Path, release: Path, truth: Masks) -> None:
    lines = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    boxes: Masks = {key: np.zeros((20, 30), bool) for key in truth}
    for (image, finding), mask in truth.items():
        if finding != "Edema" or not mask.any():
            continue
        ys, xs = np.nonzero(mask)
        left, top, right, bottom = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
        boxes[image, finding][top:bottom, left:right] = True
        place = (left * 60 / 30, top * 60 / 20, (right - left) * 2, (bottom - top) * 3)
        lines.append(f"{image[1:]}.png,{finding},{','.join(map(str, place))}")
    path = tmp_path / "boxes.csv"
    path.write_text("\n".join(lines) + "\n")
    found = scores(tmp_path, release, path, "--space", "60")
    with_box = {image for (image, finding), box in boxes.items() if box.any()}
    assert len(with_box) == 12
    for split in SPLITS:
        assert found[split]["Edema"] == pytest.approx(expected(release, boxes, split)["Edema"])


def test_splits_that_were_not_looked_at_are_left_out(
    tmp_path: Path, release: Path, truth: Masks
) -> None:
    shutil.copytree(release, tmp_path / "x")
    provenance = read_json(tmp_path / "x/provenance.json")
    provenance["config"]["attribute"]["splits"] = ["train", "valid"]
    write_json(tmp_path / "x/provenance.json", provenance)
    path, output = write_chexlocalize(tmp_path / "truth.json", truth), tmp_path / "out.json"
    assert main(["evaluate", str(tmp_path / "x"), "--truth", str(path), "--json", str(output)]) == 0
    result = json.loads(output.read_text())
    assert {row["split"] for row in result["scores"]} == {"train", "valid"}
    assert result["images"] == 10 and result["left_out"] == 2


def test_its_own_masks_are_perfect_and_maps_are_asked_where_they_are(tmp_path: Path) -> None:
    release = build(tmp_path / "x", relevance=True)
    output = tmp_path / "out.json"
    words = ["evaluate", str(release), "--truth", str(release / "chexlocalize/train.json")]
    assert main([*words, "--json", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["maps"] and result["images"] == 8 and result["left_out"] == 0
    assert all(row["miou"] == 1 for row in result["scores"])
    # The maps are the same everywhere: any pixel is the highest.
    codes = json.loads((release / "chexlocalize/train.json").read_text())
    images = read_rows(release, "train").filter(finding="Edema")["image_id"]
    share = np.mean([rle.decode(codes[i]["Edema"]["counts"], 20, 30).mean() for i in images])
    (edema,) = (r for r in result["scores"] if (r["slice"], r["finding"]) == ("full", "Edema"))
    assert edema["hit_rate"] == pytest.approx(share)


def test_a_pair_without_a_mask_has_hit_nothing(tmp_path: Path, release: Path, truth: Masks) -> None:
    path, output = write_chexlocalize(tmp_path / "truth.json", truth), tmp_path / "out.json"
    assert main(["evaluate", str(release), "--truth", str(path), "--json", str(output)]) == 0
    whole, finding = read_release(release), FINDINGS[1]
    rows = whole.table.filter(finding=finding).to_dicts()
    masks = {row["image_id"]: source_mask(whole, row) for row in rows}
    images = pl.read_parquet(release / "images.parquet")
    split = images.filter(image_id="i1")["split"][0]
    inside = []
    for image in images.filter(split=split)["image_id"]:
        area, mask = truth.get((image, finding)), masks.get(image)
        if area is not None and area.any():
            inside.append(0.0 if mask is None else area[mask].mean())
    assert 0.0 in inside
    (row,) = (
        row
        for row in json.loads(output.read_text())["scores"]
        if (row["split"], row["slice"], row["finding"]) == (split, "full", finding)
    )
    assert row["hit_rate"] == pytest.approx(np.mean(inside))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RELEASE"], "required: --truth"),
        (["RELEASE", "--truth", "x.json", "--index", "i"], "unrecognized arguments: --index"),
        (["--truth", "x.json"], "required: release"),
        (["--config", "c.yaml"], "required: --index, --images"),
        (["RELEASE", "--truth", "x.json", "--space", "-1"], "--space is a side in pixels"),
        (["RELEASE", "--truth", "x.json", "--bootstrap", "0"], "give 10 or more"),
    ],
)
def test_half_a_command_is_refused(
    words: list[str], message: str, release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", *(str(release) if w == "RELEASE" else w for w in words)])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_truth_of_other_images_is_refused(
    tmp_path: Path, release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "truth.json").write_text('{"other": {"Edema": {"size": [1, 1], "counts": "01"}}}')
    assert main(["evaluate", str(release), "--truth", str(tmp_path / "truth.json")]) == 1
    assert "of no image" in capsys.readouterr().err
    assert main(["evaluate", str(release), "--truth", str(tmp_path / "none.txt")]) == 1
    assert "is no truth" in capsys.readouterr().err
    words = ["evaluate", str(release), "--truth", str(tmp_path), "--classes", "Edema"]
    assert main(words) == 1
    assert "'Edema' is not FINDING=VALUES; give e.g. Edema=1." in capsys.readouterr().err


def refused(release: Path, path: Path, *words: str) -> None:
    assert main(["evaluate", str(release), "--truth", str(path), "--bootstrap", "20", *words]) == 1


def test_what_would_score_nothing_is_refused(
    tmp_path: Path, release: Path, truth: Masks, capsys: pytest.CaptureFixture[str]
) -> None:
    for (image, finding), mask in truth.items():
        path = tmp_path / "black" / safe_name(finding) / f"{image}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(mask & False).save(path)
    refused(release, tmp_path / "black")
    assert "all masks of" in capsys.readouterr().err
    content = {image: {"Hernia": {"size": [20, 30], "counts": [600]}} for image, _ in truth}
    (tmp_path / "other.json").write_text(json.dumps(content))
    refused(release, tmp_path / "other.json")
    assert "other.json tells of Hernia, of none of the findings" in capsys.readouterr().err
    rows = [f"i{number},Edema,1,2,{10 + number},15" for number in range(12)]
    header = "image,finding,x_min,y_min,x_max,y_max"
    (tmp_path / "b.csv").write_text("\n".join([header, *rows]) + "\n")
    refused(release, tmp_path / "b.csv")
    assert "Correct truth.space (--space)" in capsys.readouterr().err
    refused(release, tmp_path / "black", "--classes", "Edema=1", "Edema=2")
    assert "--classes names 'Edema' twice" in capsys.readouterr().err


def test_boxes_of_a_parquet_table(tmp_path: Path, release: Path) -> None:
    table = pl.DataFrame({"image": [f"i{number}" for number in range(12)], "finding": "edema"})
    sides = {"x_min": 2.0, "y_min": 3.0, "x_max": 9.5, "y_max": 12.0}
    file = tmp_path / "b.parquet"
    table.with_columns(**{name: pl.lit(side) for name, side in sides.items()}).write_parquet(file)
    assert scores(tmp_path, release, file, "--space", "0")["train"]["Edema"] > 0


def test_missing_images_count_as_empty_if_that_is_what_they_are(
    tmp_path: Path, release: Path, truth: Masks, capsys: pytest.CaptureFixture[str]
) -> None:
    some = {key: mask for key, mask in truth.items() if key[0] != "i0"}
    path = write_chexlocalize(tmp_path / "truth.json", some)
    empty = some | {("i0", finding): np.zeros((20, 30), bool) for finding in FINDINGS}
    check(release, empty, scores(tmp_path, release, path, "--missing", "empty"))
    folders = tmp_path / "folders"
    for (image, finding), mask in some.items():
        file = folders / safe_name(finding) / f"{image}.png"
        file.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(file)
    check(release, empty, scores(tmp_path, release, folders, "--missing", "empty"))
    only = write_chexlocalize(tmp_path / "other.json", {("other", "Edema"): truth["i1", "Edema"]})
    assert main(["evaluate", str(release), "--truth", str(only), "--missing", "empty"]) == 1
    assert "of no image" in capsys.readouterr().err


def test_a_mean_of_few_pairs_is_over_pairs_and_says_so(
    tmp_path: Path, release: Path, truth: Masks, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_chexlocalize(tmp_path / "truth.json", truth)
    output = tmp_path / "out.json"
    assert main(["evaluate", str(release), "--truth", str(path), "--json", str(output)]) == 0
    text = capsys.readouterr().out
    assert "over all pairs, as a finding has fewer than 10 with truth" in text
    assert "goes by: label." in text
    result = json.loads(output.read_text())
    rows = [row for row in result["scores"] if (row["split"], row["slice"]) == ("train", "full")]
    mean = next(row for row in rows if row["finding"] == "mean")
    each = [row for row in rows if row["finding"] != "mean"]
    assert (mean["mean_over"], mean["gated_by"], result["min_pairs"]) == ("pairs", "label", 10)
    total = sum(row["n"] * row["miou"] for row in each) / sum(row["n"] for row in each)
    assert mean["miou"] == pytest.approx(total)
