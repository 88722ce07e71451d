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
import inspect
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module, invalidate_caches
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from fedmodel.errors import ConfigError
from fedmodel.kinds.own_objects import told_apart
from fedmodel.system.distributions import Installed, owner
from fedmodel.system.inert import inert
from fedmodel.system.packages import code_hash

_WORDS: Final = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"


def _names_code(value: str) -> str:
    """Refuse what does not name a module and something in it."""
    if not re.fullmatch(f"{_WORDS}:{_WORDS}", value, re.ASCII):
        raise ValueError(f'{value!r} names no code; write "package.module:function", as in "model:net" of model.py')
    return value


def names_own_or_one_on_board(value: str) -> str:
    """Refuse what names neither code, as "package.module:function", nor anything on board, as "cross-entropy"."""
    if ":" in value:
        return _names_code(value)
    if not re.fullmatch(r"[a-z0-9][a-z0-9.@-]{0,39}", value):
        raise ValueError(f'{value!r} is no name of what is on board, nor of code, as "package.module:function"')
    return value


UseName = Annotated[str, Field(max_length=200), AfterValidator(_names_code)]
"""How a scenario names code: a module, a colon, and a function or a class in it."""

OF_A_SCRIPT: Final = "script"
"""In place of a module: the name of an object that a process handed over, and that no other can import."""
_SAID: Final = 200
_MOST_DEEP: Final = 8


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
        return _called(_handed[use], use, key)
    if use not in _found:
        if _opened is None:
            raise ConfigError(
                f"{key} = {use!r} is code of the user's own, which nothing here was told to run; look at it, and name"
                " the folder that it lies in with --own-code FOLDER"
            )
        module, _, name = use.partition(":")
        with _as_listed(module, _opened, key, use) if isinstance(_opened, _Listed) else nullcontext() as package:
            if package is not None:
                _import_outer(module, package, key, use)
            imported = _imported(module, folder(), key, use)
        found = _called(_attribute(imported, name, key, use), use, key)
        if package is not None:
            _check_its_own(found, package, key, use)
        _found[use] = found
    return _found[use]


def failed(error: BaseException, uses: Iterable[str]) -> str:
    """Return an exception's type and the last line of own code that it passed through, or of any where it passed none.

    Guarantee: nothing of its text, nor of those it came of, is in that: code that was given records could name one.

    Args:
        error: As it was caught.
        uses: Names of own code, as the scenario has them.
    """
    modules = [str(getattr(_handed.get(use), "__module__", use.partition(":")[0])) for use in uses]
    tops = {module.partition(".")[0] for module in modules}
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [one for one in frames if str(one[0].f_globals.get("__name__")).partition(".")[0] in tops]
    places = [f" in line {line} of {Path(frame.f_code.co_filename).name}" for frame, line in (own or frames)[-1:]]
    return "".join([type(error).__name__, *places])


def call(use: str, key: str, arguments: Mapping[str, Any], offered: Mapping[str, Any]) -> Any:
    """Call the function of a name with a section's other keys, and return what it returns.

    Args:
        use: As the scenario has it.
        key: Where it stands there, for messages.
        arguments: The section's other keys: each has to be one of its arguments, and each that it needs one of them.
        offered: What it is given besides where it has an argument of that name that the section does not say.

    Raises:
        ConfigError: In one line that names the function, when it cannot be found, takes other arguments, or raises. No
            record may be involved, since what an exception says of it is repeated.
    """
    function = resolve(use, key)
    given = fitting(function, use, key, arguments, offered)
    try:
        return function(**given)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{key} = {use!r} raised {_told(error)}") from error


def fitting(
    function: Callable[..., Any], use: str, key: str, arguments: Mapping[str, Any], offered: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what `call` would give a function that was found.

    Raises:
        ConfigError: When it takes other arguments.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a class of C says none; what is wrong then is said by the call
        return dict(arguments)
    named = [
        name
        for name, one in signature.parameters.items()
        if one.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    ]
    given = {**{name: value for name, value in offered.items() if name in named}, **arguments}
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in signature.parameters.values())
    section = key.rpartition(".")[0]
    for name in () if takes_any else arguments:
        if name not in named:
            near = get_close_matches(name, named, n=1)
            takes = f"did you mean {near[0]!r}?" if near else f"it takes: {', '.join(named) or 'none'}"
            raise ConfigError(f"{section}.{name} is no argument of {key} = {use!r}; {takes}")
    try:
        signature.bind(**given)
    except TypeError as error:
        raise ConfigError(
            f"{key} = {use!r} needs arguments that the section does not give: {inert(str(error))}; add them as keys of"
            f" [{section}], or give them defaults"
        ) from None
    return given


def check_plain(key: str, value: object, deep: int = 0) -> None:
    """Refuse an argument that TOML and JSON do not both write the same way.

    Raises:
        ValueError: Which it is, and of which type.
    """
    if isinstance(value, dict) and deep < _MOST_DEEP:
        for name, inner in value.items():
            check_plain(f"{key}.{name}", inner, deep + 1)
    elif isinstance(value, list) and deep < _MOST_DEEP:
        for inner in value:
            check_plain(key, inner, deep + 1)
    elif not isinstance(value, bool | int | str) and not (isinstance(value, float) and math.isfinite(value)):
        raise ValueError(f"{key} is a {type(value).__name__}; arguments are text, numbers, truths, lists and tables")


@contextmanager
def _as_listed(module: str, opened: _Listed, key: str, use: str) -> Iterator[Installed]:
    """Import a module of a listed package in here: of the files that the law's hash is of, or not at all."""
    package = owner(module, opened.packages)
    if package is None:
        raise ConfigError(f"{key} = {use!r} is code of no package that silo.toml lists under [packages]")
    for moment in ("before", "after"):
        if code_hash(opened.packages) != opened.code:
            raise ConfigError(
                f"{key} = {use!r}: the code on this machine was changed since the silo was started (seen {moment} it"
                " was imported); start the silo again once that is done"
            )
        if moment == "before":
            yield package
            _check_loaded(package, key, use)


def _import_outer(module: str, package: Installed, key: str, use: str) -> None:
    """Import the packages that a module lies in, one by one, each where the next is found in a file of the hash."""
    parts = module.split(".")
    for deep in range(1, len(parts)):
        outer = ".".join(parts[:deep])
        _check_spec(outer, package, key, use)
        _imported(outer, None, key, use)
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


def _check_its_own(found: Callable[..., Any], package: Installed, key: str, use: str) -> None:
    """Refuse what a listed package only imported: a scenario would choose among all that is installed."""
    module = sys.modules.get(str(found.__module__)) if inspect.isfunction(found) or inspect.isclass(found) else None
    if module is None or not package.has(getattr(module, "__file__", None)):
        raise ConfigError(
            f"{key} = {use!r} is no function and no class that {package.name} itself defines; name one that it does"
        )


def _imported(module: str, folder: Path | None, key: str, use: str) -> ModuleType:
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
            raise ConfigError(f"{key} = {use!r}: importing {module} raised {_told(error)}; install it") from error
        where = "installed here" if folder is None else f"in {folder} or installed here"
        raise ConfigError(f"{key} = {use!r}: there is no module {error.name!r} {where}") from None
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{key} = {use!r}: importing {module} raised {_told(error)}") from error


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


def _attribute(module: ModuleType, name: str, key: str, use: str) -> object:
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


def _called(found: object, use: str, key: str) -> Callable[..., Any]:
    """Refuse what is no function and no class; a module with parameters can be called, and makes none."""
    if not callable(found) or (hasattr(found, "parameters") and not isinstance(found, type)):
        raise ConfigError(f"{key} = {use!r} is a {type(found).__name__}; name a function or a class, which makes one")
    return found


def _told(error: BaseException) -> str:
    """Return an exception's kind and the first line of its text."""
    text = inert(" ".join(str(error).splitlines()[:1]))[:_SAID]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
