"""Publishing to servers on loopback and reading back; nothing leaves that may not."""

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dollmaker import PseudoLabels
from dollmaker.release.hub import find_release
from dollmaker.release.publish import _CLOSED, find_pixels, publish
from dollmaker.release.read import read_origin
from dollmaker.release.verify import verify
from dollmaker.runtime.cli import main
from dollmaker.runtime.errors import ArtifactError, ConfigError, DataError
from dollmaker.store.files import write_json, write_text
from dollmaker.store.sums import CHECKSUMS, checksums
from fetch.conftest import point_at
from release.servers import Places, serving
from release.small_release import build


@pytest.fixture(scope="module")
def release(made: Path) -> Path:
    return made


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    with serving() as found:
        point_at(found.url, tmp_path, monkeypatch)
        monkeypatch.setenv("HF_TOKEN", "t")
        monkeypatch.setenv("ZENODO_URL", found.url)
        monkeypatch.setenv("ZENODO_TOKEN", "t")
        yield found


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def copy(release: Path, target: Path, **options: object) -> Path:
    """A release of other options, whole again."""
    shutil.copytree(release, target)
    described = json.loads((target / "provenance.json").read_text())
    described["config"]["release"] |= {k: v for k, v in options.items() if k != "kind"}
    if "kind" in options:
        described["config"]["source"]["kind"] = options["kind"]
    write_json(target / "provenance.json", described)
    return sign(target)


def sign(folder: Path) -> Path:
    write_text(folder / CHECKSUMS, checksums(folder))
    return folder


def test_the_hub_has_every_byte_and_gives_it_back(release: Path, places: Places) -> None:
    places.files = {"old.txt": b"of an older version", ".gitattributes": b"*.h5 filter=lfs\n"}
    assert publish(release, "hf:o/n") == f"{release} is published: hf:o/n@v1.0.0"
    assert {k: v for k, v in places.files.items() if k[0] != "."} == contents(release)
    assert places.tags == ["v1.0.0"]
    read, own = PseudoLabels("hf:o/n@v1.0.0"), PseudoLabels(release)
    assert len(read) == len(own) and read.table.equals(own.table)
    assert contents(read.release) == contents(release)
    asked = len(places.asked)
    PseudoLabels("hf:o/n@v1.0.0")
    assert len(places.asked) == asked  # kept, and nobody is asked again
    with pytest.raises(DataError, match=r"v1.0.0 already; raise release.version"):
        publish(release, "hf:o/n")


def test_several_that_read_at_a_time_get_one_whole_release(release: Path, places: Places) -> None:
    publish(release, "hf:o/n")
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(find_release, ["hf:o/n@v1.0.0"] * 4))
    assert len(found) == 1 and contents(found.pop()) == contents(release)
    images = [line for line in places.asked if line.startswith("GET") and "images.parq" in line]
    assert len(images) == 1


def test_what_comes_damaged_is_refused(release: Path, places: Places) -> None:
    publish(release, "hf:o/n")
    places.files["images.parquet"] = b"x" + places.files["images.parquet"][1:]
    with pytest.raises(ArtifactError, match=r"is not whole .images.parquet"):
        PseudoLabels("hf:o/n@v1.0.0")
    with pytest.raises(DataError, match="does not give or take o/n"):
        PseudoLabels("hf:o/n@v9.0.0")
    with pytest.raises(ConfigError, match="names no version"):
        PseudoLabels("hf:o/n")


def test_zenodo_gets_one_file_and_stays_a_draft(release: Path, places: Places) -> None:
    assert "press Publish" in publish(release, "zenodo", creators=["Doe, Jane"])
    with zipfile.ZipFile(io.BytesIO(places.zipped)) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == contents(release)
    assert places.metadata["creators"] == [{"name": "Doe, Jane"}]
    assert places.metadata["license"] == "cc-by-4.0"
    assert not any("publish" in line for line in places.asked)
    publish(release, "zenodo", creators=["Doe, Jane"], private=True)
    assert places.metadata["access_right"] == "restricted" and "license" not in places.metadata
    places.wrong = True
    with pytest.raises(DataError, match="keeps other bytes"):
        publish(release, "zenodo", creators=["Doe, Jane"])


def test_a_folder_and_a_dry_run(
    release: Path, tmp_path: Path, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["publish", str(release), "--to", "hf:o/n", "--dry-run"]) == 0
    assert "nothing was sent" in capsys.readouterr().out and not places.asked
    assert main(["publish", str(release), "--to", str(tmp_path / "there")]) == 0
    assert contents(tmp_path / "there") == contents(release)


def test_nothing_is_sent_that_verify_refuses(release: Path, tmp_path: Path, places: Places) -> None:
    damaged = shutil.copytree(release, tmp_path / "d")
    (damaged / "README.md").write_text("other")
    with pytest.raises(ArtifactError, match=r"1 faults and is not published.*README.md"):
        publish(damaged, "hf:o/n")
    for to, words in (("hf:x", "hf:OWNER/NAME"), ("zenodo", "--creators")):
        with pytest.raises(ConfigError, match=words):
            publish(release, to)
    assert not places.asked


@pytest.mark.parametrize("options", [{"kind": "chexpert"}, {"source_license": "CheXpert's"}, {}])
def test_of_closed_sources_masks_go_and_pixels_never(
    release: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    masks = copy(release, tmp_path / "masks", **options)
    assert verify(masks) == [] and find_pixels(masks, read_origin(masks)) == []
    publish(masks, str(tmp_path / "there"))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    for name in ("gallery/sheets/image-0000.jpg", "LICENSE", "i.png", "contact-sheet.png", "a.npy"):
        one = copy(release, tmp_path / name.replace("/", "-"), **options)
        (one / name).parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        noise.save(buffer, "JPEG" if name.endswith("jpg") else "PNG")
        (one / name).write_bytes(buffer.getvalue())
        sign(one)
        found = find_pixels(one, read_origin(one))
        assert len(found) == 1 and found[0].startswith(name)
        with pytest.raises(DataError, match="does not let its pixels go"):
            publish(one, str(tmp_path / "never"))
    assert not (tmp_path / "never").exists()


def test_pictures_that_the_licence_allows_go(tmp_path: Path) -> None:
    shown = build(tmp_path / "x", pictures=True)
    assert find_pixels(shown, read_origin(shown)) == []
    closed = copy(shown, tmp_path / "c", kind="chexpert")
    assert len(find_pixels(closed, read_origin(closed))) >= 2  # contact sheet and gallery


@pytest.mark.parametrize(
    ("words", "closed"),
    [
        ("The images may not be redistributed", True),
        ("Redistribution is prohibited", True),
        ("No redistribution", True),
        ("CC BY-NC 4.0: share alike, distributed without warranty", False),
    ],
)
def test_a_licence_against_distribution_keeps_pixels(words: str, closed: bool) -> None:
    assert bool(_CLOSED.search(words)) == closed
