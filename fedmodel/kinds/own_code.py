"""Code of a user's own: found by the name that a scenario gives it, `package.module:function`, where that is let in.

A scenario is public text, and one that names code makes whoever reads it so run that code. So a process finds none
until it was opened, and then what it was opened to and nothing else:

| Opened by      | In                                            | What a name may be of                            |
|----------------|-----------------------------------------------|--------------------------------------------------|
| nobody         | a process that only reads, such as a report's | nothing                                          |
| `open_to_all`  | a simulation, and a server's own machine      | anything importable, the scenario's folder first |
| `open_to`      | a deployed silo                               | installed packages that its `silo.toml` lists    |
| `hand_over`    | a script that simulates in its own process    | the very object, whatever can be imported        |

Guarantee: in a process that `open_to` opened, `resolve` returns a function or a class that a module of the listed
package itself defines, in the version listed: nothing that the module imported of others, no attribute of a function,
no method that is bound to an object. The hash of the silo's code, these packages' files in it, was the one that the
process was opened with before the module was imported and after. By then every module of the package that was loaded
came from a file that is in this hash, and from its text: Python keeps and reads no compiled copy (`__pycache__`) in
such a process. What a module imports later, as its functions run, is not looked at again.

Does NOT confine that code in any way: it can do all that the process can. A claim covers code that the silo approved
and that is not written to cheat.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from fedmodel.errors import ConfigError
from fedmodel.kinds.own_imports import as_listed, attribute, called, check_its_own, import_outer, imported
from fedmodel.kinds.own_objects import told_apart
from fedmodel.system.distributions import Installed

OF_A_SCRIPT: Final = "script"
"""In place of a module: the name of an object that a process handed over, and that no other can import."""


@dataclass(frozen=True)
class _Listed:
    """Packages by name and version, and the hash of a silo's code with their files in it."""

    packages: Mapping[str, str]
    code: str


@dataclass(frozen=True)
class _All:
    """Anything importable: what lies in the folder comes first."""

    folder: Path | None


_handed: Final[dict[str, Any]] = {}
_found: Final[dict[str, Callable[..., Any]]] = {}
_loaded_before: Final[set[str]] = set()
_opened: _All | _Listed | None = None
_cache_before: str | None = sys.pycache_prefix


def open_to_all(folder: Path | None = None) -> None:
    """Let anything importable in, of a scenario's folder before all else; modules of it are read anew.

    For a simulation, and for a server, whose operator has the whole machine anyway.
    """
    global _opened
    _forget()
    _loaded_before.update(sys.modules)
    _opened = _All(None if folder is None else folder.absolute())


def keep_open(folder: Path | None = None) -> None:
    """Let anything importable in, where that was not done in this process: it may be one of several of a simulation."""
    if not isinstance(_opened, _All):
        open_to_all(folder)


@contextmanager
def open_meanwhile() -> Iterator[None]:
    """Let anything importable in while a block runs, where that was not done in this process, and as before after."""
    global _opened
    before = _opened
    keep_open(None)
    try:
        yield
    finally:
        if not isinstance(before, _All):
            _forget()
            _opened = before


def open_to(packages: Mapping[str, str], code: str) -> None:
    """Let in what a silo's law lists, and nothing else.

    Args:
        packages: By name and version; none is possible.
        code: The hash of the silo's code with the files of all of them, as its law names it.
    """
    global _opened
    wanted = _Listed(dict(packages), code)
    if _opened != wanted:
        _forget()
        _opened = wanted
        if packages:
            sys.pycache_prefix = os.devnull  # no folder: what lies compiled beside a source is in no hash, and not read


def opened_to() -> dict[str, Any] | None:
    """Return to what this process was opened, as plain data with which `open_as` opens another alike; None to nothing.

    What was handed over is no part of it.
    """
    if isinstance(_opened, _Listed):
        return {"packages": dict(_opened.packages), "code": _opened.code}
    return None if _opened is None else {"folder": None if _opened.folder is None else str(_opened.folder)}


def open_as(opened: Mapping[str, Any] | None) -> None:
    """Open this process to what another is open to (`opened_to`), and to nothing else."""
    if opened is None:
        close()
    elif "packages" in opened:
        open_to(opened["packages"], opened["code"])
    else:
        keep_open(None if opened["folder"] is None else Path(opened["folder"]))


def close() -> None:
    """Let nothing in any more, and forget what was handed over."""
    global _opened
    _forget()
    _handed.clear()
    _opened = None


def folder() -> Path | None:
    """Return the folder in which names are looked for first, None where there is none."""
    return _opened.folder if isinstance(_opened, _All) else None


def hand_over(use: str, thing: Callable[..., Any]) -> None:
    """Let a script's own object be found by a name, in this process alone.

    Args:
        use: "module:qualname" of it, or "script:NAME" where it cannot be imported.
        thing: A function or a class.
    """
    _handed[use] = thing


def is_handed_over(use: str) -> bool:
    """Return whether a name is of an object of a script, which no other process could find."""
    return use in _handed


def module_of(use: str) -> str:
    """Return the module in which the function or class of a name stands, which was found before where it is a name."""
    return str(getattr(_handed.get(use), "__module__", use.partition(":")[0]))


def source_hash(uses: Mapping[str, str]) -> str:
    """Return the SHA-256 of the files that names lead to, all of which this process has found.

    It is of every module that was loaded of the folder that is open, and of the packages that the names begin with; of
    an object that was handed over, of what tells it from others (`fedmodel.kinds.own_objects`).

    Args:
        uses: Names, by the key that says them.
    """
    digest = hashlib.sha256(b"fedmodel/v1/own-code")
    tops = {use.partition(":")[0].partition(".")[0] for use in uses.values() if use not in _handed}
    loaded = {name: one for name, one in list(sys.modules.items()) if name.partition(".")[0] in tops}
    loaded |= {name: sys.modules[name] for name in _of_the_folder()}
    parts = [
        (name, Path(file).read_bytes())
        for name, one in loaded.items()
        if (file := getattr(one, "__file__", None)) and Path(file).is_file()  # torch has one of no file's name
    ]
    parts += [(use, told_apart(_handed[use])) for use in uses.values() if use in _handed]
    for name, content in sorted(parts):
        for part in (name.encode(), content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def resolve(use: str, key: str) -> Callable[..., Any]:
    """Return the function or class of a name.

    Args:
        use: As the scenario has it.
        key: Where it stands there, for messages.

    Raises:
        ConfigError: In one line, when this process was not opened to it, or it cannot be imported, or is nothing that
            can be called.
    """
    if use in _handed:
        return called(_handed[use], use, key)
    if use not in _found:
        if _opened is None:
            raise ConfigError(
                f"{key} = {use!r} is code of the user's own, which nothing here was told to run; look at it, and name"
                " the folder that it lies in with --own-code FOLDER"
            )
        module, _, name = use.partition(":")
        listed: AbstractContextManager[Installed | None] = nullcontext()
        if isinstance(_opened, _Listed):
            listed = as_listed(module, _opened.packages, _opened.code, key, use)
        with listed as package:
            if package is not None:
                import_outer(module, package, key, use)
            loaded = imported(module, folder(), key, use)
        found = called(attribute(loaded, name, key, use), use, key)
        if package is not None:
            check_its_own(found, package, key, use)
        _found[use] = found
    return _found[use]


def _of_the_folder() -> list[str]:
    """Return the modules of the folder that is open which were loaded since it is, as functions run too."""
    last = folder()
    return [name for name, one in list(sys.modules.items()) if name not in _loaded_before and _lies_in(one, last)]


def _lies_in(module: ModuleType | None, folder: Path | None) -> bool:
    """Return whether a module is one of a folder's own: a file in it, or of a package that lies in it."""
    file = getattr(module, "__file__", None)
    if module is None or folder is None or not file or not Path(file).is_relative_to(folder):
        return False
    first = Path(file).relative_to(folder).parts[0]
    return first.partition(".")[0] == module.__name__.partition(".")[0]


def _forget() -> None:
    """Forget the modules of the folder that was open, so that a file that was changed is read again."""
    for name in _of_the_folder():
        del sys.modules[name]
    _loaded_before.clear()
    _found.clear()
    sys.pycache_prefix = _cache_before
    if (last := folder()) is not None and str(last) in sys.path:
        sys.path.remove(str(last))
