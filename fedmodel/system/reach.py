"""Which modules of this distribution a program could import, found in its sources without running any of it.

    import a.b          a, a.b                     in a function, a class, an `if`, a `try`: wherever it stands
    from a.b import c   a, a.b, a.b.c              whether `c` is a module or not
    from a import *     a and every module in it
    from . import c     as the above               of the package that the module lies in
    kinds(__name__)     every module in a package whose `__init__` imports `fedmodel.system.kinds`

What stands under `if TYPE_CHECKING:` is left out: it is never run.

Guarantee: whatever these statements could import when the program runs is found, for each file by whose name Python
could find a module: a source, a compiled file, an extension module. A name that is asked for and is no module today
counts as well, so that a file by which it would become one is covered.

NOT found: a module that is imported by a name which the program makes up as it runs. `tests/clients/test_start.py` has
a list of the places where a silo's program does so, and refuses any other. What an extension module or a compiled file
imports is not looked for: there is none in this distribution.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fedmodel.errors import ConfigError

_LISTING: Final = "fedmodel.system.kinds"
_EVERY: Final = "*"
_BODIES: Final = ("body", "orelse", "finalbody", "handlers", "cases")


@dataclass(frozen=True)
class Reach:
    """What a program could import.

    Attributes:
        modules: Names that are asked for, of modules or not, and of the packages that they lie in.
        whole: Packages every module of which counts.
    """

    modules: frozenset[str]
    whole: frozenset[str]

    def has(self, name: str) -> bool:
        """Return whether a file, "clients/policy.py", is found by the name of a module that counts."""
        module = module_of(name)
        return module in self.modules or module.rpartition(".")[0] in self.whole


def module_of(name: str) -> str:
    """Return by which name Python could find a file.

    >>> module_of("clients/policy.py"), module_of("clients/policy.cpython-311-x86_64-linux-gnu.so")
    ('clients.policy', 'clients.policy')
    >>> module_of("fedmodel/crypto/__init__.py")
    'fedmodel.crypto'
    """
    *folders, file = name.split("/")
    stem = file.partition(".")[0]
    return ".".join(folders if stem == "__init__" and folders else [*folders, stem])


def reach(program: str, sources: Mapping[str, bytes]) -> Reach:
    """Follow a program's imports.

    Args:
        program: The name of its module.
        sources: Contents of files of Python, by name as "clients/policy.py": all that there are.

    Raises:
        ConfigError: When one of them is not Python.
    """
    files: dict[str, list[str]] = {}
    for name in sources:
        files.setdefault(module_of(name), []).append(name)
    modules: set[str] = set()
    whole: set[str] = set()
    asked = [program]
    while asked:
        name = asked.pop()
        package, _, last = name.rpartition(".")
        if package and package not in modules:
            asked.append(package)
        if last == _EVERY:
            whole.add(package)
            asked += [module for module in files if module.rpartition(".")[0] == package]
        elif name not in modules:
            modules.add(name)
            asked += [wanted for file in files.get(name, ()) for wanted in _imports(file, sources[file])]
    return Reach(frozenset(modules), frozenset(whole))


@lru_cache(maxsize=1024)
def _imports(name: str, source: bytes) -> tuple[str, ...]:
    """Return the names that a file's statements ask for; the last part is "*" for every module of a package."""
    try:
        statements = list(_statements(ast.parse(source).body))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: is not Python ({type(error).__name__}); install fedmodel again") from None
    found: list[str] = []
    for statement in statements:
        if isinstance(statement, ast.Import):
            found += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            found += [f"{_base(name, statement)}.{alias.name}" for alias in statement.names]
    if name.rpartition("/")[2].startswith("__init__.") and any(f"{one}.".startswith(f"{_LISTING}.") for one in found):
        found.append(f"{module_of(name)}.{_EVERY}")
    return tuple(dict.fromkeys(found))


def _base(name: str, statement: ast.ImportFrom) -> str:
    """Return the absolute name of what is imported from."""
    if not statement.level:
        return statement.module or ""
    above = name.split("/")[: -statement.level]  # a file's first dot is the folder that it lies in
    return ".".join([*above, *([statement.module] if statement.module else [])])


def _statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Go through statements and those within, at any depth, but for what only a type checker reads."""
    for statement in body:
        yield statement
        for part in _BODIES:
            checked = part == "body" and isinstance(statement, ast.If) and _for_types(statement.test)
            yield from () if checked else _statements(getattr(statement, part, ()))


def _for_types(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"
