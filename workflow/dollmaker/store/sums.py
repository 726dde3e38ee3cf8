"""Write the checksums of a folder, beside it: `python -m dollmaker.store.sums FOLDER FILE`.

Snakemake knows no more of a folder than its time. These sums tell whether its content is another.
"""

import sys
from pathlib import Path

from dollmaker.store.checksums import checksums
from dollmaker.store.files import write_text


def main(folder: str, file: str) -> None:
    """Write the checksums of all files of a folder into a file."""
    write_text(Path(file), checksums(Path(folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
