"""LICENSE and CHANGELOG.md of a release."""

from typing import Any

#: SPDX name -> where its text is, for those that data sets usually have.
_TEXTS = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC-BY-NC-4.0": "https://creativecommons.org/licenses/by-nc/4.0/",
    "CC-BY-NC-SA-4.0": "https://creativecommons.org/licenses/by-nc-sa/4.0/",
}


def licence_url(name: str) -> str:
    """Where the text of a licence is."""
    return _TEXTS.get(name, f"https://spdx.org/licenses/{name}.html")


def hub_licence(name: str) -> str:
    """The licence as a data set card names it: Hugging Face's word, or ``other``."""
    return name.lower() if name in _TEXTS else "other"


def write_licence(options: dict[str, Any]) -> str:
    """The notice: of the labels, and of the images that they were made from.

    Args:
        options: The section ``release`` of the configuration.
    """
    return f"""{options["name"]} {options["version"]}

Labels (masks, tables, scores, texts) and models of this data set: {options["license"]}
{licence_url(options["license"])}

They are derived from source images that are not part of it (but for the pictures of
contact-sheet.png, where it shows any). Licence of the source images, whose terms also hold for
what you make of both together: {options["source_license"]}
"""


def write_changes(options: dict[str, Any]) -> str:
    """The changelog, newest version first.

    Args:
        options: The section ``release`` of the configuration.
    """
    changes = options["changes"] or {options["version"]: ["First release."]}
    versions = sorted(changes, key=lambda v: tuple(map(int, v.split("."))), reverse=True)
    entries = (
        f"\n## {version}\n" + "".join(f"- {line}\n" for line in changes[version])
        for version in versions
    )
    return f"# Changelog of {options['name']}\n" + "".join(entries)
