"""Releases on Hugging Face's Hub: a data set's repository, a tag for each version."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dollmaker.release.read import Origin
from dollmaker.release.verify import verify
from dollmaker.runtime.errors import ArtifactError, ConfigError, DataError, ModelError
from dollmaker.store.files import alone

#: What the Hub adds of its own.
_OF_THE_HUB = [".gitattributes"]


def upload(release: Path, origin: Origin, repo: str, private: bool) -> str:
    """Upload a release to ``OWNER/NAME`` and tag its version; tells where it lies then.

    The repository is made where it is not there, ``private`` for its owners alone. An upload that
    was stopped goes on where it was.

    Raises:
        DataError: If the version is there already, or the Hub refuses.
        ModelError: If huggingface_hub is not installed.
    """
    version = f"v{origin.version}"
    with _library(repo) as library:
        api = library.HfApi()
        api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        tags = api.list_repo_refs(repo, repo_type="dataset").tags
        if any(tag.name == version for tag in tags):
            raise DataError(f"{repo} has {version} already; raise release.version and try again.")
        api.upload_folder(
            repo_id=repo,
            folder_path=release,
            repo_type="dataset",
            commit_message=f"{origin.name} {origin.version}",
            delete_patterns="*",  # what an older version had and this one has not
        )
        api.create_tag(repo, tag=version, repo_type="dataset")
    return f"hf:{repo}@{version}"


def find_release(place: str | Path) -> Path:
    """The folder of a release; one on the Hub (``hf:OWNER/NAME@VERSION``) is fetched and verified.

    Raises:
        ArtifactError: If what came is not whole.
        ConfigError: If no version is named.
        DataError: If the Hub has none of that name, or does not answer.
    """
    text = str(place)
    if not text.startswith("hf:"):
        return Path(place)
    named = re.fullmatch(r"hf:([\w-][\w.-]*/[\w-][\w.-]*)@([\w.-]+)", text, re.ASCII)
    if named is None:
        raise ConfigError(f"{text!r} names no version; write hf:OWNER/NAME@v1.0.0.")
    repo, version = named.groups()
    with _library(repo) as library:
        cache = Path(library.constants.HF_HUB_CACHE).parent / "dollmaker"
    target = cache / f"{repo.replace('/', '--')}@{version}"
    if not target.is_dir():
        with alone(target):
            if not target.is_dir():  # else another process fetched it meanwhile
                _fetch(repo, version, target)
    return target


def _fetch(repo: str, version: str, target: Path) -> None:
    """Fetch a release, whole or not at all; an attempt that was stopped goes on where it was."""
    part = target.with_name(f"{target.name}.part")
    with _library(repo) as library:
        library.snapshot_download(
            repo, repo_type="dataset", revision=version, local_dir=part, ignore_patterns=_OF_THE_HUB
        )
    shutil.rmtree(part / ".cache", ignore_errors=True)
    if faults := verify(part):
        shutil.rmtree(part)
        raise ArtifactError(
            f"hf:{repo}@{version} is not whole ({faults[0]}); tell its owners, or try again."
        )
    part.rename(target)


@contextmanager
def _library(repo: str) -> Iterator[Any]:
    """huggingface_hub, whose errors become a sentence."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError:
        raise ModelError('the Hub needs huggingface_hub; pip install "dollmaker[torch]".') from None
    try:
        yield huggingface_hub
    except (HfHubHTTPError, OSError, ValueError) as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the Hub does not give or take {repo} ({text[:200]}); see that the name is right, "
            "that it answers, and that you are logged in (hf auth login, or HF_TOKEN)."
        ) from None
