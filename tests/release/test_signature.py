"""A signature of another key, for another end or of another release is none."""

import shutil
import subprocess
from pathlib import Path

import pytest

from dollmaker.release.verify import verify_signature
from dollmaker.runtime.errors import ConfigError
from dollmaker.store.sums import CHECKSUMS, checksums, verify_checksums

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="OpenSSH is not here")


def make(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a").write_text("a")
    (folder / CHECKSUMS).write_text(checksums(folder))
    return folder


def sign(folder: Path, key: Path, purpose: str = "dollmaker") -> None:
    (folder / f"{CHECKSUMS}.sig").unlink(missing_ok=True)
    words = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", purpose]
    subprocess.run([*words, str(folder / CHECKSUMS)], check=True, capture_output=True)


def test_only_the_signer_counts(tmp_path: Path) -> None:
    keys = [tmp_path / name for name in ("mine", "theirs")]
    for key in keys:
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(words, check=True)
    mine, theirs = (key.with_suffix(".pub") for key in keys)
    folder = make(tmp_path / "r")
    assert "missing" in verify_signature(folder, mine)[0]
    sign(folder, keys[0])
    assert verify_signature(folder, mine) == [] and verify_checksums(folder) == {}
    assert "not of this key" in verify_signature(folder, theirs)[0]
    (folder / CHECKSUMS).write_text((folder / CHECKSUMS).read_text() + "\n")
    assert "not of this key" in verify_signature(folder, mine)[0]
    (folder / CHECKSUMS).write_text(checksums(folder))
    sign(folder, keys[0], "email")
    assert verify_signature(folder, mine)
    for key in (tmp_path / "none", keys[0]):
        with pytest.raises(ConfigError, match="no public key"):
            verify_signature(folder, key)
