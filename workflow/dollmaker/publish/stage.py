"""Check a release as a stranger would, and send it where it shall be found."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dollmaker.publish import zenodo
from dollmaker.publish.pixels import find_pixels
from dollmaker.release import hub
from dollmaker.release.read import read_config
from dollmaker.release.verify import verify
from dollmaker.runtime.errors import ArtifactError, ConfigError, DataError
from dollmaker.store.files import atomic_path, require_new


def publish(
    release_folder: Path,
    /,
    to: str,
    *,
    private: bool = False,
    creators: Sequence[str] = (),
    dry_run: bool = False,
) -> str:
    """Put a release on the Hub, on Zenodo or into a folder, once it is checked.

    Args:
        release_folder: Folder of the release.
        to: ``hf:OWNER/NAME``, ``zenodo``, or a folder to make.
        private: Its owners alone see it.
        creators: Who made it, "Family, Given" (for Zenodo).
        dry_run: Check everything and send nothing.

    Returns:
        Where it lies, or what would go there.

    Raises:
        ArtifactError: If ``verify`` finds a fault.
        ConfigError: If the destination is none.
        DataError: If a file holds pixels that may not be handed on, or the version is there.
        ModelError: If what sends it is not installed.
    """
    send = _destination(to, private, creators)
    config = read_config(release_folder)
    if faults := verify(release_folder, workers=os.cpu_count() or 1):
        raise ArtifactError(
            f"{release_folder} has {len(faults)} faults and is not published; make it again: "
            f"{faults[0]}"
        )
    if pixels := find_pixels(release_folder, config):
        raise DataError(
            f"{release_folder} is not published: the licence of its source "
            f"({config['release']['source_license']}) does not let its pixels go, and {pixels[0]}"
            f"{f' (and {len(pixels) - 1} files more)' if len(pixels) > 1 else ''}; set "
            "release.pictures to false and make it again."
        )
    if not dry_run:
        return f"{release_folder} is published: {send(release_folder, config['release'])}"
    files = [path for path in release_folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return f"{len(files)} files of {size / 1e6:.1f} MB would go to {to}; nothing was sent."


Send = Callable[[Path, dict[str, Any]], str]


def _destination(to: str, private: bool, creators: Sequence[str]) -> Send:
    if to.startswith("hf:"):
        repo = to.removeprefix("hf:")
        if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo, re.ASCII):
            raise ConfigError(f"--to {to!r} names no repository; write hf:OWNER/NAME.")
        return lambda release, options: hub.upload(release, options, repo, private)
    if to == "zenodo":
        if not creators:
            raise ConfigError('Zenodo asks who made it; give --creators "Family, Given".')
        return lambda release, options: zenodo.upload(release, options, creators, private)
    if private:
        raise ConfigError("--private is for the Hub and Zenodo; a folder has its own permissions.")
    target = Path(to)
    require_new(target)
    return lambda release, _: _copy(release, target)


def _copy(release: Path, target: Path) -> str:
    with atomic_path(target.resolve()) as part:
        shutil.copytree(release, part)
        if faults := verify(part):
            raise ArtifactError(f"{target} is not what was copied ({faults[0]}); try another disk.")
    return str(target)
