"""The verifier in one file that Python runs: every module of this distribution that it could import, and no other.

Which those are is found in the sources (`fedmodel.system.reach`), from `scenarios.report.verifier.program`. The file is
stored, not compressed, in the order of names and with one date, so that the same sources give the same bytes on any
machine: whoever has the sources of a release can make it again and compare its SHA-256.

Guarantee: nothing of it imports what is not in `LIBRARIES`, in Python itself, or in the file.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Final

from fedmodel.errors import ConfigError
from fedmodel.system.durable import replace_file
from fedmodel.system.packages import app_files
from fedmodel.system.reach import reach

PROGRAM: Final = "scenarios.report.verifier.program"
LIBRARIES: Final = ("cryptography", "dp_accounting", "numpy", "scipy")
_SHEBANG: Final = b"#!/usr/bin/env python3\n"
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_MAIN: Final = f"""\
try:
    from {PROGRAM} import main
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"error: {{missing.name}} is not installed here; the verifier needs: pip install cryptography dp-accounting"
        " numpy scipy"
    ) from None
raise SystemExit(main())
"""


def verifier() -> bytes:
    """Return the file.

    Raises:
        ConfigError: When a package is not installed as files.
    """
    files = {name: content for name, content in app_files().items() if name.endswith(".py")}
    found = reach(PROGRAM, files)
    packed = {name: content for name, content in files.items() if found.has(name)}
    archive = io.BytesIO(_SHEBANG)
    archive.seek(0, io.SEEK_END)
    with zipfile.ZipFile(archive, "a") as made:
        for name, content in sorted({**packed, "__main__.py": _MAIN.encode()}.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            entry.create_system = 3  # as on Linux, wherever it is made
            made.writestr(entry, content)
    return archive.getvalue()


def write_verifier(path: Path) -> None:
    """Write the file.

    Raises:
        ConfigError: When it cannot be written.
    """
    try:
        replace_file(path, verifier())
    except OSError as error:
        raise ConfigError(f"{path}: the verifier cannot be written there: {error.strerror}") from None
