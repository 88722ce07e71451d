"""Which of our modules a silo's processes import, and from where: noted from outside, by what Python runs as it starts.

A silo's program is started with a folder in PYTHONPATH that holds a `sitecustomize`. That stands before all finders of
modules, in the program and in what it forks, and writes down each name of ours that is imported, and `sys.path`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fedmodel.system.packages import PACKAGES, code_files
from fedmodel.system.reach import module_of

_NOTES = f"""
import json, os, sys

class Noting:
    def find_spec(self, name, path=None, target=None):
        # Whoever asks where a package lies does not import it.
        imported = sys._getframe(2).f_code.co_name == "_find_and_load_unlocked"
        if imported and name.partition(".")[0] in {PACKAGES!r}:
            note("module", name)
        note("path", list(sys.path))

    def __init__(self):
        self.known = set()

def note(kind, what):
    line = json.dumps([kind, what])
    if line not in noting.known:
        noting.known.add(line)
        with open(os.path.join(os.path.dirname(__file__), str(os.getpid())), "a") as file:
            file.write(line + chr(10))

if "clients.start" in sys.orig_argv:
    noting = Noting()
    sys.meta_path.insert(0, noting)
    os.register_at_fork(after_in_child=lambda: note("forked", os.getpid()))
"""


@dataclass(frozen=True)
class Traced:
    """What silos' processes did.

    Attributes:
        modules: Of ours that they imported, or tried to.
        paths: Every `sys.path` that one of them had.
        processes: How many there were.
        forked: Of ours that a process imported which a supervisor had forked.
    """

    modules: set[str]
    paths: set[tuple[str, ...]]
    processes: int
    forked: set[str]


def tracer(folder: Path) -> Path:
    """Return a folder for PYTHONPATH by which silos' processes are traced."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_NOTES)
    return folder


def traced(folder: Path) -> Traced:
    """Return what was noted so far."""
    notes = [path for path in folder.iterdir() if path.name.isdecimal()]
    each = [[json.loads(line) for line in path.read_text().splitlines()] for path in notes]
    lines = [line for one in each for line in one]
    paths = {tuple(what) for kind, what in lines if kind == "path"}
    forked = {what for one in each if one[0][0] == "forked" for kind, what in one if kind == "module"}
    return Traced({what for kind, what in lines if kind == "module"}, paths, len(notes), forked)


def in_no_hash(found: Traced) -> set[str]:
    """Return the modules that were imported and are not of a silo's code, by its hash."""
    return found.modules - {module_of(name) for name in code_files()}
