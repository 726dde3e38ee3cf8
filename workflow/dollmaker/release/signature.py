"""Who made a release: a detached signature of SHA256SUMS, by OpenSSH."""

import subprocess
import tempfile
from pathlib import Path

from dollmaker.runtime.errors import ConfigError
from dollmaker.store.sums import CHECKSUMS, SIGNATURE

#: What signatures are for (``ssh-keygen -Y sign -n``), so that none for another end counts.
_NAMESPACE = "dollmaker"


def verify_signature(folder: Path, key: Path) -> list[str]:
    """What is wrong with the signature of a release; an empty list if nothing is.

    Args:
        folder: The release.
        key: Public key of its signer, as ``ssh-keygen`` writes it.

    Raises:
        ConfigError: If the key is none, or OpenSSH is not installed.
    """
    words = key.read_text(encoding="utf-8", errors="replace").split() if key.is_file() else []
    if len(words) < 2 or not words[0].startswith(("ssh-", "ecdsa-", "sk-")):
        raise ConfigError(f"{key} is no public key; give the .pub file of the signer.")
    if not (folder / SIGNATURE).is_file():
        return [f"{SIGNATURE}: missing; the release is not signed"]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as known:
        known.write(f"signer {words[0]} {words[1]}\n")
        known.flush()
        try:
            done = subprocess.run(
                [
                    *("ssh-keygen", "-Y", "verify", "-f", known.name, "-I", "signer"),
                    *("-n", _NAMESPACE, "-s", str(folder / SIGNATURE)),
                ],
                input=(folder / CHECKSUMS).read_bytes(),
                capture_output=True,
                check=False,
            )
        except FileNotFoundError:
            raise ConfigError("--key needs ssh-keygen; install OpenSSH's client.") from None
    return [f"{SIGNATURE}: is not of this key and {CHECKSUMS}"] if done.returncode else []
