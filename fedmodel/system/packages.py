"""The installed packages: where they lie, what an app of them holds, and a hash that says which code a silo runs.

A silo's program is `clients.start`. Its code is every file by whose name Python could find a module that the program
could import (`fedmodel.system.reach`): sources, compiled files, extension modules. An extension module beside
a source of its name is what Python imports in its place, so it counts. Reports, the command line, the server and
simulations are no part of it.

    code_hash        of a silo's code as installed here: what a law names, what a silo countersigns, what a run's
                     summary and report say. Where a law lists packages whose modules a scenario may name, their files
                     (`fedmodel.system.distributions`) are in it too
    bundle_hash      of a silo's code in a bundle that came from elsewhere. It is equal to `code_hash()` here for the
                     same files, and for no others
    installed_hash   of all that is installed: a simulation is taken up again by the very code that began it

Does NOT say anything of other files, scenarios and documents, nor of the libraries beneath the packages, nor of Python
itself and what that runs as it starts, nor of what it keeps in `__pycache__`: whoever can write there can write to the
sources beside it, and is not noticed. A hash is of the files as they are when it is taken.
"""

from __future__ import annotations

import copy
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final

import tomli_w

from fedmodel.errors import ConfigError
from fedmodel.system.distributions import installed, runs
from fedmodel.system.reach import Reach, reach

PACKAGES: Final = ("fedmodel", "clients", "server", "scenarios")
COMPONENTS: Final = {"serverapp": "server.server_app:app", "clientapp": "clients.client_app:app"}
PROGRAM: Final = "clients.start"
"""What a silo runs."""
# What a run tells both apps. Flower lets a run override only keys that stand here.
RUN_KEYS: Final = {"scenario": "", "run": "", "run-dir": "", "device": "cpu", "own-code": "", "base": ""}

_LARGEST_BUNDLE_BYTES: Final = 64 * 2**20  # unpacked; Flower carries none over 10 MB packed
_MOST_FILES: Final = 10_000
_NO_PACKAGES: Final[Mapping[str, str]] = MappingProxyType({})
_ALL: Final = b"fedmodel/v1/code"
_SILOS: Final = b"fedmodel/v2/code"
_WITH_PACKAGES: Final = b"fedmodel/v3/code"


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


def code_hash(packages: Mapping[str, str] = _NO_PACKAGES) -> str:
    """Return the SHA-256 over a silo's code as installed here, names and contents, in order of names.

    Args:
        packages: Those of others that a law lists, by name and version; their files are hashed with it.

    Raises:
        ConfigError: When a package is not installed, a folder of it is a link to elsewhere, or a source is not Python;
            or when one that is listed cannot be had as it is listed.
    """
    if not packages:
        return _hash(_SILOS, _silos_files().items())
    return _hash(_WITH_PACKAGES, [*_silos_files().items(), *_listed_files(packages)])


def code_files(packages: Mapping[str, str] = _NO_PACKAGES) -> dict[str, str]:
    """Return the SHA-256 of each file of a silo's code as installed here, by name, in order of names.

    Files of packages that are listed follow, as "nets==1.2/nets/layers.py".

    Raises:
        ConfigError: As `code_hash` does.
    """
    files = [*sorted(_silos_files().items()), *_listed_files(packages)]
    return {name: hashlib.sha256(content).hexdigest() for name, content in files}


def installed_hash() -> str:
    """Return the SHA-256 over all of the packages' files that Python could run, names and contents, in order of names.

    Raises:
        ConfigError: When a package is not installed, or a folder of it is a link to elsewhere.
    """
    return _hash(_ALL, _runnable().items())


def bundle_hash(bundle: bytes) -> str:
    """Return the hash of a silo's code in a Flower app bundle, a ZIP file.

    Nothing in it is parsed: which names count is known from what is installed here. Beside these it counts whatever
    could be run that lies outside the packages.

    Guarantee: it is `code_hash()` where, and only where, the bundle has for every name that counts what is installed
    here, and nothing that could be run in its place or in none of the packages. Of a file no more is unpacked than a
    byte over the size that the bundle says it has, and these sizes together are bounded before anything is.

    Raises:
        ConfigError: When it is no ZIP file, is too large, says another size of a file than it has, or names a file
            twice or not in the one plain way, so that another reader could find other files in it.
    """
    silos = _silos_reach(_runnable())
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_entries(entries)
            names = [entry for entry in entries if runs(entry.filename) and _counts(entry.filename, silos)]
            files = [(one.filename, _unpacked(archive, one)) for one in names]
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ConfigError(f"an app bundle cannot be read as a ZIP file ({type(error).__name__})") from error
    return _hash(_SILOS, files)


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


def _runnable() -> dict[str, bytes]:
    """Return the installed files that Python could run."""
    return {name: path.read_bytes() for name, path in _installed() if runs(name)}


def _silos_files() -> dict[str, bytes]:
    """Return the files of a silo's code."""
    found = _runnable()
    silos = _silos_reach(found)
    return {name: content for name, content in found.items() if silos.has(name)}


def package_hash(name: str, version: str) -> str:
    """Return the SHA-256 over the files of one package of others, data and weights too.

    Raises:
        ConfigError: When it cannot be had in this version, so that a hash covers it.
    """
    return _hash(_WITH_PACKAGES, _listed_files({name: version}))


def _listed_files(packages: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Go through the files of packages that a law lists."""
    for name, version_ in sorted(packages.items()):
        for inside, path in installed(name, version_).files.items():
            yield f"{name}=={version_}/{inside}", path.read_bytes()


def _silos_reach(files: Mapping[str, bytes]) -> Reach:
    """Return what a silo's program could import of files."""
    return reach(PROGRAM, {name: content for name, content in files.items() if name.lower().endswith(".py")})


def _counts(name: str, silos: Reach) -> bool:
    """Return whether a file of a bundle is one of a silo's code, or lies outside the packages."""
    package, slash, _ = name.partition("/")
    return not slash or package not in PACKAGES or silos.has(name)


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


def _hash(label: bytes, files: Iterable[tuple[str, bytes]]) -> str:
    """Hash files by name and content, in the order of their names' parts."""
    digest = hashlib.sha256(label)
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
