"""The published file itself: put there by hand, of a library's cache, or fetched by the library.

huggingface_hub and torch.hub fetch, with their caches, retries, tokens and progress bars.
"""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from dollmaker.fetch.libraries import Source
from dollmaker.runtime.errors import ModelError, first_line, out_of_space
from dollmaker.store.files import sha256_file

T = TypeVar("T")

#: Seconds without a byte after which torch.hub's download, which has no limit of its own, ends.
_SILENT = 60.0

#: Seconds to wait for a first word before the run.
_FIRST_WORD = 10.0


@dataclass(frozen=True, kw_only=True)
class Original:
    """A published file on this machine."""

    path: Path  #: Where it lies.
    file: str  #: Its name in its place; of the Hub with folders.
    #: Commit of the Hub's repository; empty if it is not known or there is none.
    revision: str = ""
    by_hand: bool = False  #: Whether somebody has put it there, so that it is not ours to remove.

    def discard(self) -> None:
        """Remove a file that is damaged from its library's cache, so that it is fetched anew."""
        if not self.by_hand:
            self.path.resolve().unlink(missing_ok=True)


def obtain(source: Source, folder: Path) -> Original:
    """The file of published weights; it may have been put by hand into the folder.

    Raises:
        ModelError: If it cannot be had, or is not the file that its place says it is.
    """
    get = _of_hub if source.repo else _of_url
    found = _by_hand(source, folder) or get(source, folder)
    _check(source, found)
    return found


def obtain_extra(source: Source, folder: Path, file: str) -> Path | None:
    """A small file beside the weights; ``None`` if there is none, or the weights came by hand.

    Raises:
        ModelError: If nobody can say whether there is one.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    if (folder / file).is_file():
        return folder / file
    if _by_hand(source, folder):
        return None
    with _explained(source, folder, file):
        try:
            return Path(hf_hub_download(source.repo, file, revision=source.revision))
        except RemoteEntryNotFoundError:
            return None


def look_for_licence(source: Source) -> str:
    """The licence that a repository of the Hub states; empty if it states none or is not there."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(source.repo, revision=source.revision, timeout=_FIRST_WORD)
    except Exception:  # the weights themselves are there: it is no reason to stop
        return ""
    stated = found.card_data.license if found.card_data else None
    return stated if isinstance(stated, str) else ""


def require_reachable(source: Source, folder: Path) -> None:
    """Refuse weights that are neither put there, nor in a cache, nor to be reached from here.

    Raises:
        ModelError: In one sentence, with the file that can be put there by hand.
    """
    if _by_hand(source, folder):
        return
    if source.repo:
        _reach_hub(source, folder)
    elif not _cached(source).is_file():
        from urllib.request import Request, urlopen

        with _explained(source, folder):
            request = Request(source.url, method="HEAD", headers={"User-Agent": "torch.hub"})
            urlopen(request, timeout=_FIRST_WORD).close()


def _by_hand(source: Source, folder: Path) -> Original | None:
    for file in source.files:
        path = folder / Path(file).name
        if path.is_file():
            return Original(path=path, file=file, by_hand=True)
    return None


def _of_hub(source: Source, folder: Path) -> Original:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    def get(file: str) -> Original:
        try:
            path = Path(hf_hub_download(source.repo, file, revision=source.revision))
        except LocalEntryNotFoundError as error:
            raise (error.__cause__ or error) from None
        commit = path.parts[path.parts.index("snapshots") + 1] if "snapshots" in path.parts else ""
        return Original(path=path, file=file, revision=commit)

    return _first_there(source, folder, get)


def _reach_hub(source: Source, folder: Path) -> None:
    from huggingface_hub import get_hf_file_metadata, try_to_load_from_cache

    load = partial(try_to_load_from_cache, source.repo, revision=source.revision)
    if not any(isinstance(load(file), str) for file in source.files):
        ask = partial(get_hf_file_metadata, timeout=_FIRST_WORD)
        _first_there(source, folder, lambda file: ask(source.address(file)))


def _first_there(source: Source, folder: Path, get: Callable[[str], T]) -> T:
    """What is got of the first of a source's files that its repository has."""
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with _explained(source, folder):
        *others, last = source.files
        for file in others:
            with suppress(RemoteEntryNotFoundError):
                return get(file)
        return get(last)


def _of_url(source: Source, folder: Path) -> Original:
    import torch

    path = _cached(source)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        silent = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_SILENT)
        try:
            with _explained(source, folder):
                torch.hub.download_url_to_file(source.url, str(path), progress=True)
        finally:
            socket.setdefaulttimeout(silent)
    return Original(path=path, file=source.files[0])


def _cached(source: Source) -> Path:
    import torch

    return Path(torch.hub.get_dir(), "checkpoints", source.files[0])


def _check(source: Source, found: Original) -> None:
    """Compare a file with the checksum that its name or its place in the cache tells.

    torchvision's names end in its first digits; the Hub's cache calls large files by it.
    """
    if source.name.startswith("torchvision:"):
        told = re.search(r"-([0-9a-f]{8,})\.", found.path.name)
    else:
        told = re.fullmatch("([0-9a-f]{64})", found.path.resolve().name)
    if told and not sha256_file(found.path).startswith(told[1]):
        found.discard()
        raise ModelError(
            f"the file of the weights {source.name}, {found.path}, is incomplete or another than "
            f"{source.address(found.file)} is said to be (SHA-256); get it again."
        )


@contextmanager
def _explained(source: Source, folder: Path, file: str = "") -> Iterator[None]:
    """Say in one sentence why a file cannot be had; the libraries raise many types."""
    try:
        yield
    except Exception as error:
        if out_of_space(error):
            raise
        raise ModelError(_reason(source, folder, file or source.files[0], error)) from None


def _reason(source: Source, folder: Path, file: str, error: Exception) -> str:
    url = source.address(file)
    status = getattr(getattr(error, "response", None), "status_code", getattr(error, "code", None))
    if status in (401, 403):
        return (
            f"the weights {source.name} are not given to everybody, or not there at all ({url}, "
            f"status {status}); accept their terms and log in with `hf auth login`, or correct the "
            "name."
        )
    if status == 404:
        return (
            f"the weights {source.name} are not there ({url}, status 404); correct the name, the "
            "revision or the file."
        )
    detail = first_line(error)
    if "Consistency check failed" in detail:
        return (
            f"the file of the weights {source.name} came incomplete from {url} ({detail}); fetch "
            "it again."
        )
    return (
        f"the weights {source.name} cannot be fetched from here ({detail}); put {url} at "
        f"{folder / Path(file).name}, or run `dollmaker fetch --config` with this "
        "configuration where there is a network and copy weights_root."
    )
