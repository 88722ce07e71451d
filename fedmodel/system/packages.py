"""The installed packages: where they lie, what an app of them holds, and a hash that says which code ran.

`code_hash` is over the packages as installed, `bundle_hash` over a bundle of them that came from elsewhere: the two are
equal for the same files that Python could run (`_RUNS`: sources, extension modules, compiled files), and for no others.
An extension module beside a source of its name is what Python imports in its place, so it has to be in the hash.

Does NOT say anything of a bundle's other files, scenarios and documents, nor of the libraries beneath the packages, nor
of what Python keeps in `__pycache__`: whoever can write there can write to the sources beside it, and is not noticed.
"""

from __future__ import annotations

import copy
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
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


def missing(package: str, purpose: str, extra: str) -> ConfigError:
    """Return what to say where a package of one of fedmodel's extras is not installed."""
    return ConfigError(f"{package} is not installed here, and {purpose} needs it: pip install 'fedmodel[{extra}]'")


def code_hash() -> str:
    """Return the SHA-256 over the packages' files that Python could run, names and contents, in order of names.

    Raises:
        ConfigError: When a package is not installed, or a folder of it is a link to elsewhere.
    """
    return _hash((name, path.read_bytes()) for name, path in _installed() if _runs(name))


def bundle_hash(bundle: bytes) -> str:
    """Return the same hash of a Flower app bundle, a ZIP file: over everything in it that Python would run.

    It is `code_hash()` of whoever made the bundle from packages as installed. A file of code outside the packages
    changes it.

    Guarantee: of a file no more is unpacked than a byte over the size that the bundle says it has, and these sizes
    together are bounded before anything is.

    Raises:
        ConfigError: When it is no ZIP file, is too large, says another size of a file than it has, or names a file
            twice or not in the one plain way, so that another reader could find other files in it.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_entries(entries)
            files = [(one.filename, _unpacked(archive, one)) for one in entries if _runs(one.filename)]
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ConfigError(f"an app bundle cannot be read as a ZIP file ({type(error).__name__})") from error
    return _hash(files)


def app_files() -> dict[str, bytes]:
    """Return the files of the Flower app that the installed packages are, by their paths in it."""
    files = {"pyproject.toml": tomli_w.dumps(_project()).encode()}
    return files | {name: path.read_bytes() for name, path in _installed()}


def _installed() -> Iterator[tuple[str, Path]]:
    """Go through the files of the installed packages, with their paths in an app; refuse what leads elsewhere."""
    for package in PACKAGES:
        root = package_folder(package)
        for path in sorted(root.rglob("*")):
            inside = path.relative_to(root)
            if path.is_symlink() and path.is_dir():
                raise ConfigError(f"{path}: is a link to a folder, whose code no hash would cover; install it as files")
            if path.is_file() and "__pycache__" not in inside.parts:
                yield f"{package}/{inside.as_posix()}", path


def _runs(name: str) -> bool:
    """Return whether Python could run a file of this name."""
    return name.lower().endswith(_RUNS)


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Return what a file in a bundle holds, if that is as much as the bundle says."""
    # zipfile stops at the size that stands in the entry, and would say nothing of what follows.
    one_more = copy.copy(entry)
    one_more.file_size += 1
    with archive.open(one_more) as file:
        content = file.read(one_more.file_size)
    if len(content) != entry.file_size:
        raise ConfigError("an app bundle has a file of another size than it says")
    return content


def _project() -> dict[str, dict[str, object]]:
    """Return what the app's pyproject.toml says."""
    app = {
        "publisher": "fedmodel",
        "fab-include": [f"{package}/**" for package in PACKAGES],
        "components": COMPONENTS,
        "config": RUN_KEYS,
    }
    return {"project": {"name": "fedmodel", "version": version("fedmodel")}, "tool": {"flwr": {"app": app}}}


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
