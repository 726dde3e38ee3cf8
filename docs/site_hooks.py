"""What the site computes while it is built.

Commands come from their own help, formulas become MathML, which browsers draw without a script, and
lists are read as GitHub reads them.
"""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from latex2mathml.converter import convert

_MATH = re.compile(r"^```math\n(.*?)\n```$", re.M | re.S)
_INLINE = re.compile(r"(`[^`\n]*`)|\$([^$\n]+)\$")
_ITEM = re.compile(r"^\s*([-*]|\d+\.) ")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in the commands, draw the formulas, and put a blank line before each list.

    On GitHub a list may follow a line of text at once; Python-Markdown wants a blank line there.
    """
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", _commands())
    if page.file.src_uri == "explanation/methods.md":
        markdown = _MATH.sub(lambda m: convert(m[1], display="block"), markdown)
        markdown = _INLINE.sub(lambda m: m[1] or convert(m[2]), markdown)
    lines: list[str] = []
    fenced = False
    for line in markdown.split("\n"):
        opens = line.lstrip().startswith("```")
        before = lines[-1] if lines else ""
        plain = before.strip() and not _ITEM.match(before) and not before.startswith(" ")
        if not fenced and plain and (_ITEM.match(line) or opens):
            lines.append("")
        fenced ^= opens
        lines.append(line)
    return "\n".join(lines)


def _commands() -> str:
    listed = _help().split("commands:\n")[1]
    names = re.findall(r"^  ([a-z][a-z-]*) ", listed, re.M)
    with ThreadPoolExecutor(2) as pool:
        pages = pool.map(_help, names)
    blocks = zip(names, pages, strict=True)
    return "\n".join(f"## {name}\n\n```text\n{text.strip()}\n```\n" for name, text in blocks)


def _help(*words: str) -> str:
    call = [sys.executable, "-m", "dollmaker", *words, "--help"]
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout
