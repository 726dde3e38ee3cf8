"""What a configuration says never reaches a shell as a command."""

import json
from pathlib import Path

from hostile.place import sound
from snakemake_here import snakemake

HOSTILE = "x'; touch canary; echo \"$(touch canary)`touch canary` & <b> {a} \\"


def test_hostile_words_are_arguments_and_nothing_else(tmp_path: Path) -> None:
    place = sound(tmp_path / "it's $(touch canary); a folder")
    place.config["source"]["table"]["finding_columns"] = [HOSTILE, "B"]
    table = (place.data / "labels.csv").read_text().split("\n", 1)[1]
    quoted = HOSTILE.replace('"', '""')
    (place.data / "labels.csv").write_text(f'image,patient,"{quoted}",B\n{table}')
    place.config["release"] = {"name": HOSTILE, "source_license": HOSTILE}
    (tmp_path / "c.yaml").write_text(json.dumps(place.config))
    words = ("results/hostile/index.parquet", "--configfile", "c.yaml", "--cores", "1")
    done = snakemake(tmp_path, *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "results/hostile/index.parquet").exists()
    assert not list(tmp_path.rglob("canary"))
    assert "Traceback" not in done.stderr
