"""Links lead somewhere, pages that messages name exist, the site shows every page."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dollmaker.config.settings import loaded

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = re.compile(r"(?:docs|workflow)/[\w./-]+\.(?:md|png|jpg|py|yaml|smk)")
#: Pages that name what was, with its date.
LOGS = ("docs/protocol.md", "docs/lab/", "CHANGELOG.md")
SUFFIXES = {".py", ".smk", ".yaml", ".html", ".md", ".toml", ".txt", ".def"}


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    found = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_pages_and_headings(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link}: no such page"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def sources() -> Iterator[Path]:
    yield from (
        ROOT / name
        for name in ("Snakefile", "Makefile", "config.yaml", "README.md", "CONTRIBUTING.md")
    )
    for folder in ("workflow", "tests", "docs", "envs"):
        for path in sorted((ROOT / folder).rglob("*")):
            built = any(part.endswith(".egg-info") for part in path.parts)
            if path.suffix in SUFFIXES and not built:
                yield path


def test_files_that_code_pages_and_messages_name_exist() -> None:
    for path in sources():
        if not str(path.relative_to(ROOT)).startswith(LOGS):
            for name in NAMES.findall(path.read_text()):
                assert (ROOT / name).exists(), f"{path.relative_to(ROOT)} names {name}"


def test_the_site_shows_every_page_once() -> None:
    def leaves(node: object) -> Iterator[str]:
        for value in node.values() if isinstance(node, dict) else node:  # type: ignore[attr-defined]
            if isinstance(value, str):
                yield value
            else:
                yield from leaves(value)

    shown = list(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    docs = ROOT / "docs"
    assert sorted(shown) == sorted(str(p.relative_to(docs)) for p in docs.rglob("*.md"))


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def test_whole_configurations_in_the_pages_are_valid(tmp_path: Path) -> None:
    """Every YAML block with a dataset and a source is a configuration that loads as it stands."""
    found = 0
    for page in PAGES:
        for block in re.findall(r"^( *)```yaml\n(.*?)^ *```", page.read_text(), re.M | re.S):
            text = re.sub(rf"^{block[0]}", "", block[1], flags=re.M)
            if re.match(r"(#.*\n)*dataset:", text) and "\nsource:" in text:
                (tmp_path / "my.yaml").write_text(text)
                loaded(str(tmp_path / "my.yaml"))
                found += 1
    assert found >= 3


def test_workflows_of_continuous_integration_call_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    called: set[str] = set()
    for path in sorted((ROOT / ".github").rglob("*.yml")):
        found = yaml.safe_load(path.read_text())
        for job in found.get("jobs", {}).values():
            called |= set(job.get("strategy", {}).get("matrix", {}).get("target", ()))
            runs = " ".join(step.get("run", "") for step in job["steps"])
            called |= set(re.findall(r"make ([a-z-]+)", runs))
    assert {"test", "docs", "release-check", "test-slow"} <= called <= targets
