"""The installed packages: where they lie, and a hash that says which code ran."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fedmodel.errors import ConfigError

PACKAGES: Final = ("fedmodel", "clients", "server", "scenarios")


def package_folder(package: str) -> Path:
    """Return where an installed package lies, in a checkout or in site-packages alike.

    Raises:
        ConfigError: When it is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the installed package {package!r} cannot be found; install fedmodel again")
    return Path(spec.submodule_search_locations[0])


def code_hash() -> str:
    """Return the SHA-256 over the packages' Python files, names and contents, in order of names."""
    digest = hashlib.sha256(b"fedmodel/v1/code")
    for package in sorted(PACKAGES):
        root = package_folder(package)
        for path in sorted(root.rglob("*.py")):
            for part in (f"{package}/{path.relative_to(root).as_posix()}".encode(), path.read_bytes()):
                digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
