"""The kinds that a folder of this distribution holds, a file each: what is open to one more of its sort.

A package that is such a folder calls `kinds(__name__)`, and a kind is added by its file alone. The list is closed all
the same: a name that comes from a file or a peer is looked up in it and never imported, so that what can run is what is
installed, and all of it is in the hash of the code.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType


def kinds(package: str) -> dict[str, ModuleType]:
    """Return the modules of a package that is being imported, each a kind, by name with hyphens, in order of names.

    A module whose name begins with an underscore is a tool of the others and no kind; folders are none either, nor is a
    file whose name is no word of Python, such as an editor leaves beside the one that it has open.
    """
    found = _names(import_module(package).__path__)
    return {name.replace("_", "-"): import_module(f"{package}.{name}") for name in found}


def described(package: str, name: str) -> str:
    """Return what a kind's file says of itself first, its first paragraph, without importing anything of the package.

    Whoever reads a report need not install what a kind computes with. A report is verified by computing it again, so
    that a kind which says something else of itself is another one to reports from before.

    Raises:
        LookupError: When the package has no such kind, or its file says nothing.
    """
    module = name.replace("-", "_")
    top, *rest = package.split(".")
    file = files(top).joinpath(*rest, f"{module}.py")
    if not module.isidentifier() or module[0] == "_" or not file.is_file():
        raise LookupError(f"{package} has no kind {name!r}")
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    if not said:
        raise LookupError(f"{package}: the file of kind {name!r} does not say what it is")
    return " ".join(said.split("\n\n")[0].replace("`", "").split())


def kind_names(package: str) -> list[str]:
    """Return the names of the kinds of a package, in order, without importing the package or any of them."""
    found = find_spec(package)
    folders = None if found is None else found.submodule_search_locations
    return [name.replace("_", "-") for name in _names(folders or [])]


def _names(folders: Iterable[str]) -> list[str]:
    """Return the names of the modules in folders that are kinds."""
    named = sorted(module.name for module in iter_modules(list(folders)) if not module.ispkg)
    return [name for name in named if name.isidentifier() and name[0] != "_"]


def not_known(what: str, name: str, known: Collection[str]) -> str:
    """Return one line that refuses a name: the nearest known one, or all of them.

    >>> not_known("strategy", "meen", {"mean": 1, "momentum": 2})
    "unknown strategy 'meen'; did you mean 'mean'?"
    """
    near = get_close_matches(name, known, n=1)
    return f"unknown {what} {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")
