"""Damaged files are noticed when they are read, named, and made anew; full disks stop cleanly."""

import json
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dollmaker.runtime import cli
from dollmaker.runtime.errors import RESULTS, ArtifactError, DamagedError, out_of_space, set_aside
from dollmaker.store import provenance, tables
from dollmaker.store.shards import Shard, create_shard
from hostile.hostile_models import classify_words, member
from hostile.place import Place, prepare_words, sound

HEADER = provenance.header("prepare", {"size": 8})


def write_shard(path: Path) -> None:
    rng = np.random.default_rng(0)
    with create_shard(path, "images", HEADER) as writer:
        ids = [f"patient{n:04d}" for n in range(30)]
        images = rng.integers(0, 255, (30, 1, 8, 8), dtype=np.uint8)
        writer.append({"image_id": ids, "number": np.arange(30)}, image=images)


def read_shard(path: Path) -> str:
    with Shard(path, "images") as shard:
        table = {name: column.tolist() for name, column in shard.table().items()}
        return json.dumps([table, shard.read("image").tolist(), shard.header])


def write_table(path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {"image_id": [f"p{n}" for n in range(300)], "value": rng.random(300)}
    tables.write(pl.DataFrame(columns), path, HEADER)


def read_table(path: Path) -> str:
    return tables.read(path).write_csv() + json.dumps(tables.read_header(path))


@pytest.mark.parametrize(
    ("write", "read"),
    [(write_shard, read_shard), (write_table, read_table)],
    ids=["shard", "table"],
)
def test_no_flipped_bit_is_read_as_data(
    tmp_path: Path, write: Callable[[Path], None], read: Callable[[Path], str]
) -> None:
    path = tmp_path / "file"
    write(path)
    whole, content = path.read_bytes(), read(path)
    rng = np.random.default_rng(0)
    noticed = 0
    end = len(whole)
    if whole.endswith(b"PAR1"):  # Parquet checksums its pages, not what says where they lie
        end -= 8 + int.from_bytes(whole[-8:-4], "little")
    places = rng.choice(end, min(end, 150), replace=False)
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(data))
        try:
            assert read(path) == content, f"byte {place} of {len(whole)}"
        except DamagedError as error:
            assert error.path == path and str(path) in str(error)
            noticed += 1
    assert noticed > len(places) / 4


@pytest.mark.parametrize("length", [0, 1, 100, 0.5, 0.99])
@pytest.mark.parametrize(
    ("write", "read"),
    [(write_shard, read_shard), (write_table, read_table)],
    ids=["shard", "table"],
)
def test_a_truncated_file_is_named(
    tmp_path: Path,
    write: Callable[[Path], None],
    read: Callable[[Path], str],
    length: float,
) -> None:
    path = tmp_path / "file"
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(length if length >= 1 else length * len(whole))])
    with pytest.raises(DamagedError, match="delete it and run the workflow again"):
        read(path)


def test_only_the_workflows_own_results_are_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results/x"
    kept = [tmp_path / "mine.h5", results / "release/masks/train.h5", results / ".a-1.work/0.h5"]
    for path in [*kept, results / "images/0.h5"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert set_aside(results / "images/0.h5") is None, "by hand nothing is moved"
    monkeypatch.setenv(RESULTS, str(results))
    for path in kept:
        assert set_aside(path) is None
        assert path.exists()
    assert set_aside(results / "images/0.h5") == results / "images/0.h5.damaged"
    assert not (results / "images/0.h5").exists()
    assert set_aside(results / "images/absent.h5") is None


def test_a_damaged_member_is_moved_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flip(place: Place, folder: Path) -> None:
        weights = folder / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-5] ^= 1
        weights.write_bytes(bytes(data))

    place = sound(tmp_path)
    case = member("flipped", flip)
    case.make(place)
    monkeypatch.setenv(RESULTS, str(place.results))
    codes = [cli.main(words) for words in case.commands(place)]
    assert codes == [0, 0, 0, 0, 1]
    assert "moved to" in capsys.readouterr().err
    assert [path.name for path in (place.results / "committee").iterdir()] == ["a.damaged"]


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: what a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".work" not in str(path)
    }


def all_words(place: Place) -> list[list[str]]:
    words = list(classify_words(place))
    results = place.results
    shard = ["--images", str(results / "images/0000.h5")]
    maps = results / "relevance/0000.h5"
    explain = [
        "attribute", "--config", place.inline(), "--index", str(results / "index.parquet"),
        "--images", str(results / "images"), "--shard", "0000", "--committee",
        str(results / "committee/a"), "--recipe", "doll", "--output", str(maps),
    ]  # fmt: skip
    binarize = [
        "binarize", "--config", place.inline(), *shard, "--relevance", str(maps), "--recipe",
        "doll", "--output", str(results / "masks/0000.h5"),
    ]  # fmt: skip
    return [*words, explain, binarize]


def test_every_stage_survives_a_full_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = sound(tmp_path)
    place.config["recipes"] = {"doll": {"binarize": [{"gate": {}}, {"otsu": {}}]}}
    for words in all_words(place):
        before = contents(place.results)
        with small_files(1000):
            code = cli.main(words)
        error = capsys.readouterr().err
        assert code == 1, f"{words[0]}: {error}"
        assert "the disk is full" in error.splitlines()[-1], words[0]
        assert "Traceback" not in error
        after = contents(place.results)
        kept = {name: data for name, data in after.items() if name in before}
        assert kept == before, f"{words[0]} damaged earlier results"
        assert cli.main(words) == 0, f"{words[0]} does not complete afterwards"
        capsys.readouterr()
    assert not [name for name in contents(place.results) if name.endswith(".part")]


def test_a_real_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = sound(tmp_path)
    place.config["prepare"]["size"] = 512
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place.results)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        codes = [cli.main(words) for words in prepare_words(place)[:2]]
        error = capsys.readouterr().err
        assert codes == [0, 1], error
        assert "the disk is full" in error and "Traceback" not in error
        assert [path.name for path in place.results.rglob("*.part")] == []
        subprocess.run(["mount", "-o", "remount,size=16m", str(place.results)], check=True)
        assert [cli.main(words) for words in prepare_words(place)] == [0, 0, 0]
    finally:
        subprocess.run(["umount", str(place.results)], check=False)


def test_what_counts_as_a_full_disk() -> None:
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RuntimeError("closing failed") from error
    except RuntimeError as error:
        assert out_of_space(error)
    assert not out_of_space(ValueError("wrong"))
    assert not out_of_space(ArtifactError("x"))
