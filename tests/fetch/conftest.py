"""The libraries, pointed at a server on loopback and at caches of the test's own."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from fetch.hub import REPO, Hub, serving, weights


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as hub:
        point_at(hub.url, tmp_path, monkeypatch)
        hub.files[f"{REPO}/model.safetensors"] = weights()
        yield hub


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network: nothing listens at that port."""
    point_at("http://127.0.0.1:9", tmp_path, monkeypatch)


def point_at(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the libraries read of the environment when they are imported, changed afterwards."""
    settings = huggingface_hub.constants
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(folder / "cache/hub"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DOWNLOAD_TIMEOUT": 1,
        "HF_HUB_ETAG_TIMEOUT": 1,
    }.items():
        monkeypatch.setattr(settings, name, value)
    monkeypatch.setenv("TORCH_HOME", str(folder / "cache/torch"))
