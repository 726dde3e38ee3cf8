"""SHA256SUMS of a folder: `python -m dollmaker.store.sums FOLDER FILE` writes one beside it.

`sha256sum -c SHA256SUMS` reads it. Snakemake knows no more of a folder than its time: these sums
tell whether its content is another.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dollmaker.runtime.errors import ArtifactError, DataError
from dollmaker.store.files import inside, sha256_file, write_text

CHECKSUMS = "SHA256SUMS"
#: A detached signature of it, which nobody needs and which is made afterwards.
SIGNATURE = f"{CHECKSUMS}.sig"


def checksums(folder: Path) -> str:
    """Lines of SHA256SUMS for every file of a folder but itself, sorted by name."""
    return "".join(f"{digest}  {name}\n" for name, digest in _sums(folder).items())


def verify_checksums(folder: Path) -> dict[str, str]:
    """What is wrong with the files of a folder that has its SHA256SUMS.

    Comments are passed over: releases of version 0.1 end with one.

    Returns:
        File -> fault.

    Raises:
        ArtifactError: If there is no SHA256SUMS.
    """
    if not (folder / CHECKSUMS).is_file():
        raise ArtifactError(f"{folder} holds no {CHECKSUMS}; give the folder of a release.")
    text = (folder / CHECKSUMS).read_bytes().decode("utf-8", errors="replace")
    lines = [line.partition("  ") for line in text.split("\n") if line and line[0] != "#"]
    listed, found = {name: digest for digest, _, name in lines}, _sums(folder)
    faults: dict[str, str] = {}
    for name, digest in listed.items():
        try:
            inside(folder, name)
        except DataError as error:
            faults[CHECKSUMS] = str(error)
            continue
        if name not in found:
            faults[name] = "missing"
        elif found[name] != digest:
            faults[name] = f"sha256 differs from that in {CHECKSUMS}"
    extra = [name for name in found if name not in listed]
    return faults | dict.fromkeys(extra, f"not listed in {CHECKSUMS}")


def _sums(folder: Path) -> dict[str, str]:
    """File -> its sha256, sorted by name."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    names = [name for name in names if name not in (CHECKSUMS, SIGNATURE)]
    # Hashing lets other threads run.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(
            zip(names, pool.map(lambda name: sha256_file(folder / name), names), strict=True)
        )


def main(folder: str, file: str) -> None:
    """Write the checksums of all files of a folder into a file."""
    write_text(Path(file), checksums(Path(folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
