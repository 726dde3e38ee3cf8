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
    release: Path,
    to: str,
    *,
    private: bool = False,
    creators: Sequence[str] = (),
    dry_run: bool = False,
) -> str:
    """Publish a release, or only say what would be.

    Args:
        release: The release.
        to: ``hf:OWNER/NAME``, ``zenodo``, or a folder to make.
        private: Let its owners alone see it.
        creators: Names as Zenodo wants them.
        dry_run: Check everything and send nothing.

    Returns:
        Where it lies.

    Raises:
        ArtifactError: If ``verify`` finds a fault.
        ConfigError: If the destination is none.
        DataError: If a file holds pixels that may not be handed on, or the version is there.
        ModelError: If what sends it is not installed.
    """
    send = _destination(to, private, creators)
    config = read_config(release)
    if faults := verify(release, workers=os.cpu_count() or 1):
        raise ArtifactError(
            f"{release} has {len(faults)} faults and is not published; make it again: {faults[0]}"
        )
    if pixels := find_pixels(release, config):
        raise DataError(
            f"{release} is not published: the licence of its source "
            f"({config['release']['source_license']}) does not let its pixels go, and {pixels[0]}"
            f"{f' (and {len(pixels) - 1} files more)' if len(pixels) > 1 else ''}; set "
            "release.pictures to false and make it again."
        )
    if not dry_run:
        place = send(release, config["release"])
        print(f"{release} is published: {place}")
        return place
    files = [path for path in release.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"{len(files)} files of {size / 1e6:.1f} MB would go to {to}; nothing was sent.")
    return to


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
