"""A job that fails tells why."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from dollmaker.status.run import mend_error
from snakemake_here import snakemake


def record(level: int = logging.ERROR, msg: str = "", **facts: Any) -> logging.LogRecord:
    return logging.makeLogRecord({"levelno": level, "msg": msg, **facts})


def test_the_workflow_shows_the_sentence_last_and_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,mask\nabsent.png,absent.png\n")
    names = {"image_column": "image", "mask_column": "mask", "finding": "a patient's"}
    source = {"table": "t.csv", "images": ".", "masks": ".", **names}
    given = {"dataset": "x", "source": {"kind": "patches", "patches": source}, "data_root": "."}
    (tmp_path / "c.json").write_text(json.dumps(given))
    done = snakemake(tmp_path, "results/x/source", "--configfile", "c.json", "--cores", "1")
    assert done.returncode == 1
    (sentence,) = (tmp_path / "results/x/logs/convert_source.log").read_text().splitlines()
    assert sentence.startswith("dollmaker: error: ") and "absent.png" in sentence
    _, block = done.stderr.split("Error in rule convert_source")
    assert len(block.split(f"    {sentence}\n")[1].splitlines()) < 9
    assert "--config results/x/config/convert-" in block and "image_column" not in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch 1\ndollmaker: error: it is full.\n\n", {"dollmaker": "error: it is full."}),
        ("dollmaker: stopped by SIGTERM\nslurmstepd: x\n", {"dollmaker": "stopped by SIGTERM"}),
        ("Traceback:\n  raise\ntorch.OutOfMemoryError: 9 GB\n", {"torch.OutOfMemoryError": "9 GB"}),
        ("dollmaker: error: \x1b[31mred\n", {"dollmaker": "error:  [31mred"}),
        ("epoch 1\nepoch 2\n", {}),
        ("", {}),
    ],
)
def test_the_last_words_of_a_job(tmp_path: Path, text: str, words: dict[str, str]) -> None:
    (tmp_path / "first.log").write_text(text)
    (tmp_path / "last.log").write_bytes(b"\xff\nno word\n")
    (tmp_path / "table.csv").write_text("OSError: of an image\n" * 99)
    logs = [str(tmp_path / name) for name in ("absent.log", "first.log", "last.log")]
    given = [str(tmp_path / "table.csv"), *logs]
    failed = record(shellcmd=None, aux={"external_jobid": 7}, log=given)
    assert mend_error(failed)
    assert vars(failed)["log"] == logs
    assert vars(failed)["aux"] == {"external_jobid": 7} | words


def test_other_records_pass_as_they_are() -> None:
    for other in (record(logging.ERROR, "no job"), record(logging.INFO, "x", log=["y"], aux={})):
        before = dict(vars(other))
        assert mend_error(other) and vars(other) == before
