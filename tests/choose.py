"""Which test files to run for what was changed, or for one room: `python -m tests.choose [ROOM]` prints their paths.

Tests lie as the source does: those of `fedmodel/ledger/book.py` in `tests/fedmodel/ledger`, which is its room; a folder
without tests has the room of the folder above it. A file is chosen when it was changed itself, when it is named after a
changed module of its room, or when it imports it and few files of the room do. Where that finds nothing, all tests of
the room are chosen; where the room has none, those elsewhere that import the module. Tests that start processes
(`tests/integration`) are a tier of their own, and are chosen only when they were changed.

It is quick and may miss: CI runs everything.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("fedmodel", "clients", "server", "scenarios")
_FEW = 6


def files_of_tests(root: Path = ROOT) -> list[Path]:
    """Return all files of tests but those that start processes, from the root."""
    found = (path.relative_to(root) for path in sorted((root / "tests").rglob("test_*.py")))
    return [path for path in found if "integration" not in path.parts]


def changed(root: Path = ROOT) -> list[Path]:
    """Return the files that differ from the last commit, or else those of the last commit, from the root."""
    for words in (("diff", "--name-only", "HEAD"), ("diff", "--name-only", "HEAD~1", "HEAD")):
        told = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout
        if words[-1] == "HEAD" and len(words) == 3:
            new = ["ls-files", "--others", "--exclude-standard"]
            told += subprocess.run(["git", *new], cwd=root, capture_output=True, text=True, check=True).stdout
        if told:
            return [Path(line) for line in told.splitlines()]
    return []


def of_changes(paths: Iterable[Path], root: Path = ROOT) -> list[Path]:
    """Return the files of tests for some changed files."""
    tests, chosen = files_of_tests(root), set()
    for path in paths:
        if path.suffix != ".py":
            continue
        if path.parts[0] == "tests":
            if path.name.startswith("test_"):
                chosen |= {path} if (root / path).exists() else set()
            else:
                chosen |= _few(importers(path, tests, root))
        elif path.parts[0] in PACKAGES:
            chosen |= of_module(path, tests, root)
    return sorted(chosen)


def of_room(room: str, root: Path = ROOT) -> list[Path]:
    """Return the files of tests of a room, such as `secagg`, or of a module by its name."""
    tests = files_of_tests(root)
    return [path for path in tests if room in path.parts or f"{path.stem}_".startswith(f"test_{room}_")]


def of_module(path: Path, tests: Iterable[Path], root: Path = ROOT) -> set[Path]:
    """Return the files of tests for a changed module."""
    room = room_of(path, tests)
    named = {one for one in room if f"{one.stem}_".startswith(f"test_{path.stem}_")}
    return named | _few(importers(path, room, root)) or room or _few(importers(path, tests, root))


def room_of(path: Path, tests: Iterable[Path]) -> set[Path]:
    """Return the tests of a module's room: of its own folder, or of the nearest above it that has tests."""
    tests = [*tests]
    for folder in list(path.parents)[:-1]:
        if found := {one for one in tests if one.parent == Path("tests", folder)}:
            return found
    return set()


def importers(path: Path, tests: Iterable[Path], root: Path = ROOT) -> set[Path]:
    """Return the tests that import a module themselves."""
    parts = [*path.with_suffix("").parts]
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return {one for one in tests if module in imported(root / one)}


@cache
def imported(path: Path) -> frozenset[str]:
    """Return the modules that a file imports, by any way of writing it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                found |= {name.name for name in names}
            case ast.ImportFrom(module=str(module), names=names):
                found |= {module, *(f"{module}.{name.name}" for name in names)}
    return frozenset(found)


def _few(found: set[Path]) -> set[Path]:
    return found if len(found) <= _FEW else set()


if __name__ == "__main__":
    print(*(of_room(sys.argv[1]) if sys.argv[1:] and sys.argv[1] else of_changes(changed())), sep="\n")  # noqa: T201
