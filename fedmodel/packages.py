"""The installed packages: where they lie, what an app of them holds, and a hash that says which code ran.

`code_hash` is over the packages as installed, `bundle_hash` over a bundle of them that came from elsewhere: the two are
equal for the same Python files, and for no others.

Does NOT say anything of a bundle's other files, scenarios and documents, nor of the libraries beneath the packages.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import tomli_w

from fedmodel.errors import ConfigError

PACKAGES: Final = ("fedmodel", "clients", "server", "scenarios")
COMPONENTS: Final = {"serverapp": "server.server_app:app", "clientapp": "clients.client_app:app"}
# What a run tells both apps. Flower lets a run override only keys that stand here.
RUN_KEYS: Final = {"scenario": "", "run": "", "run-dir": "", "device": "cpu"}

_LARGEST_BUNDLE_BYTES: Final = 64 * 2**20  # unpacked; Flower carries none over 10 MB packed
_MOST_FILES: Final = 10_000
_RUNS: Final = (".py", ".pyw", ".pyc", ".pyo", ".pyd", ".so", ".pth")


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
    files = []
    for package in PACKAGES:
        root = package_folder(package)
        files += [(_name(package, root, path), path.read_bytes()) for path in root.rglob("*.py")]
    return _hash(files)


def bundle_hash(bundle: bytes) -> str:
    """Return the same hash of a Flower app bundle, a ZIP file: over everything in it that Python would run.

    It is `code_hash()` of whoever made the bundle from packages as installed. A file of code outside the packages
    changes it.

    Raises:
        ConfigError: When it is no ZIP file, is too large, or names a file twice or not in the one plain way, so that
            another reader could find other files in it.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_entries(entries)
            files = [(one.filename, archive.read(one)) for one in entries if one.filename.lower().endswith(_RUNS)]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ConfigError(f"an app bundle cannot be read as a ZIP file ({type(error).__name__})") from error
    return _hash(files)


def app_files() -> dict[str, bytes]:
    """Return the files of the Flower app that the installed packages are, by their paths in it."""
    files = {"pyproject.toml": tomli_w.dumps(_project()).encode()}
    for package in PACKAGES:
        root = package_folder(package)
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                files[_name(package, root, path)] = path.read_bytes()
    return files


def _project() -> dict[str, dict[str, object]]:
    """Return what the app's pyproject.toml says."""
    app = {
        "publisher": "fedmodel",
        "fab-include": [f"{package}/**" for package in PACKAGES],
        "components": COMPONENTS,
        "config": RUN_KEYS,
    }
    return {"project": {"name": "fedmodel", "version": version("fedmodel")}, "tool": {"flwr": {"app": app}}}


def _name(package: str, root: Path, path: Path) -> str:
    return f"{package}/{path.relative_to(root).as_posix()}"


def _hash(files: Iterable[tuple[str, bytes]]) -> str:
    """Hash files by name and content, in the order of their names' parts."""
    digest = hashlib.sha256(b"fedmodel/v1/code")
    for name, content in sorted(files, key=lambda file: file[0].split("/")):
        for part in (name.encode(), content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    """Refuse entries that two readers could read differently, or that fill the memory or the day."""
    seen: set[str] = set()
    if len(entries) > _MOST_FILES:
        raise ConfigError(f"an app bundle has over {_MOST_FILES} files")
    for entry in entries:
        name = entry.filename
        # zipfile cuts a name at a zero byte; what stood in the file is in orig_filename.
        if name != entry.orig_filename or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise ConfigError("an app bundle names a file in another than the one plain way")
        # Python unpacks the others' blocks whole, whatever size was said.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ConfigError("an app bundle is packed in another way than Flower packs one")
        if name.casefold() in seen:
            raise ConfigError("an app bundle names a file twice")
        seen.add(name.casefold())
    if sum(entry.file_size for entry in entries) > _LARGEST_BUNDLE_BYTES:
        raise ConfigError(f"an app bundle is over {_LARGEST_BUNDLE_BYTES} bytes unpacked")
