"""Code of a user's own is imported: of the folder of a scenario, or of the files of a package that a law lists.

Guarantee, where a package is listed: what `import_outer` and `imported` load inside of `as_listed` is of files in the
hash that the law names, as they were before and after, and `check_its_own` lets by what the package itself defines
alone. `fedmodel.kinds.own_code` says what follows of it.

Does NOT decide what is let in, nor look again at what a module imports later.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module, invalidate_caches
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from fedmodel.errors import ConfigError
from fedmodel.system.distributions import Installed, owner
from fedmodel.system.inert import inert
from fedmodel.system.packages import code_hash

_SAID: Final = 200


@contextmanager
def as_listed(module: str, packages: Mapping[str, str], code: str, key: str, use: str) -> Iterator[Installed]:
    """Import a module of a listed package in here: of the files that the law's hash is of, or not at all."""
    package = owner(module, packages)
    if package is None:
        raise ConfigError(f"{key} = {use!r} is code of no package that silo.toml lists under [packages]")
    for moment in ("before", "after"):
        if code_hash(packages) != code:
            raise ConfigError(
                f"{key} = {use!r}: the code on this machine was changed since the silo was started (seen {moment} it"
                " was imported); start the silo again once that is done"
            )
        if moment == "before":
            yield package
            _check_loaded(package, key, use)


def import_outer(module: str, package: Installed, key: str, use: str) -> None:
    """Import the packages that a module lies in, one by one, each where the next is found in a file of the hash."""
    parts = module.split(".")
    for deep in range(1, len(parts)):
        outer = ".".join(parts[:deep])
        _check_spec(outer, package, key, use)
        imported(outer, None, key, use)
    _check_spec(module, package, key, use)


def _check_spec(module: str, package: Installed, key: str, use: str) -> None:
    """Refuse a module that Python would find in no file of the package, before it is imported."""
    try:
        found = find_spec(module)
    except (ModuleNotFoundError, ValueError):  # it lies in none: what imports it says so
        return
    if found is not None and found.origin is not None and not package.has(found.origin):
        raise ConfigError(
            f"{key} = {use!r}: {module} is found in {found.origin}, which is no file of package {package.name}; take"
            " what hides it out of Python's path"
        )


def _check_loaded(package: Installed, key: str, use: str) -> None:
    """Refuse a package that has loaded a module of its name from elsewhere, or compiled, or could do so later."""
    for name, one in list(sys.modules.items()):
        if name.partition(".")[0] not in package.tops or one is None:
            continue
        file, spec = getattr(one, "__file__", None), getattr(one, "__spec__", None)
        if file is not None and not package.has(file):
            raise ConfigError(f"{key} = {use!r}: {name} was loaded from {file}, which is no file of {package.name}")
        compiled = getattr(spec, "cached", None)
        if compiled is not None and not Path(compiled).is_relative_to(os.devnull) and not package.has(compiled):
            raise ConfigError(
                f"{key} = {use!r}: {name} was loaded before this process was opened to {package.name}, perhaps from"
                f" {compiled}, which is in no hash; start the silo by its own program"
            )
        places = [Path(place).resolve() for place in getattr(one, "__path__", ())]
        if places and places != [package.root.joinpath(*name.split(".")).resolve()]:
            raise ConfigError(
                f"{key} = {use!r}: {name} looks for modules in {', '.join(map(str, places))}, and {package.name} has"
                " one folder of that name: its code may not change __path__"
            )


def check_its_own(found: Callable[..., Any], package: Installed, key: str, use: str) -> None:
    """Refuse what a listed package only imported: a scenario would choose among all that is installed."""
    module = sys.modules.get(str(found.__module__)) if inspect.isfunction(found) or inspect.isclass(found) else None
    if module is None or not package.has(getattr(module, "__file__", None)):
        raise ConfigError(
            f"{key} = {use!r} is no function and no class that {package.name} itself defines; name one that it does"
        )


def imported(module: str, folder: Path | None, key: str, use: str) -> ModuleType:
    """Import a module, of the scenario's folder where it has one of that name."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        raise ConfigError(f"{key} = {use!r}: {top} is a module of Python's own, and no code of yours; name another")
    if folder is not None:
        _put_first(folder, top, key, use)
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(f"{key} = {use!r}: importing {module} raised {told(error)}; install it") from error
        where = "installed here" if folder is None else f"in {folder} or installed here"
        raise ConfigError(f"{key} = {use!r}: there is no module {error.name!r} {where}") from None
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{key} = {use!r}: importing {module} raised {told(error)}") from error


def _put_first(folder: Path, top: str, key: str, use: str) -> None:
    """Have a folder's modules found before others; refuse one whose name another module has taken."""
    invalidate_caches()
    spec = PathFinder.find_spec(top, [str(folder)])
    if spec is None:
        return
    loaded = sys.modules.get(top)
    if loaded is not None and getattr(loaded, "__file__", None) != spec.origin:
        raise ConfigError(
            f"{key} = {use!r}: {spec.origin} has the name of a module that is loaded already; rename the file"
        )
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def attribute(module: ModuleType, name: str, key: str, use: str) -> object:
    """Return what lies under a name in a module, or in a class there: never in a module that it imported."""
    found: Any = module
    for part in name.split("."):
        if part.startswith("__") or (found is not module and not inspect.isclass(found)):
            raise ConfigError(
                f"{key} = {use!r}: a name leads to what a module defines, or a class in it: not to {part!r} of a"
                f" {type(found).__name__}; name the module itself before the colon"
            )
        if not hasattr(found, part):
            near = get_close_matches(part, [one for one in dir(found) if not one.startswith("_")], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{key} = {use!r}: {module.__name__} has no {name!r}{hint}")
        found = getattr(found, part)
    return found


def called(found: object, use: str, key: str) -> Callable[..., Any]:
    """Refuse what is no function and no class; a module with parameters can be called, and makes none."""
    if not callable(found) or (hasattr(found, "parameters") and not isinstance(found, type)):
        raise ConfigError(f"{key} = {use!r} is a {type(found).__name__}; name a function or a class, which makes one")
    return found


def told(error: BaseException) -> str:
    """Return an exception's kind and the first line of its text."""
    text = inert(" ".join(str(error).splitlines()[:1]))[:_SAID]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
