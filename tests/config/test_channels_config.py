"""Channels that do not go together are refused before the first job."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dollmaker.config import settings as configuration
from dollmaker.config.whole import Config
from dollmaker.launch.preflight import preflight
from dollmaker.pixels.names import image_id
from dollmaker.runtime.errors import ConfigError, DataError

TABLE = {
    "kind": "table",
    "table": {"file": "t.csv", "images": "i", "image_column": "image", "label_column": "class"},
}


def resolved(source: Any, channels: int, **classify: Any) -> Any:
    given = {"dataset": "x", "source": source, "prepare": {"channels": channels, "size": 32}}
    return configuration.resolved({**given, "classify": classify}).dump()


@pytest.mark.parametrize(
    ("source", "channels", "member", "said"),
    [
        ({"kind": "phantoms"}, 4, {}, "source.kind phantoms are grey; set it to 1, or to 3"),
        ({"kind": "nih", "nih": {}}, 2, {}, "source.kind nih are grey"),
        (TABLE, 4, {"input": {"channels": 3}}, "members.a sees 3 channels, and images have 4"),
        (TABLE, 3, {"input": {"channels": 4}}, "members.a sees 4 channels, and images have 3"),
        (TABLE, 0, {}, "prepare.channels"),
        (TABLE, 4, {"input": {"channels": 1}}, None),
        (TABLE, 1, {"input": {"channels": 4}}, None),
        (TABLE, 7, {}, None),
    ],
)
def test_what_the_configuration_alone_tells(
    source: Any, channels: int, member: Any, said: str | None
) -> None:
    members = {"a": {"architecture": "resnet18", **member}}
    if said is None:
        resolved(source, channels, members=members)
        return
    with pytest.raises(ConfigError, match=said):
        resolved(source, channels, members=members)


def test_a_table_whose_files_hold_other_channels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "i").mkdir()
    rows = ["image,class"]
    for number in range(12):
        np.save(tmp_path / f"i/{number}.npy", np.full((4, 9, 9), number, np.uint8))
        rows.append(f"{number}.npy,{'ab'[number % 2]}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    options = {"members": {"a": {"architecture": "micranet"}}}
    config = {**resolved(TABLE, 4, **options), "data_root": str(tmp_path)}
    config["prepare"] |= {"valid": 0.2, "test": 0.2}
    listed, _ = preflight(Config.model_validate(config))
    assert listed is not None and listed["image_id"].to_list()[:2] == ["0", "1"]
    config["prepare"]["channels"] = 5
    said = r"image 'i/0\.npy' holds an array of the shape \(4, 9, 9\), and prepare\.channels asks"
    with pytest.raises(DataError, match=f"{said} for 5; none of 4 images"):
        preflight(Config.model_validate(config))
    Image.new("L", (9, 9)).save(tmp_path / "i/0.npy", "PNG")
    with pytest.raises(DataError, match=r"holds one channel, grey, and .* for 5"):
        preflight(Config.model_validate(config))


def test_an_array_is_called_as_any_picture() -> None:
    assert image_id("a/b.npy") == image_id("a/b.png") == "a_b"
