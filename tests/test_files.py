"""Files appear whole or not at all; paths stay inside their root."""

from pathlib import Path

import pytest

from dollmaker.errors import ArtifactError, DataError
from dollmaker.files import atomic_path, inside, read_json, work_folder, write_json


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(target) as part:
        part.write_text("half")
        raise RuntimeError
    assert read_json(target) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for name in ("old", "new"):
        with atomic_path(target) as part:
            part.mkdir()
            (part / name).touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a\0b", "link/x"])
def test_paths_that_leave_the_root_are_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(DataError):
        inside(root, path)
    assert inside(root, "a/../b.png") == root.resolve() / "b.png"


def test_work_folders_of_older_configurations_go(tmp_path: Path) -> None:
    old = work_folder(tmp_path / "member", "aaaa")
    new = work_folder(tmp_path / "member", "bbbb")
    assert new.is_dir()
    assert not old.exists()


def test_damaged_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(ArtifactError, match=r"a\.json"):
        read_json(tmp_path / "a.json")
