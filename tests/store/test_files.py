"""Files appear whole or not at all; paths stay inside their root."""

from pathlib import Path

import pytest

from dollmaker.runtime.errors import ArtifactError, DataError
from dollmaker.store.files import atomic_path, inside, read_json, write_json
from dollmaker.store.work import Work, newest_state, remove_old_states, state_name


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
    old = Work(tmp_path / "member", "aaaa")
    new = Work(tmp_path / "member", "bbbb")
    assert new.folder.is_dir()
    assert not old.folder.exists()


def test_work_of_an_output_with_a_longer_name_stays(tmp_path: Path) -> None:
    longer = Work(tmp_path / "dense-2", "aaaa")
    Work(tmp_path / "dense", "bbbb")
    longer.require()


def test_an_attempt_that_was_given_up_stops_before_it_writes(tmp_path: Path) -> None:
    orphan = Work(tmp_path / "member", "aaaa")
    orphan.require()
    (orphan.folder / "state").touch()
    later = Work(tmp_path / "member", "aaaa")
    assert (later.folder / "state").exists()
    later.require()
    with pytest.raises(ArtifactError, match="another attempt has taken over"):
        orphan.require()
    later.finish()
    with pytest.raises(ArtifactError, match="another attempt"):
        later.require()


def test_what_killed_attempts_left_goes_when_one_succeeds(tmp_path: Path) -> None:
    target = tmp_path / "[a].txt"
    others = {".b.txt.1-aa.part", ".[a].txt.2.1-aa.part"}
    for left in (".[a].txt.1-aa.part", *others):
        (tmp_path / left).touch()
    write_json(target, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"[a].txt", *others}


def test_an_orphan_fails_when_another_has_finished(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    with pytest.raises(ArtifactError, match="by another attempt"), atomic_path(target) as part:
        part.write_text("late")
        write_json(target, "first")
    assert read_json(target) == "first"


def test_the_newest_whole_state_is_taken(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        part = tmp_path / "part"
        part.write_text(f"state {number}")
        part.rename(tmp_path / state_name(number, part))
    remove_old_states(tmp_path)
    assert len(list(tmp_path.glob("state-*"))) == 2
    newest = newest_state(tmp_path)
    assert newest is not None and newest.read_text() == "state 3"
    newest.write_text("state X")
    older = newest_state(tmp_path)
    assert older is not None and older.read_text() == "state 2"
    assert not newest.exists()


def test_damaged_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(ArtifactError, match=r"a\.json"):
        read_json(tmp_path / "a.json")
