"""What the sanity checks say of a recipe, in words."""

from dataclasses import dataclass
from pathlib import Path

from dollmaker.release.parts import Tree
from dollmaker.runtime.errors import ArtifactError
from dollmaker.store.files import read_json
from dollmaker.store.sums import require_listed

_FILE = "sanity.json"
_CHECKS = ("ignores_model", "ignores_finding")


@dataclass(frozen=True, kw_only=True)
class Sanity:
    """The outcome of the checks of one recipe."""

    verdict: str
    failed: bool  #: A check says that the masks are no evidence for a finding.
    passed: bool  #: Every check was made, and none has a doubt.

    def tell(self) -> str:
        """One line."""
        return f"sanity: {self.verdict}"


def judged(facts: Tree) -> Sanity | None:
    """The outcome of sanity.json; ``None`` where it has no verdict, as of early versions."""
    verdict = facts.get("verdict")
    if not isinstance(verdict, str) or not verdict:
        return None
    checks = [facts.get(name) for name in _CHECKS]
    doubtful = facts.get("doubts") or facts.get("uninformative")
    return Sanity(
        verdict=" ".join(verdict.split()),
        failed=True in checks,
        passed=checks == [False, False] and not doubtful,
    )


def read_sanity(folder: Path) -> Sanity | None:
    """The outcome that a release tells; ``None`` where it tells none.

    Raises:
        ArtifactError: If the file is damaged, or missing though SHA256SUMS lists it.
    """
    require_listed(folder, _FILE)
    file = folder / _FILE
    facts = read_json(file) if file.is_file() else {}
    if not isinstance(facts, dict):
        raise ArtifactError(f"{file} is not that of a release; get the release again.")
    return judged(facts)
