"""What commands say, and to whom."""

import subprocess
import sys
from pathlib import Path

import pytest

from dollmaker.runtime.cli import main


@pytest.mark.parametrize(
    "words",
    [
        ["export", "RELEASE", "--to", "png", "--output", "file/x"],
        ["publish", "RELEASE", "--to", "file/x"],
        ["show", "RELEASE", "i0", "--output", "file/x.png"],
        ["show", "RELEASE", "i0", "--output", "folder"],
        ["stats", "RELEASE", "--json", "folder"],
    ],
)
def test_a_path_that_cannot_be_written_is_one_sentence(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder/more").mkdir(parents=True)
    assert main([str(made) if word == "RELEASE" else word for word in words]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and words[-1].partition("/")[0] in told
    assert told.endswith("give another path.\n")


@pytest.mark.parametrize(
    "words",
    [
        ["export", "RELEASE", "--to", "png", "--output", "RELEASE/x"],
        ["publish", "RELEASE", "--to", "RELEASE/a/b"],
        ["predict", "RELEASE", "x.png", "--output", "RELEASE/x"],
    ],
)
def test_nothing_is_written_into_a_release(
    made: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    before = sorted(made.rglob("*"))
    assert main([word.replace("RELEASE", str(made)) for word in words]) == 1
    assert "which nothing is added to" in capsys.readouterr().err
    assert sorted(made.rglob("*")) == before


def test_a_reader_may_have_had_enough(made: Path) -> None:
    command = [sys.executable, "-m", "dollmaker", "stats", str(made)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 0
