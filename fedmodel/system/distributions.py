"""Installed packages of others whose modules a scenario may name: all that is theirs, file by file.

A package is known by its name and version, as `pip` installs it, and found by the list of files (`RECORD`) that its
installation left. Every file counts, data and weights too, that the list names, and every other in a folder that the
package put modules into, whoever wrote it there. `__pycache__` does not, and a silo's process does not read it
(`fedmodel.kinds.own_code`); nor do the installation's own notes (`.dist-info`) and what lies outside, as scripts do.

Refused, since code of it would be in no hash: an installation in place of which a folder elsewhere is imported
(editable), one that left no list, a folder of modules without `__init__.py` (a namespace, which other folders may add
to), a link to a folder, and a file that Python runs as it starts (`.pth`).

Does NOT say anything of what the package imports of others, such as torch: those are libraries beneath, unless they are
listed too.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path, PurePosixPath
from typing import Final

from fedmodel.errors import ConfigError

RUNS: Final = (".py", ".pyw", ".pyc", ".pyo", ".pyd", ".so", ".pth")
"""How the name of a file ends that Python could run."""


@dataclass(frozen=True)
class Installed:
    """A package that is installed here.

    Attributes:
        name: As a person lists it.
        version: As its installation says.
        root: The folder that it is installed in.
        tops: Names of its modules and packages that lie in no other.
        files: All of it, by name as "nets/layers.py".
    """

    name: str
    version: str
    root: Path
    tops: frozenset[str]
    files: Mapping[str, Path]

    def has(self, file: str | None) -> bool:
        """Return whether a file, by its path, is one of this package's."""
        return file is not None and Path(file).resolve() in self._places

    @cached_property
    def _places(self) -> frozenset[Path]:
        return frozenset(path.resolve() for path in self.files.values())


def runs(name: str) -> bool:
    """Return whether Python could run a file of this name."""
    return name.lower().endswith(RUNS)


def normal_name(name: str) -> str:
    """Return a package's name in the one form that all its spellings have.

    >>> normal_name("My_Nets.v2")
    'my-nets-v2'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(name: str, version: str) -> Installed:
    """Return a package that is installed here in this very version.

    Raises:
        ConfigError: In one line, when it is not, or is installed so that a hash would not cover it.
    """
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise ConfigError(f"package {name} {version} is listed, and not installed here: install it") from None
    if found.version != version:
        raise ConfigError(
            f"package {name} is listed in version {version}, and {found.version} is installed here: install the one"
            " that is listed, or have a person who looked at the other list that"
        )
    root = Path(str(found.locate_file("")))
    recorded = list(_recorded(found, name))
    tops = {PurePosixPath(one).parts[0] for one in recorded if runs(one)}
    files = {one: root / one for one in recorded if (root / one).is_file()}
    for top in sorted(tops):
        files |= dict(_files(root, top, name))
    names = frozenset(top.partition(".")[0] for top in tops)
    for taken in sorted(names & (sys.stdlib_module_names | {"fedmodel", "clients", "server", "scenarios"})):
        raise ConfigError(f"package {name} has a module {taken!r}, which is not its own name to give; leave it out")
    return Installed(name, version, root, names, files)


def owner(module: str, packages: Mapping[str, str]) -> Installed | None:
    """Return which of the packages listed, by name and version, a module is of; None where it is of none.

    Raises:
        ConfigError: As `installed` does.
    """
    top = module.partition(".")[0]
    return next((one for name, version in packages.items() if top in (one := installed(name, version)).tops), None)


def providing(module: str) -> tuple[str, str] | None:
    """Return name and version of the installed package that a module is of, None where it is of none."""
    names = packages_distributions().get(module.partition(".")[0])
    return None if not names else (normal_name(names[0]), distribution(names[0]).version)


def _recorded(found: Distribution, name: str) -> Iterator[str]:
    """Go through the files in the list that an installation left, but for its own notes and what lies elsewhere."""
    direct = json.loads(found.read_text("direct_url.json") or "{}")
    if direct.get("dir_info", {}).get("editable"):
        raise ConfigError(
            f"package {name} is installed so that a folder elsewhere is imported (editable), which no hash covers:"
            " install it as files, by `pip install` without -e"
        )
    if found.read_text("RECORD") is None:
        raise ConfigError(f"package {name} has left no list of its files (RECORD): install it by `pip install`")
    listed = [str(one) for one in found.files or ()]
    for one in listed:
        parts = PurePosixPath(one).parts
        elsewhere = ".." in parts or PurePosixPath(one).is_absolute()
        if not elsewhere and "__pycache__" not in parts and not parts[0].endswith(".dist-info"):
            if one.lower().endswith(".pth"):
                raise ConfigError(f"package {name} has {one}, which Python runs as it starts, named or not: not taken")
            yield one


def _files(root: Path, top: str, name: str) -> Iterator[tuple[str, Path]]:
    """Go through the files of a module or a package."""
    place = root / top
    if not place.is_dir():
        yield top, place
        return
    if place.is_symlink():
        raise ConfigError(f"{place}: is a link to a folder, whose code no hash would cover; install {name} as files")
    if not _has_init(one.name for one in place.iterdir()):
        raise ConfigError(
            f"package {name}: {place} has no __init__.py, so that other folders could add modules to it; a scenario"
            " names code of a package that has one"
        )
    for path in sorted(place.rglob("*")):
        inside = path.relative_to(root)
        if path.is_symlink() and path.is_dir():
            raise ConfigError(f"{path}: is a link to a folder, whose code no hash would cover; install {name} as files")
        if path.is_file() and "__pycache__" not in inside.parts:
            yield inside.as_posix(), path


def _has_init(names: Iterable[str]) -> bool:
    return any(one.partition(".")[0] == "__init__" and runs(one) for one in names)
