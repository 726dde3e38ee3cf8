"""A release that takes the place of another of the same version: somebody may have the other one.

It is told and not refused: who has given nothing away yet makes releases again and again.
"""

import hashlib
import sys
from pathlib import Path

from dollmaker.config.whole import Config
from dollmaker.release.labels import recorded
from dollmaker.release.parts import Tree
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store.files import read_json, sha256_file
from dollmaker.store.sums import CHECKSUMS, checksums

_REMEDY = "raise release.version if anybody has it."


def tell_other_settings(config: Config) -> None:
    """Tell, before a run, of a release of this version that records other settings."""
    folder = Path("results", config.dataset, "release")
    old, new = _recorded(folder), recorded(config)
    changed = [key for key in new if old and old.get(key) != new[key]]
    if changed and _version(old) == config.release.version:
        print(
            f"release: {folder} is version {config.release.version} made with other settings "
            f"({', '.join(changed)}), and will be replaced under the same version; {_REMEDY}",
            file=sys.stderr,
        )


def tell_other_bytes(old: Path, new: Path) -> None:
    """Tell of a release that a new one of the same version, with other bytes, is to replace."""
    version = _version(_recorded(old))
    if version is None or version != _version(_recorded(new)):
        return
    before = hashlib.sha256(checksums(old).encode()).hexdigest()[:12]
    now = sha256_file(new / CHECKSUMS)[:12]
    if before != now:
        print(
            f"release: {old} held version {version} with other bytes, and is replaced under the "
            f"same version (SHA-256 of SHA256SUMS: {before}, now {now}); {_REMEDY}",
            file=sys.stderr,
        )


def _recorded(folder: Path) -> Tree:
    """The settings that a release records; empty where there is none, or a damaged one."""
    try:
        found = read_json(folder / "provenance.json")["config"]
    except (ArtifactError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _version(settings: Tree) -> str | None:
    release = settings.get("release")
    return release.get("version") if isinstance(release, dict) else None
